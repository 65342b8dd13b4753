//! `docs/reference/parity.md` names counterparts and tests that there are; and a step can be watched from outside.

use std::time::Duration;

use crate::common::engines::{bits, engine, prompt};
use crate::common::root;
use moeflux::Precision;
use moeflux::backend::{Data, Observer};
use moeflux::engine::Input;
use moeflux::graph::{Op, TensorInfo};

#[test]
fn every_test_that_the_document_names_is_there() {
    let text = std::fs::read_to_string(root().join("docs/reference/parity.md")).unwrap();
    let (mut file, mut tests) = (String::new(), 0);
    for row in text.lines().filter(|line| line.starts_with('|')) {
        file.clear();
        for code in row.split('`').skip(1).step_by(2) {
            if code.starts_with("crates/") {
                file = std::fs::read_to_string(root().join(code))
                    .unwrap_or_else(|error| panic!("{code}: {error}"));
            } else if !file.is_empty()
                && code.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
            {
                assert!(
                    file.contains(&format!("fn {code}(")),
                    "no test {code} in the file named before it: {row}"
                );
                tests += 1;
            }
        }
    }
    assert!(tests > 40, "{tests} tests found in the document");
}

/// What an observer is told.
#[derive(Default)]
struct Watch {
    tensors: Vec<(String, Vec<u32>)>,
    ops: usize,
    time: Duration,
}

impl Observer for Watch {
    fn wrote(&mut self, tensor: &TensorInfo, data: Data<'_>) {
        let data = match data {
            Data::F32(data) => bits(data),
            Data::U32(data) => data.to_vec(),
        };
        self.tensors.push((tensor.label.clone(), data));
    }

    fn ran(&mut self, _: &Op, time: Duration) {
        self.ops += 1;
        self.time += time;
    }
}

#[test]
fn every_operation_of_a_step_can_be_watched() {
    let mut engine = engine("qwen3_next/mlx-q4", Precision::Fast, 64);
    let tokens = prompt(20, 1);
    let mut sequence = engine.sequence();
    let mut watch = Watch::default();
    let logits = bits(engine.step(&mut [Input::new(&mut sequence, &tokens)], Some(&mut watch)).unwrap());
    assert!(watch.ops > 0 && watch.time > Duration::ZERO);
    assert!(watch.tensors.len() >= watch.ops, "{} tensors of {} operations", watch.tensors.len(), watch.ops);
    let (_, last) = watch.tensors.last().unwrap();
    assert_eq!(*last, logits);
    // Watching changes nothing, and what is seen is what is computed: the same again for the same tokens.
    let mut again = Watch::default();
    let mut sequence = engine.sequence();
    engine.step(&mut [Input::new(&mut sequence, &tokens)], Some(&mut again)).unwrap();
    assert!(watch.tensors == again.tensors);
}
