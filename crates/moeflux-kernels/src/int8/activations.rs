//! Activations rounded to 12 bits, in two planes of 8.

use crate::instruction_set::multiversion;
use crate::linear::Rows;
use crate::pool::ThreadPool;
use crate::tile::for_each_chunk;

/// Columns that share a scale.
pub(crate) const GROUP: usize = 64;
/// Columns of which the sums of codes are kept.
pub(crate) const SUM: usize = 16;
/// The largest code.
const LARGEST: i16 = 127 << LOW_BITS;
/// A code is `high << LOW_BITS`, plus `low`.
pub(crate) const LOW_BITS: u32 = 4;
/// What codes are split into: high, then low, each a byte with a sign.
pub(crate) const PLANES: usize = 2;

/// Two groups of one token. Beyond the last column codes and scales are 0.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Pair {
    /// Each plane by column.
    pub(crate) codes: [[i8; 2 * GROUP]; PLANES],
    /// The even columns of each plane, then the odd ones: as the lower and upper halves of bytes hold weights of 4 bits.
    pub(crate) halves: [[i8; 2 * GROUP]; PLANES],
    /// Sums over 16 columns each of what products of so many planes less one take: 16 times the high plane, or codes.
    pub(crate) sums: [[i32; 2 * GROUP / SUM]; PLANES],
    /// The groups' scales.
    pub(crate) scales: [f32; 2],
    /// 16 times the scales: those of the high plane by itself.
    pub(crate) high_scales: [f32; 2],
    /// Of each plane the groups' scales times all of their sums.
    pub(crate) scaled_sums: [[f32; 2]; PLANES],
}

impl Pair {
    const ZERO: Pair = Pair {
        codes: [[0; 2 * GROUP]; PLANES],
        halves: [[0; 2 * GROUP]; PLANES],
        sums: [[0; 2 * GROUP / SUM]; PLANES],
        scales: [0.0; 2],
        high_scales: [0.0; 2],
        scaled_sums: [[0.0; 2]; PLANES],
    };
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

    /// Quantises rows of `x` into the rows from `first` on, for products of so many planes.
    pub(crate) fn quantize(&mut self, pool: &ThreadPool, first: usize, x: &Rows<'_>, planes: usize) {
        let width = self.pairs_per_row;
        if width == 0 || x.len() == 0 {
            return;
        }
        let rows = &mut self.pairs[first * width..(first + x.len()) * width];
        let at_once = pool.units_per_task(x.len(), width * 2 * GROUP);
        for_each_chunk(pool, rows, at_once * width, |chunk, rows| {
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                quantize(x.row(chunk * at_once + i), row, planes);
            }
        });
    }

    /// One row.
    pub(crate) fn row(&self, i: usize) -> &[Pair] {
        &self.pairs[i * self.pairs_per_row..][..self.pairs_per_row]
    }
}

multiversion! {
    fn quantize(x: &[f32], pairs: &mut [Pair], planes: usize) {
        for (x, pair) in x.chunks(2 * GROUP).zip(pairs) {
            match x.as_array() {
                Some(x) => quantize_pair(x, pair, planes),
                None => {
                    let mut values = [0.0; 2 * GROUP];
                    values[..x.len()].copy_from_slice(x);
                    quantize_pair(&values, pair, planes);
                }
            }
        }
    }
}

#[inline(always)]
fn quantize_pair(x: &[f32; 2 * GROUP], pair: &mut Pair, planes: usize) {
    let mut codes = [0_i16; 2 * GROUP];
    let groups = x.as_chunks::<GROUP>().0.iter().zip(codes.as_chunks_mut::<GROUP>().0);
    for ((x, codes), pair_scale) in groups.zip(&mut pair.scales) {
        let (scale, inverse) = scale(x);
        *pair_scale = scale;
        for (code, &x) in codes.iter_mut().zip(x) {
            // Adding 1.5·2^23 rounds to an integer, ties to even, which the lower half then holds.
            *code = (x * inverse + 12_582_912.0).to_bits() as i16;
        }
    }
    let mut rounded = [0_i16; 2 * GROUP];
    let [high, low] = &mut pair.codes;
    for (((rounded, high), low), code) in rounded.iter_mut().zip(high).zip(low).zip(codes) {
        let upper = (code + (1 << (LOW_BITS - 1))) >> LOW_BITS;
        *rounded = upper << LOW_BITS;
        (*high, *low) = (upper as i8, (code - *rounded) as i8);
    }
    for (sums, codes) in pair.sums.iter_mut().zip([&rounded, &codes]).take(planes) {
        for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<SUM>().0) {
            *sum = codes.iter().map(|&code| i32::from(code)).sum();
        }
    }
    for g in 0..2 {
        let scale = pair.scales[g];
        for plane in 0..planes {
            let sum: i32 = pair.sums[plane].as_chunks::<{ GROUP / SUM }>().0[g].iter().sum();
            pair.scaled_sums[plane][g] = scale * sum as f32;
        }
        // A power of two: exact.
        pair.high_scales[g] = scale * f32::from(1_i16 << LOW_BITS);
    }
    for (codes, halves) in pair.codes.iter().zip(&mut pair.halves).take(planes) {
        let (even, odd) = halves.split_at_mut(GROUP);
        for ((even, odd), [a, b]) in even.iter_mut().zip(odd).zip(codes.as_chunks().0) {
            let both = u16::from_le_bytes([*a as u8, *b as u8]);
            (*even, *odd) = (both as i8, (both >> 8) as i8);
        }
    }
}

