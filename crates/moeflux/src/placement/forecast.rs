//! Forecast: the tokens a second of a placement, from its bytes and from what was measured of the machine.

use moeflux_experts::{Heat, StoreError};
use serde::Serialize;

use super::{DevicePlacement, HostTier, Needs, Placement, Residence};
use crate::graph::GraphError;
use crate::model::Model;

/// What was measured of the machine for one model.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Speeds {
    /// Seconds that a step of one token computes where all weights are in memory.
    pub decode_seconds: f64,
    /// The same of a step that reads `prefill_tokens` tokens of a prompt.
    pub prefill_seconds: f64,
    /// Tokens of that step.
    pub prefill_tokens: usize,
    /// Bytes a second from where experts come that are not in the memory which computes: from the disk to the host, or
    /// from the host to a device.
    pub link: f64,
}

/// How experts are expected to be used.
#[derive(Clone, Debug)]
pub enum Hits {
    /// All alike.
    Even,
    /// As often as these, by layer.
    ByHeat(Vec<Vec<u64>>),
}

impl Hits {
    /// As a heat file says.
    pub fn load(heat: &std::path::Path) -> Result<Self, StoreError> {
        Ok(Hits::ByHeat(Heat::load(heat)?.layers.into_iter().map(|layer| layer.uses).collect()))
    }

    /// Where the rate comes from, in words.
    pub fn source(&self) -> &'static str {
        match self {
            Hits::Even => "the assumption that all experts are used alike",
            Hits::ByHeat(_) => "the heat file: the hottest experts stay in memory",
        }
    }

    /// The share of the uses that a share of the experts gets, if it is the hottest.
    pub fn rate(&self, share: f64) -> f64 {
        let share = share.clamp(0.0, 1.0);
        let Hits::ByHeat(layers) = self else { return share };
        let mut uses: Vec<u64> = layers.concat();
        uses.sort_unstable_by(|a, b| b.cmp(a));
        let held = (uses.len() as f64 * share) as usize;
        match uses.iter().sum::<u64>() {
            0 => share,
            all => uses[..held].iter().sum::<u64>() as f64 / all as f64,
        }
    }

    /// The share of the experts that some tokens visit, each of which chooses `k` of a layer.
    pub fn visited(&self, tokens: usize, k: usize, experts: usize) -> f64 {
        let by_one_or_more = |by_one: f64| 1.0 - (1.0 - by_one.min(1.0)).powi(tokens as i32);
        let even = by_one_or_more(k as f64 / experts.max(1) as f64);
        let Hits::ByHeat(layers) = self else { return even };
        let of_layer = |uses: &Vec<u64>| match uses.iter().sum::<u64>() {
            0 => even * uses.len() as f64,
            all => uses.iter().map(|&uses| by_one_or_more(k as f64 * uses as f64 / all as f64)).sum(),
        };
        let experts: usize = layers.iter().map(Vec::len).sum();
        layers.iter().map(of_layer).sum::<f64>() / experts.max(1) as f64
    }
}

/// Seconds of a step and what they are made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepForecast {
    /// Tokens of the step.
    pub tokens: usize,
    /// Seconds that it computes.
    pub compute_seconds: f64,
    /// Bytes of experts that come from outside the memory that computes.
    pub read_bytes: f64,
    /// Seconds that these take.
    pub read_seconds: f64,
    /// Seconds of the step.
    pub seconds: f64,
    /// Tokens a second.
    pub tokens_per_second: f64,
}

/// Reading and computing overlap but for what waits for a router: of the shorter one, this part comes on top in decoding.
pub const DECODE_NOT_OVERLAPPED: f64 = 0.45;
/// And in a prompt's steps, which look ahead, but reading takes time of the processor and of memory too.
pub const PREFILL_NOT_OVERLAPPED: f64 = 0.3;

impl StepForecast {
    fn new(tokens: usize, compute: f64, read_bytes: f64, link: f64, not_overlapped: f64) -> Self {
        let read = if read_bytes > 0.0 { read_bytes / link } else { 0.0 };
        let seconds = compute.max(read) + not_overlapped * compute.min(read);
        StepForecast {
            tokens,
            compute_seconds: compute,
            read_bytes,
            read_seconds: read,
            seconds,
            tokens_per_second: tokens as f64 / seconds,
        }
    }
}

/// What is expected of a placement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The share of a token's experts that are in the memory that computes.
    pub hit_rate: f64,
    /// Of a step of one token.
    pub decode: StepForecast,
    /// Of a step of a prompt, which finds no expert in memory yet.
    pub prefill: StepForecast,
}

