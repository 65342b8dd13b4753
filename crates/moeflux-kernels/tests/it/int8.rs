//! Products with quantised activations: the definition, written here again in f64 and i64, and the same bits from every
//! instruction set, for one token or many.

use crate::property;
use crate::support::{OwnedMatrix, Pools, Random, Sets, bits, digest, encodings};
use moeflux_kernels::{
    Activation, Encoding, ExpertScratch, ExpertWeights, ExpertsArgs, Float, Ggml, InstructionSet,
    Int8Scratch, Matrix, Precision, RowRuns, ThreadPool, has_int8_products, int8_head_linear, int8_linear,
    linear,
};
use proptest::prelude::*;

const GGML: [Ggml; 5] = [Ggml::Q4_0, Ggml::Q8_0, Ggml::Q4K, Ggml::Q6K, Ggml::Mxfp4];

/// Random blocks with scales of a sane size.
pub(crate) fn ggml(random: &mut Random, rows: usize, cols: usize, ggml: Ggml) -> OwnedMatrix {
    let mut codes = random.bytes(rows * cols / ggml.block() * ggml.block_bytes());
    for block in codes.chunks_exact_mut(ggml.block_bytes()) {
        let halves: &[usize] = match ggml {
            Ggml::Q4K => &[0, 2],
            Ggml::Q6K => &[208],
            Ggml::Tq1_0 => &[52],
            Ggml::Tq2_0 => &[64],
            Ggml::Q4_0
            | Ggml::Q8_0
            | Ggml::Iq2Xxs
            | Ggml::Iq2Xs
            | Ggml::Iq2S
            | Ggml::Iq3Xxs
            | Ggml::Iq3S
            | Ggml::Iq1S
            | Ggml::Q1_0
            | Ggml::Q2_0 => &[0],
            _ => &[],
        };
        for &at in halves {
            let half = (0x1c00 + random.below(0x800) as u16) | ((random.below(2) as u16) << 15);
            block[at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
        match ggml {
            Ggml::Mxfp4 => block[0] = 118 + block[0] % 5,
            Ggml::Nvfp4 => block[..4].iter_mut().for_each(|scale| *scale = 0x20 + *scale % 0x20),
            // Four bits of a float16 in each of four words.
            Ggml::Iq1M => {
                block[53] &= 0xcf;
                block[55] = block[55] & 0x0f | 0x10;
            }
            _ => {}
        }
    }
    OwnedMatrix { rows, cols, encoding: Encoding::Ggml(ggml), codes, scales: vec![], biases: vec![] }
}

/// A matrix of each encoding that has such products.
fn matrices(random: &mut Random, rows: usize, cols: usize) -> Vec<OwnedMatrix> {
    let fits = |encoding: &Encoding| has_int8_products(*encoding) && cols.is_multiple_of(encoding.group());
    let mut all: Vec<_> =
        encodings().into_iter().filter(fits).map(|encoding| random.matrix(rows, cols, encoding)).collect();
    let ggmls = GGML.into_iter().filter(|&ggml| fits(&Encoding::Ggml(ggml)));
    all.extend(ggmls.map(|encoding| ggml(random, rows, cols, encoding)).collect::<Vec<_>>());
    all
}

/// Codes and scales of a token's activations: by group of 64.
pub(crate) fn quantized(x: &[f32]) -> Vec<(f32, Vec<i64>)> {
    x.chunks(64)
        .map(|group| {
            let largest = group.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
            let codes = group.iter().map(|x| {
                if largest == 0.0 { 0 } else { f64::from(x * (2032.0 / largest)).round_ties_even() as i64 }
            });
            (largest / 2032.0, codes.collect())
        })
        .collect()
}

pub(crate) fn int8(w: &Matrix<'_>, x: &[f32], threads: usize) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / w.cols() * w.rows()];
    int8_linear(&ThreadPool::new(threads).unwrap(), w, x, &mut Int8Scratch::default(), &mut y);
    y
}

#[test]
fn products_are_those_of_rounded_activations() {
    let _sets = Sets::lock();
    let mut random = Random(1);
    for (rows, cols) in [(5, 256), (3, 32), (4, 96), (2, 704)] {
        for w in matrices(&mut random, rows, cols) {
            let x = random.floats(cols, 3.0);
            let rounded: Vec<f64> = quantized(&x)
                .iter()
                .flat_map(|(scale, codes)| codes.iter().map(|&code| f64::from(*scale) * code as f64))
                .collect();
            let y = int8(&w.view(), &x, 1);
            let mut exact = vec![0.0; rows];
            linear(&ThreadPool::new(1).unwrap(), &w.view(), &x, &mut exact);
            for row in 0..rows {
                let mut weights = vec![0.0; cols];
                w.view().dequantize_row(row, &mut weights);
                let products = || weights.iter().zip(&rounded).map(|(&w, x)| f64::from(w) * x);
                let (expected, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
                let error = (f64::from(y[row]) - expected).abs();
                assert!(
                    error <= 2e-6 * size,
                    "{:?}, row {row}: expected {expected}, found {}",
                    w.encoding,
                    y[row]
                );
                let lost = f64::from(exact[row] - y[row]).abs();
                assert!(
                    lost <= size / 1600.0,
                    "{:?}, row {row}: exactly {}, found {}",
                    w.encoding,
                    exact[row],
                    y[row]
                );
            }
        }
    }
}

/// The documented sum of affine rows, code by code.
#[test]
fn affine_sums_have_the_documented_order() {
    let _sets = Sets::lock();
    let mut random = Random(2);
    for bit_width in [2, 3, 4, 5, 6, 8] {
        for group in [32, 64, 128] {
            let encoding = Encoding::Affine { bits: bit_width, group, params: Float::Bf16 };
            // Many rows of codes below 16 take the upper 8 bits of activations.
            let rows = if group == 64 { 2048 } else { 7 };
            let w = random.matrix(rows, 384, encoding);
            let x = random.floats(384, 2.0);
            let mut activations = quantized(&x);
            if rows == 2048 && bit_width <= 4 {
                for code in activations.iter_mut().flat_map(|(_, codes)| codes) {
                    *code = (*code + 8).div_euclid(16) * 16;
                }
            }
            let code = |row: usize, col: usize| {
                let first = (row * 384 + col) * usize::from(bit_width);
                (0..usize::from(bit_width))
                    .map(|b| i64::from(w.codes[(first + b) / 8] >> ((first + b) % 8) & 1) << b)
                    .sum::<i64>()
            };
            let parameter = |bytes: &[u8], i: usize| {
                f32::from_bits(u32::from(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])) << 16)
            };
            let expected: Vec<f32> = (0..rows)
                .map(|row| {
                    let span = group.min(64);
                    (0..384).step_by(span).fold(0.0, |acc, first| {
                        let (a, codes) = &activations[first / 64];
                        let codes = &codes[first % 64..first % 64 + span];
                        let dot: i64 = (first..).zip(codes).map(|(col, x)| code(row, col) * x).sum();
                        let sum: i64 = codes.iter().sum();
                        let at = (row * 384 + first) / group;
                        let acc = parameter(&w.scales, at).mul_add(a * dot as f32, acc);
                        parameter(&w.biases, at).mul_add(a * sum as f32, acc)
                    })
                })
                .collect();
            assert_eq!(bits(&int8(&w.view(), &x, 1)), bits(&expected), "{encoding:?}");
        }
    }
}

/// The digest of all products below on x86-64 and on AArch64: of the definition, not of a processor.
const DIGEST: u64 = 0x536f_6261_4565_0b8b;

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let sets = Sets::lock();
    let mut random = Random(3);
    let (mut compared, mut all) = (0, Vec::new());
    let counts: &[usize] =
        if property::multiplier() < 1.0 { &[1, 4, 17, 40] } else { &[1, 2, 3, 4, 5, 8, 15, 16, 17, 33, 40] };
    for (rows, cols) in [(1, 32), (16, 64), (17, 96), (33, 192), (50, 512), (37, 1280), (2050, 64)] {
        for w in matrices(&mut random, rows, cols) {
            let x = random.floats(40 * cols, 2.0);
            sets.choose(InstructionSet::Baseline);
            let expected: Vec<_> = x.chunks(cols).flat_map(|x| bits(&int8(&w.view(), x, 1))).collect();
            for set in sets.each() {
                for &n in counts {
                    let y = int8(&w.view(), &x[..n * cols], 1 + n % 3);
                    assert!(
                        bits(&y) == expected[..n * rows],
                        "{:?}, [{rows}, {cols}], {n} tokens, {set:?}",
                        w.encoding
                    );
                    compared += 1;
                }
            }
            all.extend(expected);
        }
    }
    sets.choose_best();
    assert!(compared > 90 * counts.len());
    let digest = digest(all);
    assert_eq!(digest, DIGEST, "{digest:#x}");
}