/// The scale of a group and what its values are multiplied with.
#[inline(always)]
fn scale(values: &[f32; GROUP]) -> (f32, f32) {
    // Magnitudes order as their bits do, infinities and NaN above all numbers.
    let magnitude = values.iter().map(|x| (x.to_bits() & 0x7fff_ffff) as i32).fold(0, i32::max);
    let largest = f32::from_bits(magnitude as u32);
    let scale = largest / f32::from(LARGEST);
    if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if scale < f32::MIN_POSITIVE {
        (0.0, 0.0)
    } else {
        (scale, f32::from(LARGEST) / largest)
    }
}

/// Tokens of a tile.
pub(crate) const TOKENS: usize = 16;

/// For each four columns of a group a plane of the codes of 16 tokens.
pub(crate) type FourColumns = [[[i8; 4]; TOKENS]; GROUP / 4];

/// A plane of a group of 16 tokens, as the matrix kernels want it. Absent tokens have codes and scales 0.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct TileGroup {
    /// The plane's part of codes.
    pub(crate) codes: FourColumns,
    /// As [`Pair::sums`].
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

/// The groups of a tile, by plane. Where there is but the high plane, it stands for both.
#[derive(Clone, Copy)]
pub(crate) struct TileGroups<'a>([&'a [TileGroup]; PLANES]);

impl<'a> TileGroups<'a> {
    /// The planes of the group that has this column. What products of some planes take of sums is with the last of
    /// these.
    #[inline(always)]
    pub(crate) fn of_column(&self, col: usize) -> [&'a TileGroup; PLANES] {
        self.0.map(|groups| &groups[col / GROUP])
    }
}

/// Activations regrouped into tiles of 16 tokens.
#[derive(Debug, Default)]
pub(crate) struct Tiles {
    /// By plane, `[tiles, groups]`: a plane that nobody multiplies would only be in the way of the caches.
    planes: [Vec<TileGroup>; PLANES],
    groups_per_tile: usize,
    /// How many planes there are.
    n_planes: usize,
}

impl Tiles {
    /// Makes place for so many tiles of `cols` columns, in so many planes.
    pub(crate) fn resize(&mut self, tiles: usize, cols: usize, planes: usize) {
        self.groups_per_tile = cols.div_ceil(2 * GROUP) * 2;
        self.n_planes = planes;
        for groups in &mut self.planes[..planes] {
            groups.resize(tiles * self.groups_per_tile, TileGroup::ZERO);
        }
    }

    /// Fills every tile: `token(tile, i)` is the row of `x` that is the tile's `i`-th token, if there is one.
    pub(crate) fn pack(
        &mut self,
        pool: &ThreadPool,
        x: &Activations,
        token: impl Fn(usize, usize) -> Option<usize> + Sync + Send,
    ) {
        let width = self.groups_per_tile;
        for (plane, groups) in self.planes[..self.n_planes].iter_mut().enumerate() {
            for_each_chunk(pool, groups, width.max(1), |tile, groups| {
                let rows: [Option<&[Pair]>; TOKENS] =
                    std::array::from_fn(|i| token(tile, i).map(|row| x.row(row)));
                for (pair, groups) in groups.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let pairs: [&Pair; TOKENS] = rows.map(|row| row.map_or(&Pair::ZERO, |row| &row[pair]));
                    for (g, group) in groups.iter_mut().enumerate() {
                        pack(&pairs, plane, g, group);
                    }
                }
            });
        }
    }

    /// The groups of one tile.
    pub(crate) fn tile(&self, tile: usize) -> TileGroups<'_> {
        let of_plane = |plane: usize| {
            let groups = &self.planes[plane.min(self.n_planes - 1)];
            &groups[tile * self.groups_per_tile..][..self.groups_per_tile]
        };
        TileGroups(std::array::from_fn(of_plane))
    }
}

/// A plane of group `g` of each of 16 pairs.
fn pack(pairs: &[&Pair; TOKENS], plane: usize, g: usize, group: &mut TileGroup) {
    for (t, pair) in pairs.iter().enumerate() {
        group.scales[t] = pair.scales[g];
        for (sums, &sum) in group.sums.iter_mut().zip(&pair.sums[plane][g * GROUP / SUM..]) {
            sums[t] = sum;
        }
    }
    super::regroup(&pairs.map(|pair| &pair.codes[plane].as_chunks().0[g]), &mut group.codes);
}
