//! Sixteen floats in a processor's vector registers, for the loops where the compiler's own choice of registers costs
//! too much. One trait, one type for each instruction set, the same bits from each.

use crate::kv::F16;

/// Values of a [`Vector`].
pub(crate) const LANES: usize = 16;

/// Sixteen floats. Operations go lane by lane; slices have as many elements or more.
///
/// A type of an instruction set may be used only in what is compiled for that set and runs where the processor has it:
/// [`with_vector`] sees to both.
pub(crate) trait Vector: Copy {
    /// Whether there are registers for sixteen of them and what is multiplied onto those.
    const HAS_MANY_REGISTERS: bool = false;
    fn splat(x: f32) -> Self;
    fn load(x: &[f32]) -> Self;
    /// Widened, which is exact.
    fn load_f16(x: &[F16]) -> Self;
    fn store(self, y: &mut [f32]);
    /// Asks for a line of memory that will be read soon; a hint.
    fn prefetch(address: *const u8);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self · factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
}

/// Any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Vector for Portable {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Portable([x; LANES])
    }

    #[inline(always)]
    fn load(x: &[f32]) -> Self {
        let mut lanes = [0.0; LANES];
        lanes.copy_from_slice(&x[..LANES]);
        Portable(lanes)
    }

    #[inline(always)]
    fn load_f16(x: &[F16]) -> Self {
        let mut lanes = [0.0; LANES];
        for (lane, x) in lanes.iter_mut().zip(&x[..LANES]) {
            *lane = x.to_f32();
        }
        Portable(lanes)
    }

    #[inline(always)]
    fn store(self, y: &mut [f32]) {
        y[..LANES].copy_from_slice(&self.0);
    }

    #[inline(always)]
    fn prefetch(_address: *const u8) {}

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        let mut lanes = self.0;
        for (lane, (factor, term)) in lanes.iter_mut().zip(factor.0.into_iter().zip(term.0)) {
            *lane = lane.mul_add(factor, term);
        }
        Portable(lanes)
    }
}

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut lanes = self.0;
        for (lane, other) in lanes.iter_mut().zip(other.0) {
            *lane = f(*lane, other);
        }
        Portable(lanes)
    }
}

#[cfg(target_arch = "x86_64")]
// Instructions come in dozens; and these load from any address.
#[allow(clippy::wildcard_imports, clippy::cast_ptr_alignment)]
mod x86 {
    use std::arch::x86_64::*;

    use super::{F16, LANES, Vector};

    /// Two registers of AVX2, with FMA and F16C.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    // SAFETY of every block below: the type's users are compiled for the instruction set and run only where it is, and
    // the slices were cut to the sixteen elements that are read or written.
    impl Vector for Avx2 {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see above.
            let x = unsafe { _mm256_set1_ps(x) };
            Avx2(x, x)
        }

        #[inline(always)]
        fn load(x: &[f32]) -> Self {
            let x = x[..LANES].as_ptr();
            // SAFETY: see above.
            unsafe { Avx2(_mm256_loadu_ps(x), _mm256_loadu_ps(x.add(8))) }
        }

        #[inline(always)]
        fn load_f16(x: &[F16]) -> Self {
            let x = x[..LANES].as_ptr().cast::<__m128i>();
            // SAFETY: see above; an `F16` is two bytes of a half float.
            unsafe { Avx2(_mm256_cvtph_ps(_mm_loadu_si128(x)), _mm256_cvtph_ps(_mm_loadu_si128(x.add(1)))) }
        }

        #[inline(always)]
        fn store(self, y: &mut [f32]) {
            let y = y[..LANES].as_mut_ptr();
            // SAFETY: see above.
            unsafe {
                _mm256_storeu_ps(y, self.0);
                _mm256_storeu_ps(y.add(8), self.1);
            }
        }