/// Whatever is left of blocks of rows and tiles of tokens.
#[test]
fn any_number_of_rows_and_tokens_gives_the_same_bits() {
    const TOKENS: usize = 33;
    let sets = Sets::lock();
    let mut random = Random(8);
    for (rows, cols) in [(1, 64), (9, 256), (15, 96), (31, 128), (65, 64), (2057, 64)] {
        for w in matrices(&mut random, rows, cols) {
            let x = random.floats(TOKENS * cols, 2.0);
            sets.choose(InstructionSet::Baseline);
            let expected = bits(&int8(&w.view(), &x, 1));
            for set in InstructionSet::available().filter(|&set| set != InstructionSet::Baseline) {
                sets.choose(set);
                for n in property::counts(TOKENS).into_iter().step_by(if rows > 2000 { 5 } else { 1 }) {
                    let y = bits(&int8(&w.view(), &x[..n * cols], 1));
                    assert!(
                        y == expected[..n * rows],
                        "{:?}, [{rows}, {cols}], {n} tokens, {set:?}",
                        w.encoding
                    );
                }
            }
        }
    }
    sets.choose_best();
}

/// The same of experts, where codes below 16 meet one plane of the activations.
#[test]
fn any_number_of_tokens_of_an_expert_gives_the_same_bits() {
    const TOKENS: usize = 33;
    let sets = Sets::lock();
    let mut random = Random(9);
    for w in matrices(&mut random, 256, 256).into_iter().map(|w| w.encoding) {
        let mut matrix = || match w {
            Encoding::Ggml(kind) => ggml(&mut random, 256, 256, kind),
            _ => random.matrix(256, 256, w),
        };
        let weights = [[matrix(), matrix(), matrix()]];
        let x = random.floats(TOKENS * 256, 1.0);
        let (indices, factors) = ([0; TOKENS], [1.0; TOKENS]);
        let outputs = |n: usize| {
            let choices = (&indices[..n], &factors[..n], 1);
            bits(&experts_in_groups(&weights, &x[..n * 256], choices, Precision::Fast, 1, false))
        };
        sets.choose(InstructionSet::Baseline);
        let expected = outputs(TOKENS);
        for set in InstructionSet::available().filter(|&set| set != InstructionSet::Baseline) {
            sets.choose(set);
            for n in property::counts(TOKENS) {
                assert!(outputs(n) == expected[..n * 256], "{w:?}, {n} tokens, {set:?}");
            }
        }
    }
    sets.choose_best();
}

