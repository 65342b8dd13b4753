//! GGML's encodings by codebook: a code of 8 to 11 bits names eight values, or four, of which most types keep the signs
//! apart. `grids.bin` has the codebooks (`tools/reference/ggml_grids.py` wrote it).

use super::{half, part, short, word};
use crate::dequant::f16;

/// Two bits a value, eight values an entry: 256, 512, 1024 and 2048 entries; then three bits a value, four values an
/// entry: 256 and 512 entries.
static GRIDS: &[u8; 9216] = include_bytes!("grids.bin");

static IQ2_XXS: [[u8; 8]; 256] = grid::<8, 256>(0, IQ2_LEVELS);
static IQ2_XS: [[u8; 8]; 512] = grid::<8, 512>(256, IQ2_LEVELS);
static IQ2_S: [[u8; 8]; 1024] = grid::<8, 1024>(768, IQ2_LEVELS);
/// Eight times -1, 0 or 1, plus 8: so that an eighth of it, which is added or taken away, is whole.
static IQ1: [[u8; 8]; 2048] = grid::<8, 2048>(1792, [0, 8, 16, 0, 0, 0, 0, 0]);
static IQ3_XXS: [[u8; 4]; 256] = grid::<4, 256>(3840, [0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3e]);
static IQ3_S: [[u8; 4]; 512] = grid::<4, 512>(4096, [1, 3, 5, 7, 9, 11, 13, 15]);

const IQ2_LEVELS: [u8; 8] = [0x08, 0x19, 0x2b, 0, 0, 0, 0, 0];

/// The `N` entries of `V` values from word `first` of [`GRIDS`] on.
const fn grid<const V: usize, const N: usize>(first: usize, levels: [u8; 8]) -> [[u8; V]; N] {
    let bits = if V == 8 { 2 } else { 3 };
    let mut entries = [[0; V]; N];
    let mut entry = 0;
    while entry < N {
        let at = 2 * (first + entry);
        let word = GRIDS[at] as usize | (GRIDS[at + 1] as usize) << 8;
        let mut i = 0;
        while i < V {
            entries[entry][i] = levels[word >> (bits * i) & ((1 << bits) - 1)];
            i += 1;
        }
        entry += 1;
    }
    entries
}

/// Eight columns: magnitudes, and a bit for each that is negative.
#[derive(Clone, Copy)]
pub(super) struct Eight {
    magnitudes: [u8; 8],
    signs: u8,
}

impl Eight {
    /// Of a code that leaves the last sign out: there are always evenly many.
    #[inline(always)]
    fn with_even_signs(magnitudes: [u8; 8], seven: u32) -> Self {
        let seven = (seven & 127) as u8;
        Eight { magnitudes, signs: seven | (seven.count_ones() as u8 & 1) << 7 }
    }

    #[inline(always)]
    fn of_fours(a: [u8; 4], b: [u8; 4]) -> [u8; 8] {
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
    }

    #[inline(always)]
    fn values(self, scale: f32, out: &mut [f32; 8]) {
        for i in 0..8 {
            let sign = u32::from(self.signs >> i & 1) << 31;
            out[i] = f32::from_bits((scale * f32::from(self.magnitudes[i])).to_bits() ^ sign);
        }
    }

    /// The values as integers, plus `zero`.
    #[inline(always)]
    fn codes(self, zero: u8, out: &mut [u8; 8]) {
        for i in 0..8 {
            let negative = (self.signs >> i & 1).wrapping_neg();
            out[i] = zero.wrapping_add((self.magnitudes[i] ^ negative).wrapping_sub(negative));
        }
    }
}

/// A type whose values are a scale times magnitudes with signs.
pub(super) trait Signed<const BYTES: usize> {
    /// Columns that share a scale.
    const SPAN: usize;
    /// Columns `8·i` to `8·i + 7`.
    fn eight(block: &[u8; BYTES], i: usize) -> Eight;
    /// The scale of span `i`.
    fn scale(block: &[u8; BYTES], i: usize) -> f32;

