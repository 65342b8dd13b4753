//! `moeflux bench kernels`: products with weights in each encoding, with each instruction set.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use moeflux::kernels::limits::read_bandwidth;
use moeflux::kernels::{
    Encoding, Float, Ggml, InstructionSet, Int8Scratch, Matrix, ThreadPool, has_int8_products, int8_linear,
    linear, set_instruction_set,
};

use crate::terminal;

/// Arguments of `bench kernels`.
#[derive(Args)]
pub(crate) struct KernelsArgs {
    /// Number of threads [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Shape of the weights, outputs by inputs; may be repeated
    #[arg(long = "shape", value_name = "ROWSxCOLS", default_value = "2048x2048")]
    shapes: Vec<String>,
    /// Number of tokens of a product; may be repeated
    #[arg(long = "tokens", value_name = "N", default_values_t = [1, 16, 512])]
    tokens: Vec<usize>,
    /// Measure only encodings whose name contains this, such as q4 or affine
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Measure only instruction sets whose name contains this, such as avx
    #[arg(long, value_name = "NAME")]
    instruction_set: Option<String>,
    /// Measure exact products [default: fast ones, if the encoding has them]
    #[arg(long)]
    exact: bool,
}

/// Bytes that products walk through, so that weights come from memory and not from a cache.
const WEIGHT_BYTES: usize = 1 << 29;
/// Measurements of each product; the fastest counts.
const PASSES: usize = 20;
/// Shortest measurement.
const PASS_TIME: Duration = Duration::from_millis(5);
/// A product that takes longer is left out.
const LONGEST_PRODUCT: Duration = Duration::from_secs(1);

/// Runs the command.
pub(crate) fn run(args: &KernelsArgs) -> Result<()> {
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let pool = ThreadPool::new(threads)?;
    let shapes = args.shapes.iter().map(|shape| parse_shape(shape)).collect::<Result<Vec<_>>>()?;
    let matches =
        |filter: &Option<String>, name: &str| filter.as_ref().is_none_or(|part| name.contains(part.as_str()));

    let bandwidth = read_bandwidth(&pool);
    terminal::show(&format!("{threads} threads read {:.1} GB/s of memory.\n\n", bandwidth / 1e9))?;
    // Bytes that are also sane as floats of 16 bits and as exponents.
    let bytes: Vec<u8> =
        (0..WEIGHT_BYTES as u32).map(|i| 0x3c + (i.wrapping_mul(0x9e37_79b9) >> 30) as u8).collect();
    terminal::show(&format!(
        "{:<12} {:<12} {:<14} {:>7} {:>9} {:>8} {:>10}\n",
        "encoding", "instructions", "shape", "tokens", "GB/s", "of limit", "GMAC/s"
    ))?;
    for &(rows, cols) in &shapes {
        for (name, encoding) in encodings().into_iter().filter(|(name, _)| matches(&args.encoding, name)) {
            if !cols.is_multiple_of(encoding.group()) {
                continue;
            }
            for set in InstructionSet::available() {
                let set_name = format!("{set:?}").to_lowercase();
                if !matches(&args.instruction_set, &set_name) {
                    continue;
                }
                set_instruction_set(set);
                for &n in &args.tokens {
                    let bench = Bench { pool: &pool, bytes: &bytes, rows, cols, encoding, exact: args.exact };
                    let Some(seconds) = bench.seconds(n)? else { continue };
                    let read = rows as f64 * bench.row_bytes() as f64 / seconds;
                    let products = (n * rows * cols) as f64 / seconds;
                    terminal::show(&format!(
                        "{name:<12} {set_name:<12} {:<14} {n:>7} {:>9.2} {:>7.0}% {:>10.1}\n",
                        format!("{rows}x{cols}"),
                        read / 1e9,
                        100.0 * read / bandwidth,
                        products / 1e9
                    ))?;
                }
            }
        }
    }
    set_instruction_set(InstructionSet::detect());
    Ok(())
}

