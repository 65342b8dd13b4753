//! Products of quantised weights with activations of 12 bits or 8, in products of 8-bit integers:
//! [`Precision::Fast`](crate::Precision::Fast).
//!
//! **Activations.** Each 64 columns of a token (fewer at its end) share a scale `a = max|x| / 2032`, and a code is
//! `x · (2032 / max|x|)`, rounded to the nearest integer, ties to even. Below `max|x| = 2032·2^-126` scale and codes
//! are 0. If an infinity or NaN is among the values, the scale is NaN and the codes are 0, so that the products are NaN.
//! Codes lie in two planes of 8-bit integers, `x = 16·high + low` with `low` from -8 to 7. Matrices that cost much and whose
//! own codes are below 16 are multiplied with the high plane alone, so with `x = 16·high`, as if activations had 8 bits:
//! those of experts, and linear maps of 2048 rows and more.
//!
//! **Weights.** A row is a sequence of spans of 64, 32 or 16 columns: its groups, those of 128 columns as two spans.
//! A span has codes `q ≥ 0`, a scale `s`, and either a bias `b` or, in the whole encoding, one integer `z`: its weights
//! are `s·q + b` or `s·(q - z)`. (What GGML calls a minimum is `-b`.)
//!
//! **Sum.** Beginning from 0, for each span in order, with `dot = Σ q·x` and `sum = Σ x` over its columns, `x` being the
//! activations' codes:
//!
//! ```text
//! acc = fma(s, a · dot, acc);  acc = fma(b, a · sum, acc)        with a bias
//! acc = fma(s, a · (dot - z·sum), acc)                           with z
//! ```
//!
//! The integers are exact, `Σ q·x` being `16·Σ q·high + Σ q·low`, each product with `a` is rounded to float32, and `fma` rounds once. So every instruction
//! set gives the same bits, for one token or many. `scalar.rs` says it in code.
//!
//! Encodings: affine and symmetric of every width, MXFP4, GGML's Q4_0, Q8_0, Q4_K, Q6_K, MXFP4, NVFP4, IQ1, IQ2 and IQ3 types, TQ1_0,
//! TQ2_0, Q1_0 and Q2_0. All others, plain floats among them, are computed with float32 activations, as in exact mode.

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod groups;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod tiles;
pub(crate) mod weights;

use std::cell::RefCell;
use std::ops::Range;

pub(crate) use self::activations::PLANES;
use self::activations::{Activations, FourColumns, GROUP, Pair, TOKENS, Tiles};
use self::groups::Groups;
use self::weights::{Block, BlockScratch, ByRow, Format, ROWS};
use crate::encoding::{Encoding, Float};
use crate::instruction_set::{InstructionSet, instruction_set};
use crate::linear::{Rows, rows_per_task};
use crate::matrix::Matrix;
use crate::pool::ThreadPool;
use crate::tile::{Tile, Tiling, for_each_tile};

/// Memory for quantised activations that calls use again.
#[derive(Debug, Default)]
pub struct Int8Scratch(pub(crate) Groups);

/// Whether products with weights of this encoding take quantised activations.
pub fn has_int8_products(encoding: Encoding) -> bool {
    Format::of(encoding, false).is_some()
}

/// `y = x·wᵀ` with quantised activations, as [the module](self) says: `x` is `[n, cols]`, `y` is `[n, rows]`. Of an
/// encoding without such products: [`linear`](crate::linear()).
pub fn int8_linear(pool: &ThreadPool, w: &Matrix<'_>, x: &[f32], scratch: &mut Int8Scratch, y: &mut [f32]) {
    let Some(format) = Format::of_linear(w) else {
        return crate::linear(pool, w, x, y);
    };
    let x = Rows::all(x, w.cols());
    let n = x.len();
    assert_eq!(y.len(), n * w.rows());
    let groups = &mut scratch.0;
    groups.quantize(pool, w.cols(), format.planes, &x);
    groups.group(pool, w.cols(), format.planes, std::iter::once(Tokens::Range(0..n)));
    let x = groups.input(0, Tokens::Range(0..n));
    let rows = rows_per_task(pool, w, n).next_multiple_of(rows_together(n));
    let tiling = Tiling::columns(n, w.rows(), rows);
    for_each_tile(pool, y, tiling, |_, y| product(w, format, y.first_column(), &x, y));
}

/// Tokens from which on tiles are faster than one token at a time.
fn takes_tiles(n: usize) -> bool {
    match instruction_set() {
        InstructionSet::Amx => n >= 4,
        InstructionSet::Avx512Vnni | InstructionSet::NeonDotprod | InstructionSet::NeonI8mm => n >= 8,
        InstructionSet::Avx2 | InstructionSet::AvxVnni | InstructionSet::Avx512 => n >= 7,
        _ => false,
    }
}

/// Rows that `n` tokens are multiplied with together, if a matrix has so many.
pub(crate) fn rows_together(n: usize) -> usize {
    if takes_tiles(n) { BLOCKS * ROWS } else { ROWS }
}

