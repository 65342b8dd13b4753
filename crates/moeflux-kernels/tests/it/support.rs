//! What the tests share: the choice of an instruction set, pools, random inputs, and slow dequantisation bit by bit in f64.

use std::sync::{Mutex, MutexGuard, PoisonError};

use moeflux_kernels::{
    Codebook, Encoding, Float, InstructionSet, KvBlock, KvType, Matrix, ThreadPool, set_instruction_set,
};

/// The choice of an instruction set, which is the process's: tests that make one, or that count on which it is, hold this
/// one after the other. At the end the best is chosen again.
pub(crate) struct Sets {
    _turn: MutexGuard<'static, ()>,
}

impl Sets {
    pub(crate) fn lock() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        // A test that failed has let go of its choice all the same.
        Sets { _turn: TURN.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Makes all kernels use a set that the processor has.
    #[expect(clippy::unused_self, reason = "whoever holds the lock may choose")]
    pub(crate) fn choose(&self, set: InstructionSet) {
        assert_eq!(set_instruction_set(set), set);
    }

    /// Makes all kernels use the best set.
    pub(crate) fn choose_best(&self) {
        self.choose(InstructionSet::detect());
    }

    /// Each set that the processor has, chosen.
    pub(crate) fn each(&self) -> impl Iterator<Item = InstructionSet> {
        InstructionSet::available().inspect(|&set| self.choose(set))
    }
}

impl Drop for Sets {
    fn drop(&mut self) {
        set_instruction_set(InstructionSet::detect());
    }
}

/// Pools that one test uses for all of its cases: one that is busy with another test's has no threads for it.
pub(crate) struct Pools([ThreadPool; 3]);

impl Pools {
    pub(crate) fn new() -> Self {
        Pools([1, 2, 3].map(|threads| ThreadPool::new(threads).unwrap()))
    }