fn parse_shape(shape: &str) -> Result<(usize, usize)> {
    let parsed =
        shape.split_once('x').and_then(|(rows, cols)| Some((rows.parse().ok()?, cols.parse().ok()?)));
    let (rows, cols) = parsed.with_context(|| format!("--shape: expected ROWSxCOLS, found {shape}"))?;
    if rows == 0 || cols == 0 {
        bail!("--shape: expected rows and columns, found {shape}");
    }
    Ok((rows, cols))
}

/// The encodings that are measured, with their names.
fn encodings() -> Vec<(String, Encoding)> {
    let affine = [2, 3, 4, 5, 6, 8]
        .map(|bits| (format!("affine{bits}-64"), Encoding::Affine { bits, group: 64, params: Float::Bf16 }));
    let ggml = [Ggml::Q4_0, Ggml::Q8_0, Ggml::Q4K, Ggml::Q6K]
        .map(|ggml| (ggml.name().to_lowercase(), Encoding::Ggml(ggml)));
    let more = [
        ("affine4-32", Encoding::Affine { bits: 4, group: 32, params: Float::Bf16 }),
        ("mxfp4", Encoding::Mxfp4),
        ("bf16", Encoding::Float(Float::Bf16)),
    ];
    affine.into_iter().chain(more.map(|(name, encoding)| (name.to_owned(), encoding))).chain(ggml).collect()
}

/// One product, repeated with other weights each time.
struct Bench<'a> {
    pool: &'a ThreadPool,
    bytes: &'a [u8],
    rows: usize,
    cols: usize,
    encoding: Encoding,
    exact: bool,
}

impl Bench<'_> {
    fn row_bytes(&self) -> usize {
        let bytes = self.encoding.row_bytes(self.cols);
        bytes.codes + bytes.scales + bytes.biases
    }

    /// The weights that lie from byte `at` on.
    fn weights(&self, at: usize) -> Result<Matrix<'_>> {
        let bytes = self.encoding.row_bytes(self.cols);
        let (codes, rest) = self.bytes[at..].split_at(self.rows * bytes.codes);
        let (scales, rest) = rest.split_at(self.rows * bytes.scales);
        let biases = &rest[..self.rows * bytes.biases];
        Ok(Matrix::new(self.rows, self.cols, self.encoding, codes, scales, biases)?)
    }

    /// Seconds of a product with `n` tokens; none if it takes too long.
    fn seconds(&self, n: usize) -> Result<Option<f64>> {
        let size = self.rows * self.row_bytes();
        if size > self.bytes.len() {
            bail!(
                "--shape: {size} B of weights are more than the {} B that are measured with",
                self.bytes.len()
            );
        }
        let x: Vec<f32> = (0..n * self.cols).map(|i| (i * 7919 % 1013) as f32 / 500.0 - 1.0).collect();
        let mut y = vec![0.0; n * self.rows];
        let (mut scratch, mut at) = (Int8Scratch::default(), 0);
        let fast = !self.exact && has_int8_products(self.encoding);
        let mut product = |y: &mut [f32]| -> Result<()> {
            let w = self.weights(at)?;
            at += size.next_multiple_of(4096);
            if at + size > self.bytes.len() {
                at = 0;
            }
            if fast {
                int8_linear(self.pool, &w, &x, &mut scratch, y);
            } else {
                linear(self.pool, &w, &x, y);
            }
            Ok(())
        };
        // One row tells how long all will take, where that is long.
        let start = Instant::now();
        product(&mut y)?;
        let first = start.elapsed();
        if first > LONGEST_PRODUCT {
            return Ok(None);
        }
        let repeats = (PASS_TIME.as_secs_f64() / first.as_secs_f64()).ceil().max(1.0) as usize;
        let mut best = f64::INFINITY;
        for _ in 0..PASSES {
            let start = Instant::now();
            for _ in 0..repeats {
                product(&mut y)?;
            }
            best = best.min(start.elapsed().as_secs_f64() / repeats as f64);
        }
        Ok(Some(best))
    }
}
