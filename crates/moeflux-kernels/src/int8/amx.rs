//! AMX: tiles of 16 rows of weights times 16 tokens.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _mm512_setzero_ps, _xgetbv};
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::activations::{GROUP, TOKENS, TileGroup};
use super::avx512::{self, Scaled};
use super::weights::{Block, Codes, ROWS, stride};

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
    /// Register 0 takes sums, 1 weights, 2 activations. Needs [`is_available`].
    pub(crate) fn new(width: usize) -> Self {
        assert!(is_available() && matches!(width, 16 | 32 | 64));
        let mut config =
            Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (register, (row_bytes, rows)) in [(64, 16), (width, 16), (64, width / 4)].into_iter().enumerate()
        {
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

/// The products of a block's rows, whose codes are bytes, with 16 tokens: `y` is `[tokens, rows]`. The tiles must be
/// configured for the block's spans.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
pub(crate) fn tile(_: &Configured, block: &Block<'_>, x: &[TileGroup], y: &mut [[f32; ROWS]; TOKENS]) {
    match block.format.width {
        16 => tile_of::<16>(block, x, y),
        32 => tile_of::<32>(block, x, y),
        _ => tile_of::<64>(block, x, y),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")]
fn tile_of<const WIDTH: usize>(block: &Block<'_>, x: &[TileGroup], y: &mut [[f32; ROWS]; TOKENS]) {
    let spans = block.scales.len();
    let stride = stride(&block.rows).unwrap_or_else(|| unreachable!("bytes lie at equal distances"));
    assert!(block.codes == Codes::Bytes && block.rows.iter().all(|row| row.len() == spans * WIDTH));
    assert!(x.len() * GROUP >= spans * WIDTH);
    let mut sums = [_mm512_setzero_ps(); ROWS];
    let mut products = Products([[0; TOKENS]; ROWS]);
    for span in 0..spans {
        let (group, at) = (&x[span * WIDTH / GROUP], span * WIDTH % GROUP);
        // SAFETY: the tiles are configured; the tile of weights is `WIDTH` bytes of 16 rows at that stride, that of tokens
        // `WIDTH / 4` rows of 64 bytes within their group, and the results are 16 rows of 64 bytes.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm1, [{weights} + {stride}*1]",
                "tileloadd tmm2, [{tokens} + {line}*1]",
                "tdpbusd tmm0, tmm1, tmm2",
                "tilestored [{products} + {line}*1], tmm0",
                weights = in(reg) block.rows[0].as_ptr().wrapping_add(span * WIDTH),
                tokens = in(reg) group.codes[at / 4..].as_ptr(),
                stride = in(reg) stride,
                line = in(reg) 64_usize,
                products = in(reg) &raw mut products.0,
                out("tmm0") _, out("tmm1") _, out("tmm2") _,
                options(nostack),
            );
        }
        let scaled = Scaled::new(block, group, at, WIDTH);
        for row in 0..ROWS {
            sums[row] = scaled.add(block, span, row, avx512::load_ints(&products.0[row]), sums[row]);
        }
    }
    avx512::store_transposed(&sums, y);
}

#[repr(C, align(64))]
struct Products([[i32; TOKENS]; ROWS]);
