//! Placement: one arithmetic, whatever asks it.

use std::collections::HashMap;

use moeflux::devices::{self, Device, Measurements, Question};
use moeflux::experts::ExpertOptions;
use moeflux::graph::{Op, StepShape};
use moeflux::placement::{
    ExpertShare, Forecast, GpuMemory, Hits, MemoryRequest, Placement, Residence, Speeds, StepFacts, cost,
    needs,
};
use moeflux::{EngineOptions, Model, ModelOptions, Precision};

use crate::demo;

fn model() -> Model {
    demo::model().unwrap()
}

/// A half of the experts in memory.
fn streamed(model: &Model) -> EngineOptions {
    let half = needs(model, 1, 0).unwrap().experts / 2;
    let memory = MemoryRequest { process: None, experts: Some(half) };
    EngineOptions {
        experts: ExpertOptions { memory, ..ExpertOptions::default() },
        ..EngineOptions::default()
    }
}

#[test]
fn the_weights_of_a_tokens_operations_are_those_of_the_summary() {
    let model = model();
    let graph = model.graph(StepShape { n_tokens: 1, n_outputs: 1 }).unwrap();
    let visited: HashMap<_, _> = graph
        .ops()
        .iter()
        .filter_map(|op| match *op {
            Op::Experts { ids, k, .. } => Some((ids, k)),
            _ => None,
        })
        .collect();
    let facts = StepFacts { first: 0, cache_element: 4, precision: Precision::Exact, visited: &visited };
    let (mut dense, mut experts) = (0, 0);
    for op in graph.ops() {
        let weights = cost(op, &graph, model.weights(), &facts).weights;
        match op {
            Op::Experts { .. } => experts += weights,
            _ => dense += weights,
        }
    }
    let expected = model.summary().unwrap().bytes_per_token;
    assert_eq!((dense, experts), (expected.dense, expected.experts));
    assert!(experts > 0);
}

#[test]
fn a_forecast_counts_what_is_not_in_memory() {
    let model = model();
    let placement = Placement::decide(&model, &streamed(&model)).unwrap();
    let share = placement.share();
    assert!(placement.residence != Residence::Mapped && share.streamed);
    assert!((share.fraction() - 0.5).abs() < 0.01, "{share:?}");
    let speeds = Speeds { decode_seconds: 0.01, prefill_seconds: 0.1, prefill_tokens: 64, link: 1e6 };
    let forecast = |share| Forecast::new(&model, share, &speeds, &Hits::Even, 64).unwrap();
    let (half, all) =
        (forecast(share), forecast(ExpertShare { held: share.experts, streamed: false, ..share }));
    assert_eq!((all.hit_rate, all.decode.seconds, all.prefill.seconds), (1.0, 0.01, 0.1));
    assert_eq!((all.decode.read_bytes, all.prefill.read_bytes), (0.0, 0.0));
    let of_token = model.summary().unwrap().bytes_per_token.experts as f64;
    assert!((half.decode.read_bytes / of_token - 0.5).abs() < 0.01, "{half:?}");
    assert!(half.prefill.read_bytes > 0.9 * share.experts as f64, "{half:?}");
    assert!(half.request_seconds() > all.request_seconds());
}

#[test]
fn what_a_step_computes_is_measured_once() {
    let model = model();
    let options = EngineOptions { threads: 1, ..streamed(&model) };
    let question = Question { options: &options, memory: GpuMemory::Free, hits: &Hits::Even, prompt: 32 };
    let mut known = Measurements::default();
    let first = devices::on_cpu(&model, &question, &mut known).unwrap();
    let Speeds { decode_seconds, prefill_seconds, prefill_tokens, link } = first.speeds;
    assert!(decode_seconds > 0.0 && prefill_seconds > decode_seconds && prefill_tokens == 32, "{first:?}");
    assert!(link.is_finite() && link > 0.0 && first.device == Device::Cpu, "{first:?}");
    let again = devices::on_cpu(&model, &question, &mut known).unwrap();
    assert_eq!(again.forecast, first.forecast);
}

/// Any architecture's step can be measured, with either precision.
#[test]
fn every_family_can_be_measured() {
    for family in ["deepseek_v3", "glm4_moe", "gpt_oss", "mixtral", "qwen3", "qwen3_next"] {
        let path = crate::common::data(&format!("{family}/hf"));
        let model = Model::open(&path, &ModelOptions::default()).unwrap();
        for precision in [Precision::Exact, Precision::Fast] {
            let options = EngineOptions { threads: 2, precision, ..EngineOptions::default() };
            let speeds = devices::cpu_speeds(&model, &options, 5, &mut Measurements::default()).unwrap();
            assert!(speeds.decode_seconds > 0.0 && speeds.prefill_seconds > 0.0, "{family}");
        }
    }
}
