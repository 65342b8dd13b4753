//! Reproducible noise, fast enough for a disk.

/// `SplitMix64`.
#[derive(Clone)]
pub(super) struct Noise(u64);

impl Noise {
    /// Noise that depends on a seed and on what it is for.
    pub(super) fn new(seed: u64, name: &str) -> Self {
        // FNV-1a.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Noise(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Bytes of codes: any will do.
    pub(super) fn bytes(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// bf16 numbers, even between the ends of a range whose standard deviation is `deviation`.
    pub(super) fn bf16(&mut self, deviation: f32, out: &mut [u8]) {
        let scale = deviation * 3f32.sqrt() / f32::from(i16::MAX);
        for four in out.chunks_mut(8) {
            let bits = self.next();
            for (i, out) in four.chunks_exact_mut(2).enumerate() {
                let x = f32::from((bits >> (16 * i)) as i16) * scale;
                out.copy_from_slice(&bf16(x));
            }
        }
    }

    /// A number from 0 up to 1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// A normally distributed number (Box and Muller 1958).
    pub(super) fn normal(&mut self) -> f32 {
        let (radius, angle) = (1.0 - self.unit(), self.unit() * std::f32::consts::TAU);
        (-2.0 * radius.ln()).sqrt() * angle.cos()
    }
}

/// The nearest bf16.
pub(super) fn bf16(x: f32) -> [u8; 2] {
    let bits = x.to_bits();
    (((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16).to_le_bytes()
}