    #[inline(always)]
    fn dequantize(block: &[u8; BYTES], out: &mut [f32; 256]) {
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            Self::eight(block, i).values(Self::scale(block, 8 * i / Self::SPAN), out);
        }
    }

    #[inline(always)]
    fn codes(block: &[u8; BYTES], zero: u8, out: &mut [u8; 256]) {
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            Self::eight(block, i).codes(zero, out);
        }
    }
}

/// `d`; for each 32 columns four codes, then four times seven signs and a scale of four bits.
pub(super) struct Iq2Xxs;

impl Signed<66> for Iq2Xxs {
    const SPAN: usize = 32;

    #[inline(always)]
    fn eight(block: &[u8; 66], i: usize) -> Eight {
        let (codes, signs) = (part::<4>(block, 2 + i / 4 * 8), word(block, 6 + i / 4 * 8));
        Eight::with_even_signs(IQ2_XXS[usize::from(codes[i % 4])], signs >> (7 * (i % 4)))
    }

    #[inline(always)]
    fn scale(block: &[u8; 66], i: usize) -> f32 {
        half(block, 0) * (0.5 + (word(block, 6 + 8 * i) >> 28) as f32) * 0.25
    }
}

/// `d`; for each eight columns a code of nine bits and seven signs; for each 16 a scale of four bits.
pub(super) struct Iq2Xs;

impl Signed<74> for Iq2Xs {
    const SPAN: usize = 16;

    #[inline(always)]
    fn eight(block: &[u8; 74], i: usize) -> Eight {
        let both = short(block, 2 + 2 * i);
        Eight::with_even_signs(IQ2_XS[usize::from(both & 511)], u32::from(both >> 9))
    }

    #[inline(always)]
    fn scale(block: &[u8; 74], i: usize) -> f32 {
        half(block, 0) * (0.5 + nibble(part::<8>(block, 66), i)) * 0.25
    }
}

/// `d`; for each eight columns eight bits of a code; then their signs; the upper two bits of the codes; for each 16
/// columns a scale of four bits.
pub(super) struct Iq2S;

impl Signed<82> for Iq2S {
    const SPAN: usize = 16;

    #[inline(always)]
    fn eight(block: &[u8; 82], i: usize) -> Eight {
        let high = usize::from(block[66 + i / 4] >> (2 * (i % 4)) & 3);
        Eight { magnitudes: IQ2_S[usize::from(block[2 + i]) | high << 8], signs: block[34 + i] }
    }

    #[inline(always)]
    fn scale(block: &[u8; 82], i: usize) -> f32 {
        half(block, 0) * (0.5 + nibble(part::<8>(block, 74), i)) * 0.25
    }
}

/// `d`; a code for each four columns; for each 32 four times seven signs and a scale of four bits.
pub(super) struct Iq3Xxs;

impl Signed<98> for Iq3Xxs {
    const SPAN: usize = 32;

    #[inline(always)]
    fn eight(block: &[u8; 98], i: usize) -> Eight {
        let [a, b] = part::<2>(block, 2 + 2 * i).map(|code| IQ3_XXS[usize::from(code)]);
        let signs = word(block, 66 + i / 4 * 4) >> (7 * (i % 4));
        Eight::with_even_signs(Eight::of_fours(a, b), signs)
    }

    #[inline(always)]
    fn scale(block: &[u8; 98], i: usize) -> f32 {
        half(block, 0) * (0.5 + (word(block, 66 + 4 * i) >> 28) as f32) * 0.5
    }
}

/// `d`; for each four columns eight bits of a code; the ninth bits; the signs; for each 32 columns a scale of four bits.
pub(super) struct Iq3S;

impl Signed<110> for Iq3S {
    const SPAN: usize = 32;

    #[inline(always)]
    fn eight(block: &[u8; 110], i: usize) -> Eight {
        let [a, b] = *part::<2>(block, 2 + 2 * i);
        let ninth = usize::from(block[66 + i / 4]) >> (2 * (i % 4));
        let a = IQ3_S[usize::from(a) | (ninth & 1) << 8];
        let b = IQ3_S[usize::from(b) | (ninth >> 1 & 1) << 8];
        Eight { magnitudes: Eight::of_fours(a, b), signs: block[74 + i] }
    }