        #[inline(always)]
        fn prefetch(address: *const u8) {
            // SAFETY: a prefetch reads nothing that the program sees, and bears any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Avx2(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Avx2(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Avx2(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                Avx2(_mm256_fmadd_ps(self.0, factor.0, term.0), _mm256_fmadd_ps(self.1, factor.1, term.1))
            }
        }
    }

    /// One register of AVX-512.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // SAFETY of every block below: as above.
    impl Vector for Avx512 {
        const HAS_MANY_REGISTERS: bool = true;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see above.
            Avx512(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        fn load(x: &[f32]) -> Self {
            let x = x[..LANES].as_ptr();
            // SAFETY: see above.
            Avx512(unsafe { _mm512_loadu_ps(x) })
        }

        #[inline(always)]
        fn load_f16(x: &[F16]) -> Self {
            let x = x[..LANES].as_ptr().cast::<__m256i>();
            // SAFETY: see above; an `F16` is two bytes of a half float.
            Avx512(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x)) })
        }

        #[inline(always)]
        fn store(self, y: &mut [f32]) {
            let y = y[..LANES].as_mut_ptr();
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(y, self.0) }
        }

        #[inline(always)]
        fn prefetch(address: *const u8) {
            // SAFETY: a prefetch reads nothing that the program sees, and bears any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            Avx512(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: see above.
            Avx512(unsafe { _mm512_sub_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: see above.
            Avx512(unsafe { _mm512_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: see above.
            Avx512(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "aarch64")]
#[allow(clippy::wildcard_imports)] // instructions come in dozens
mod arm {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use super::{F16, LANES, Vector};

    /// Four registers of NEON.
    #[derive(Clone, Copy)]
    pub(crate) struct Neon([float32x4_t; LANES / 4]);

    impl Neon {
        #[inline(always)]
        fn zip(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
            Neon(std::array::from_fn(|i| f(self.0[i], other.0[i])))
        }
    }

    // SAFETY of every block below: every processor of this architecture has NEON, and the slices were cut to the sixteen
    // elements that are read or written.
    impl Vector for Neon {
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: see above.
            Neon([unsafe { vdupq_n_f32(x) }; LANES / 4])
        }

        #[inline(always)]
        fn load(x: &[f32]) -> Self {
            let x = x[..LANES].as_ptr();
            // SAFETY: see above.
            Neon(std::array::from_fn(|i| unsafe { vld1q_f32(x.add(4 * i)) }))
        }

        #[inline(always)]
        fn load_f16(x: &[F16]) -> Self {
            let x = x[..LANES].as_ptr().cast::<u16>();
            Neon(std::array::from_fn(|i| {
                let wide: float32x4_t;
                // SAFETY: see above; an `F16` is two bytes of a half float. (Stable Rust has no function for this.)
                unsafe {
                    let halves = vld1_u16(x.add(4 * i));
                    asm!(
                        "fcvtl {wide:v}.4s, {halves:v}.4h",
                        wide = lateout(vreg) wide,
                        halves = in(vreg) halves,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
                wide
            }))
        }

        #[inline(always)]
        fn store(self, y: &mut [f32]) {
            for (y, values) in y[..LANES].as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
                // SAFETY: see above.
                unsafe { vst1q_f32(y.as_mut_ptr(), values) };
            }
        }

        #[inline(always)]
        fn prefetch(address: *const u8) {
            // SAFETY: a prefetch reads nothing that the program sees, and bears any address.
            unsafe {
                asm!("prfm pldl1keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
            }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            self.zip(other, |a, b| unsafe { vaddq_f32(a, b) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: see above.
            self.zip(other, |a, b| unsafe { vsubq_f32(a, b) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: see above.
            self.zip(other, |a, b| unsafe { vmulq_f32(a, b) })
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: see above.
            Neon(std::array::from_fn(|i| unsafe { vfmaq_f32(term.0[i], self.0[i], factor.0[i]) }))
        }
    }
}
#[cfg(target_arch = "aarch64")]
pub(crate) use arm::Neon;

/// Defines a function that runs `body::<V>` with the [`Vector`] of the instruction set chosen.
macro_rules! with_vector {
    ($(#[$attribute:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) => $body:ident) => {
        $(#[$attribute])*
        $vis fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512($($arg: $type),*) {
                    $body::<$crate::vector::Avx512>($($arg),*);
                }

                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $type),*) {
                    $body::<$crate::vector::Avx2>($($arg),*);
                }

                match $crate::instruction_set::instruction_set() {
                    // SAFETY: `instruction_set` names only what the processor was found to have.
                    set if set >= $crate::InstructionSet::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    set if set >= $crate::InstructionSet::Avx2 => return unsafe { avx2($($arg),*) },
                    _ => {}
                }
            }
            #[cfg(target_arch = "aarch64")]
            if $crate::instruction_set::instruction_set() >= $crate::InstructionSet::Neon {
                return $body::<$crate::vector::Neon>($($arg),*);
            }
            $body::<$crate::vector::Portable>($($arg),*);
        }
    };
}
pub(crate) use with_vector;
