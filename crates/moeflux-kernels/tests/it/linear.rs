//! Dequantisation and products against decoding bit by bit in f64.

use crate::formulas::{self, Expert};
use crate::support::{Random, assert_close, bits, encodings, f64s, minifloat};
use moeflux_kernels::{
    Activation, Encoding, ExpertScratch, ExpertsArgs, Float, Matrix, MatrixError, Precision, ThreadPool,
    decode_floats, embed, experts, linear,
};

#[test]
fn every_encoding_dequantises_exactly() {
    let mut random = Random(1);
    for encoding in encodings() {
        let w = random.matrix(3, 256, encoding);
        let mut out = vec![0.0; 256];
        for row in 0..3 {
            w.view().dequantize_row(row, &mut out);
            assert_eq!(f64s(&out), w.row(row), "{encoding:?}");
        }
    }
}

#[test]
fn all_half_floats_decode() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut out = vec![0.0; 1 << 16];
    for (float, exponent, significand) in [(Float::F16, 5, 10), (Float::Bf16, 8, 7)] {
        decode_floats(float, &all, &mut out);
        for (code, &value) in (0u32..).zip(&out) {
            let all_ones = (1 << exponent) - 1;
            let expected = minifloat(code, exponent, significand);
            if code >> significand & all_ones != all_ones {
                assert_eq!(bits(&[value]), bits(&[expected as f32]), "{float:?} {code:#x}");
            } else if code & ((1 << significand) - 1) == 0 {
                assert_eq!(f64::from(value), f64::INFINITY.copysign(expected), "{float:?} {code:#x}");
            } else {
                assert!(value.is_nan(), "{float:?} {code:#x}");
            }
        }
    }
}

#[test]
fn all_small_floats_decode() {
    let every_byte: Vec<u8> = (0..=255).collect();
    let scales_of_one = [127; 8];
    let w = Matrix::new(8, 32, Encoding::Mxfp8, &every_byte, &scales_of_one, &[]).unwrap();
    for row in 0..8 {
        let mut out = [0.0; 32];
        w.dequantize_row(row, &mut out);
        for (code, value) in (32 * row as u32..).zip(out) {
            if code & 0x7f == 0x7f {
                assert!(value.is_nan());
            } else {
                assert_eq!(bits(&[value]), bits(&[minifloat(code, 4, 3) as f32]), "{code:#x}");
            }
        }
    }
    let ones = [0x22; 16 * 256];
    let w = Matrix::new(256, 32, Encoding::Mxfp4, &ones, &every_byte, &[]).unwrap();
    let mut out = [0.0; 32];
    for row in 0..255 {
        w.dequantize_row(row, &mut out);
        assert_eq!(f64::from(out[0]), 2f64.powi(row as i32 - 127));
    }
    w.dequantize_row(255, &mut out);
    assert!(out[0].is_nan());
}

#[test]
fn products_are_right_for_every_encoding_and_odd_sizes() {
    let mut random = Random(2);
    let mut check = |rows, cols, n, encoding| {
        let w = random.matrix(rows, cols, encoding);
        let x = random.floats(n * cols, 1.0);
        let pool = ThreadPool::new(2).unwrap();
        let mut y = vec![f32::NAN; n * rows];
        linear(&pool, &w.view(), &x, &mut y);
        let expected = formulas::linear(&w, &x);
        assert_close(&y, &expected, 1e-5);
    };
    for encoding in encodings() {
        check(7, 128, 6, encoding);
    }
    for (rows, cols, n) in [(1, 1, 1), (1, 17, 3), (5, 15, 4), (203, 331, 9), (1, 4096, 1), (64, 16, 0)] {
        check(rows, cols, n, Encoding::Float(Float::F32));
    }
}

#[test]
fn embedding_is_the_rows() {
    let w = Random(3).matrix(9, 64, Encoding::Affine { bits: 4, group: 32, params: Float::Bf16 });
    let mut y = vec![0.0; 3 * 64];
    embed(&w.view(), &[8, 0, 8], &mut y);
    assert_eq!(f64s(&y), [w.row(8), w.row(0), w.row(8)].concat());
}

#[test]
fn experts_are_the_weighted_sum() {
    experts_follow(Activation::Swiglu, false);
    // A limit that cuts many.
    experts_follow(Activation::ClampedSwiglu { alpha: 1.702, limit: 0.8 }, true);
}

fn experts_follow(activation: Activation, biased: bool) {
    let (hidden, intermediate, count, n, k) = (64, 96, 6, 37, 3);
    let mut random = Random(4);
    let encoding = Encoding::Affine { bits: 4, group: 32, params: Float::Bf16 };
    let shapes = [(intermediate, hidden), (intermediate, hidden), (hidden, intermediate)];
    let bias = Encoding::Float(Float::Bf16);
    let expert = |_| Expert {
        weights: shapes.map(|(rows, cols)| random.matrix(rows, cols, encoding)),
        biases: biased.then(|| shapes.map(|(rows, _)| random.matrix(rows, 1, bias))),
    };
    let experts_of: Vec<Expert> = (0..count).map(expert).collect();
    let x = random.floats(n * hidden, 1.0);
    let indices: Vec<u32> = (0..n).flat_map(|t| [5, (t % 3) as u32, 3 + (t % 2) as u32]).collect();
    let weights = random.floats(n * k, 1.0);
    let mut y = vec![f32::NAN; n * hidden];
    let asked = std::sync::Mutex::new(Vec::new());
    experts(
        &ThreadPool::new(2).unwrap(),
        ExpertsArgs { x: &x[..], indices: &indices[..], weights: &weights[..], k, activation },
        |e| {
            asked.lock().unwrap().push(e);
            experts_of[e as usize].view()
        },
        Precision::Exact,
        &mut ExpertScratch::default(),
        &mut y,
    );
    assert_eq!(*asked.lock().unwrap(), [0, 1, 2, 3, 4, 5]);

    let expected = formulas::experts(&experts_of, &x, &indices, &weights, activation);
    assert_close(&y, &expected, 1e-5);
}

#[test]
fn a_matrix_of_the_wrong_size_is_refused() {
    let encoding = Encoding::Affine { bits: 4, group: 64, params: Float::Bf16 };
    assert!(matches!(
        Matrix::new(1, 96, encoding, &[], &[], &[]),
        Err(MatrixError::Group { cols: 96, group: 64, .. })
    ));
    let error = Matrix::new(2, 64, encoding, &[0; 64], &[0; 4], &[0; 3]).unwrap_err();
    assert!(matches!(error, MatrixError::Length { part: "biases", expected: 4, found: 3, .. }));
    for (bits, group) in [(7, 64), (0, 64), (4, 0), (4, 48)] {
        let encoding = Encoding::Affine { bits, group, params: Float::Bf16 };
        assert_eq!(
            Matrix::new(0, 0, encoding, &[], &[], &[]).unwrap_err(),
            MatrixError::Encoding { encoding }
        );
    }
    assert!(matches!(ThreadPool::new(0), Err(moeflux_kernels::PoolError::NoThreads)));
}