    /// One of so many threads, from 1 to 3.
    pub(crate) fn of(&self, threads: usize) -> &ThreadPool {
        &self.0[threads - 1]
    }
}

/// So many blocks of a cache, with NaN in them: positions not written must not matter.
pub(crate) fn unwritten(blocks: usize, len: usize, kv_type: KvType) -> Vec<KvBlock> {
    let mut block = KvBlock::zeros(len, kv_type);
    block.fill_with(|| f32::NAN);
    vec![block; blocks]
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Between -scale and scale.
    pub(crate) fn float(&mut self, scale: f32) -> f32 {
        ((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
    }

    pub(crate) fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.float(scale)).collect()
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    pub(crate) fn matrix(&mut self, rows: usize, cols: usize, encoding: Encoding) -> OwnedMatrix {
        let bytes = encoding.row_bytes(cols);
        let (mut codes, mut scales, mut biases) = (
            self.bytes(rows * bytes.codes),
            self.bytes(encoding.scale_rows(rows) * bytes.scales),
            self.bytes(encoding.bias_rows(rows) * bytes.biases),
        );
        match encoding {
            Encoding::Float(float) => codes = self.encoded(rows * cols, float, 0.2),
            Encoding::Affine { bits, params, group } => {
                let groups = rows * cols / group;
                scales = self.encoded(groups, params, 0.4 / (1 << bits) as f32);
                biases = self.encoded(groups, params, 0.2);
            }
            Encoding::Mxfp4 => scales = scales.iter().map(|s| 120 + s % 5).collect(),
            Encoding::Mxfp8 => {
                scales = scales.iter().map(|s| 115 + s % 5).collect();
                codes = codes.iter().map(|c| if c & 0x7f == 0x7f { 0 } else { *c }).collect(); // no NaN
            }
            Encoding::Nvfp4 => scales = scales.iter().map(|s| s % 40).collect(),
            Encoding::Nvfp4Scaled { divided } => {
                scales = scales.iter().map(|s| s % 40).collect();
                biases = if divided { 0.7f32 } else { 1.3 }.to_le_bytes().to_vec();
            }
            Encoding::Symmetric { bits, params, .. } => {
                scales = self.encoded(scales.len() / params.bytes(), params, 0.4 / (1 << bits) as f32);
            }
            Encoding::Codebook { .. } => scales = self.encoded(scales.len() / 4, Float::F32, 0.2),
            Encoding::Fp8 { params, .. } => {
                scales = self.encoded(scales.len() / params.bytes(), params, 0.002);
                codes = codes.iter().map(|c| if c & 0x7f == 0x7f { 0 } else { *c }).collect(); // no NaN
            }
            Encoding::Ggml(_) | Encoding::GgmlScaled(_) | Encoding::Packed { .. } => {
                unreachable!("tested with vectors of its own")
            }
        }
        OwnedMatrix { rows, cols, encoding, codes, scales, biases }
    }

    fn encoded(&mut self, n: usize, float: Float, scale: f32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..n {
            let value = self.float(scale);
            match float {
                Float::F32 => bytes.extend(value.to_le_bytes()),
                Float::Bf16 => bytes.extend(&value.to_le_bytes()[2..]),
                // Any sign and significand, exponents from 2^-14 to 2^-3: of the size of `scale`.
                Float::F16 => {
                    let bits = self.next() as u16;
                    bytes.extend((bits & 0x83ff | (1 + bits % 12) << 10).to_le_bytes());
                }
            }
        }
        bytes
    }
}

/// Every encoding of a row of a multiple of 128 columns.
pub(crate) fn encodings() -> Vec<Encoding> {
    let mut all = vec![Encoding::Mxfp4, Encoding::Mxfp8, Encoding::Nvfp4];
    for params in [Float::F32, Float::F16, Float::Bf16] {
        all.push(Encoding::Float(params));
        // By row, by matrix, and in blocks that are cut short at the edges.
        for (block_rows, block_cols) in [(1, usize::MAX), (usize::MAX, usize::MAX), (2, 48)] {
            all.push(Encoding::Fp8 { block_rows, block_cols, params });
        }
        for bits in [2, 3, 4, 5, 6, 8] {
            for group in [32, 64, 128] {
                all.push(Encoding::Affine { bits, group, params });
            }
        }
    }
    all
}

/// Encodings of llm-compressor's, modelopt's and bitsandbytes' checkpoints, of a row of a multiple of 128 columns.
pub(crate) fn compressed_encodings() -> Vec<Encoding> {
    let mut all = [false, true].map(|divided| Encoding::Nvfp4Scaled { divided }).to_vec();
    for (bits, group) in [(2, 16), (3, 128), (4, 32), (5, 64), (6, 32), (7, 128), (8, 64)] {
        all.push(Encoding::Symmetric { bits, group, params: Float::Bf16, signed: false });
    }
    for params in [Float::F32, Float::F16, Float::Bf16] {
        all.push(Encoding::Symmetric { bits: 8, group: 128, params, signed: true });
    }
    all.push(Encoding::Codebook { table: Codebook::Nf4, group: 64 });
    all.push(Encoding::Codebook { table: Codebook::Fp4, group: 128 });
    all
}

pub(crate) struct OwnedMatrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) encoding: Encoding,
    pub(crate) codes: Vec<u8>,
    pub(crate) scales: Vec<u8>,
    pub(crate) biases: Vec<u8>,
}

