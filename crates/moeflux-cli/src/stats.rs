//! What an answer took: for people (`--stats`) and for programs (`--json`).

use std::fmt;
use std::time::Duration;

use moeflux::engine::Outcome;
use moeflux::placement::Machine;
use moeflux::{Model, StopReason};
use serde::Serialize;

use crate::answer::Answer;
use crate::expert_stats::ExpertStats;
use crate::gpu_stats::GpuStats;

/// Everything measured about one answer.
#[derive(Serialize)]
pub(crate) struct Stats {
    pub(crate) stop: Ended,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
    pub(crate) memory: Memory,
    /// Of guesses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) guesses: Option<Guesses>,
    /// Of streamed experts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) experts: Option<ExpertStats>,
    /// Of experts that a GPU had not room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu_experts: Option<GpuStats>,
    pub(crate) seed: u64,
}

/// Why an answer ended.
#[derive(Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub(crate) enum Ended {
    EndOfSequence {
        token: u32,
    },
    StopString {
        string: String,
    },
    MaxTokens,
    ContextFull,
    MemoryFull,
    Cancelled,
    /// Something that this command knows no name for.
    Other {
        description: String,
    },
}

/// Numbers of tokens.
#[derive(Serialize)]
pub(crate) struct Usage {
    /// Read for this answer.
    prompt_tokens: usize,
    /// Of the prompt, already in the sequence.
    cached_tokens: usize,
    completion_tokens: usize,
}

/// Tokens that were guessed.
#[derive(Serialize)]
pub(crate) struct Guesses {
    drafted: usize,
    /// Of those, chosen.
    accepted: usize,
}

/// Seconds, and tokens a second.
#[derive(Serialize)]
pub(crate) struct Timings {
    prefill_seconds: f64,
    decode_seconds: f64,
    first_token_seconds: Option<f64>,
    first_token_seconds_from_start: Option<f64>,
    prefill_tokens_per_second: Option<f64>,
    decode_tokens_per_second: Option<f64>,
}

/// Bytes.
#[derive(Serialize)]
pub(crate) struct Memory {
    /// Highest resident set of the process, where the system tells it.
    peak_resident_bytes: Option<u64>,
    /// Weight files, mapped.
    mapped_bytes: u64,
    /// KV cache and recurrent states of the sequence.
    state_bytes: usize,
}

impl Stats {
    /// Statistics of an answer whose request came `before_request` after the program's start, and whose states take
    /// `state_bytes`. `cached_tokens` were in the sequence already.
    pub(crate) fn new(
        answer: &Answer,
        model: &Model,
        state_bytes: usize,
        cached_tokens: usize,
        seed: u64,
        before_request: Option<Duration>,
    ) -> Self {
        let Outcome { prompt_tokens, completion_tokens, prefill, decode, speculated, ref stop, .. } =
            answer.outcome;
        let from_start = before_request.zip(answer.to_first_token).map(|(before, after)| before + after);
        Self {
            stop: stop.into(),
            usage: Usage { prompt_tokens, cached_tokens, completion_tokens },
            timings: Timings {
                prefill_seconds: prefill.as_secs_f64(),
                decode_seconds: decode.as_secs_f64(),
                first_token_seconds: answer.to_first_token.map(|time| time.as_secs_f64()),
                first_token_seconds_from_start: from_start.map(|time| time.as_secs_f64()),
                prefill_tokens_per_second: rate(prompt_tokens, prefill),
                // The first token comes with the prefill.
                decode_tokens_per_second: rate(completion_tokens.saturating_sub(1), decode),
            },
            memory: Memory {
                peak_resident_bytes: Machine::peak_resident(),
                mapped_bytes: model.checkpoint().files().iter().map(moeflux::checkpoint::File::len).sum(),
                state_bytes,
            },
            guesses: (speculated.drafted > 0)
                .then_some(Guesses { drafted: speculated.drafted, accepted: speculated.accepted }),
            experts: answer.experts,
            gpu_experts: answer.gpu,
            seed,
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stop, usage, timings, memory, guesses, experts, gpu_experts, seed } = self;
        let rate = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!("  {rate:8.1} tokens/s"));
        let prompt = usage.prompt_tokens;
        write!(f, "prompt       {prompt:6} tokens  {:8.3} s", timings.prefill_seconds)?;
        write!(f, "{}", rate(timings.prefill_tokens_per_second))?;
        match usage.cached_tokens {
            0 => writeln!(f)?,
            cached => writeln!(f, "  ({cached} more were there already)")?,
        }
        let answer = usage.completion_tokens;
        write!(f, "answer       {answer:6} tokens  {:8.3} s", timings.decode_seconds)?;
        writeln!(f, "{}", rate(timings.decode_tokens_per_second))?;
        if let Some(seconds) = timings.first_token_seconds {
            write!(f, "first token  {seconds:.3} s after the request")?;
            match timings.first_token_seconds_from_start {
                Some(seconds) => writeln!(f, ", {seconds:.3} s after the start")?,
                None => writeln!(f)?,
            }
        }
        write!(f, "memory       ")?;
        if let Some(peak) = memory.peak_resident_bytes {
            write!(f, "{} at most, ", Bytes(peak))?;
        }
        let (mapped, state) = (Bytes(memory.mapped_bytes), Bytes(memory.state_bytes as u64));
        writeln!(f, "{mapped} of weights mapped, {state} of sequence state")?;
        if let Some(Guesses { drafted, accepted }) = guesses {
            writeln!(f, "guesses      {accepted} of {drafted} were right")?;
        }
        if let Some(experts) = experts {
            writeln!(f, "experts      {experts}")?;
        }
        if let Some(gpu) = gpu_experts {
            writeln!(f, "GPU experts  {gpu}")?;
        }
        writeln!(f, "seed         {seed}")?;
        write!(f, "stopped at   {stop}")
    }
}

impl From<&StopReason> for Ended {
    fn from(stop: &StopReason) -> Self {
        match stop {
            StopReason::EndOfSequence(token) => Ended::EndOfSequence { token: *token },
            StopReason::StopString(string) => Ended::StopString { string: string.clone() },
            StopReason::MaxTokens => Ended::MaxTokens,
            StopReason::ContextFull => Ended::ContextFull,
            StopReason::MemoryFull => Ended::MemoryFull,
            StopReason::Cancelled => Ended::Cancelled,
            other => Ended::Other { description: format!("{other:?}") },
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::EndOfSequence { token } => write!(f, "end of sequence (token {token})"),
            Ended::StopString { string } => write!(f, "stop string {string:?}"),
            Ended::MaxTokens => write!(f, "--max-tokens"),
            Ended::ContextFull => write!(f, "the end of the context"),
            Ended::MemoryFull => write!(f, "the end of the memory for states"),
            Ended::Cancelled => write!(f, "Ctrl-C"),
            Ended::Other { description } => f.write_str(description),
        }
    }
}

/// A number of bytes, shown in a unit that suits it (1 MB = 10⁶ bytes).
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
        let text = match units.into_iter().find(|(size, _)| self.0 as f64 >= *size) {
            Some((size, unit)) => format!("{:.2} {unit}", self.0 as f64 / size),
            None => format!("{} B", self.0),
        };
        f.pad(&text)
    }
}

fn rate(tokens: usize, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    (tokens > 0 && seconds > 0.0).then(|| tokens as f64 / seconds)
}
