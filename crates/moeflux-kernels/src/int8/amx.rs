//! AMX: tiles of 16 rows of weights times 16 tokens.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, __m512i, _mm512_setzero_ps, _xgetbv};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

use super::activations::{GROUP, PLANES, TOKENS, TileGroup, TileGroups};
use super::avx512::{self, Scaled};
use super::tiles::{SPANS, Square, Sums};
use super::weights::{Block, Format, ROWS};

/// Whether the processor has tiles of 8-bit integers and the system lets this process use them. Asks it once.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_tiles() && request_permission())
}

fn has_tiles() -> bool {
    const AMX_TILE: u32 = 1 << 24;
    const AMX_INT8: u32 = 1 << 25;
    /// Tile configuration and tile data.
    const ENABLED: u64 = 0b11 << 17;
    if !is_x86_feature_detected!("xsave") || __cpuid(0).eax < 7 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    // SAFETY: `xsave` was detected, which counts only if the system has enabled it.
    let enabled = unsafe { _xgetbv(0) };
    features & AMX_TILE != 0 && features & AMX_INT8 != 0 && enabled & ENABLED == ENABLED
}

/// Linux keeps tile data only for processes that ask.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call that touches no memory of ours.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn request_permission() -> bool {
    false
}

/// This thread's tiles, shaped for spans of one width; given back when dropped.
pub(crate) struct Configured(PhantomData<*const ()>);

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configured {
    /// Registers 0 and 3 take products, 1, 4, 6 and 7 weights, 2 and 5 activations. Needs [`is_available`].
    pub(crate) fn new(width: usize) -> Self {
        assert!(is_available() && matches!(width, 16 | 32 | 64));
        let mut config =
            Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let (products, weights, tokens) = ((64, 16), (width, 16), (64, width / 4));
        let registers = [products, weights, tokens, products, weights, tokens, weights, weights];
        for (register, (row_bytes, rows)) in registers.into_iter().enumerate() {
            config.row_bytes[register] = row_bytes as u16;
            config.rows[register] = rows as u8;
        }
        // SAFETY: the processor has tiles, and the configuration is one of palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        Configured(PhantomData)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: there is a `Configured` only where there are tiles.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Multiplies whole tiles that stay in registers, and says how many operations that were. Needs [`is_available`].
pub(crate) fn multiply_registers(steps: u32) -> u64 {
    assert!(is_available() && steps > 0);
    let mut config =
        Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    for register in 0..8 {
        config.row_bytes[register] = 64;
        config.rows[register] = 16;
    }
    // SAFETY: the processor has tiles, the configuration is one of palette 1, and no memory is touched but it.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "tilezero tmm6",
            "tilezero tmm7",
            "2:",
            "tdpbusd tmm0, tmm6, tmm7",
            "tdpbusd tmm1, tmm6, tmm7",
            "tdpbusd tmm2, tmm6, tmm7",
            "tdpbusd tmm3, tmm6, tmm7",
            "tdpbusd tmm4, tmm6, tmm7",
            "tdpbusd tmm5, tmm6, tmm7",
            "sub {steps:e}, 1",
            "jnz 2b",
            "tilerelease",
            config = in(reg) &raw const config,
            steps = inout(reg) steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly),
        );
    }
    u64::from(steps) * 6 * (16 * 16 * 64 * 2)
}

/// See [`tiles::multiply`](super::tiles::multiply): adds what these spans give to the sums of one or two blocks, or begins
/// them if the spans are the first. The tiles must be configured for the blocks' spans. `weights` is for each block
/// `[spans, planes, rows, width]` of codes below 16, as [`avx512::unpack_planes`] writes them, else `[spans, rows, width]`.
///
/// While a core multiplies tiles, and for about 40 ns after, it has only one of its two 512-bit units for floats. So the
/// products of a few spans are computed before their sums.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(crate) fn add_spans<const WIDTH: usize>(
    configured: &Configured,
    blocks: &[Block<'_>],
    weights: &[&[[[u8; WIDTH]; ROWS]]],
    x: TileGroups<'_>,
    spans: Range<usize>,
    products: &mut Products,
    sums: &mut [Sums],
) {
    let Format { is_narrow, planes, .. } = blocks[0].format;
    for first in spans.clone().step_by(SPANS) {
        let here = first..spans.end.min(first + SPANS);
        if is_narrow {
            for (span, products) in here.clone().zip(&mut products.0) {
                let (group, at) = (x.of_column(span * WIDTH), span * WIDTH % GROUP);
                let of_block = |block: usize| &weights[block][(span - spans.start) * planes..][..planes];
                // The last block of an odd number is multiplied twice.
                multiply_narrow(configured, [of_block(0), of_block(blocks.len() - 1)], group, at, products);
            }
            for (block, (of_block, sums)) in blocks.iter().zip(&mut *sums).enumerate() {
                add_floats::<WIDTH>(of_block, x, here.clone(), sums, |i, row| {
                    avx512::load_ints(&products.0[i][block].0[row])
                });
            }
            continue;
        }
        for ((block, weights), sums) in blocks.iter().zip(weights).zip(&mut *sums) {
            for (span, products) in here.clone().zip(&mut products.0) {
                let (group, at) = (x.of_column(span * WIDTH), span * WIDTH % GROUP);
                multiply_wide(configured, &weights[span - spans.start], group, at, products);
            }
            add_floats::<WIDTH>(block, x, here.clone(), sums, |i, row| {
                let [high, low] = &products.0[i];
                avx512::join(avx512::load_ints(&high.0[row]), avx512::load_ints(&low.0[row]))
            });
        }
    }
}

