//! Activations rounded to 8 bits.

use crate::instruction_set::multiversion;
use crate::linear::Rows;
use crate::pool::ThreadPool;
use crate::tile::for_each_chunk;

/// Columns that share a scale.
pub(crate) const GROUP: usize = 64;
/// Columns of which the sums of codes are kept.
pub(crate) const SUM: usize = 16;

/// Two groups of one token. Beyond the last column codes and scales are 0.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Pair {
    /// By column.
    pub(crate) codes: [i8; 2 * GROUP],
    /// The even columns, then the odd ones: as the lower and upper halves of bytes hold weights of 4 bits.
    pub(crate) halves: [i8; 2 * GROUP],
    /// Sums of codes over 16 columns each.
    pub(crate) sums: [i32; 2 * GROUP / SUM],
    /// The groups' scales.
    pub(crate) scales: [f32; 2],
}

impl Pair {
    const ZERO: Pair =
        Pair { codes: [0; 2 * GROUP], halves: [0; 2 * GROUP], sums: [0; 2 * GROUP / SUM], scales: [0.0; 2] };
}

/// Rows of quantised activations, `[n, pairs]`.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    pairs: Vec<Pair>,
    pairs_per_row: usize,
}

impl Activations {
    /// Makes place for `n` rows of `cols` columns, and keeps what is in it if the columns are as they were.
    pub(crate) fn resize(&mut self, n: usize, cols: usize) {
        self.pairs_per_row = cols.div_ceil(2 * GROUP);
        self.pairs.resize(n * self.pairs_per_row, Pair::ZERO);
    }

    /// Quantises rows of `x` into the rows from `first` on.
    pub(crate) fn quantize(&mut self, pool: &ThreadPool, first: usize, x: &Rows<'_>) {
        let width = self.pairs_per_row;
        if width == 0 || x.len() == 0 {
            return;
        }
        let rows = &mut self.pairs[first * width..(first + x.len()) * width];
        let at_once = pool.units_per_task(x.len(), width * 2 * GROUP);
        for_each_chunk(pool, rows, at_once * width, |chunk, rows| {
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                quantize(x.row(chunk * at_once + i), row);
            }
        });
    }

    /// One row.
    pub(crate) fn row(&self, i: usize) -> &[Pair] {
        &self.pairs[i * self.pairs_per_row..][..self.pairs_per_row]
    }
}

multiversion! {
    fn quantize(x: &[f32], pairs: &mut [Pair]) {
        for (x, pair) in x.chunks(2 * GROUP).zip(pairs) {
            let mut values = [0.0; 2 * GROUP];
            values[..x.len()].copy_from_slice(x);
            for g in 0..2 {
                let values: &[f32; GROUP] = values.as_chunks().0.get(g).unwrap_or(&[0.0; GROUP]);
                let (scale, inverse) = scale(values);
                pair.scales[g] = scale;
                let codes = &mut pair.codes.as_chunks_mut::<GROUP>().0[g];
                for (code, &x) in codes.iter_mut().zip(values) {
                    // Adding 1.5·2^23 rounds to an integer, ties to even, which the lowest byte then holds.
                    *code = (x * inverse + 12_582_912.0).to_bits() as i8;
                }
            }
            for (sum, codes) in pair.sums.iter_mut().zip(pair.codes.as_chunks::<SUM>().0) {
                *sum = codes.iter().map(|&code| i32::from(code)).sum();
            }
            let (even, odd) = pair.halves.split_at_mut(GROUP);
            for ((even, odd), [a, b]) in even.iter_mut().zip(odd).zip(pair.codes.as_chunks().0) {
                let both = u16::from_le_bytes([*a as u8, *b as u8]);
                (*even, *odd) = (both as i8, (both >> 8) as i8);
            }
        }
    }
}

/// The scale of a group and what its values are multiplied with.
#[inline(always)]
fn scale(values: &[f32; GROUP]) -> (f32, f32) {
    // Magnitudes order as their bits do, infinities and NaN above all numbers.
    let magnitude = values.iter().map(|x| (x.to_bits() & 0x7fff_ffff) as i32).fold(0, i32::max);
    let largest = f32::from_bits(magnitude as u32);
    let scale = largest / 127.0;
    if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if scale < f32::MIN_POSITIVE {
        (0.0, 0.0)
    } else {
        (scale, 127.0 / largest)
    }
}

/// Tokens of a tile.
pub(crate) const TOKENS: usize = 16;

/// For each four columns of a group the codes of 16 tokens.
pub(crate) type FourColumns = [[[i8; 4]; TOKENS]; GROUP / 4];

/// A group of 16 tokens, as the matrix kernels want it. Absent tokens have codes and scales 0.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct TileGroup {
    /// For each four columns the tokens' codes of them.
    pub(crate) codes: FourColumns,
    /// Sums of codes over 16 columns each.
    pub(crate) sums: [[i32; TOKENS]; GROUP / SUM],
    /// The tokens' scales.
    pub(crate) scales: [f32; TOKENS],
}

impl TileGroup {
    const ZERO: TileGroup = TileGroup {
        codes: [[[0; 4]; TOKENS]; GROUP / 4],
        sums: [[0; TOKENS]; GROUP / SUM],
        scales: [0.0; TOKENS],
    };
}

/// Activations regrouped into tiles of 16 tokens, `[tiles, groups]`.
#[derive(Debug, Default)]
pub(crate) struct Tiles {
    groups: Vec<TileGroup>,
    groups_per_tile: usize,
}

impl Tiles {
    /// Makes place for so many tiles of `cols` columns.
    pub(crate) fn resize(&mut self, tiles: usize, cols: usize) {
        self.groups_per_tile = cols.div_ceil(2 * GROUP) * 2;
        self.groups.resize(tiles * self.groups_per_tile, TileGroup::ZERO);
    }

    /// Fills every tile: `token(tile, i)` is the row of `x` that is the tile's `i`-th token, if there is one.
    pub(crate) fn pack(
        &mut self,
        pool: &ThreadPool,
        x: &Activations,
        token: impl Fn(usize, usize) -> Option<usize> + Sync + Send,
    ) {
        let width = self.groups_per_tile;
        for_each_chunk(pool, &mut self.groups, width.max(1), |tile, groups| {
            let rows: [Option<&[Pair]>; TOKENS] =
                std::array::from_fn(|i| token(tile, i).map(|row| x.row(row)));
            for (pair, groups) in groups.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let pairs: [&Pair; TOKENS] = rows.map(|row| row.map_or(&Pair::ZERO, |row| &row[pair]));
                for (g, group) in groups.iter_mut().enumerate() {
                    pack(&pairs, g, group);
                }
            }
        });
    }

    /// The groups of one tile.
    pub(crate) fn tile(&self, tile: usize) -> &[TileGroup] {
        &self.groups[tile * self.groups_per_tile..][..self.groups_per_tile]
    }
}

/// Group `g` of each of 16 pairs.
fn pack(pairs: &[&Pair; TOKENS], g: usize, group: &mut TileGroup) {
    for (t, pair) in pairs.iter().enumerate() {
        group.scales[t] = pair.scales[g];
        for (sums, &sum) in group.sums.iter_mut().zip(&pair.sums[g * GROUP / SUM..]) {
            sums[t] = sum;
        }
    }
    super::regroup(&pairs.map(|pair| &pair.codes.as_chunks().0[g]), &mut group.codes);
}
