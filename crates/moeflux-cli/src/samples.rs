//! Several answers to one prompt, which the engine computes at once.

use std::collections::VecDeque;

use anyhow::Result;
use moeflux::chat::{Delta, Parser};
use moeflux::engine::{Event, GenerateRequest, Samples};
use moeflux::{Engine, Sequence};

use crate::answer::{Answer, AnswerReader, Meters};

/// Most answers to one prompt: each takes a row of every step.
pub(crate) const MAX_SAMPLES: u64 = 1024;

/// One of the answers while it is computed.
struct Sample<'a> {
    reader: AnswerReader<'a>,
    parser: Parser,
    /// Text that is not shown yet, because an answer before this one has not ended.
    waiting: Vec<Delta>,
    state_bytes: usize,
}

/// Receiver of the answers, in the order of their seeds.
pub(crate) trait Observer {
    /// An answer begins to be shown.
    fn begin(&mut self, index: usize);
    /// An answer has ended, whose states took so many bytes.
    fn end(&mut self, answer: Answer, state_bytes: usize) -> Result<()>;
}

/// Runs `request` on copies of `sequence` and gives `observer` the answers in the order of their seeds, each with a parser of
/// its own. With `stream` each is shown when those before it have ended: the first while it comes.
pub(crate) fn answers(
    engine: &mut Engine,
    sequence: &Sequence,
    request: GenerateRequest,
    parsers: Vec<Parser>,
    stream: bool,
    observer: &mut impl Observer,
) -> Result<()> {
    let meters = Meters::start(engine);
    let new = |parser| {
        let reader = AnswerReader::new(&meters, stream);
        Sample { reader, parser, waiting: Vec::new(), state_bytes: 0 }
    };
    let mut samples: VecDeque<Sample<'_>> = parsers.into_iter().map(new).collect();
    let mut events = engine.generate_samples(sequence, request, samples.len())?;
    // How many have been shown, and been removed from the front.
    let mut shown = 0;
    observer.begin(shown);
    while let Some(event) = next(&mut events, &mut samples)? {
        let (index, event) = event;
        let state_bytes = events.state_bytes(index);
        let sample = &mut samples[index - shown];
        sample.waiting.extend(sample.parser.read(&event));
        // All answers have the same prompt: the first shows how much of it has been read.
        if index == 0 || !matches!(event, Event::Prefill { .. }) {
            sample.reader.apply(event);
        }
        sample.state_bytes = state_bytes;
        while let Some(first) = samples.front_mut() {
            first.reader.show(first.waiting.drain(..))?;
            let Some(sample) = samples.pop_front_if(|first| first.reader.has_ended()) else { break };
            observer.end(sample.reader.finish()?, sample.state_bytes)?;
            shown += 1;
            if !samples.is_empty() {
                observer.begin(shown);
            }
        }
    }
    Ok(())
}

/// The next event. After an error the answer that is shown ends.
fn next(events: &mut Samples<'_>, samples: &mut VecDeque<Sample<'_>>) -> Result<Option<(usize, Event)>> {
    match events.next().transpose() {
        Ok(event) => Ok(event),
        Err(error) => {
            samples.front_mut().map_or(Ok(()), |first| first.reader.stop())?;
            Err(error.into())
        }
    }
}
