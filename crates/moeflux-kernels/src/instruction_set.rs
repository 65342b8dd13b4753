//! One portable body per kernel, compiled for several instruction sets and chosen at run time.

use std::sync::atomic::{AtomicU8, Ordering};

/// What the compiler and the kernels may use. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// The target's minimum: SSE2 on x86-64, what the compiler makes of NEON on AArch64.
    Baseline,
    /// AArch64 with kernels for NEON.
    Neon,
    /// NEON with products of four 8-bit integers (`dotprod`).
    NeonDotprod,
    /// NEON with products of matrices of 8-bit integers (`i8mm`) as well.
    NeonI8mm,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with VNNI, and BMI2 and F16C.
    Avx512Vnni,
    /// AVX-512 VNNI with AMX tiles of 8-bit integers, which Linux lets a process have that asks.
    Amx,
}

impl InstructionSet {
    /// All of them, from the least of each architecture. A processor may have one and lack a lesser one.
    pub const ALL: [InstructionSet; 9] = [
        InstructionSet::Baseline,
        InstructionSet::Neon,
        InstructionSet::NeonDotprod,
        InstructionSet::NeonI8mm,
        InstructionSet::Avx2,
        InstructionSet::AvxVnni,
        InstructionSet::Avx512,
        InstructionSet::Avx512Vnni,
        InstructionSet::Amx,
    ];

    /// The best that this processor has.
    pub fn detect() -> Self {
        InstructionSet::Amx.or_less()
    }

    /// Those that this processor has, from the least.
    pub fn available() -> impl Iterator<Item = InstructionSet> {
        Self::ALL.into_iter().filter(|set| set.is_available())
    }

    /// The best that this processor has and that is no better than this one.
    fn or_less(self) -> Self {
        Self::available().filter(|&set| set <= self).last().unwrap_or(InstructionSet::Baseline)
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        let avx2 = || {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
        };
        let avx512 = || {
            avx2()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        };
        let avx512_vnni = || {
            avx512()
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("f16c")
        };
        match self {
            InstructionSet::Baseline => true,
            InstructionSet::Neon | InstructionSet::NeonDotprod | InstructionSet::NeonI8mm => false,
            InstructionSet::Avx2 => avx2(),
            InstructionSet::AvxVnni => avx2() && is_x86_feature_detected!("avxvnni"),
            InstructionSet::Avx512 => avx512(),
            InstructionSet::Avx512Vnni => avx512_vnni(),
            InstructionSet::Amx => avx512_vnni() && crate::int8::amx_is_available(),
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_available(self) -> bool {
        use std::arch::is_aarch64_feature_detected;
        let dotprod = || is_aarch64_feature_detected!("dotprod");
        match self {
            InstructionSet::Baseline | InstructionSet::Neon => true,
            InstructionSet::NeonDotprod => dotprod(),
            InstructionSet::NeonI8mm => dotprod() && is_aarch64_feature_detected!("i8mm"),
            _ => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_available(self) -> bool {
        self == InstructionSet::Baseline
    }
}

const UNSET: u8 = u8::MAX;
static CHOSEN: AtomicU8 = AtomicU8::new(UNSET);

/// The instruction set that kernels use now: the processor's best unless [`set_instruction_set`] chose another.
pub fn instruction_set() -> InstructionSet {
    match CHOSEN.load(Ordering::Relaxed) {
        UNSET => set_instruction_set(InstructionSet::Amx),
        chosen => InstructionSet::ALL[chosen as usize],
    }
}

/// Makes all kernels of this process use `wanted`, or the best that the processor has if that is less, and
/// returns which. For tests and measurements: results do not change.
pub fn set_instruction_set(wanted: InstructionSet) -> InstructionSet {
    let chosen = wanted.or_less();
    CHOSEN.store(chosen as u8, Ordering::Relaxed);
    chosen
}

/// Defines a function whose body is compiled for each [`InstructionSet`]. Everything hot that the body calls must
/// be `#[inline(always)]`, or it stays compiled for the baseline.
macro_rules! multiversion {
    ($(#[$attribute:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$attribute])*
        $vis fn $name($($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            fn portable($($arg: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $type),*) $(-> $ret)? {
                    portable($($arg),*)
                }

                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $ret)? {
                    portable($($arg),*)
                }

                match $crate::instruction_set::instruction_set() {
                    // SAFETY: `instruction_set` names only what the processor was found to have.
                    set if set >= $crate::InstructionSet::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    set if set >= $crate::InstructionSet::Avx2 => return unsafe { avx2($($arg),*) },
                    _ => {}
                }
            }
            portable($($arg),*)
        }
    };
}
pub(crate) use multiversion;
