//! One portable body per kernel, compiled for several instruction sets and chosen at run time.

use std::sync::atomic::{AtomicU8, Ordering};

/// What the compiler may use in a kernel's body. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// The target's minimum: SSE2 on x86-64, NEON on AArch64.
    Baseline,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl InstructionSet {
    const ALL: [InstructionSet; 3] = [InstructionSet::Baseline, InstructionSet::Avx2, InstructionSet::Avx512];

    /// The best that this processor has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if has_avx512 {
                return InstructionSet::Avx512;
            }
            if is_x86_feature_detected!("avx2") {
                return InstructionSet::Avx2;
            }
        }
        InstructionSet::Baseline
    }

    /// Those that this processor has, from the least.
    pub fn available() -> impl Iterator<Item = InstructionSet> {
        let best = Self::detect();
        Self::ALL.into_iter().filter(move |&set| set <= best)
    }
}

const UNSET: u8 = u8::MAX;
static CHOSEN: AtomicU8 = AtomicU8::new(UNSET);

/// The instruction set that kernels use now: the processor's best unless [`set_instruction_set`] chose another.
pub fn instruction_set() -> InstructionSet {
    match CHOSEN.load(Ordering::Relaxed) {
        UNSET => set_instruction_set(InstructionSet::Avx512),
        chosen => InstructionSet::ALL[chosen as usize],
    }
}

/// Makes all kernels of this process use `wanted`, or the best that the processor has if that is less, and
/// returns which. For tests and measurements: results do not change.
pub fn set_instruction_set(wanted: InstructionSet) -> InstructionSet {
    let chosen = wanted.min(InstructionSet::detect());
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
                    $crate::InstructionSet::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::InstructionSet::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::InstructionSet::Baseline => {}
                }
            }
            portable($($arg),*)
        }
    };
}
pub(crate) use multiversion;
