//! What is measured: sequences of some length, and tokens to go on with.

use anyhow::Result;
use clap::Args;
use moeflux::graph::StateId;
use moeflux::sequence::{KvBlock, StateMut};
use moeflux::{Engine, Model, Sequence};

use super::noise::Noise;
use crate::model_args::EngineArgs;

/// Flags that measurements share.
#[derive(Args)]
#[command(next_help_heading = "Measurement")]
pub(crate) struct WorkloadArgs {
    /// Number of tokens of a prompt
    #[arg(short, long, value_name = "N", default_value_t = 512)]
    pub(crate) prompt: usize,
    /// Number of positions before the prompt. Their states are random, not computed
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub(crate) context: usize,
    /// Number of measurements. The median counts
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    pub(crate) repeat: usize,
    /// Maximum number of prompt tokens in one step [default: the engine's choice]
    #[arg(long, value_name = "N")]
    pub(crate) prefill_chunk: Option<usize>,
}

/// A sequence with `context` positions, whose caches hold noise and whose recurrent states are those of the start.
pub(super) fn sequence(engine: &Engine, context: usize) -> Sequence {
    let mut sequence = engine.sequence();
    if context == 0 {
        return sequence;
    }
    sequence.reserve(context);
    let mut noise = Noise::new(0, "context");
    let mut fill = |block: &mut KvBlock| block.fill_with(|| 2.0 * noise.unit() - 1.0);
    for state in 0..sequence.states().len() {
        match sequence.state_mut(StateId(state)) {
            StateMut::Kv(cache) => {
                let (keys, values) = cache.blocks_mut();
                keys.iter_mut().chain(values).for_each(&mut fill);
            }
            StateMut::Latent(cache) => cache.blocks_mut().iter_mut().for_each(&mut fill),
            // The next state becomes current, as a step would have it.
            StateMut::Recurrent { current, next } => next.copy_from_slice(current),
        }
    }
    let positions: Vec<_> = (0..context as u32).map(|position| [position; 3]).collect();
    sequence.commit(&vec![0; context], &positions);
    sequence
}

/// `n` tokens of noise.
pub(super) fn tokens(engine: &Engine, n: usize) -> Vec<u32> {
    noise(engine.model(), n)
}

/// The same of a model.
pub(super) fn noise(model: &Model, n: usize) -> Vec<u32> {
    let mut noise = Noise::new(0, "tokens");
    let vocab_size = model.vocab_size() as u64;
    (0..n).map(|_| (noise.next() % vocab_size) as u32).collect()
}

/// The middle one, or the mean of the two in the middle; NaN of none.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (len, middle) if len % 2 == 1 => values[middle],
        (_, middle) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

impl WorkloadArgs {
    /// An engine for the model, with these steps.
    pub(super) fn engine(&self, args: &EngineArgs, model: Model) -> Result<Engine> {
        let mut options = args.options(&model)?;
        options.prefill_chunk = self.prefill_chunk.or(options.prefill_chunk);
        args.engine_with(model, &options)
    }

    /// An error if nothing is to be measured, or more than the model's context.
    pub(super) fn check(&self, engine: &Engine, decoded: usize) -> Result<()> {
        let (total, room) = (self.context + self.prompt + decoded, engine.model().context_length());
        anyhow::ensure!(self.repeat > 0, "--repeat: expected at least 1, found 0");
        anyhow::ensure!(self.prompt > 0, "--prompt: expected at least 1 token, found 0");
        anyhow::ensure!(total <= room, "{total} positions in all, but the model's context ends at {room}");
        Ok(())
    }
}
