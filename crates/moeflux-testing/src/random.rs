//! numpy's random numbers, so that weights drawn with numpy can be drawn again: `SeedSequence`, `PCG64` and the
//! ziggurat of `Generator.standard_normal`.

use std::sync::LazyLock;

/// `numpy.random.Generator(numpy.random.PCG64(seed))`.
pub(crate) struct Generator {
    state: u128,
    increment: u128,
    /// The upper half of a word whose lower half was returned.
    half: Option<u32>,
}

impl Generator {
    /// Seeded with at most four words of 32 bits.
    pub(crate) fn new(seed: &[u32]) -> Self {
        let words = seed_sequence(seed);
        let wide = |index: usize| u128::from(words[index]) << 64 | u128::from(words[index + 1]);
        let mut generator = Generator { state: 0, increment: wide(2) << 1 | 1, half: None };
        generator.step();
        generator.state = generator.state.wrapping_add(wide(0));
        generator.step();
        generator
    }

    fn step(&mut self) {
        const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn u32(&mut self) -> u32 {
        self.half.take().unwrap_or_else(|| {
            let word = self.u64();
            self.half = Some((word >> 32) as u32);
            word as u32
        })
    }

    fn unit_f64(&mut self) -> f64 {
        (self.u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn unit_f32(&mut self) -> f32 {
        (self.u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// `uniform(low, high)`.
    pub(crate) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit_f64()
    }

    /// `standard_normal()` to within 1e-14: of the word's bits 8 say which layer, 1 is the sign, 52 are the place in the layer.
    pub(crate) fn normal_f64(&mut self) -> f64 {
        let layers = &*LAYERS;
        loop {
            let word = self.u64();
            let (layer, place) = ((word & 0xff) as usize, word >> 9 & 0xf_ffff_ffff_ffff);
            let sign = if word >> 8 & 1 == 1 { -1.0 } else { 1.0 };
            let x = place as f64 * (layers.edge[layer] / (1u64 << 52) as f64);
            if place < (layers.inside[layer] * (1u64 << 52) as f64) as u64 {
                return sign * x;
            }
            if layer == 0 {
                loop {
                    let x = -(-self.unit_f64()).ln_1p() / LAST_EDGE;
                    let y = -(-self.unit_f64()).ln_1p();
                    if y + y > x * x {
                        return if place >> 8 & 1 == 1 { -(LAST_EDGE + x) } else { LAST_EDGE + x };
                    }
                }
            }
            let (below, above) = (layers.height[layer], layers.height[layer - 1]);
            if (above - below) * self.unit_f64() + below < (-0.5 * x * x).exp() {
                return sign * x;
            }
        }
    }

    /// `standard_normal(dtype=float32)`, bit for bit: the same in float32, with 23 bits for the place.
    pub(crate) fn normal_f32(&mut self) -> f32 {
        let layers = &*LAYERS;
        loop {
            let word = self.u32();
            let (layer, place) = ((word & 0xff) as usize, word >> 9);
            let sign = if word >> 8 & 1 == 1 { -1.0 } else { 1.0 };
            let x = place as f32 * (layers.edge[layer] / (1u32 << 23) as f64) as f32;
            // Here numpy's limits are rounded to nearest, in float64 downwards.
            if place < (layers.inside[layer] * (1u32 << 23) as f64).round() as u32 {
                return sign * x;
            }
            let last_edge = LAST_EDGE as f32;
            if layer == 0 {
                loop {
                    let x = -(1.0 / LAST_EDGE) as f32 * (-self.unit_f32()).ln_1p();
                    let y = -(-self.unit_f32()).ln_1p();
                    if y + y > x * x {
                        return if place >> 8 & 1 == 1 { -(last_edge + x) } else { last_edge + x };
                    }
                }
            }
            let (below, above) = (layers.height[layer] as f32, layers.height[layer - 1] as f32);
            if f64::from((above - below) * self.unit_f32() + below)
                < (-0.5 * f64::from(x) * f64::from(x)).exp()
            {
                return sign * x;
            }
        }
    }
}

/// The four words of 64 bits that `numpy.random.SeedSequence(seed)` gives to PCG64.
fn seed_sequence(seed: &[u32]) -> [u64; 4] {
    assert!(seed.len() <= 4, "a seed of {} words, at most 4 are supported", seed.len());
    let mut constant: u32 = 0x43b0_d7e5;
    let mut hash = |value: u32| {
        let value = value ^ constant;
        constant = constant.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(constant);
        value ^ value >> 16
    };
    let mut pool: [u32; 4] = std::array::from_fn(|index| hash(seed.get(index).copied().unwrap_or(0)));
    for source in 0..4 {
        for target in 0..4 {
            if source != target {
                let mixed = (pool[target].wrapping_mul(0xca01_f9dd))
                    .wrapping_sub(hash(pool[source]).wrapping_mul(0x4973_f715));
                pool[target] = mixed ^ mixed >> 16;
            }
        }
    }
    let mut constant: u32 = 0x8b51_f9dd;
    let words: [u32; 8] = std::array::from_fn(|index| {
        let value = pool[index % 4] ^ constant;
        constant = constant.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(constant);
        value ^ value >> 16
    });
    std::array::from_fn(|index| u64::from(words[2 * index + 1]) << 32 | u64::from(words[2 * index]))
}

/// Where the ziggurat's tail begins.
const LAST_EDGE: f64 = 3.654_152_885_361_009;
/// Area of each layer under `exp(-x²/2)`.
const AREA: f64 = 0.004_928_673_233_974_655;

/// The 256 layers of the ziggurat, the one with the tail first, the topmost second.
struct Layers {
    /// Width of a layer; a place is a share of it.
    edge: [f64; 256],
    /// The share of a layer below which every place lies under the curve.
    inside: [f64; 256],
    /// The curve at the layer's edge.
    height: [f64; 256],
}

static LAYERS: LazyLock<Layers> = LazyLock::new(|| {
    let curve = |x: f64| (-0.5 * x * x).exp();
    let mut layers = Layers { edge: [0.0; 256], inside: [0.0; 256], height: [1.0; 256] };
    let mut edge = LAST_EDGE;
    layers.edge[0] = AREA / curve(edge);
    layers.inside[0] = edge * curve(edge) / AREA;
    layers.edge[255] = edge;
    layers.height[255] = curve(edge);
    for layer in (1..255).rev() {
        let inner = (-2.0 * (AREA / edge + curve(edge)).ln()).sqrt();
        layers.inside[layer + 1] = inner / edge;
        layers.edge[layer] = inner;
        layers.height[layer] = curve(inner);
        edge = inner;
    }
    layers
});

#[cfg(test)]
mod tests {
    use super::*;

    fn generator() -> Generator {
        Generator::new(&[20_260_701, 7])
    }

    /// Expected is what numpy 2.4.6 gives for `Generator(PCG64([20260701, 7]))`.
    #[test]
    fn draws_what_numpy_draws() {
        let mut narrow = generator();
        let expected: [f32; 4] = [0.932_561, -0.319_459_05, 0.986_159_1, 1.522_952_4];
        assert_eq!(std::array::from_fn::<_, 4, _>(|_| narrow.normal_f32()), expected);
        let mut wide = generator();
        let expected = [1.0937960400538047, 0.4700567715373735, -0.437527997747456, -0.07617989787695967];
        // The last bits of the layers' edges differ from those in numpy's table.
        for expected in expected {
            let found = wide.normal_f64();
            assert!((found - expected).abs() < 1e-14, "{found} {expected}");
        }
        let mut even = generator();
        let expected = [-0.11335243037035259, 2.173549343578702];
        assert_eq!(std::array::from_fn::<_, 2, _>(|_| even.uniform(-1.0, 3.0)), expected);
    }

    /// 48 of these are in the tail, which is drawn another way.
    #[test]
    fn draws_the_tail_as_numpy_does() {
        let mut narrow = generator();
        let found: Vec<f32> = (0..200_000).map(|_| narrow.normal_f32()).collect();
        assert_eq!(found.iter().filter(|x| x.abs() > 3.66).count(), 48);
        assert_eq!(found.iter().fold(0.0f32, |max, x| max.max(x.abs())), 4.425_813);
    }
}
