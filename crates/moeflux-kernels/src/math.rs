//! Transcendental functions whose bits are the same on every platform and instruction set.

/// `e^x`, within 1.1 units in the last place where the result is a normal number; 0 at -inf, inf from 88.73 on, NaN at
/// NaN.
///
/// `x = n·ln 2 + r` with `|r| <= ln 2 / 2`; the Taylor polynomial of degree 7 gives `e^r` (its remainder is below
/// 6e-9 of the value), and `2^n` is multiplied on in two exact halves, so that results below the normal range round
/// once.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits of the significand.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23
    /// ln 2 in two parts; the upper has few enough bits that its product with `n` is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    // Beyond these the result is 0 and inf all the same; a NaN passes.
    let x = x.clamp(-104.0, 89.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;

    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    let e_r = (p * (r * r) + r) + 1.0;

    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let power_of_two = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    e_r * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x · sigmoid(x)`, as `x / (1 + e^-x)`.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `ln(1 + e^x)`, and `x` itself above 20, as PyTorch's `softplus` has it. Computed in f64 and rounded once.
pub fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { f64::from(x).exp().ln_1p() as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance of `actual` from `expected` in units in the last place of float32 there.
    fn ulps(actual: f32, expected: f64) -> f64 {
        let rounded = expected as f32;
        let ulp = f64::from(rounded.next_up()) - f64::from(rounded);
        (f64::from(actual) - expected).abs() / ulp
    }

    #[test]
    fn exp_is_within_1_1_ulp() {
        let mut worst = 0.0f64;
        let mut check = |x: f32| worst = worst.max(ulps(exp(x), f64::from(x).exp()));
        for i in -8_700_000..8_872_000 {
            check(i as f32 * 1e-5);
        }
        // Small arguments, each exponent, both signs.
        for bits in (0..0x42ae_0000u32).step_by(997) {
            check(f32::from_bits(bits));
            check(-f32::from_bits(bits));
        }
        assert!(worst <= 1.1, "{worst} ulp");
    }

    #[test]
    fn exp_below_the_normal_range_rounds_once() {
        for i in 8_734..10_400 {
            let x = i as f32 * -0.01;
            assert!(ulps(exp(x), f64::from(x).exp()) <= 1.0, "{x}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-104.1), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert!(exp(88.72).is_finite());
        assert_eq!(exp(88.73), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan() && exp(-f32::NAN).is_nan());
        assert_eq!([sigmoid(f32::NEG_INFINITY), sigmoid(0.0), sigmoid(f32::INFINITY)], [0.0, 0.5, 1.0]);
        assert_eq!([silu(-200.0), silu(0.0), silu(200.0)], [0.0, 0.0, 200.0]);
        assert_eq!([softplus(f32::NEG_INFINITY), softplus(20.5), softplus(f32::MAX)], [0.0, 20.5, f32::MAX]);
        assert_eq!(softplus(0.0), std::f32::consts::LN_2);
        assert_eq!(softplus(-60.0), (-60f64).exp() as f32);
        assert!(softplus(f32::NAN).is_nan());
    }
}
