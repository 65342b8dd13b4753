//! `moeflux bench batch`: tokens a second of several sequences at once.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use moeflux::engine::{SchedulerOptions, Speculate, Speculated, SubmitOptions, Ticket};
use moeflux::{EngineHandle, Event, GenerateRequest, SamplingOptions};
use serde::Serialize;

use super::noise::Noise;
use crate::model_args::{EngineArgs, ModelArgs};
use crate::stats::Bytes;
use crate::terminal;

/// Arguments of `bench batch`.
#[derive(Args)]
pub(crate) struct BatchArgs {
    /// Model folder, GGUF file, or name of a pulled model
    #[arg(value_name = "MODEL")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Numbers of sequences that run at once; each is measured
    #[arg(
        short,
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,2,4,8,16",
        help_heading = "Measurement"
    )]
    sequences: Vec<usize>,
    /// Tokens of each prompt. Prompts differ
    #[arg(short, long, value_name = "N", default_value_t = 32, help_heading = "Measurement")]
    prompt: usize,
    /// Tokens of each answer, sampled at temperature 1
    #[arg(short, long, value_name = "N", default_value_t = 64, help_heading = "Measurement")]
    decode: usize,
    /// Draft tokens, as `run --speculate` does
    #[arg(long, value_name = "HOW", default_value_t = Speculate::Off, help_heading = "Measurement")]
    speculate: Speculate,
    /// Continue this text in all sequences, likeliest token by likeliest token, instead of noise
    #[arg(long, value_name = "TEXT", help_heading = "Measurement", conflicts_with = "prompt")]
    text: Option<String>,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// What so many sequences at once came to.
#[derive(Serialize)]
struct Batch {
    sequences: usize,
    /// Of all together, while all of them answered.
    tokens_per_second: f64,
    /// To the first measurement's.
    ratio: f64,
    /// Share of drafted tokens that were chosen; none where none were drafted.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<f64>,
    /// Bytes of experts that were read from disk for each token; none where experts are mapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    expert_bytes_per_token: Option<f64>,
}

/// Runs the command.
pub(crate) fn run(args: &BatchArgs) -> Result<()> {
    let most = args.sequences.iter().copied().max().unwrap_or(0);
    ensure!(!args.sequences.contains(&0) && most > 0, "--sequences: expected numbers of at least 1");
    ensure!(args.prompt > 0, "--prompt: expected at least 1 token, found 0");
    ensure!(args.decode > 2, "--decode: expected at least 3 tokens, found {}", args.decode);
    let model = args.model.open_with(args.folder.as_deref(), args.speculate.uses_mtp())?;
    let engine = args.engine.engine(model)?;
    let options = SchedulerOptions { max_running: most, max_queued: most, ..SchedulerOptions::default() };
    let handle = EngineHandle::start(engine, &options)?;
    let mut noise = Noise::new(0, "prompts");
    // Fills what is kept from step to step.
    measure(args, &handle, 1, &mut noise)?;
    let mut batches: Vec<Batch> = Vec::new();
    for &n in &args.sequences {
        let mut batch = measure(args, &handle, n, &mut noise)?;
        batch.ratio = batch.tokens_per_second / batches.first().unwrap_or(&batch).tokens_per_second;
        batches.push(batch);
    }
    terminal::show(&if args.json { terminal::json(&batches)? } else { table(&batches)? })?;
    Ok(())
}

fn measure(args: &BatchArgs, handle: &EngineHandle, n: usize, noise: &mut Noise) -> Result<Batch> {
    let vocab_size = handle.model().vocab_size() as u64;
    let text = args.text.as_ref().map(|text| handle.model().tokenizer().encode(text)).transpose()?;
    let temperature = if text.is_some() { 0.0 } else { 1.0 };
    let tickets = (0..n as u64).map(|seed| {
        let noise = || (0..args.prompt).map(|_| (noise.next() % vocab_size) as u32).collect();
        let request = GenerateRequest {
            prompt: text.clone().unwrap_or_else(noise),
            sampling: SamplingOptions { temperature, seed, ..SamplingOptions::default() },
            speculate: args.speculate,
            max_tokens: args.decode,
            ignore_eos: true,
            ..GenerateRequest::default()
        };
        handle.submit(request, SubmitOptions::default())
    });
    let tickets: Vec<Ticket> = tickets.collect::<Result<_, _>>()?;
    let told: Vec<AtomicUsize> = tickets.iter().map(|_| AtomicUsize::new(0)).collect();
    let counts = || told.iter().map(|told| told.load(Ordering::Relaxed));
    thread::scope(|scope| {
        let listeners: Vec<_> = tickets
            .into_iter()
            .zip(&told)
            .map(|(ticket, told)| scope.spawn(move || listen(ticket, told)))
            .collect();
        let now = |is_time: &dyn Fn() -> bool| {
            while !is_time() && !listeners.iter().any(thread::ScopedJoinHandle::is_finished) {
                thread::sleep(Duration::from_micros(200));
            }
            let bytes = handle.experts().map(|store| store.counters().bytes_read);
            (Instant::now(), counts().sum::<usize>(), bytes)
        };
        // All of them answer from the last one's first token to the first one's last.
        let (start, before, bytes_before) = now(&|| counts().all(|told| told > 0));
        let (end, after, bytes_after) = now(&|| counts().any(|told| told == args.decode));
        let mut guesses = Speculated::default();
        for listener in listeners {
            let own = listener.join().unwrap_or_else(|_| bail!("a listener panicked"))?;
            guesses.drafted += own.drafted;
            guesses.accepted += own.accepted;
        }
        let tokens = after - before;
        ensure!(tokens > 0, "the answers are too short to overlap: use a larger --decode");
        let bytes = bytes_after.zip(bytes_before).map(|(after, before)| after - before);
        Ok(Batch {
            sequences: n,
            tokens_per_second: tokens as f64 / (end - start).as_secs_f64(),
            ratio: 1.0,
            accepted: (guesses.drafted > 0).then(|| guesses.accepted as f64 / guesses.drafted as f64),
            expert_bytes_per_token: bytes.map(|bytes| bytes as f64 / tokens as f64),
        })
    })
}

/// Counts the tokens that come; what drafts came to.
fn listen(ticket: Ticket, told: &AtomicUsize) -> Result<Speculated> {
    let mut guesses = Speculated::default();
    for event in ticket {
        match event? {
            Event::Token { .. } => drop(told.fetch_add(1, Ordering::Relaxed)),
            Event::Done(outcome) => guesses = outcome.speculated,
            _ => {}
        }
    }
    Ok(guesses)
}

fn table(batches: &[Batch]) -> Result<String> {
    let mut table =
        String::from("sequences  tokens/s together     each   ratio  drafts right  experts read a token\n");
    for Batch { sequences, tokens_per_second, ratio, accepted, expert_bytes_per_token } in batches {
        let right = accepted.map_or("none".to_owned(), |share| format!("{:.0} %", 100.0 * share));
        let each = tokens_per_second / *sequences as f64;
        let read =
            expert_bytes_per_token.map_or("mapped".to_owned(), |bytes| Bytes(bytes as u64).to_string());
        writeln!(
            table,
            "{sequences:>9} {tokens_per_second:>18.2} {each:>8.2} {ratio:>6.2}× {right:>13} {read:>21}"
        )?;
    }
    Ok(table)
}