/// What a matrix is multiplied with.
pub(crate) enum Input<'a> {
    /// Rows of activations.
    Tokens { activations: &'a Activations, tokens: Tokens<'a> },
    /// `n` tokens in tiles from tile `first` on.
    Tiles { tiles: &'a Tiles, first: usize, n: usize },
}

/// Which rows.
#[derive(Clone)]
pub(crate) enum Tokens<'a> {
    /// These.
    Chosen(&'a [u32]),
    /// A range.
    Range(Range<usize>),
}

/// `y[t][r] = w[first_row + r] · x[t]` for every row `t` and column `r` of the tile.
pub(crate) fn product(w: &Matrix<'_>, format: Format, first_row: usize, x: &Input<'_>, y: &mut Tile<'_>) {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(|Scratch { blocks, tiled }| match x {
        Input::Tokens { activations, tokens } => {
            for first in (0..y.width()).step_by(ROWS) {
                let rows = ROWS.min(y.width() - first);
                let block = Block::load(w, format, first_row + first, rows, ROWS, false, &mut blocks[0]);
                for t in (0..tokens.len()).step_by(TOGETHER) {
                    let x = |t: usize| activations.row(tokens.get(t));
                    let mut values = [[0.0; ROWS]; TOGETHER];
                    if t + TOGETHER <= tokens.len() {
                        vectors(&block, std::array::from_fn(|i| x(t + i)), &mut values);
                    } else {
                        vector(&block, x(t), &mut values[0]);
                    }
                    for (t, values) in (t..tokens.len()).zip(&values) {
                        store(values, &mut y.row(t)[first..first + rows]);
                    }
                }
            }
        }
        Input::Tiles { tiles: of_tokens, first: first_tile, n } => {
            for first in (0..y.width()).step_by(BLOCKS * ROWS) {
                let end = y.width().min(first + BLOCKS * ROWS);
                let starts = (first..end).step_by(ROWS);
                let loaded: Vec<_> = starts
                    .zip(&mut *blocks)
                    .map(|(first, scratch)| {
                        let rows = ROWS.min(end - first);
                        Block::load(w, format, first_row + first, rows, BLOCKS * ROWS, true, scratch)
                    })
                    .collect();
                let x = |tile: usize| of_tokens.tile(first_tile + tile);
                tiles::multiply(&loaded, x, tiled, &mut y.rows(0..*n).columns(first..end));
            }
        }
    });
}

/// Tokens that share what is read of a block where they come one by one.
const TOGETHER: usize = 2;

/// Blocks that a tile of tokens is multiplied with while the caches hold it.
const BLOCKS: usize = 4;

/// A thread's memory for [`product`].
#[derive(Default)]
struct Scratch {
    blocks: [BlockScratch; BLOCKS],
    tiled: tiles::Scratch,
}

/// The values of a block's rows, which may be fewer.
#[inline(always)]
fn store(values: &[f32; ROWS], y: &mut [f32]) {
    match y.as_mut_array::<ROWS>() {
        Some(y) => *y = *values,
        None => y.copy_from_slice(&values[..y.len()]),
    }
}

impl Tokens<'_> {
    fn len(&self) -> usize {
        match self {
            Tokens::Chosen(rows) => rows.len(),
            Tokens::Range(rows) => rows.len(),
        }
    }

    fn get(&self, t: usize) -> usize {
        match self {
            Tokens::Chosen(rows) => rows[t] as usize,
            Tokens::Range(rows) => rows.start + t,
        }
    }
}