#[test]
fn rows_may_lie_apart() {
    let sets = Sets::lock();
    let mut random = Random(4);
    for bit_width in [4, 5, 8] {
        let w = random.matrix(80, 128, Encoding::Affine { bits: bit_width, group: 64, params: Float::F16 });
        let x = random.floats(20 * 128, 1.0);
        let runs = RowRuns { first: 1, len: 3, period: 5 };
        for set in sets.each() {
            for n in [1, 20] {
                let x = &x[..n * 128];
                let (all, some) = (int8(&w.view(), x, 1), int8(&w.view().row_runs(runs), x, 1));
                let expected: Vec<f32> =
                    all.chunks(80).flat_map(|y| (0..48).map(|row| y[runs.row(row)])).collect();
                assert_eq!(bits(&some), bits(&expected), "{bit_width} bits, {n} tokens, {set:?}");
            }
        }
    }
    sets.choose_best();
}

#[test]
fn what_is_not_finite_stays_visible() {
    let sets = Sets::lock();
    let mut random = Random(5);
    let w = random.matrix(20, 256, Encoding::Affine { bits: 4, group: 64, params: Float::Bf16 });
    for set in sets.each() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = random.floats(20 * 256, 1.0);
            x[7 * 256 + 70] = bad;
            for (t, y) in int8(&w.view(), &x, 1).chunks(20).enumerate() {
                assert!(y.iter().all(|y| y.is_nan() == (t == 7)), "token {t}, {bad}, {set:?}");
            }
        }
        for tiny in [0.0, -0.0, f32::from_bits(1), 1e-37] {
            assert!(int8(&w.view(), &[tiny; 256], 1).iter().all(|&y| y == 0.0), "{tiny}, {set:?}");
        }
        // The largest float still has a scale.
        assert!(int8(&w.view(), &[f32::MAX * 1e-6; 256], 1).iter().all(|y| y.is_finite()), "{set:?}");
    }
    sets.choose_best();
}

