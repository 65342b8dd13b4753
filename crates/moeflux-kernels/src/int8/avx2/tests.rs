//! The kernels for AVX-VNNI with its instruction emulated, so that processors that lack it test how they use it.

use super::{tiles, vectors};
use crate::encoding::{Encoding, Float};
use crate::instruction_set::InstructionSet;
use crate::int8::activations::{Activations, TOKENS, Tiles};
use crate::int8::scalar;
use crate::int8::tiles::Square;
use crate::int8::weights::{Block, BlockScratch, Codes, Format, ROWS};
use crate::linear::Rows;
use crate::{Matrix, PoolError, ThreadPool};

const COLS: usize = 192;

/// Codes of so many bits, and bf16 scales and biases near a hundredth.
fn matrix(bits: u8, group: usize) -> (Encoding, [Vec<u8>; 3]) {
    let encoding = Encoding::Affine { bits, group, params: Float::Bf16 };
    let bytes = encoding.row_bytes(COLS);
    let codes = (0..ROWS * bytes.codes).map(|i| (i * 89 % 251) as u8).collect();
    let floats = |step: usize| {
        let float = |i: usize| [(i * step % 199) as u8, if i.is_multiple_of(3) { 0xbc } else { 0x3c }];
        (0..ROWS * COLS / group).flat_map(float).collect()
    };
    (encoding, [codes, floats(37), floats(53)])
}

#[test]
fn sums_of_four_products_give_the_same_bits() -> Result<(), PoolError> {
    if !InstructionSet::available().any(|set| set == InstructionSet::Avx2) {
        return Ok(());
    }
    let pool = ThreadPool::new(1)?;
    let x: Vec<f32> = (0..TOKENS * COLS).map(|i| ((i * 7919) % 1009) as f32 / 500.0 - 1.0).collect();
    let mut activations = Activations::default();
    activations.resize(TOKENS, COLS);
    activations.quantize(&pool, 0, &Rows::all(&x, COLS), 2);
    let mut of_tokens = Tiles::default();
    of_tokens.resize(1, COLS, 2);
    of_tokens.pack(&pool, &activations, |_, i| Some(i));
    for (bits, group) in [(4, 32), (4, 64), (2, 64), (3, 32), (8, 32), (8, 64), (5, 64)] {
        let (encoding, [codes, scales, biases]) = matrix(bits, group);
        let w = Matrix::new(ROWS, COLS, encoding, &codes, &scales, &biases);
        let w = w.unwrap_or_else(|error| unreachable!("parts were made for it: {error}"));
        for costs_much in [false, true] {
            let Some(format) = Format::of(encoding, costs_much) else { unreachable!("it has a format") };
            let mut scratch = BlockScratch::default();
            let block = Block::load(&w, format, 0, ROWS, ROWS, false, &mut scratch);
            let mut expected = [[0.0; ROWS]; TOKENS];
            for (t, expected) in expected.iter_mut().enumerate() {
                scalar::vector(&block, activations.row(t), expected);
            }
            for t in (0..TOKENS).step_by(2) {
                let mut y = [[f32::NAN; ROWS]; 2];
                let x = [activations.row(t), activations.row(t + 1)];
                // SAFETY: the processor was found to have AVX2.
                unsafe { vectors::emulated::vectors(&block, x, &mut y) };
                assert_eq!(y, expected[t..t + 2], "{bits} bits, groups of {group}, {costs_much}");
            }
            let mut bytes = vec![[0; COLS]; ROWS];
            for (row, bytes) in bytes.iter_mut().enumerate() {
                for (col, byte) in bytes.iter_mut().enumerate() {
                    *byte = block.code(row, col);
                }
            }
            assert!(matches!(block.codes, Codes::Bytes | Codes::Nibbles));
            for n in [3, TOKENS] {
                let mut sums = Square([[f32::NAN; TOKENS]; ROWS]);
                // SAFETY: as above.
                unsafe {
                    if format.width == 32 {
                        let weights = spans::<32>(&bytes);
                        let spans = 0..weights.len();
                        let x = of_tokens.tile(0);
                        tiles::emulated::add_spans(&block, &weights, x, spans, n, &mut sums);
                    } else {
                        let weights = spans::<64>(&bytes);
                        let spans = 0..weights.len();
                        let x = of_tokens.tile(0);
                        tiles::emulated::add_spans(&block, &weights, x, spans, n, &mut sums);
                    }
                }
                for (t, expected) in expected.iter().enumerate().take(n) {
                    let y = sums.0.map(|of_tokens| of_tokens[t]);
                    assert_eq!(&y, expected, "{bits} bits, groups of {group}, {costs_much}, token {t}");
                }
            }
        }
    }
    Ok(())
}

/// `[spans, rows, width]`.
fn spans<const WIDTH: usize>(rows: &[[u8; COLS]]) -> Vec<[[u8; WIDTH]; ROWS]> {
    (0..COLS / WIDTH).map(|span| std::array::from_fn(|row| rows[row].as_chunks().0[span])).collect()
}