/// The products of a block's rows with one token.
fn vector(block: &Block<'_>, x: &[Pair], y: &mut [f32; ROWS]) {
    match instruction_set() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `instruction_set` names only what the processor was found to have; so below.
        InstructionSet::Amx | InstructionSet::Avx512Vnni => unsafe {
            avx512::vectors(block, [x], std::array::from_mut(y));
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::AvxVnni => unsafe {
            avx2::vnni::vectors(block, [x], std::array::from_mut(y));
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::Avx512 | InstructionSet::Avx2 => unsafe {
            avx2::plain::vectors(block, [x], std::array::from_mut(y));
        },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        InstructionSet::NeonI8mm => unsafe { neon::i8mm::vector(block, x, y) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        InstructionSet::NeonDotprod => unsafe { neon::dotprod::vector(block, x, y) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        InstructionSet::Neon => unsafe { neon::plain::vector(block, x, y) },
        _ => scalar::vector(block, x, y),
    }
}

/// The products of a block's rows with some tokens.
fn vectors(block: &Block<'_>, x: [&[Pair]; TOGETHER], y: &mut [[f32; ROWS]; TOGETHER]) {
    match instruction_set() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor was found to have it; so below.
        InstructionSet::Amx | InstructionSet::Avx512Vnni => return unsafe { avx512::vectors(block, x, y) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::AvxVnni => return unsafe { avx2::vnni::vectors(block, x, y) },
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 | InstructionSet::Avx2 => {
            // SAFETY: as above.
            return unsafe { avx2::plain::vectors(block, x, y) };
        }
        _ => {}
    }
    for (x, y) in x.into_iter().zip(y) {
        vector(block, x, y);
    }
}

/// `out[i][row] = by_row[row][i]`.
fn transpose(by_row: &[f32], out: &mut [ByRow]) {
    #[cfg(target_arch = "x86_64")]
    if instruction_set() >= InstructionSet::Avx512Vnni {
        // SAFETY: the processor was found to have it.
        return unsafe { avx512::transpose(by_row, out) };
    }
    #[cfg(target_arch = "x86_64")]
    if instruction_set() >= InstructionSet::Avx2 {
        // SAFETY: as above.
        return unsafe { avx2::transpose(by_row, out) };
    }
    scalar::transpose(by_row, out);
}

/// `out[i][token]` becomes the token's columns from `4i` on.
fn regroup(tokens: &[&[i8; GROUP]; TOKENS], out: &mut FourColumns) {
    #[cfg(target_arch = "x86_64")]
    if instruction_set() >= InstructionSet::Avx512Vnni {
        // SAFETY: the processor was found to have it.
        return unsafe { avx512::regroup(tokens, out) };
    }
    #[cfg(target_arch = "x86_64")]
    if instruction_set() >= InstructionSet::Avx2 {
        // SAFETY: as above.
        return unsafe { avx2::regroup(tokens, out) };
    }
    scalar::regroup(tokens, out);
}

/// Float `i` of each row becomes `out[i·repeat..][row]`.
fn parameters(float: Float, rows: &[&[u8]; ROWS], repeat: usize, out: &mut [ByRow]) {
    #[cfg(target_arch = "x86_64")]
    if instruction_set() >= InstructionSet::Avx512Vnni {
        // SAFETY: the processor was found to have it.
        return unsafe { avx512::parameters(float, rows, repeat, out) };
    }
    #[cfg(target_arch = "x86_64")]
    if instruction_set() >= InstructionSet::Avx2 {
        // SAFETY: as above.
        return unsafe { avx2::parameters(float, rows, repeat, out) };
    }
    scalar::parameters(float, rows, repeat, out);
}

/// [`parameters`] of rows that lie one after the other, if there is a way for just them; whether there is.
fn adjacent_parameters(float: Float, values: &[u8], repeat: usize, out: &mut [ByRow]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if instruction_set() >= InstructionSet::Avx512Vnni {
        // SAFETY: the processor was found to have it.
        return unsafe { avx512::adjacent_parameters(float, values, repeat, out) };
    }
    let _ = (float, values, repeat, out);
    false
}

/// The scales of each row's spans by row, or what is added to them, of an encoding that keeps them otherwise than as floats, if
/// there is a way for it; whether there is. They lie in `rows`.
fn block_parameters(encoding: Encoding, rows: &[&[u8]; ROWS], biases: bool, out: &mut [ByRow]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if instruction_set() >= InstructionSet::Avx2 {
        // SAFETY: the processor was found to have it.
        return unsafe { avx2::block_parameters(encoding, rows, biases, out) };
    }
    let _ = (encoding, rows, biases, out);
    false
}

/// A row's codes, one a byte.
fn unpack(encoding: Encoding, codes: &[u8], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if let Encoding::Affine { bits: bits @ 2..=6, .. } = encoding {
        let has_avx512 = instruction_set() >= InstructionSet::Avx512Vnni;
        // SAFETY: the processor was found to have it; so below.
        unsafe {
            match bits {
                2 if has_avx512 => return avx512::unpack::<2>(codes, out),
                3 if has_avx512 => return avx512::unpack::<3>(codes, out),
                4 if has_avx512 => return avx512::unpack::<4>(codes, out),
                5 if has_avx512 => return avx512::unpack::<5>(codes, out),
                6 if has_avx512 => return avx512::unpack::<6>(codes, out),
                _ if instruction_set() < InstructionSet::Avx2 => {}
                2 => return avx2::unpack::<2>(codes, out),
                3 => return avx2::unpack::<3>(codes, out),
                4 => return avx2::unpack::<4>(codes, out),
                5 => return avx2::unpack::<5>(codes, out),
                _ => return avx2::unpack::<6>(codes, out),
            }
        }
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the processor was found to have it.
    if instruction_set() >= InstructionSet::Avx2 && unsafe { avx2::unpack_blocks(encoding, codes, out) } {
        return;
    }
    weights::unpack(encoding, codes, out);
}

/// Whether AMX can be used.
#[cfg(target_arch = "x86_64")]
pub(crate) fn amx_is_available() -> bool {
    amx::is_available()
}

/// Multiplies integers of 8 bits in registers for a while, and says how many operations that were; `None` for instruction sets
/// that nobody has written this for.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "it is written for x86-64 alone"))]
pub(crate) fn multiply_registers(steps: u32) -> Option<u64> {
    match instruction_set() {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Amx => Some(amx::multiply_registers(steps)),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `instruction_set` names only what the processor was found to have.
        InstructionSet::Avx512Vnni => Some(unsafe { avx512::multiply_registers(steps) }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::Avx512 | InstructionSet::Avx2 => Some(unsafe { avx2::multiply_registers(steps) }),
        _ => None,
    }
}
