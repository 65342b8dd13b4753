//! Blocks of rows times tiles of 16 tokens.

use std::ops::Range;

use super::activations::{TOKENS, TileGroups};
use super::weights::{self, Block, Codes, Line, ROWS};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512};
use crate::instruction_set::{InstructionSet, instruction_set};
use crate::tile::Tile;

/// Spans that are worked on together where there are many tokens: those of a few blocks, their products and a tile's
/// tokens fit the first-level cache.
pub(crate) const SPANS: usize = 4;

/// 16 by 16 values.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Square<T>(pub(crate) [[T; TOKENS]; ROWS]);

/// Sums of 16 rows, each for 16 tokens.
pub(crate) type Sums = Square<f32>;

/// Memory that calls use again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Codes, one a byte, `[blocks, spans, rows, width]`, or as AMX wants those below 16.
    weights: Vec<Line>,
    /// `[tiles, blocks]`.
    sums: Vec<Sums>,
    #[cfg(target_arch = "x86_64")]
    products: amx::Products,
}

/// Tiles from which on some columns of the weights at a time meet all tokens, so that they stay in the first-level cache.
/// With fewer, whole rows are unpacked, since memory is read faster in order.
const MANY_TILES: usize = 4;

/// Multiplies blocks, of the same format, with tiles of tokens: `y` has the tokens' rows, and the blocks' rows as columns.
pub(crate) fn multiply<'x>(
    blocks: &[Block<'_>],
    x: impl Fn(usize) -> TileGroups<'x>,
    scratch: &mut Scratch,
    y: &mut Tile<'_>,
) {
    match blocks.first().map(|block| block.format.width) {
        Some(16) => multiply_of::<16>(blocks, x, scratch, y),
        Some(32) => multiply_of::<32>(blocks, x, scratch, y),
        Some(_) => multiply_of::<64>(blocks, x, scratch, y),
        None => {}
    }
}

fn multiply_of<'x, const WIDTH: usize>(
    blocks: &[Block<'_>],
    x: impl Fn(usize) -> TileGroups<'x>,
    Scratch {
        weights,
        sums,
        #[cfg(target_arch = "x86_64")]
        products,
    }: &mut Scratch,
    y: &mut Tile<'_>,
) {
    let n_tiles = y.height().div_ceil(TOKENS);
    let spans = blocks[0].scales.len();
    let at_once = if n_tiles < MANY_TILES { spans } else { SPANS };
    #[cfg(target_arch = "x86_64")]
    let tiles = (instruction_set() == InstructionSet::Amx).then(|| amx::Configured::new(WIDTH));
    #[cfg(target_arch = "x86_64")]
    let in_planes = tiles.is_some() && blocks[0].format.is_narrow;
    #[cfg(not(target_arch = "x86_64"))]
    let in_planes = false;
    let planes = if in_planes { blocks[0].format.planes } else { 1 };
    weights.resize(blocks.len() * at_once * planes * ROWS * WIDTH / size_of::<Line>(), Line::ZERO);
    sums.resize(n_tiles * blocks.len(), Square([[0.0; TOKENS]; ROWS]));
    for first in (0..spans).step_by(at_once) {
        let columns = first..spans.min(first + at_once);
        let weights: &mut [[[u8; WIDTH]; ROWS]] =
            weights::bytes_mut(weights).as_chunks_mut().0.as_chunks_mut().0;
        for (block, weights) in blocks.iter().zip(weights.chunks_exact_mut(at_once * planes)) {
            #[cfg(target_arch = "x86_64")]
            if in_planes {
                unpack_planes(block, columns.clone(), planes, weights);
                continue;
            }
            unpack(block, columns.clone(), weights);
        }
        let weights: Vec<&[[[u8; WIDTH]; ROWS]]> = weights.chunks_exact(at_once * planes).collect();
        for (tile, sums) in sums.chunks_exact_mut(blocks.len()).enumerate() {
            let x = x(tile);
            let tokens = tile * TOKENS..y.height().min((tile + 1) * TOKENS);
            let is_last = columns.end == spans;
            #[cfg(target_arch = "x86_64")]
            if is_last {
                for token in tokens.clone() {
                    prefetch_to_write(y.row(token));
                }
            }
            #[cfg(target_arch = "x86_64")]
            if let Some(tiles) = &tiles {
                for (i, sums) in sums.chunks_mut(amx::PAIR).enumerate() {
                    let pair = i * amx::PAIR..i * amx::PAIR + sums.len();
                    let (blocks, weights) = (&blocks[pair.clone()], &weights[pair]);
                    // SAFETY: where there are tiles there is AVX-512.
                    unsafe {
                        amx::add_spans(tiles, blocks, weights, x, columns.clone(), products, sums);
                    };
                }
            }
            #[cfg(target_arch = "x86_64")]
            let is_added = tiles.is_some();
            #[cfg(not(target_arch = "x86_64"))]
            let is_added = false;
            if !is_added {
                for ((block, weights), sums) in blocks.iter().zip(&weights).zip(&mut *sums) {
                    add_spans(block, weights, x, columns.clone(), tokens.len(), sums);
                }
            }
            if is_last {
                store(sums, &mut y.rows(tokens));
            }
        }
    }
}

