//! What products with quantised activations cost on this processor: GB of weights a second with one token, beside the read
//! bandwidth of the same threads, and multiplications a second with more.
//!
//! `cargo run --release -p moeflux-kernels --example int8_speed -- [THREADS [ENCODING [SET]]]`, with any part of an encoding's
//! name, and an instruction set such as `Avx2` to take it instead of the processor's best.
#![allow(clippy::print_stdout, reason = "what it measures is its output")]

use std::hint::black_box;
use std::time::Instant;

use moeflux_kernels::{
    Activation, Encoding, ExpertScratch, ExpertWeights, ExpertsArgs, Float, Ggml, InstructionSet,
    Int8Scratch, Matrix, Precision, ThreadPool, experts, instruction_set, int8_linear, integer_rate,
    read_bandwidth, set_instruction_set,
};

/// Columns of all matrices.
const COLS: usize = 2048;
/// Bytes of weights that one pass with one token reads: several times what the largest caches hold.
const STREAM_BYTES: usize = 160 << 20;
/// Repetitions of a measurement, of which the fastest counts: whatever else runs can only slow one down.
const PASSES: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().map_or(Ok(1), |threads| threads.parse())?;
    let wanted = arguments.next().unwrap_or_default();
    if let Some(set) = arguments.next() {
        let named = InstructionSet::available().find(|known| format!("{known:?}") == set);
        set_instruction_set(named.ok_or(format!("this processor has no {set}"))?);
    }
    let pool = ThreadPool::new(threads)?;
    let bandwidth = read_bandwidth(&pool) / 1e9;
    let products = integer_rate(&pool).map(|rate| format!(", {:.0} GMAC/s in registers", rate / 2e9));
    println!(
        "{:?}, {threads} threads, {bandwidth:.1} GB/s read bandwidth{}",
        instruction_set(),
        products.unwrap_or_default()
    );
    println!("{:24} {:>8} {:>6} {:>8}", "", "1 token", "of", "1 token,");
    println!(
        "{:24} {:>8} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}  GMAC/s of tokens",
        "encoding", "GB/s", "memory", "cached", "2", "4", "8", "16", "64"
    );
    let affine = |bits, group| Encoding::Affine { bits, group, params: Float::Bf16 };
    let all = [
        ("affine 4, groups of 64", affine(4, 64), 4096),
        ("same, 512 rows", affine(4, 64), 512),
        ("affine 4, groups of 32", affine(4, 32), 4096),
        ("affine 8, groups of 64", affine(8, 64), 4096),
        ("affine 2, groups of 64", affine(2, 64), 4096),
        ("affine 3, groups of 64", affine(3, 64), 4096),
        ("affine 5, groups of 64", affine(5, 64), 4096),
        ("affine 6, groups of 64", affine(6, 64), 4096),
        ("mxfp4", Encoding::Mxfp4, 4096),
        ("q4_0", Encoding::Ggml(Ggml::Q4_0), 4096),
        ("q8_0", Encoding::Ggml(Ggml::Q8_0), 4096),
        ("q4_k", Encoding::Ggml(Ggml::Q4K), 4096),
        ("q6_k", Encoding::Ggml(Ggml::Q6K), 4096),
        ("ggml mxfp4", Encoding::Ggml(Ggml::Mxfp4), 4096),
    ];
    for (name, encoding, rows) in all.into_iter().filter(|(name, ..)| name.contains(&wanted)) {
        let weights = Weights::new(encoding, rows, STREAM_BYTES);
        let streamed = weights.gigabytes() / weights.seconds(&pool, weights.count, 1);
        let cached = Weights::new(encoding, rows.min(2048), 1);
        let of_cache = cached.gigabytes() / cached.seconds(&pool, 1, 1);
        print!("{name:24} {streamed:8.1} {:5.0}% {of_cache:8.1}", 100.0 * streamed / bandwidth);
        for n in [2, 4, 8, 16, 64] {
            let few = rows.min(2048);
            let weights = Weights::new(encoding, few, 1);
            print!(" {:8.1}", (n * few * COLS) as f64 / weights.seconds(&pool, 1, n) / 1e9);
        }
        println!();
    }
    for (name, encoding, n) in [
        ("experts, 8 tokens each", affine(4, 64), 8),
        ("experts, 16 tokens each", affine(4, 64), 16),
        ("experts, 1 token", affine(4, 64), 1),
    ] {
        if name.contains(&wanted) {
            expert_layer(name, encoding, n, &pool, bandwidth);
        }
    }
    Ok(())
}