/// A layer of experts computed in groups, which `order` says, with one instruction set.
fn experts_in_groups(
    weights: &[[OwnedMatrix; 3]],
    x: &[f32],
    (indices, factors, k): (&[u32], &[f32], usize),
    precision: Precision,
    group: usize,
    reversed: bool,
) -> Vec<f32> {
    let pool = ThreadPool::new(2).unwrap();
    let mut scratch = ExpertScratch::default();
    let args = ExpertsArgs { x, indices, weights: factors, k, activation: Activation::Swiglu };
    let mut run = scratch.begin(args, precision);
    let mut order = run.experts().to_vec();
    if reversed {
        order.reverse();
    }
    for group in order.chunks(group) {
        let ready: Vec<_> = group
            .iter()
            .map(|&index| {
                let [gate, up, down] = weights[index as usize].each_ref().map(OwnedMatrix::view);
                (index, ExpertWeights { gate, up, down, biases: None })
            })
            .collect();
        run.compute(&pool, &ready);
    }
    let mut y = vec![f32::NAN; x.len()];
    run.finish(&pool, &mut y);
    y
}

#[test]
fn experts_give_the_same_bits_in_any_order_and_grouping() {
    let sets = Sets::lock();
    let (hidden, intermediate, count, n, k) = (192, 160, 7, 45, 2);
    let mut random = Random(6);
    let affine = |bits| Encoding::Affine { bits, group: 32, params: Float::Bf16 };
    // Neighbours differ in encoding, and one has floats, so that every way of computing meets every other.
    let encodings = [affine(4), Encoding::Mxfp4, affine(8), Encoding::Float(Float::Bf16), affine(5)];
    let weights: Vec<[OwnedMatrix; 3]> = (0..count)
        .map(|e| {
            [(intermediate, hidden), (intermediate, hidden), (hidden, intermediate)]
                .map(|(rows, cols)| random.matrix(rows, cols, encodings[e % encodings.len()]))
        })
        .collect();
    let x = random.floats(n * hidden, 1.0);
    // Expert 0 has nearly all tokens, expert 6 few.
    let indices: Vec<u32> =
        (0..n).flat_map(|t| [0, if t % 9 == 8 { 6 } else { 1 + (t % 5) as u32 }]).collect();
    let factors = random.floats(n * k, 1.0);
    let choices = (&indices[..], &factors[..], k);
    for precision in [Precision::Exact, Precision::Fast] {
        sets.choose(InstructionSet::Baseline);
        let expected = bits(&experts_in_groups(&weights, &x, choices, precision, count, false));
        for set in sets.each() {
            for (group, reversed) in [(count, true), (1, false), (3, true), (2, false)] {
                let y = experts_in_groups(&weights, &x, choices, precision, group, reversed);
                assert!(
                    bits(&y) == expected,
                    "{precision:?}, groups of {group}, reversed: {reversed}, {set:?}"
                );
            }
            // A token's bits do not depend on those beside it.
            for t in [0, 8, 44] {
                let (indices, factors) = (&indices[t * k..(t + 1) * k], &factors[t * k..(t + 1) * k]);
                let x = &x[t * hidden..(t + 1) * hidden];
                let y = experts_in_groups(&weights, x, (indices, factors, k), precision, 1, false);
                assert!(
                    bits(&y) == expected[t * hidden..(t + 1) * hidden],
                    "{precision:?}, token {t}, {set:?}"
                );
            }
        }
    }
    sets.choose_best();
    let outputs = [Precision::Exact, Precision::Fast]
        .map(|precision| experts_in_groups(&weights, &x, choices, precision, count, false));
    let difference = outputs[0].iter().zip(&outputs[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let size = outputs[0].iter().map(|y| y.abs()).fold(0.0, f32::max);
    assert!(difference > 0.0 && difference < 0.02 * size, "{difference} of {size}");
}

#[test]
fn heads_are_matrices_of_their_own() {
    let _sets = Sets::lock();
    let mut random = Random(7);
    let (heads, rows, cols) = (3, 20, 128);
    let w = random.matrix(heads * rows, cols, Encoding::Affine { bits: 4, group: 64, params: Float::F16 });
    for n in [1, 19] {
        let x = random.floats(n * heads * cols, 1.0);
        let mut y = vec![f32::NAN; n * heads * rows];
        let pool = ThreadPool::new(2).unwrap();
        int8_head_linear(&pool, &w.view(), heads, &x, &mut Int8Scratch::default(), &mut y);
        for head in 0..heads {
            let runs = RowRuns { first: head * rows, len: rows, period: heads * rows };
            for t in 0..n {
                let at = t * heads + head;
                let of_head = int8(&w.view().row_runs(runs), &x[at * cols..(at + 1) * cols], 1);
                assert_eq!(bits(&of_head), bits(&y[at * rows..(at + 1) * rows]), "token {t}, head {head}");
            }
        }
    }
}

/// Encodings that have such products.
fn int8_encodings() -> Vec<Encoding> {
    encodings().into_iter().chain(GGML.map(Encoding::Ggml)).filter(|&e| has_int8_products(e)).collect()
}

/// Any rows, columns, tokens and threads with any instruction set: the bits of one token at a time without one, and the sum
/// of the rounded activations.
#[test]
fn any_size_has_the_bits_of_one_token() {
    let (sets, pools) = (Sets::lock(), Pools::new());
    let available: Vec<_> = InstructionSet::available().collect();
    // Ends of blocks of 16 rows and of four of them; so many rows that activations have 8 bits.
    let rows = prop_oneof![20 => 1..40usize, 8 => 40..140usize, 1 => 2047..2052usize];
    let tokens = prop_oneof![10 => 1..20usize, 1 => 20..70usize];
    let sizes = (rows, 1..=12usize, tokens);
    let how = (prop::sample::select(available), 1..=3usize, any::<u64>());
    let encodings = prop::sample::select(int8_encodings());
    property::check(3000, &(encodings, sizes, how), |(encoding, (rows, cols, n), (set, threads, seed))| {
        let group = encoding.group().max(32);
        let cols = group * cols.min((384 / group).max(1));
        // Large matrices meet few tokens.
        let n = if rows > 2000 { 1 + n % 5 } else { n };
        let mut random = Random(seed);
        let w = match encoding {
            Encoding::Ggml(of) => ggml(&mut random, rows, cols, of),
            _ => random.matrix(rows, cols, encoding),
        };
        let x = random.floats(n * cols, 2.0);
        let run = |x: &[f32], threads: usize| {
            let mut y = vec![f32::NAN; x.len() / cols * rows];
            int8_linear(pools.of(threads), &w.view(), x, &mut Int8Scratch::default(), &mut y);
            y
        };
        sets.choose(InstructionSet::Baseline);
        let expected: Vec<f32> = x.chunks(cols).flat_map(|x| run(x, 1)).collect();
        sets.choose(set);
        assert!(bits(&run(&x, threads)) == bits(&expected), "{set:?}");

        let is_coarse = rows >= 2048 && encoding.bits() <= 4;
        let (row, mut weights) = (seed as usize % rows, vec![0.0; cols]);
        w.view().dequantize_row(row, &mut weights);
        for (x, y) in x.chunks(cols).zip(expected.chunks(rows)) {
            let exact: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let size: f64 = weights.iter().zip(x).map(|(w, x)| f64::from((w * x).abs())).sum();
            let largest = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let step = f64::from(largest) / if is_coarse { 127.0 } else { 2032.0 };
            let bound: f64 = weights.iter().map(|w| f64::from(w.abs()) * step * 0.51).sum();
            let error = (f64::from(y[row]) - exact).abs();
            assert!(error <= bound + 1e-5 * size, "row {row}: {exact}, found {}", y[row]);
        }
    });
}