/// Writes the sums of a tile of tokens, one block's beside the other's.
fn store(sums: &[Sums], y: &mut Tile<'_>) {
    let mut by_token = [[0.0; ROWS]; TOKENS];
    for (block, sums) in sums.iter().enumerate() {
        transpose(sums, &mut by_token);
        for (token, values) in (0..y.height()).zip(&by_token) {
            let y = &mut y.row(token)[block * ROWS..];
            match y.first_chunk_mut() {
                Some(y) => *y = *values,
                None => y.copy_from_slice(&values[..y.len()]),
            }
        }
    }
}

/// Adds to a block's sums, or begins them if the spans are the first, what these spans give; `weights` begins with the
/// first of them. Only the first `n` tokens of the tile matter.
fn add_spans<const WIDTH: usize>(
    block: &Block<'_>,
    weights: &[[[u8; WIDTH]; ROWS]],
    x: TileGroups<'_>,
    spans: Range<usize>,
    n: usize,
    sums: &mut Sums,
) {
    // The other kernels multiply absent tokens too.
    let _ = n;
    match instruction_set() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `instruction_set` names only what the processor was found to have; so below.
        InstructionSet::Avx512Vnni => unsafe { avx512::add_spans(block, weights, x, spans, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::AvxVnni => unsafe { avx2::vnni::add_spans(block, weights, x, spans, n, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::Avx512 | InstructionSet::Avx2 => unsafe {
            avx2::plain::add_spans(block, weights, x, spans, n, sums);
        },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        InstructionSet::NeonI8mm => unsafe { super::neon::i8mm::add_spans(block, weights, x, spans, sums) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        InstructionSet::NeonDotprod => unsafe {
            super::neon::dotprod::add_spans(block, weights, x, spans, sums)
        },
        set => unreachable!("{set:?} has no tiles"),
    }
}

/// These spans of a block, a code a byte.
fn unpack<const WIDTH: usize>(block: &Block<'_>, spans: Range<usize>, weights: &mut [[[u8; WIDTH]; ROWS]]) {
    for row in 0..ROWS {
        let codes = block.rows.get(row);
        let bytes = |span: usize| bytes_of_spans::<WIDTH>(block, span);
        let codes = &codes[bytes(spans.start)..bytes(spans.end)];
        if block.codes == Codes::Bytes {
            for (codes, weights) in codes.as_chunks().0.iter().zip(&mut *weights) {
                weights[row] = *codes;
            }
            continue;
        }
        #[cfg(target_arch = "x86_64")]
        {
            // SAFETY: the processor was found to have the one, and tiles are multiplied by none that lacks the other.
            unsafe {
                match instruction_set() {
                    InstructionSet::Amx | InstructionSet::Avx512Vnni => {
                        avx512::unpack4_spans(codes, row, weights);
                    }
                    _ => avx2::unpack4_spans(codes, row, weights),
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        for (codes, weights) in codes.chunks_exact(WIDTH / 2).zip(&mut *weights) {
            for (&both, out) in codes.iter().zip(weights[row].as_chunks_mut::<2>().0) {
                *out = [both & 15, both >> 4];
            }
        }
    }
}

/// These spans of a block of codes below 16, as AMX wants them.
#[cfg(target_arch = "x86_64")]
fn unpack_planes<const WIDTH: usize>(
    block: &Block<'_>,
    spans: Range<usize>,
    planes: usize,
    weights: &mut [[[u8; WIDTH]; ROWS]],
) {
    let bytes = |span: usize| bytes_of_spans::<WIDTH>(block, span);
    for row in 0..ROWS {
        let codes = block.rows.get(row);
        let codes = &codes[bytes(spans.start)..bytes(spans.end)];
        // SAFETY: where there are tiles there is AVX-512.
        unsafe {
            match block.codes {
                Codes::Bytes => avx512::unpack_planes::<WIDTH, false>(codes, row, planes, weights),
                _ => avx512::unpack_planes::<WIDTH, true>(codes, row, planes, weights),
            }
        }
    }
}

/// How many bytes of each row hold so many spans.
fn bytes_of_spans<const WIDTH: usize>(block: &Block<'_>, spans: usize) -> usize {
    match block.codes {
        Codes::Bytes => spans * WIDTH,
        Codes::Nibbles => spans * WIDTH / 2,
        Codes::E2m1 => unreachable!("blocks for tiles have plain codes"),
    }
}

/// Asks for lines that will be written.
#[cfg(target_arch = "x86_64")]
fn prefetch_to_write(y: &mut [f32]) {
    use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
    for line in y.chunks_mut(16) {
        // SAFETY: every x86-64 processor that tiles are multiplied by has it, and it changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().cast()) };
    }
}

/// The sums by token.
fn transpose(sums: &Sums, y: &mut [[f32; ROWS]; TOKENS]) {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: the processor was found to have the one, and tiles are multiplied by none that lacks the other.
        unsafe {
            match instruction_set() {
                InstructionSet::Amx | InstructionSet::Avx512Vnni => avx512::transpose_sums(sums, y),
                _ => avx2::transpose_sums(sums, y),
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (token, y) in y.iter_mut().enumerate() {
        for (y, sums) in y.iter_mut().zip(&sums.0) {
            *y = sums[token];
        }
    }
}