impl OwnedMatrix {
    pub(crate) fn view(&self) -> Matrix<'_> {
        Matrix::new(self.rows, self.cols, self.encoding, &self.codes, &self.scales, &self.biases).unwrap()
    }

    /// One value. Products and sums are of float32, as the encoding defines; the decoding is in f64.
    pub(crate) fn value(&self, row: usize, col: usize) -> f64 {
        let at = row * self.cols + col;
        let bits = self.encoding.bits();
        let group = match self.encoding {
            Encoding::Fp8 { block_rows, block_cols, .. } => {
                row / block_rows * self.cols.div_ceil(block_cols) + col / block_cols
            }
            _ => at / self.encoding.group(),
        };
        let code = || (0..bits).map(|b| bit(&self.codes, at * bits + b) << b).sum::<u32>();
        match self.encoding {
            Encoding::Float(float) => decode(float, &self.codes, at),
            Encoding::Affine { params, .. } => {
                let scale = decode(params, &self.scales, group) as f32;
                f64::from(scale * code() as f32 + decode(params, &self.biases, group) as f32)
            }
            Encoding::Mxfp4 => minifloat(code(), 2, 1) * e8m0(self.scales[group]),
            Encoding::Mxfp8 => minifloat(code(), 4, 3) * e8m0(self.scales[group]),
            Encoding::Nvfp4 => minifloat(code(), 2, 1) * minifloat(u32::from(self.scales[group]), 4, 3),
            Encoding::Nvfp4Scaled { divided } => {
                let scale = minifloat(u32::from(self.scales[group]), 4, 3) as f32;
                let global = decode(Float::F32, &self.biases, 0) as f32;
                let scale = if divided { scale / global } else { scale * global };
                f64::from(scale * minifloat(code(), 2, 1) as f32)
            }
            Encoding::Symmetric { bits, params, signed, .. } => {
                let zero = if signed { 0 } else { 1 << (bits - 1) };
                let code = if signed { i32::from(code() as u8 as i8) } else { code() as i32 };
                let scale = decode(params, &self.scales, group) as f32;
                f64::from(scale * (code - zero) as f32)
            }
            Encoding::Codebook { table, .. } => {
                // The earlier column in the higher bits.
                let code = self.codes[at / 2] >> (if at.is_multiple_of(2) { 4 } else { 0 }) & 15;
                let scale = decode(Float::F32, &self.scales, group) as f32;
                f64::from(scale * table.values()[usize::from(code)])
            }
            Encoding::Fp8 { params, .. } => {
                let scale = decode(params, &self.scales, group) as f32;
                f64::from(scale * minifloat(code(), 4, 3) as f32)
            }
            Encoding::Ggml(_) | Encoding::GgmlScaled(_) | Encoding::Packed { .. } => {
                unreachable!("tested with vectors of its own")
            }
        }
    }

    pub(crate) fn row(&self, row: usize) -> Vec<f64> {
        (0..self.cols).map(|col| self.value(row, col)).collect()
    }
}

fn bit(bytes: &[u8], at: usize) -> u32 {
    u32::from(bytes[at / 8] >> (at % 8) & 1)
}

fn decode(float: Float, bytes: &[u8], at: usize) -> f64 {
    let bytes = &bytes[at * float.bytes()..][..float.bytes()];
    match float {
        Float::F32 => f64::from(f32::from_le_bytes(bytes.try_into().unwrap())),
        Float::F16 => minifloat(u32::from(u16::from_le_bytes(bytes.try_into().unwrap())), 5, 10),
        Float::Bf16 => minifloat(u32::from(u16::from_le_bytes(bytes.try_into().unwrap())), 8, 7),
    }
}

fn e8m0(bits: u8) -> f64 {
    2f64.powi(i32::from(bits) - 127)
}

/// A finite float of 1 sign, `exponent` and `significand` bits with the usual bias.
pub(crate) fn minifloat(bits: u32, exponent: u32, significand: u32) -> f64 {
    let bias = (1 << (exponent - 1)) - 1;
    let fraction = f64::from(bits & ((1 << significand) - 1)) / f64::from(1 << significand);
    let power = (bits >> significand & ((1 << exponent) - 1)) as i32;
    let sign = if bits >> (exponent + significand) & 1 == 1 { -1.0 } else { 1.0 };
    sign * if power == 0 {
        fraction * 2f64.powi(1 - bias)
    } else {
        (1.0 + fraction) * 2f64.powi(power - bias)
    }
}

pub(crate) fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// A digest of bits (FNV-1a by word), to compare processors that no one machine has.
pub(crate) fn digest(bits: impl IntoIterator<Item = u32>) -> u64 {
    bits.into_iter().fold(0xcbf2_9ce4_8422_2325, |digest, bits| {
        (digest ^ u64::from(bits)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Each value within `tolerance · max(1, |expected|)`.
#[track_caller]
pub(crate) fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(a) - e).abs();
        assert!(error <= tolerance * e.abs().max(1.0), "value {i}: expected {e}, found {a}");
    }
}