/// What a forecast reads of a placement: where the experts are that compute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertShare {
    /// Bytes of all experts.
    pub experts: u64,
    /// Of these, in the memory that computes.
    pub held: u64,
    /// Whether the others come as routers ask for them.
    pub streamed: bool,
}

impl Placement {
    /// Where the experts are.
    pub fn share(&self) -> ExpertShare {
        let Needs { experts, .. } = self.needs;
        match self.residence {
            Residence::Mapped => ExpertShare { experts, held: experts, streamed: false },
            Residence::Streamed { budget } => {
                ExpertShare { experts, held: budget.min(experts), streamed: true }
            }
        }
    }
}

impl DevicePlacement {
    /// Where the experts are.
    pub fn share(&self) -> ExpertShare {
        let Needs { experts, .. } = self.needs;
        ExpertShare { experts, held: self.expert_bytes(), streamed: self.classes.is_some() }
    }

    /// The share of experts that the host has to read from its disk to send them.
    pub fn disk_share(&self) -> f64 {
        match self.host {
            HostTier::Unused | HostTier::Copy { .. } => 0.0,
            HostTier::Sent(host) => 1.0 - host.share().fraction(),
        }
    }
}

impl ExpertShare {
    /// The part of the experts that is held.
    pub fn fraction(&self) -> f64 {
        if self.experts == 0 { 1.0 } else { self.held as f64 / self.experts as f64 }
    }
}

impl Forecast {
    /// What to expect of a model whose experts are held so, for a prompt of `prompt` tokens.
    pub fn new(
        model: &Model,
        share: ExpertShare,
        speeds: &Speeds,
        hits: &Hits,
        prompt: usize,
    ) -> Result<Self, GraphError> {
        let summary = model.summary()?;
        let hit_rate = if share.streamed { hits.rate(share.fraction()) } else { 1.0 };
        let missing = summary.bytes_per_token.experts as f64 * (1.0 - hit_rate);
        let decode = StepForecast::new(1, speeds.decode_seconds, missing, speeds.link, DECODE_NOT_OVERLAPPED);
        // A step of a prompt visits each expert that any of its tokens chooses.
        let tokens = speeds.prefill_tokens.min(prompt).max(1);
        let visited = hits.visited(tokens, summary.experts.active, summary.experts.total);
        let missing = if share.streamed { share.experts as f64 * visited } else { 0.0 };
        let compute = speeds.prefill_seconds * tokens as f64 / speeds.prefill_tokens as f64;
        let prefill = StepForecast::new(tokens, compute, missing, speeds.link, PREFILL_NOT_OVERLAPPED);
        Ok(Forecast { hit_rate, decode, prefill })
    }

    /// Seconds of a request of ordinary length: what two placements are compared by.
    pub fn request_seconds(&self) -> f64 {
        /// Tokens of its prompt and of its answer.
        const TOKENS: (f64, f64) = (512.0, 128.0);
        TOKENS.0 / self.prefill.tokens_per_second + TOKENS.1 / self.decode.tokens_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_the_longer_of_both_and_part_of_the_shorter() {
        let expected = StepForecast::new(2, 1.0, 4.0, 2.0, 0.25);
        assert_eq!((expected.read_seconds, expected.seconds), (2.0, 2.25));
        assert_eq!(StepForecast::new(8, 2.0, 0.0, 1.0, 0.25).tokens_per_second, 4.0);
    }

    #[test]
    fn hit_rates_by_share_and_by_heat() {
        assert_eq!(Hits::Even.rate(0.25), 0.25);
        let heat = Hits::ByHeat(vec![vec![1, 6], vec![0, 3]]);
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|share| heat.rate(share)), [0.0, 0.6, 0.9, 1.0]);
        assert_eq!(Hits::ByHeat(vec![vec![0, 0]]).rate(0.5), 0.5);
    }

    #[test]
    fn visits_of_a_prompt() {
        assert_eq!(Hits::Even.visited(1, 2, 8), 0.25);
        assert_eq!(Hits::Even.visited(2, 4, 8), 0.75);
        // One expert of the first layer is chosen always, the others never; the second layer was not used.
        let heat = Hits::ByHeat(vec![vec![5, 0], vec![0, 0]]);
        assert_eq!(heat.visited(1, 1, 2), (1.0 + 2.0 * 0.5) / 4.0);
        assert!(Hits::Even.visited(500, 8, 256) > 0.999);
    }
}
