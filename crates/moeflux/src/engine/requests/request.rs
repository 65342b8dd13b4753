//! One request: what is asked, how far it has come, and the states of its sequence.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::backend::CancelToken;
use crate::engine::completion::Completion;
use crate::engine::event::{Event, Outcome, StopReason};
use crate::engine::handle::SubmitOptions;
use crate::engine::prompt::Prompt;
use crate::engine::runner::{Input, Outputs};
use crate::engine::scheduler::{RequestView, Stage};
use crate::engine::speculate::{Drafter, Speculate, Speculated};
use crate::error::Error;
use crate::sequence::Sequence;

/// Names a request for the lifetime of the process; each of several samples of a prompt has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

impl RequestId {
    pub(in crate::engine) fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        RequestId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A request on its way from [`State::Waiting`] to [`State::Finished`].
#[derive(Debug)]
pub(in crate::engine) struct Request {
    pub(super) state: State,
    /// What is to be read before the task is worked on.
    pub(super) prompt: Prompt,
    pub(super) task: Task,
    pub(super) options: SubmitOptions,
    pub(super) timing: Timing,
    /// `None` while it waits and has read nothing, or its states were evicted.
    pub(super) sequence: Option<Sequence>,
    /// How to draft tokens.
    pub(super) speculate: Speculate,
    pub(super) drafter: Option<Drafter>,
    /// The token that was chosen last, which the sequence has not read.
    pub(super) pending_token: Option<u32>,
    /// Logits that the next token is to be chosen from once its constraint is ready.
    pub(super) held_logits: Option<Vec<f32>>,
    /// When it was admitted last, and the steps since.
    pub(super) slice: (Instant, usize),
    /// When it was preempted last.
    pub(super) preempted: Option<Instant>,
    /// What the step that runs reads of it.
    pub(super) rows: Rows,
    /// Tokens of the last step, and how many of them at the start the sequence is to keep.
    pub(super) uncommitted: Option<(Vec<u32>, usize)>,
    /// Hidden states of tokens that the drafter has not taken, `[tokens, hidden_size]`.
    pub(super) hidden: Vec<f32>,
    /// Whether others may go on from what the finished request has read.
    pub(super) keeps_prefix: bool,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In no step: it has not begun, or was preempted.
    Waiting,
    /// Steps read its prompt.
    Prefill,
    /// Each step reads the token that was chosen last, and chooses the next.
    Decode,
    /// All events are out. It is removed once its last tokens are committed.
    Finished,
}

/// What the prompt is read for.
#[derive(Debug)]
pub(super) enum Task {
    /// Text after the prompt. Of several samples each becomes a request of its own when the prompt is read.
    Generate(Vec<Sample>),
    /// The mean of the hidden states, whose sum so far this is.
    Embed { id: RequestId, cancel: CancelToken, sum: Vec<f64> },
    /// The sequence itself.
    Read { id: RequestId, cancel: CancelToken },
}

/// One completion of a prompt.
#[derive(Debug)]
pub(in crate::engine) struct Sample {
    id: RequestId,
    pub(super) completion: Completion,
    /// Of all samples together, and of this one.
    cancel: [CancelToken; 2],
    /// Whether its client leaves too many events unread.
    is_paused: bool,
}

/// Times and numbers that an [`Outcome`] tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) submitted: Instant,
    /// When it was admitted first.
    pub(super) started: Option<Instant>,
    /// When the prompt had been read.
    pub(super) prefilled: Option<Instant>,
    /// Tokens of the prompt that the sequence has.
    pub(super) prompt_tokens: usize,
    /// How many of them an earlier sequence had read.
    pub(super) cached_tokens: usize,
}

/// What a step reads of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// Nothing.
    None,
    /// These tokens of the prompt.
    Prompt(Range<usize>, Outputs),
    /// The pending token and drafts of those after it.
    Decode(Vec<u32>),
}

