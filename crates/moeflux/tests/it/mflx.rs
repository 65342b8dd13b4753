//! `MFLX` snapshots, written here from the description of their bytes, give the logits of a prefill; and what is exported
//! is what would be written here.

use std::collections::HashMap;

use crate::common::engines::{engine, fresh, probe, prompt};
use moeflux::backend::{Data, Observer};
use moeflux::engine::Input;
use moeflux::graph::{Op, StateId, StepShape, TensorInfo};
use moeflux::sequence::State;
use moeflux::sequence::mflx::MflxError;
use moeflux::{Engine, Error, Precision, Sequence};

/// Keeps all floats of a step by label.
#[derive(Default)]
struct Tensors(HashMap<String, Vec<f32>>);

impl Observer for Tensors {
    fn wrote(&mut self, tensor: &TensorInfo, data: Data<'_>) {
        if let Data::F32(floats) = data {
            self.0.insert(tensor.label.clone(), floats.to_vec());
        }
    }
}

/// Reads a prompt at once; the sequence, and the file that another program would have written of it.
fn written(engine: &mut Engine, tokens: &[u32], version: u32) -> (Sequence, Vec<u8>) {
    let mut sequence = engine.sequence();
    let mut tensors = Tensors::default();
    engine.step(&mut [Input::new(&mut sequence, tokens)], Some(&mut tensors)).unwrap();
    let recurrent = |id: StateId| match &sequence.states()[id.0] {
        State::Recurrent(state) => state.current(),
        other => panic!("state {id} is {other:?}"),
    };
    let mut bytes = Vec::new();
    let mut conv = StateId(0);
    let (mut layers, mut interval, mut words) = (0, 0, [0; 4]);
    let graph = engine.model().graph(StepShape { n_tokens: tokens.len(), n_outputs: 1 }).unwrap();
    for op in graph.ops() {
        match op {
            Op::Attention { k, v, shape, .. } => {
                layers += 1;
                interval = if interval == 0 { layers } else { interval };
                (words[0], words[1]) = (shape.kv_heads, shape.head_dim);
                bytes.extend((tokens.len() as i32).to_le_bytes());
                for tensor in [k, v] {
                    let floats = &tensors.0[&graph.tensor(*tensor).label];
                    bytes.extend(floats.iter().flat_map(|x| x.to_le_bytes()));
                }
            }
            Op::Conv1dSilu { state, kernel, .. } => {
                assert_eq!(*kernel, 4);
                conv = *state;
            }
            Op::GatedDelta { state, shape, .. } => {
                layers += 1;
                let (conv, delta) = (recurrent(conv), recurrent(*state));
                (words[2], words[3]) = (4 * conv.len(), 4 * delta.len());
                bytes.extend(conv.iter().flat_map(|x| x.to_le_bytes()));
                for head in delta.chunks(shape.key_dim * shape.value_dim) {
                    for value in 0..shape.value_dim {
                        for key in 0..shape.key_dim {
                            bytes.extend(head[key * shape.value_dim + value].to_le_bytes());
                        }
                    }
                }
            }
            _ => {}
        }
    }
    let latent: &[usize] = if version == 2 { &[0, 0] } else { &[] };
    let header = [0x4d46_4c58, version as usize, layers, interval];
    let header = header.iter().chain(&words).chain(latent).flat_map(|&word| (word as u32).to_le_bytes());
    (sequence, header.chain(bytes).collect())
}

#[test]
fn files_of_both_versions_load() {
    for (name, precision) in [
        ("qwen3_5_moe/hf", Precision::Exact),
        ("qwen3_5_moe/mlx-q4", Precision::Fast),
        ("demo", Precision::Fast),
        ("qwen3_next/hf", Precision::Exact),
    ] {
        let mut engine = engine(name, precision, 200);
        for version in [1, 2] {
            let tokens = prompt(100, 1);
            let (_, file) = written(&mut engine, &tokens, version);
            let imported = engine.import_mflx(&file, &tokens).unwrap();
            assert_eq!(imported.tokens(), tokens);
            assert!(
                probe(&mut engine, &imported) == fresh(&mut engine, &tokens),
                "{name}, version {version}"
            );
        }
    }
}