/// Matrices of one shape with anything in them.
struct Weights {
    encoding: Encoding,
    rows: usize,
    count: usize,
    codes: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

impl Weights {
    /// So many matrices as have `bytes` together, at least one.
    fn new(encoding: Encoding, rows: usize, bytes: usize) -> Self {
        Self::of_shape(encoding, rows, COLS, bytes)
    }

    fn of_shape(encoding: Encoding, rows: usize, cols: usize, bytes: usize) -> Self {
        let row = encoding.row_bytes(cols);
        let of_one = rows * (row.codes + row.biases) + encoding.scale_rows(rows) * row.scales;
        let count = bytes.div_ceil(of_one);
        let mut state = 1_u32;
        // No byte makes a float infinite or NaN.
        let mut fill = |n: usize| {
            let mut byte = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8 % 0x70
            };
            (0..n * count).map(|_| byte()).collect::<Vec<u8>>()
        };
        let (codes, scales, biases) =
            (fill(rows * row.codes), fill(encoding.scale_rows(rows) * row.scales), fill(rows * row.biases));
        Weights { encoding, rows, count, codes, scales, biases }
    }

    fn gigabytes(&self) -> f64 {
        (self.codes.len() + self.scales.len() + self.biases.len()) as f64 / 1e9
    }

    fn matrix(&self, i: usize, cols: usize) -> Matrix<'_> {
        let part = |bytes: &'_ [u8]| {
            let len = bytes.len() / self.count;
            i * len..(i + 1) * len
        };
        let (codes, scales) = (&self.codes[part(&self.codes)], &self.scales[part(&self.scales)]);
        let biases = &self.biases[part(&self.biases)];
        match Matrix::new(self.rows, cols, self.encoding, codes, scales, biases) {
            Ok(matrix) => matrix,
            Err(error) => unreachable!("parts were made for it: {error}"),
        }
    }

    /// Seconds that the first `count` matrices take with `n` tokens.
    fn seconds(&self, pool: &ThreadPool, count: usize, n: usize) -> f64 {
        let x = activations(n * COLS);
        let mut scratch = Int8Scratch::default();
        let mut y = vec![0.0; n * self.rows];
        best_seconds(if count == 1 { 10 * PASSES } else { PASSES }, || {
            for i in 0..count {
                int8_linear(pool, &self.matrix(i, COLS), &x, &mut scratch, &mut y);
                black_box(&y);
            }
        })
    }
}

/// Eight experts of a layer of a 35B-A3B, `[512, 2048]`, all of `n` tokens'.
fn expert_layer(name: &str, encoding: Encoding, n: usize, pool: &ThreadPool, bandwidth: f64) {
    const EXPERTS: usize = 128;
    const INNER: usize = 512;
    const CHOSEN: usize = 8;
    let bytes = EXPERTS * INNER * encoding.row_bytes(COLS).codes;
    let up = Weights::of_shape(encoding, INNER, COLS, bytes * 9 / 8);
    let down = Weights::of_shape(encoding, COLS, INNER, bytes * 9 / 8);
    let x = activations(n * COLS);
    let factors = vec![0.125; n * CHOSEN];
    let (mut scratch, mut y) = (ExpertScratch::default(), vec![0.0; n * COLS]);
    let expert = |i: u32| {
        let (inner, outer) = (up.matrix(i as usize, COLS), down.matrix(i as usize, INNER));
        ExpertWeights { gate: inner, up: inner, down: outer, biases: None }
    };
    let mut step = 0;
    let seconds = best_seconds(4 * EXPERTS, || {
        step += 1;
        // The same eight for all tokens, others in each step.
        let first = step * CHOSEN % EXPERTS;
        let chosen: Vec<u32> = (0..n * CHOSEN).map(|i| (first + i % CHOSEN) as u32).collect();
        let precision = Precision::Fast;
        let (k, activation) = (CHOSEN, Activation::Swiglu);
        let args = ExpertsArgs { x: &x[..], indices: &chosen[..], weights: &factors[..], k, activation };
        experts(pool, args, expert, precision, &mut scratch, &mut y);
        black_box(&y);
    });
    let products = (n * CHOSEN * 3 * INNER * COLS) as f64 / seconds / 1e9;
    if n == 1 {
        // Gate and up are the same bytes, which come from memory once.
        let read = (up.gigabytes() + down.gigabytes()) / EXPERTS as f64 * CHOSEN as f64 / seconds;
        println!("{name:24} {read:8.1} {:5.0}%", 100.0 * read / bandwidth);
    } else {
        println!("{name:24} {products:8.1} GMAC/s");
    }
}

fn activations(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1009) as f32 / 500.0 - 1.0).collect()
}

fn best_seconds(passes: usize, mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..passes {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}