impl Sample {
    /// A completion that `cancel` ends together with others.
    pub(in crate::engine) fn new(completion: Completion, cancel: CancelToken) -> Self {
        let cancel = [cancel, CancelToken::default()];
        Sample { id: RequestId::unique(), completion, cancel, is_paused: false }
    }

    pub(super) fn id(&self) -> RequestId {
        self.id
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.iter().any(CancelToken::is_cancelled)
    }

    /// Its last event. `text` is the rest of the text, unless that is still held back.
    pub(super) fn finish(
        &mut self,
        stop: StopReason,
        text: Option<String>,
        timing: &Timing,
        speculated: Speculated,
    ) -> Result<Event, Error> {
        let text = text.map_or_else(|| self.completion.finish(), Ok)?;
        let now = Instant::now();
        let Timing { submitted, started, prefilled, prompt_tokens, cached_tokens } = *timing;
        Ok(Event::Done(Outcome {
            text,
            stop,
            last: self.completion.take_last(),
            prompt_tokens,
            cached_tokens,
            completion_tokens: self.completion.tokens(),
            speculated,
            queued: started.unwrap_or(now) - submitted,
            prefill: started.map_or(Duration::ZERO, |started| prefilled.unwrap_or(now) - started),
            decode: prefilled.map_or(Duration::ZERO, |prefilled| now - prefilled),
        }))
    }
}

impl Request {
    /// Completions of a prompt.
    pub(in crate::engine) fn generate(
        prompt: Prompt,
        samples: Vec<Sample>,
        speculate: Speculate,
        options: SubmitOptions,
    ) -> Self {
        Request { speculate, ..Self::new(prompt, Task::Generate(samples), options) }
    }

    /// The embedding of a text.
    pub(in crate::engine) fn embed(tokens: Vec<u32>, options: SubmitOptions) -> Self {
        let (id, cancel) = (RequestId::unique(), CancelToken::default());
        Self::new(Prompt::only(tokens), Task::Embed { id, cancel, sum: Vec::new() }, options)
    }

    /// A sequence that has read these tokens.
    pub(in crate::engine) fn read(tokens: Vec<u32>, options: SubmitOptions) -> Self {
        let (id, cancel) = (RequestId::unique(), CancelToken::default());
        Self::new(Prompt::only(tokens), Task::Read { id, cancel }, options)
    }

    fn new(prompt: Prompt, task: Task, options: SubmitOptions) -> Self {
        let now = Instant::now();
        let timing =
            Timing { submitted: now, started: None, prefilled: None, prompt_tokens: 0, cached_tokens: 0 };
        Request {
            state: State::Waiting,
            prompt,
            task,
            options,
            timing,
            sequence: None,
            speculate: Speculate::Off,
            drafter: None,
            pending_token: None,
            held_logits: None,
            slice: (now, 0),
            preempted: None,
            rows: Rows::None,
            uncommitted: None,
            hidden: Vec::new(),
            keeps_prefix: false,
        }
    }

    /// Another sample, which goes on from where this one's prompt ends.
    pub(super) fn fork(&self, sample: Sample) -> Self {
        let task = Task::Generate(vec![sample]);
        Request {
            state: State::Decode,
            timing: self.timing,
            sequence: self.sequence.as_ref().map(Sequence::fork),
            speculate: self.speculate,
            drafter: self.drafter.clone(),
            slice: self.slice,
            hidden: self.hidden.clone(),
            ..Self::new(Prompt::again(Vec::new()), task, self.options)
        }
    }

    /// Runs it on a sequence, at once.
    pub(in crate::engine) fn start_on(&mut self, sequence: Sequence, drafter: Option<Drafter>) {
        let now = Instant::now();
        (self.sequence, self.drafter) = (Some(sequence), drafter);
        (self.state, self.slice) = (State::Prefill, (now, 0));
        self.timing.started = Some(now);
    }

