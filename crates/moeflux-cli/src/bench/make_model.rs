//! `moeflux bench make-model`: a model of noise, written tensor by tensor.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use moeflux::convert::{self, Recipe, RunOptions, partial_folder};
use moeflux::{Model, ModelOptions};
use serde_json::{Map, Value, json};

use super::noise::{Noise, bf16};
use super::shapes::{Kind, NAMES, Shape, Spec};
use crate::convert::threads;
use crate::model_args::find_demo;
use crate::progress::Progress;
use crate::stats::Bytes;
use crate::terminal::note;

/// Arguments of `make-model`.
#[derive(Args)]
pub(crate) struct MakeModelArgs {
    /// Folder to create
    #[arg(value_name = "DST")]
    target: PathBuf,
    /// Model family
    #[arg(long, value_name = "NAME", default_value = "qwen3_5_moe", value_parser = ["qwen3_5_moe"])]
    family: String,
    /// Model whose shapes it has
    #[arg(long, value_name = "NAME", default_value = "35b-a3b", value_parser = NAMES)]
    shape: String,
    /// Number of layers [default: as many as that model has]
    #[arg(long, value_name = "N")]
    layers: Option<NonZeroUsize>,
    /// Bits of a weight. Routers have 8 bits, as in MLX
    #[arg(long, value_name = "WIDTH", default_value = "4", value_parser = ["2", "3", "4", "5", "6", "8", "bf16"])]
    bits: String,
    /// How unevenly routers choose experts; see below
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    router_skew: f32,
    /// Seed of the random weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write a pack instead of an MLX checkpoint. This takes twice the disk space meanwhile
    #[arg(long)]
    pack: bool,
}

/// Files of the demo that any model here can do with.
const FROM_DEMO: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"];
/// Bytes made at once.
const PIECE: usize = 1 << 20;

