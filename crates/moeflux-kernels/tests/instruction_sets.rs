//! Every instruction set gives the same bits. The choice is the process's, so this file has one test.

mod support;

use moeflux_kernels::{
    AttentionShape, DeltaShape, Encoding, ExpertScratch, ExpertWeights, Float, InstructionSet, KV_BLOCK,
    ThreadPool, attention, causal_conv1d_silu, decay_and_beta, decode_floats, experts_swiglu,
    gated_delta_rule, gated_rms_norm, kv_write, l2_norm, linear, rms_norm, scale_rows_by_sigmoid,
    set_instruction_set, sigmoid_gate, softmax_top_k, swiglu,
};
use support::{Random, bits, encodings};

#[test]
fn all_give_the_same_bits() {
    let outputs: Vec<_> = InstructionSet::available()
        .map(|set| {
            assert_eq!(set_instruction_set(set), set);
            (set, every_kernel())
        })
        .collect();
    let (_, baseline) = &outputs[0];
    for (set, output) in &outputs[1..] {
        for ((name, expected), (_, found)) in baseline.iter().zip(output) {
            assert!(expected.iter().all(|x| x.is_finite()), "{name}");
            assert_eq!(bits(found), bits(expected), "{name} with {set:?}");
        }
    }
}

/// The output of each kernel on inputs whose sizes leave tails.
fn every_kernel() -> Vec<(String, Vec<f32>)> {
    let pool = ThreadPool::new(1).unwrap();
    let mut random = Random(1);
    let mut outputs = Vec::new();
    let mut output = |name: &str, len: usize, run: &mut dyn FnMut(&mut [f32])| {
        let mut y = vec![f32::NAN; len];
        run(&mut y);
        outputs.push((name.to_owned(), y));
    };

    for encoding in encodings() {
        let w = random.matrix(9, 384, encoding);
        let x = random.floats(7 * 384, 1.0);
        output(&format!("linear, {encoding:?}"), 7 * 9, &mut |y| linear(&pool, &w.view(), &x, y));
    }
    let w = random.matrix(9, 77, Encoding::Float(Float::F32));
    output("linear, odd", 9, &mut |y| linear(&pool, &w.view(), &[0.3; 77], y));
    let halves = random.matrix(1, 1024, Encoding::Float(Float::F16));
    output("decode_floats", 1024, &mut |y| decode_floats(Float::F16, &halves.codes, y));

    // Arguments of exp over its whole range, results below the normal range included.
    let wide: Vec<f32> = (0..4001).map(|i| (i - 2000) as f32 * 0.06).collect();
    let ones = vec![1.0; wide.len()];
    output("swiglu", wide.len(), &mut |y| swiglu(&wide, &ones, y));
    output("sigmoid_gate", wide.len(), &mut |y| sigmoid_gate(&ones, &wide, y));
    output("scale_rows_by_sigmoid", 99, &mut |y| scale_rows_by_sigmoid(&wide[..99], &wide[2000..2003], y));
    let (x, gate, weight) =
        (random.floats(4 * 131, 2.0), random.floats(4 * 131, 9.0), random.floats(131, 1.0));
    output("rms_norm", x.len(), &mut |y| rms_norm(&pool, &x, &weight, 1e-6, y));
    output("gated_rms_norm", x.len(), &mut |y| gated_rms_norm(&pool, &x, &gate, &weight, 1e-6, y));
    output("l2_norm", x.len(), &mut |y| l2_norm(&pool, &x, 131, 1e-6, 0.3, y));

    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 83 };
    let (q, k, v) =
        (random.floats(90 * 4 * 83, 3.0), random.floats(90 * 2 * 83, 1.0), random.floats(90 * 2 * 83, 1.0));
    let blocks = vec![vec![0.0; shape.block_len()].into_boxed_slice(); 90usize.div_ceil(KV_BLOCK)];
    let (mut keys, mut values) = (blocks.clone(), blocks);
    kv_write(&k, &shape, 0, &mut keys);
    kv_write(&v, &shape, 0, &mut values);
    output("attention", q.len(), &mut |y| attention(&pool, &q, &keys, &values, &shape, 0, 0.2, y));

    let (x, weight, state) =
        (random.floats(9 * 75, 2.0), random.floats(75 * 4, 1.0), random.floats(3 * 75, 1.0));
    let mut new_state = vec![0.0; state.len()];
    output("causal_conv1d_silu", x.len(), &mut |y| {
        causal_conv1d_silu(&pool, &x, &weight, 4, &state, &mut new_state, y);
    });

    let (a, b) = (random.floats(60, 20.0), random.floats(60, 20.0));
    let (a_log, dt_bias) = (random.floats(6, 2.0), random.floats(6, 2.0));
    let (mut decay, mut beta) = (vec![0.0; 60], vec![0.0; 60]);
    decay_and_beta(&a, &b, &a_log, &dt_bias, &mut decay, &mut beta);
    for value_dim in [7, 48, 128] {
        let shape = DeltaShape { key_heads: 3, value_heads: 6, key_dim: 32, value_dim };
        let (q, k) = (random.floats(10 * 3 * 32, 0.2), random.floats(10 * 3 * 32, 0.2));
        let (v, state) = (random.floats(10 * 6 * value_dim, 1.0), random.floats(6 * 32 * value_dim, 1.0));
        let mut new_state = vec![0.0; state.len()];
        output(&format!("gated_delta_rule, {value_dim}"), v.len(), &mut |y| {
            gated_delta_rule(&pool, &q, &k, &v, &decay, &beta, &shape, &state, &mut new_state, y);
        });
        output(&format!("state of gated_delta_rule, {value_dim}"), state.len(), &mut |y| {
            y.copy_from_slice(&new_state);
        });
    }

    let logits = random.floats(3 * 50, 5.0);
    let mut indices = vec![0; 3 * 8];
    output("softmax_top_k", 24, &mut |y| softmax_top_k(&logits, 50, 8, true, &mut indices, y));
    let encoding = Encoding::Affine { bits: 8, group: 64, params: Float::F16 };
    let w = [
        random.matrix(128, 64, encoding),
        random.matrix(128, 64, encoding),
        random.matrix(64, 128, encoding),
    ];
    let x = random.floats(3 * 64, 1.0);
    let experts = ExpertWeights { gate: w[0].view(), up: w[1].view(), down: w[2].view() };
    output("experts_swiglu", x.len(), &mut |y| {
        let scratch = &mut ExpertScratch::default();
        experts_swiglu(&pool, &x, &indices[..6], &[0.4, 0.6, 0.1, 0.9, 1.0, 0.0], 2, |_| experts, scratch, y);
    });
    outputs
}