    /// The names of its samples, or its own.
    pub(in crate::engine) fn ids(&self) -> Vec<RequestId> {
        match &self.task {
            Task::Generate(samples) => samples.iter().map(Sample::id).collect(),
            Task::Embed { id, .. } | Task::Read { id, .. } => vec![*id],
        }
    }

    /// Whether that is its name, or the name of one of its samples.
    pub(super) fn has_id(&self, id: RequestId) -> bool {
        match &self.task {
            Task::Generate(samples) => samples.iter().any(|sample| sample.id == id),
            Task::Embed { id: own, .. } | Task::Read { id: own, .. } => *own == id,
        }
    }

    /// Of each sample its name and what cancels it alone.
    pub(in crate::engine) fn cancel_tokens(&self) -> Vec<(RequestId, CancelToken)> {
        match &self.task {
            Task::Generate(samples) => {
                samples.iter().map(|sample| (sample.id, sample.cancel[1].clone())).collect()
            }
            Task::Embed { id, cancel, .. } | Task::Read { id, cancel } => vec![(*id, cancel.clone())],
        }
    }

    /// How many sequences it takes, or will take.
    pub(super) fn sequences(&self) -> usize {
        match &self.task {
            Task::Generate(samples) => samples.len(),
            Task::Embed { .. } | Task::Read { .. } => 1,
        }
    }