/// Runs the command.
pub(crate) fn run(args: &MakeModelArgs) -> Result<()> {
    if args.target.exists() {
        bail!("{} exists already; remove it or name another folder", args.target.display());
    }
    if !(0.0..=10.0).contains(&args.router_skew) {
        bail!("--router-skew: expected a number from 0 to 10, found {}", args.router_skew);
    }
    let demo = find_demo().context("the tokenizer comes from models/demo, which was not found")?;
    let mut shape = Shape::named(&args.shape).context("a shape of that name")?;
    let layers = args.layers.map_or(shape.num_hidden_layers, NonZeroUsize::get);
    shape.num_hidden_layers = layers;
    let writer = Writer { bits: args.bits.parse().ok(), seed: args.seed, router_skew: args.router_skew };
    let shards: Vec<Vec<Spec>> = std::iter::once(shape.outer_tensors())
        .chain((0..layers).map(|layer| shape.layer_tensors(layer)))
        .collect();
    let total: u64 =
        shards.iter().flatten().flat_map(|spec| writer.tensors(spec)).map(|tensor| tensor.bytes()).sum();
    note(format!("{}: {} of random weights", args.target.display(), Bytes(total)));

    let partial = partial_folder(&args.target);
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("making {}", partial.display()))?;
    Progress::bytes("writing").follow(|tell| writer.write(&partial, &shards, &|done| tell(done, total)))?;
    write(&partial.join("config.json"), shape.config(writer.bits).to_string().as_bytes())?;
    for name in FROM_DEMO {
        fs::copy(demo.join(name), partial.join(name))
            .with_context(|| format!("copying {name} of the demo"))?;
    }
    if args.pack {
        let model = Model::open(&partial, &ModelOptions::default())?;
        let plan = convert::plan(&model, &Recipe::default())?;
        let options = RunOptions { threads: threads(None), restart: true };
        let unpacked = args.target.with_extension("unpacked");
        fs::rename(&partial, &unpacked)?;
        drop(model);
        let model = Model::open(&unpacked, &ModelOptions::default())?;
        Progress::bytes("packing")
            .follow(|tell| convert::run(&plan, model.checkpoint(), &args.target, &options, tell))?;
        fs::remove_dir_all(&unpacked)?;
    } else {
        fs::rename(&partial, &args.target).with_context(|| format!("naming {}", args.target.display()))?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// A tensor of a safetensors file.
struct Tensor {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    content: Content,
}

/// What its elements are.
#[derive(Clone)]
enum Content {
    /// Codes: any bits.
    Codes,
    /// bf16 noise of this deviation.
    Noise(f32),
    /// A bf16 number for each row.
    Rows(Vec<f32>),
    /// One bf16 number throughout.
    Same(f32),
    /// Logarithms of rates from 1 to 16, in float32.
    Decay,
}

impl Tensor {
    fn bytes(&self) -> u64 {
        let element = if self.dtype == "BF16" { 2 } else { 4 };
        element * self.shape.iter().product::<usize>() as u64
    }
}

/// Turns shapes into tensors, and tensors into files.
struct Writer {
    /// `None` for bf16.
    bits: Option<u8>,
    seed: u64,
    /// Standard deviation of the logarithms of the scales of router rows.
    router_skew: f32,
}

impl Writer {
    /// The tensors that stand for a spec in an MLX checkpoint. Weights have the deviation that keeps the scale of what
    /// they multiply.
    fn tensors(&self, spec: &Spec) -> Vec<Tensor> {
        let Spec { name, shape, kind } = spec;
        let tensor = |name: String, dtype, shape: &[usize], content| Tensor {
            name,
            dtype,
            shape: shape.to_vec(),
            content,
        };
        let cols = shape.last().copied().unwrap_or(1);
        let rows: usize = shape[..shape.len() - 1].iter().product();
        let deviation = (cols as f32).powf(-0.5);
        let by_row: Vec<f32> = match kind {
            Kind::Router => {
                let mut noise = Noise::new(self.seed, &format!("{name} scales"));
                (0..rows).map(|_| (self.router_skew * noise.normal()).exp()).collect()
            }
            _ => vec![1.0; rows],
        };
        match (kind, self.bits) {
            (Kind::Ones, _) => vec![tensor(name.clone(), "BF16", shape, Content::Same(1.0))],
            (Kind::Noise, _) => vec![tensor(name.clone(), "BF16", shape, Content::Noise(0.3))],
            (Kind::Decay, _) => vec![tensor(name.clone(), "F32", shape, Content::Decay)],
            (Kind::Matrix, None) => {
                vec![tensor(format!("{name}.weight"), "BF16", shape, Content::Noise(deviation))]
            }
            // Row by row, so that each has its own scale: as bf16 it could not.
            (Kind::Router, None) => {
                let content = Content::Rows(by_row.into_iter().map(|scale| scale * deviation).collect());
                vec![tensor(format!("{name}.weight"), "BF16", shape, content)]
            }
            (Kind::Matrix | Kind::Router, Some(bits)) => {
                let bits =
                    if *kind == Kind::Router || name.ends_with("shared_expert_gate") { 8 } else { bits };
                // Codes are even from 0 to 2^bits - 1.
                let codes = f32::from(1u16 << bits);
                let scale = deviation / ((codes * codes - 1.0) / 12.0).sqrt();
                let with_last = |last: usize| [&shape[..shape.len() - 1], &[last]].concat();
                let groups = with_last(cols / 64);
                let params = |factor: f32| {
                    if *kind == Kind::Router {
                        let repeat = |row: &f32| vec![row * scale * factor; cols / 64];
                        Content::Rows(by_row.iter().flat_map(repeat).collect())
                    } else {
                        Content::Same(scale * factor)
                    }
                };
                vec![
                    tensor(
                        format!("{name}.weight"),
                        "U32",
                        &with_last(cols * usize::from(bits) / 32),
                        Content::Codes,
                    ),
                    tensor(format!("{name}.scales"), "BF16", &groups, params(1.0)),
                    tensor(format!("{name}.biases"), "BF16", &groups, params(-(codes - 1.0) / 2.0)),
                ]
            }
        }
    }

    /// Writes shards and their index; `tell` is told how many bytes are there.
    fn write(&self, folder: &Path, shards: &[Vec<Spec>], tell: &dyn Fn(u64)) -> Result<()> {
        let mut weight_map = BTreeMap::new();
        let mut done = 0;
        for (index, specs) in shards.iter().enumerate() {
            let tensors: Vec<Tensor> = specs.iter().flat_map(|spec| self.tensors(spec)).collect();
            let shard = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
            let path = folder.join(&shard);
            let writing = || format!("writing {}", path.display());
            let mut file = BufWriter::with_capacity(PIECE, File::create(&path).with_context(writing)?);
            file.write_all(&header(&tensors)?).with_context(writing)?;
            for tensor in &tensors {
                let mut noise = Noise::new(self.seed, &tensor.name);
                let mut at = 0;
                let mut piece = vec![0; PIECE];
                while at < tensor.bytes() {
                    let len = PIECE.min((tensor.bytes() - at) as usize);
                    fill(&mut noise, tensor, at, &mut piece[..len]);
                    file.write_all(&piece[..len]).with_context(writing)?;
                    at += len as u64;
                    done += len as u64;
                    tell(done);
                }
            }
            file.into_inner()
                .map_err(std::io::IntoInnerError::into_error)
                .with_context(writing)?
                .sync_all()?;
            weight_map.extend(tensors.into_iter().map(|tensor| (tensor.name, shard.clone())));
        }
        let index = json!({ "metadata": { "total_size": done }, "weight_map": weight_map });
        write(&folder.join("model.safetensors.index.json"), index.to_string().as_bytes())
    }
}

/// The start of a safetensors file.
fn header(tensors: &[Tensor]) -> Result<Vec<u8>> {
    let mut entries = Map::new();
    let mut at = 0;
    for tensor in tensors {
        let end = at + tensor.bytes();
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end] });
        entries.insert(tensor.name.clone(), entry);
        at = end;
    }
    let mut json = serde_json::to_vec(&Value::Object(entries))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes(), json.as_slice()].concat())
}

/// The bytes of a tensor from `at` on.
fn fill(noise: &mut Noise, tensor: &Tensor, at: u64, out: &mut [u8]) {
    match &tensor.content {
        Content::Codes => noise.bytes(out),
        Content::Noise(deviation) => noise.bf16(*deviation, out),
        Content::Same(value) => {
            for out in out.chunks_exact_mut(2) {
                out.copy_from_slice(&bf16(*value));
            }
        }
        Content::Decay => {
            for out in out.chunks_exact_mut(4) {
                out.copy_from_slice(&(1.0 + 15.0 * noise.unit()).ln().to_le_bytes());
            }
        }
        Content::Rows(values) => {
            let elements = tensor.shape.iter().product::<usize>();
            let row = elements / values.len();
            for (i, out) in out.chunks_exact_mut(2).enumerate() {
                let value = values[(at as usize / 2 + i) / row];
                // A row of one element is a parameter, a longer one noise.
                let factor = if row == 1 { 1.0 } else { 3f32.sqrt() * (2.0 * noise.unit() - 1.0) };
                out.copy_from_slice(&bf16(value * factor));
            }
        }
    }
}