/// The float part of some spans; `products(i, row)` are those of the `i`-th.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
#[inline]
fn add_floats<const WIDTH: usize>(
    block: &Block<'_>,
    x: TileGroups<'_>,
    spans: Range<usize>,
    sums: &mut Sums,
    products: impl Fn(usize, usize) -> __m512i,
) {
    let mut of_rows = [_mm512_setzero_ps(); ROWS];
    if spans.start > 0 {
        for row in 0..ROWS {
            of_rows[row] = avx512::load_floats(&sums.0[row]);
        }
    }
    for (i, span) in spans.enumerate() {
        let (group, at) = (x.of_column(span * WIDTH), span * WIDTH % GROUP);
        let scaled = Scaled::new(block, group, at, WIDTH);
        for row in 0..ROWS {
            of_rows[row] = scaled.add(block, span, row, products(i, row), of_rows[row]);
        }
    }
    for row in 0..ROWS {
        avx512::store_floats(of_rows[row], &mut sums.0[row]);
    }
}

/// The products of one span of two blocks of codes below 16 with 16 tokens, of one plane or both.
#[inline(always)]
fn multiply_narrow<const WIDTH: usize>(
    _: &Configured,
    weights: [&[[[u8; WIDTH]; ROWS]]; PAIR],
    x: [&TileGroup; PLANES],
    at: usize,
    products: &mut [Square<i32>; PAIR],
) {
    let [high, low] = x.map(|group| group.codes[at / 4..][..WIDTH / 4].as_ptr());
    // SAFETY: the tiles are configured; a tile of weights is 16 rows of `WIDTH` bytes, that of tokens `WIDTH / 4` lines of 64
    // bytes of a plane, and the results are 16 such lines for each block.
    unsafe {
        if weights[0].len() == 1 {
            asm!(
                "tilezero tmm0",
                "tilezero tmm3",
                "tileloadd tmm2, [{tokens} + {line}*1]",
                "tileloadd tmm1, [{first} + {width}*1]",
                "tdpbusd tmm0, tmm1, tmm2",
                "tileloadd tmm4, [{second} + {width}*1]",
                "tdpbusd tmm3, tmm4, tmm2",
                "tilestored [{products} + {line}*1], tmm0",
                "tilestored [{products} + {line}*1 + 1024], tmm3",
                first = in(reg) weights[0][0].as_ptr(),
                second = in(reg) weights[1][0].as_ptr(),
                tokens = in(reg) high,
                width = in(reg) WIDTH,
                line = in(reg) 64_usize,
                products = in(reg) products.as_mut_ptr(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
                options(nostack),
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm3",
                "tileloadd tmm2, [{high} + {line}*1]",
                "tileloadd tmm1, [{first_high} + {width}*1]",
                "tdpbusd tmm0, tmm1, tmm2",
                "tileloadd tmm4, [{second_high} + {width}*1]",
                "tdpbusd tmm3, tmm4, tmm2",
                "tileloadd tmm5, [{low} + {line}*1]",
                "tileloadd tmm6, [{first} + {width}*1]",
                "tdpbusd tmm0, tmm6, tmm5",
                "tileloadd tmm7, [{second} + {width}*1]",
                "tdpbusd tmm3, tmm7, tmm5",
                "tilestored [{products} + {line}*1], tmm0",
                "tilestored [{products} + {line}*1 + 1024], tmm3",
                first_high = in(reg) weights[0][0].as_ptr(),
                second_high = in(reg) weights[1][0].as_ptr(),
                first = in(reg) weights[0][1].as_ptr(),
                second = in(reg) weights[1][1].as_ptr(),
                high = in(reg) high,
                low = in(reg) low,
                width = in(reg) WIDTH,
                line = in(reg) 64_usize,
                products = in(reg) products.as_mut_ptr(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// The products of one span of a block with 16 tokens, by plane.
#[inline(always)]
fn multiply_wide<const WIDTH: usize>(
    _: &Configured,
    weights: &[[u8; WIDTH]; ROWS],
    x: [&TileGroup; PLANES],
    at: usize,
    products: &mut [Square<i32>; PLANES],
) {
    let [high, low] = x.map(|group| group.codes[at / 4..][..WIDTH / 4].as_ptr());
    // SAFETY: as in `multiply_narrow`, with results for each plane.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm3",
            "tileloadd tmm1, [{weights} + {width}*1]",
            "tileloadd tmm2, [{high} + {line}*1]",
            "tdpbusd tmm0, tmm1, tmm2",
            "tileloadd tmm5, [{low} + {line}*1]",
            "tdpbusd tmm3, tmm1, tmm5",
            "tilestored [{products} + {line}*1], tmm0",
            "tilestored [{products} + {line}*1 + 1024], tmm3",
            weights = in(reg) weights.as_ptr(),
            high = in(reg) high,
            low = in(reg) low,
            width = in(reg) WIDTH,
            line = in(reg) 64_usize,
            products = in(reg) products.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm5") _,
            options(nostack),
        );
    }
}

/// Blocks of rows of narrow codes that share what is loaded of the tokens, or the planes of another block.
pub(crate) const PAIR: usize = 2;

/// The products of some spans of such a pair.
#[derive(Debug)]
pub(crate) struct Products([[Square<i32>; PAIR]; SPANS]);

impl Default for Products {
    fn default() -> Self {
        Products([[Square([[0; TOKENS]; ROWS]); PAIR]; SPANS])
    }
}