    #[inline(always)]
    fn scale(block: &[u8; 110], i: usize) -> f32 {
        half(block, 0) * (1.0 + 2.0 * nibble(part::<4>(block, 106), i))
    }
}

/// Four bits of bytes, the lower half of each first.
#[inline(always)]
fn nibble<const N: usize>(bytes: &[u8; N], i: usize) -> f32 {
    f32::from(bytes[i / 2] >> (4 * (i % 2)) & 15)
}

/// What a code of 0 is below a value of 0 in [`Shifted`].
pub(super) const SHIFTED_ZERO: u8 = 9;

/// A type whose values are a scale times -1, 0 or 1, plus or minus an eighth.
pub(super) trait Shifted<const BYTES: usize> {
    /// Columns that share a scale.
    const SPAN: usize;
    /// The entry of columns `8·i` to `8·i + 7`, and whether an eighth is taken away.
    fn eight(block: &[u8; BYTES], i: usize) -> (&'static [u8; 8], bool);
    /// The scale of span `i`.
    fn scale(block: &[u8; BYTES], i: usize) -> f32;

    #[inline(always)]
    fn dequantize(block: &[u8; BYTES], out: &mut [f32; 256]) {
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let scale = Self::scale(block, 8 * i / Self::SPAN);
            let codes = codes_of(Self::eight(block, i));
            // Every intermediate but the last is exact.
            *out = codes.map(|code| scale * ((i32::from(code) - i32::from(SHIFTED_ZERO)) as f32 * 0.125));
        }
    }

    #[inline(always)]
    fn codes(block: &[u8; BYTES], out: &mut [u8; 256]) {
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *out = codes_of(Self::eight(block, i));
        }
    }
}

/// Eight times the values, plus [`SHIFTED_ZERO`].
#[inline(always)]
fn codes_of((entry, minus): (&[u8; 8], bool)) -> [u8; 8] {
    entry.map(|value| value + if minus { 0 } else { 2 })
}

/// `d`; for each eight columns eight bits of a code; for each 32 a word with three further bits of each code, a scale of
/// three bits and whether an eighth is taken away.
pub(super) struct Iq1S;

impl Shifted<50> for Iq1S {
    const SPAN: usize = 32;

    #[inline(always)]
    fn eight(block: &[u8; 50], i: usize) -> (&'static [u8; 8], bool) {
        let of_span = short(block, 34 + i / 4 * 2);
        let high = usize::from(of_span >> (3 * (i % 4)) & 7);
        (&IQ1[usize::from(block[2 + i]) | high << 8], of_span & 0x8000 != 0)
    }

    #[inline(always)]
    fn scale(block: &[u8; 50], i: usize) -> f32 {
        half(block, 0) * f32::from(2 * (short(block, 34 + 2 * i) >> 12 & 7) + 1)
    }
}

/// For each eight columns eight bits of a code; then four bits: three of the code, and whether an eighth is taken away;
/// four words with four scales of three bits each, and in their upper bits `d`.
pub(super) struct Iq1M;

impl Shifted<56> for Iq1M {
    const SPAN: usize = 16;

    #[inline(always)]
    fn eight(block: &[u8; 56], i: usize) -> (&'static [u8; 8], bool) {
        let high = block[32 + i / 2] >> (4 * (i % 2));
        (&IQ1[usize::from(block[i]) | usize::from(high & 7) << 8], high & 8 != 0)
    }

    #[inline(always)]
    fn scale(block: &[u8; 56], i: usize) -> f32 {
        let scales: [u16; 4] = std::array::from_fn(|i| short(block, 48 + 2 * i));
        let d = scales[0] >> 12 | scales[1] >> 12 << 4 | scales[2] >> 12 << 8 | scales[3] >> 12 << 12;
        f16(d) * f32::from(2 * (scales[i / 4] >> (3 * (i % 4)) & 7) + 1)
    }
}
