//! Every instruction set gives the same bits.

use crate::support::{OwnedMatrix, Random, Sets, bits, digest, encodings, unwritten};
use moeflux_kernels::{
    Activation, AttentionScratch, AttentionShape, DeltaShape, Encoding, ExpertBiases, ExpertScratch,
    ExpertWeights, ExpertsArgs, Float, GatedDeltaArgs, HeadOrder, KV_BLOCK, KvType, MlaShape, Precision,
    Routing, Scores, ThreadPool, Weighting, attention, conv1d_silu, decay_beta, decode_floats, experts,
    gated_delta, gated_rms_norm, head_linear, head_linear_transposed, kv_write, l2_norm, latent_write,
    linear, mla_attention, rms_norm, route, scale_by_sigmoid, sigmoid_gate, swiglu,
};

/// The digest of all outputs on x86-64 and on AArch64. A sum whose order changes changes it, a processor does not.
const DIGEST: u64 = 0x962a_7ed7_3884_ab4c;

#[test]
fn all_give_the_same_bits() {
    let sets = Sets::lock();
    let outputs: Vec<_> = sets.each().map(|set| (set, every_kernel())).collect();
    let (_, baseline) = &outputs[0];
    for (set, output) in &outputs[1..] {
        for ((name, expected), (_, found)) in baseline.iter().zip(output) {
            assert!(expected.iter().all(|x| x.is_finite()), "{name}");
            assert_eq!(bits(found), bits(expected), "{name} with {set:?}");
        }
    }
    let digest = digest(baseline.iter().flat_map(|(_, output)| bits(output)));
    assert_eq!(digest, DIGEST, "{digest:#x}");
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
    output("swiglu", wide.len(), &mut |y| swiglu(&pool, &wide, &ones, y));
    output("sigmoid_gate", wide.len(), &mut |y| sigmoid_gate(&pool, &ones, &wide, y));
    output("scale_by_sigmoid", 99, &mut |y| {
        scale_by_sigmoid(&pool, &wide[..99], &wide[2000..2003], y);
    });
    let (x, gate, weight) =
        (random.floats(4 * 131, 2.0), random.floats(4 * 131, 9.0), random.floats(131, 1.0));
    output("rms_norm", x.len(), &mut |y| rms_norm(&pool, &x, &weight, 1e-6, y));
    output("gated_rms_norm", x.len(), &mut |y| gated_rms_norm(&pool, &x, &gate, &weight, 1e-6, y));
    output("l2_norm", x.len(), &mut |y| l2_norm(&pool, &x, 131, 1e-6, 0.3, y));

    let mut scratch = AttentionScratch::default();
    // One head to a key, a few, and more than registers have sums for; channels that fill no vector.
    for (kv_type, heads) in
        [KvType::F32, KvType::F16].into_iter().flat_map(|t| [1, 5, 13].map(|h| (t, 2 * h)))
    {
        let shape = AttentionShape { heads, kv_heads: 2, head_dim: 83, window: None };
        let (width, kv_width) = (heads * 83, 2 * 83);
        let q = random.floats(90 * width, 3.0);
        let (k, v) = (random.floats(90 * kv_width, 1.0), random.floats(90 * kv_width, 1.0));
        let blocks = unwritten(90usize.div_ceil(KV_BLOCK), shape.block_len(), kv_type);
        let (mut keys, mut values) = (blocks.clone(), blocks);
        kv_write(&k, &v, &shape, 0, &mut keys, &mut values);
        output("attention", q.len(), &mut |y| {
            attention(&pool, &q, &keys, &values, None, &shape, 0, 0.2, &mut scratch, y);
        });
        // By itself, in ranges.
        let last = &q[q.len() - width..];
        output("attention to ranges", width, &mut |y| {
            attention(&pool, last, &keys, &values, None, &shape, 89, 0.2, &mut scratch, y);
        });
    }

    let (x, weight, state) =
        (random.floats(9 * 75, 2.0), random.floats(75 * 4, 1.0), random.floats(3 * 75, 1.0));
    let mut new_state = vec![0.0; state.len()];
    output("conv1d_silu", x.len(), &mut |y| {
        conv1d_silu(&pool, &x, &weight, 4, &state, &mut new_state, y);
    });

    let (a, b) = (random.floats(60, 20.0), random.floats(60, 20.0));
    let (a_log, dt_bias) = (random.floats(6, 2.0), random.floats(6, 2.0));
    let (mut decay, mut beta) = (vec![0.0; 60], vec![0.0; 60]);
    decay_beta(&pool, &a, &b, &a_log, &dt_bias, &mut decay, &mut beta);
    for value_dim in [7, 48, 128] {
        let shape =
            DeltaShape { key_heads: 3, value_heads: 6, key_dim: 32, value_dim, order: HeadOrder::Grouped };
        let (q, k) = (random.floats(10 * 3 * 32, 0.2), random.floats(10 * 3 * 32, 0.2));
        let (v, state) = (random.floats(10 * 6 * value_dim, 1.0), random.floats(6 * 32 * value_dim, 1.0));
        let mut new_state = vec![0.0; state.len()];
        output(&format!("gated_delta, {value_dim}"), v.len(), &mut |y| {
            let [q, k, v, decay, beta, state] = [&q, &k, &v, &decay, &beta, &state].map(Vec::as_slice);
            let args = GatedDeltaArgs { q, k, v, decay, beta, shape: &shape, state };
            gated_delta(&pool, &args, &mut new_state, y);
        });
        output(&format!("state of gated_delta, {value_dim}"), state.len(), &mut |y| {
            y.copy_from_slice(&new_state);
        });
    }

    let logits = random.floats(3 * 50, 5.0);
    let mut indices = vec![0; 3 * 8];
    let routing = Routing {
        scores: Scores::Softmax,
        groups: None,
        num_experts_per_tok: 8,
        weighting: Weighting::SumToOne,
        scaling_factor: 1.0,
    };
    output("route", 24, &mut |y| route(&pool, &logits, 50, None, &routing, &mut indices, y));
    let encoding = Encoding::Affine { bits: 8, group: 64, params: Float::F16 };
    let w = [
        random.matrix(128, 64, encoding),
        random.matrix(128, 64, encoding),
        random.matrix(64, 128, encoding),
    ];
    let x = random.floats(3 * 64, 1.0);
    let weights = ExpertWeights { gate: w[0].view(), up: w[1].view(), down: w[2].view(), biases: None };
    let biases = [128, 128, 64].map(|rows| random.matrix(rows, 1, Encoding::Float(Float::F32)));
    let [gate, up, down] = biases.each_ref().map(OwnedMatrix::view);
    let biased = ExpertWeights { biases: Some(ExpertBiases { gate, up, down }), ..weights };
    for (weights, activation) in
        [(weights, Activation::Swiglu), (biased, Activation::ClampedSwiglu { alpha: 1.7, limit: 0.5 })]
    {
        output(&format!("experts, {activation:?}"), x.len(), &mut |y| {
            let (scratch, factors) = (&mut ExpertScratch::default(), [0.4, 0.6, 0.1, 0.9, 1.0, 0.0]);
            let args =
                ExpertsArgs { x: &x[..], indices: &indices[..6], weights: &factors[..], k: 2, activation };
            experts(&pool, args, |_| weights, Precision::Exact, scratch, y);
        });
    }

    let shape = MlaShape { heads: 3, rank: 83, rope_dim: 6 };
    let (q, q_rope) = (random.floats(90 * 3 * 83, 1.0), random.floats(90 * 3 * 6, 1.0));
    let (latents, keys) = (random.floats(90 * 83, 1.0), random.floats(90 * 6, 1.0));
    for kv_type in [KvType::F32, KvType::F16] {
        let mut blocks = unwritten(90usize.div_ceil(KV_BLOCK), shape.block_len(), kv_type);
        latent_write(&latents, &keys, &shape, 0, &mut blocks);
        output("mla_attention", q.len(), &mut |y| {
            mla_attention(&pool, &q, &q_rope, &blocks, &shape, 0, 0.2, &mut scratch, y);
        });
    }
    let w = random.matrix(3 * 37, 83, Encoding::Float(Float::Bf16));
    output("head_linear", 90 * 3 * 37, &mut |y| head_linear(&pool, &w.view(), 3, &q, y));
    let x = &q[..90 * 3 * 37];
    output("head_linear_transposed", q.len(), &mut |y| head_linear_transposed(&pool, &w.view(), 3, x, y));
    outputs
}