#[test]
fn what_is_exported_is_such_a_file() {
    let mut exact = engine("qwen3_5_moe/hf", Precision::Exact, 200);
    let (sequence, file) = written(&mut exact, &prompt(100, 1), 2);
    assert!(exact.export_mflx(&sequence).unwrap() == file);
    // Half floats are exported as what they are: a second trip changes nothing.
    let mut fast = engine("demo", Precision::Fast, 200);
    let tokens = prompt(70, 2);
    let (sequence, _) = written(&mut fast, &tokens, 2);
    let file = fast.export_mflx(&sequence).unwrap();
    let imported = fast.import_mflx(&file, &tokens).unwrap();
    assert!(fast.export_mflx(&imported).unwrap() == file);
    assert!(probe(&mut fast, &imported) == probe(&mut fast, &sequence));
    let empty = fast.sequence();
    let file = fast.export_mflx(&empty).unwrap();
    assert!(fast.import_mflx(&file, &[]).unwrap().is_empty());
}

/// GGUF has value heads in another order, so a file of one format must fit a model of the other.
#[test]
fn heads_in_another_order_are_put_in_theirs() {
    let mut hf = engine("qwen3_5_moe/hf", Precision::Exact, 200);
    let mut gguf = engine("qwen3_5_moe/gguf-q8_0", Precision::Exact, 200);
    let tokens = prompt(50, 3);
    let (sequence, _) = written(&mut hf, &tokens, 2);
    let file = hf.export_mflx(&sequence).unwrap();
    let imported = gguf.import_mflx(&file, &tokens).unwrap();
    let mut of_gguf = gguf.sequence();
    gguf.eval(&mut of_gguf, &tokens).unwrap();
    for (imported, own) in imported.states().iter().zip(of_gguf.states()) {
        if let (State::Recurrent(imported), State::Recurrent(own)) = (imported, own) {
            // The weights differ by what eight bits round off.
            let (mut difference, mut size) = (0.0, 0.0);
            for (a, b) in imported.current().iter().zip(own.current()) {
                difference += f64::from(a - b).powi(2);
                size += f64::from(*b).powi(2);
            }
            assert!(difference < 0.01 * size, "{difference} of {size}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let mut engine = engine("qwen3_5_moe/hf", Precision::Exact, 200);
    let tokens = prompt(20, 1);
    let (_, file) = written(&mut engine, &tokens, 2);
    let import = |bytes: &[u8], tokens: &[u32]| match engine.import_mflx(bytes, tokens) {
        Err(Error::Mflx(error)) => error,
        other => panic!("{other:?}"),
    };
    for word in 0..10 {
        let mut wrong = file.clone();
        wrong[4 * word] ^= 4;
        let error = import(&wrong, &tokens);
        assert!(matches!(error, MflxError::Mismatch { .. }), "word {word}: {error}");
    }
    let error = import(&file, &tokens[1..]);
    assert!(matches!(error, MflxError::Mismatch { .. }), "{error}");
    for n in (0..200).chain((200..file.len()).step_by(997)) {
        import(&file[..n], &tokens);
    }
    let error = import(&[&file[..], &[0]].concat(), &tokens);
    assert!(matches!(error, MflxError::Length { found, expected } if found == expected + 1), "{error}");
    let error = engine.import_mflx(&file, &[1 << 30; 20]);
    assert!(matches!(error, Err(Error::TokenOutOfRange { .. })));
    for other in ["qwen3_moe/hf", "deepseek_v3/hf", "gpt_oss/hf"] {
        let other = crate::common::engines::engine(other, Precision::Exact, 200);
        let error = other.export_mflx(&other.sequence()).unwrap_err();
        assert!(matches!(error, Error::Mflx(MflxError::Unsupported(_))), "{error}");
    }
}