    /// Tokens that its sequence has.
    pub(super) fn len(&self) -> usize {
        self.sequence.as_ref().map_or(0, Sequence::len)
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Prefill | State::Decode)
    }

    /// Whether its prompt has log-probabilities, or is embedded, so that an earlier sequence can't have read it.
    pub(super) fn reads_whole_prompt(&self) -> bool {
        self.prompt.wants_logprobs() || matches!(self.task, Task::Embed { .. })
    }

    /// Cancels the sample, or the request, of a name.
    pub(super) fn cancel(&self, id: RequestId) {
        match &self.task {
            Task::Generate(samples) => {
                samples.iter().filter(|sample| sample.id == id).for_each(|sample| sample.cancel[1].cancel());
            }
            Task::Embed { id: own, cancel, .. } | Task::Read { id: own, cancel } => {
                if *own == id {
                    cancel.cancel();
                }
            }
        }
    }

    /// Marks the sample of a name as one whose events are not read, or as one whose events are read again.
    pub(super) fn set_paused(&mut self, id: RequestId, is_paused: bool) {
        if let Task::Generate(samples) = &mut self.task
            && let Some(sample) = samples.iter_mut().find(|sample| sample.id == id)
        {
            sample.is_paused = is_paused;
        }
    }

    fn is_paused(&self) -> bool {
        matches!(&self.task, Task::Generate(samples) if samples.iter().any(|sample| sample.is_paused))
    }

    /// What stops a step that reads nothing but this request; `None` if that takes more than one token.
    pub(super) fn cancel_token(&self) -> Option<CancelToken> {
        match &self.task {
            Task::Generate(samples) => match samples.as_slice() {
                [sample] => Some(sample.cancel[1].clone()),
                _ => None,
            },
            Task::Embed { cancel, .. } | Task::Read { cancel, .. } => Some(cancel.clone()),
        }
    }

    /// Has the token of the whole request, which its caller holds, stop steps too.
    pub(in crate::engine) fn cancel_steps_by(&mut self, token: &CancelToken) {
        if let Task::Generate(samples) = &mut self.task {
            for sample in samples {
                sample.cancel[1] = token.clone();
            }
        }
    }

    /// What the scheduler sees of it, but for the bytes that it needs. Bytes are counted only if `counts_bytes`.
    pub(super) fn view(&self, now: Instant, counts_bytes: bool) -> RequestView {
        let is_reading = !self.prompt.is_read();
        let stage = match self.state {
            State::Waiting => Stage::Waiting,
            State::Prefill => Stage::Prefill,
            State::Decode if self.held_logits.is_some() => Stage::Held,
            State::Decode => Stage::Decode,
            State::Finished => Stage::Finished,
        };
        let preempted = self.preempted.filter(|_| self.state == State::Waiting);
        RequestView {
            stage,
            sequences: self.sequences(),
            prompt_left: self.prompt.left(),
            share: self.options.share,
            priority: self.options.priority,
            age: now.saturating_duration_since(self.timing.submitted),
            preempted: preempted.map(|preempted| now.saturating_duration_since(preempted)),
            slice: (now.saturating_duration_since(self.slice.0), self.slice.1),
            is_paused: self.is_paused(),
            // Log-probabilities of a prompt that were told would be told again.
            can_preempt: !(is_reading && self.prompt.wants_logprobs()),
            has_states: self.sequence.is_some(),
            state_bytes: if counts_bytes && stage != Stage::Finished { self.own_bytes() } else { 0 },
            needed_bytes: 0,
        }
    }

    /// Memory of its states that nothing else shares, in bytes.
    pub(super) fn own_bytes(&self) -> u64 {
        let sequence = self.sequence.as_ref().map_or(0, Sequence::own_bytes);
        (sequence + self.drafter.as_ref().map_or(0, Drafter::own_bytes)) as u64
    }

    /// Takes it out of the steps; it keeps its states.
    pub(super) fn preempt(&mut self) {
        (self.state, self.preempted) = (State::Waiting, Some(Instant::now()));
    }

    /// Drops its states, which are returned: it will read its tokens again.
    pub(super) fn evict(&mut self) -> Option<Sequence> {
        let sequence = self.sequence.take()?;
        let tokens = sequence.tokens();
        match (self.pending_token.take(), self.held_logits.take()) {
            // The sequence has read the last token.
            (_, Some(_)) => self.prompt = Prompt::again(tokens.to_vec()),
            (Some(token), None) => self.prompt = Prompt::again([tokens, &[token]].concat()),
            (None, None) => {}
        }
        self.prompt.skip(0);
        self.hidden.clear();
        if let Task::Embed { sum, .. } = &mut self.task {
            sum.clear();
        }
        Some(sequence)
    }

    /// Its part of the step; `None` if the step reads nothing of it.
    pub(super) fn input(&mut self) -> Option<Input<'_>> {
        let sequence = self.sequence.as_mut()?;
        match &self.rows {
            Rows::None => None,
            Rows::Prompt(range, outputs) => {
                let tokens = &self.prompt.tokens()[range.clone()];
                Some(Input { outputs: *outputs, ..Input::new(sequence, tokens) })
            }
            Rows::Decode(tokens) => Some(Input { outputs: Outputs::All, ..Input::new(sequence, tokens) }),
        }
    }

    /// Has the sequence take the first `kept` tokens of the last step; the others are dropped.
    pub(in crate::engine) fn commit(&mut self, kept: usize) -> Result<(), Error> {
        let (Some((tokens, _)), Some(sequence)) = (self.uncommitted.take(), &mut self.sequence) else {
            return Ok(());
        };
        if kept == 0 { Ok(()) } else { Input::new(sequence, &tokens).commit(kept) }
    }

    /// How many tokens of the last step its sequence is to keep, and has not taken.
    pub(in crate::engine) fn uncommitted(&self) -> usize {
        self.uncommitted.as_ref().map_or(0, |&(_, kept)| kept)
    }

    /// Its sequence, of which nothing is left here.
    pub(in crate::engine) fn take_sequence(&mut self) -> Option<Sequence> {
        self.sequence.take()
    }
}

impl Rows {
    /// How many tokens there are, and how many of them have logits.
    pub(super) fn counts(&self) -> (usize, usize) {
        match self {
            Rows::None => (0, 0),
            Rows::Prompt(range, Outputs::None) => (range.len(), 0),
            Rows::Prompt(range, Outputs::Last) => (range.len(), 1),
            Rows::Prompt(range, Outputs::All) => (range.len(), range.len()),
            Rows::Decode(tokens) => (tokens.len(), tokens.len()),
        }
    }
}
