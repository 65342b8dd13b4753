//! A model's tensors under canonical names and in one convention, whichever tool wrote the files.

mod biased_experts;
pub(crate) mod codebook;
mod fp8;
mod latent;
mod linear_maps;
mod packed;

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::family::rope::RopeScaling;
use crate::family::{self, Conventions, Layout, RowOrder};
use crate::gguf;
use crate::matrix::{Expert, Matrix};
use crate::quantization::ModuleQuantization;
use crate::tensor::{Dtype, Tensor};
use moeflux_kernels::{Float, decode_floats};
use std::cell::RefCell;
use std::collections::HashSet;

pub use latent::{LatentDims, LatentHeads};
pub(crate) use linear_maps::LinearMap;

/// How many unexpected tensors an error lists.
const LISTED: usize = 5;

/// The element types that parameters can have.
const FLOATS: &str = "F32, F16 or BF16";

/// Hands out a model's tensors, each checked against the shape that the caller expects. Names are canonical: the hub's
/// without what stands in front of them, such as `embed_tokens`, `norm`, `lm_head`, `layers.3.self_attn.q_proj`,
/// `layers.3.mlp.shared_expert.gate_proj`.
///
/// It remembers what was asked for: after the last tensor, [`finish`](Self::finish) refuses a checkpoint that holds
/// more, since what is left out would change what the model computes.
#[derive(Debug)]
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    conventions: Conventions,
    /// Names, in the files, of tensors that were handed out.
    used: RefCell<HashSet<&'a str>>,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, conventions: Conventions) -> Self {
        Weights { checkpoint, conventions, used: RefCell::default() }
    }

    /// The weight `[rows, cols]` of a linear map, or an embedding's table, in whatever encoding the checkpoint has it.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix, Error> {
        self.module(&self.conventions.module(name), &[rows, cols])
    }

    /// Whether the checkpoint has the linear map called `name`: some store two maps as one.
    pub fn has_matrix(&self, name: &str) -> bool {
        let module = self.conventions.module(name);
        packed::CODES.iter().any(|codes| self.checkpoint.tensor(&format!("{module}{codes}")).is_some())
    }

    /// A vector `[len]` of parameters: a norm's weight as it multiplies (zero-centred norms with their 1 added, in
    /// float32), `A_log`, `dt_bias`.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let mut values = self.floats(&self.conventions.tensor(name), &[len])?;
        if self.conventions.adds_one(name) {
            for value in &mut values {
                *value += 1.0;
            }
        }
        if self.conventions.layout == Layout::Gguf && name.ends_with(".A_log") {
            self.take_logarithms(name, &mut values)?;
        }
        Ok(values)
    }

    /// A depthwise convolution over time `[channels, kernel]`, the oldest tap first.
    pub fn conv1d(&self, name: &str, channels: usize, kernel: usize) -> Result<Vec<f32>, Error> {
        let name = self.conventions.tensor(name);
        let shape = match self.conventions.layout {
            Layout::HuggingFace => [channels, 1, kernel],
            Layout::Mlx => [channels, kernel, 1],
            Layout::Gguf => return self.floats(&name, &[channels, kernel]),
        };
        self.floats(&name, &shape)
    }

    /// The routed experts of the layer's mixture `name` (`layers.3.mlp`), in order: slices of fused or stacked tensors,
    /// or tensors of their own.
    pub fn experts(
        &self,
        name: &str,
        count: usize,
        hidden: usize,
        intermediate: usize,
    ) -> Result<Vec<Expert>, Error> {
        if let Some(experts) = self.blocks(name, [count, intermediate, hidden])? {
            return Ok(experts);
        }
        let module = |part: &str| self.conventions.module(&format!("{name}.{part}"));
        let stacked = |part: &str| module(&format!("switch_mlp.{part}"));
        let fused = |part: &str| module(&format!("experts.{part}")) + self.conventions.layout.fused_suffix();
        let gate_up = fused("gate_up_proj");
        if self.checkpoint.tensor(&format!("{}.weight", stacked("gate_proj"))).is_some() {
            let gate = self.module(&stacked("gate_proj"), &[count, intermediate, hidden])?;
            let up = self.module(&stacked("up_proj"), &[count, intermediate, hidden])?;
            let down = self.module(&stacked("down_proj"), &[count, hidden, intermediate])?;
            let expert = |e: usize| Expert {
                gate: gate.slice(e * intermediate, intermediate),
                up: up.slice(e * intermediate, intermediate),
                down: down.slice(e * hidden, hidden),
                biases: None,
            };
            Ok((0..count).map(expert).collect())
        } else if self.checkpoint.tensor(&gate_up).is_some() {
            let gate_up = self.plain(self.tensor(&gate_up)?, &[count, 2 * intermediate, hidden])?;
            let down = self.tensor(&fused("down_proj"))?;
            let down = self.plain(down, &[count, hidden, intermediate])?;
            let expert = |e: usize| Expert {
                gate: gate_up.slice(2 * e * intermediate, intermediate),
                up: gate_up.slice((2 * e + 1) * intermediate, intermediate),
                down: down.slice(e * hidden, hidden),
                biases: None,
            };
            Ok((0..count).map(expert).collect())
        } else {
            let expert = |e: usize| {
                let part = |part: &str, rows: usize, cols: usize| {
                    self.module(&module(&format!("experts.{e}.{part}")), &[rows, cols])
                };
                Ok(Expert {
                    gate: part("gate_proj", intermediate, hidden)?,
                    up: part("up_proj", intermediate, hidden)?,
                    down: part("down_proj", hidden, intermediate)?,
                    biases: None,
                })
            };
            (0..count).map(expert).collect()
        }
    }

    /// The experts of a mixture that the format keeps in blocks of its own.
    fn blocks(&self, name: &str, shape: [usize; 3]) -> Result<Option<Vec<Expert>>, Error> {
        let module = self.conventions.module(&format!("{name}.experts"));
        let Some(stacked) = self.checkpoint.mixture(&module) else { return Ok(None) };
        let tensor = self.tensor(&module)?;
        if stacked.shape() != shape {
            return Err(Error::Shape {
                path: self.checkpoint.file_path(tensor.span),
                tensor: module,
                expected: shape.to_vec(),
                found: stacked.shape().to_vec(),
            });
        }
        Ok(Some(stacked.experts(&module)))
    }

    /// The order of rows that formats differ in.
    pub fn row_order(&self) -> RowOrder {
        self.conventions.row_order
    }

    /// `A_log` of what is stored as `-exp(A_log)`.
    fn take_logarithms(&self, name: &str, values: &mut [f32]) -> Result<(), Error> {
        for value in values {
            if *value >= 0.0 || !value.is_finite() {
                let tensor = self.tensor(&self.conventions.tensor(name))?;
                return Err(Error::Value {
                    path: self.checkpoint.file_path(tensor.span),
                    tensor: tensor.name.clone(),
                    expected: "finite numbers below 0",
                    found: *value,
                });
            }
            *value = f64::from(-*value).ln() as f32;
        }
        Ok(())
    }

    /// Checks that no tensor is left, save those of a vision tower and of a multi-token-prediction head, biases of zeros,
    /// those that are computed anew or belong to what is not rounded here, and a copy of the embedding where that is the
    /// output projection.
    pub fn finish(&self) -> Result<(), Error> {
        let used = self.used.borrow();
        let untied = self.stored_head()?;
        let unexpected = |tensor: &&Tensor| {
            let name = tensor.name.as_str();
            !used.contains(name)
                && !family::is_vision(name)
                && !self.checkpoint.is_mtp(tensor)
                && !self.is_zero_bias(tensor)
                && !self.is_needless(name)
                && !untied.iter().any(|known| known == name)
        };
        let left: Vec<&Tensor> = self.checkpoint.tensors().filter(unexpected).collect();
        let Some(first) = left.first() else { return Ok(()) };
        Err(Error::UnexpectedTensors {
            path: self.checkpoint.file_path(first.span),
            count: left.len(),
            tensors: left.iter().take(LISTED).map(|tensor| tensor.name.clone()).collect(),
        })
    }

    /// Whether a tensor changes nothing: one that follows from the config, a scale of what is not rounded here, or what the
    /// config holds already.
    fn is_needless(&self, name: &str) -> bool {
        family::is_buffer(name)
            || (self.conventions.layout == Layout::Gguf
                && name == gguf::ROPE_FACTORS
                && self.has_rope_factors())
    }

    fn has_rope_factors(&self) -> bool {
        let mut config = self.checkpoint.config().clone();
        config.rope_mut().is_some_and(|rope| matches!(rope.scaling, RopeScaling::Factors(_)))
    }

    /// The tensors of an output projection that is stored though the embedding stands for it; they must be equal.
    fn stored_head(&self) -> Result<Vec<String>, Error> {
        if !self.conventions.tied || self.conventions.layout == Layout::Gguf {
            return Ok(Vec::new());
        }
        let (head, embedding) = (self.conventions.lm_head, self.conventions.module("embed_tokens"));
        let mut stored = Vec::new();
        for part in ["weight", "scales", "biases"] {
            let name = format!("{head}.{part}");
            let Some(tensor) = self.checkpoint.tensor(&name) else { continue };
            let embedding = format!("{embedding}.{part}");
            let is_same = self.checkpoint.tensor(&embedding).is_some_and(|other| {
                (tensor.dtype, &tensor.shape) == (other.dtype, &other.shape)
                    && seem_equal(self.checkpoint.bytes(tensor.span), self.checkpoint.bytes(other.span))
            });
            if !is_same {
                let path = self.checkpoint.file_path(tensor.span);
                return Err(Error::Untied { path, tensor: name, embedding });
            }
            stored.push(name);
        }
        Ok(stored)
    }

    /// The linear map of a module, named as in the files, quantised or not. Of a stack of maps (`shape` has three
    /// dimensions) the rows follow one another.
    fn module(&self, module: &str, shape: &[usize]) -> Result<Matrix, Error> {
        let quantization = self.checkpoint.quantization();
        let named = quantization.and_then(|quantization| quantization.modules.get(module).copied());
        let how = named.unwrap_or(quantization.map(|quantization| quantization.default));
        if let Some(how) = how.filter(|how| how.is_packed()) {
            return self.packed(module, how, shape);
        }
        let weight = self.tensor(&format!("{module}.weight"))?;
        let scales_name = format!("{module}.scales");
        if let Some(ModuleQuantization::Fp8 { block }) = how {
            return self.fp8(module, weight, block, shape);
        }
        match (how, self.checkpoint.tensor(&scales_name)) {
            (Some(how), Some(_)) => self.quantised(module, weight, how, shape),
            (None, None) if self.conventions.layout == Layout::Gguf => self.scaled(module, weight, shape),
            (None, None) => self.plain(weight, shape),
            // MLX leaves a module plain, without saying so, where its width is no multiple of the group.
            (Some(_), None) if named.is_none() && weight.dtype != Dtype::U32 => self.plain(weight, shape),
            (Some(_), None) => Err(Error::MissingTensor {
                path: self.checkpoint.file_path(weight.span),
                tensor: scales_name,
            }),
            (None, Some(scales)) => Err(Error::ModuleQuantization {
                path: self.checkpoint.file_path(scales.span),
                tensor: scales_name,
                expected: "no scales, since config.json does not list the module as quantised".to_owned(),
                found: format!("{} {:?}", scales.dtype, scales.shape),
            }),
        }
    }

    /// A module of plain floats.
    fn plain(&self, weight: &Tensor, shape: &[usize]) -> Result<Matrix, Error> {
        match shape {
            // Some files have a map with one output as a vector.
            [1, cols] if self.conventions.layout == Layout::Gguf && weight.shape == [*cols] => {}
            _ => self.check_shape(weight, shape)?,
        }
        let (rows, cols) = rows_and_cols(shape);
        Ok(Matrix {
            name: weight.name.clone(),
            rows,
            cols,
            encoding: weight.dtype.encoding().ok_or_else(|| self.wrong_dtype(weight, FLOATS))?,
            runs: None,
            codes: weight.span,
            scales: None,
            biases: None,
            groups: None,
        })
    }

    /// A module of codes with scales, and with biases if it is affine.
    fn quantised(
        &self,
        module: &str,
        weight: &Tensor,
        how: ModuleQuantization,
        shape: &[usize],
    ) -> Result<Matrix, Error> {
        let scales = self.tensor(&format!("{module}.scales"))?;
        let affine = matches!(how, ModuleQuantization::Affine { .. });
        let encoding = how
            .encoding(scales.dtype)
            .ok_or_else(|| self.wrong_dtype(scales, if affine { FLOATS } else { "U8" }))?;
        let biases = affine.then(|| self.tensor(&format!("{module}.biases"))).transpose()?;
        self.check_dtype(weight, Dtype::U32, "U32")?;
        let (rows, cols) = rows_and_cols(shape);
        let contradiction = |expected: String, found: String| Error::ModuleQuantization {
            path: self.checkpoint.file_path(weight.span),
            tensor: weight.name.clone(),
            expected,
            found,
        };
        if !cols.is_multiple_of(encoding.group()) {
            let expected = format!("a multiple of {} columns for {how}", encoding.group());
            return Err(contradiction(expected, format!("{cols} columns")));
        }
        let with_last = |last: usize| [&shape[..shape.len() - 1], &[last]].concat();
        let codes = with_last(cols * encoding.bits() / 32);
        if weight.shape != codes {
            return Err(contradiction(format!("shape {codes:?} for {how}"), format!("{:?}", weight.shape)));
        }
        self.check_shape(scales, &with_last(cols / encoding.group()))?;
        if let Some(biases) = biases {
            self.check_dtype(biases, scales.dtype, "the same as its scales")?;
            self.check_shape(biases, &scales.shape)?;
        }
        Ok(Matrix {
            name: weight.name.clone(),
            rows,
            cols,
            encoding,
            runs: None,
            codes: weight.span,
            scales: Some(scales.span),
            biases: biases.map(|biases| biases.span),
            groups: None,
        })
    }

    /// A tensor of floats, widened.
    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let tensor = self.tensor(name)?;
        self.check_shape(tensor, shape)?;
        let mut values = vec![0.0; shape.iter().product()];
        decode_floats(self.float(tensor)?, self.checkpoint.bytes(tensor.span), &mut values);
        Ok(values)
    }

    /// The tensor that the files call `name`; it counts as used.
    fn tensor(&self, name: &str) -> Result<&'a Tensor, Error> {
        let tensor = self.checkpoint.tensor(name).ok_or_else(|| Error::MissingTensor {
            path: self.checkpoint.path().to_owned(),
            tensor: name.to_owned(),
        })?;
        self.used.borrow_mut().insert(&tensor.name);
        Ok(tensor)
    }

    fn check_shape(&self, tensor: &Tensor, expected: &[usize]) -> Result<(), Error> {
        if tensor.shape == expected {
            return Ok(());
        }
        Err(Error::Shape {
            path: self.checkpoint.file_path(tensor.span),
            tensor: tensor.name.clone(),
            expected: expected.to_owned(),
            found: tensor.shape.clone(),
        })
    }

    fn check_dtype(&self, tensor: &Tensor, dtype: Dtype, expected: &'static str) -> Result<(), Error> {
        if tensor.dtype == dtype { Ok(()) } else { Err(self.wrong_dtype(tensor, expected)) }
    }

    fn float(&self, tensor: &Tensor) -> Result<Float, Error> {
        tensor.dtype.float().ok_or_else(|| self.wrong_dtype(tensor, FLOATS))
    }

    fn wrong_dtype(&self, tensor: &Tensor, expected: &'static str) -> Error {
        Error::Dtype {
            path: self.checkpoint.file_path(tensor.span),
            tensor: tensor.name.clone(),
            expected,
            found: tensor.dtype,
        }
    }
}

/// All dimensions but the last taken together, and the last. Config limits keep the product far from overflowing.
fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    match shape {
        [rows @ .., cols] => (rows.iter().product(), *cols),
        [] => (1, 1),
    }
}

/// Whether two ranges of equal length hold the same: of large ones a thousand pieces are compared, spread evenly, since to
/// compare all of an embedding would read it twice at every start.
fn seem_equal(a: &[u8], b: &[u8]) -> bool {
    const PIECE: usize = 4096;
    const PIECES: usize = 1024;
    if a.len() != b.len() || a.len() <= PIECE * PIECES {
        return a == b;
    }
    let last = a.len() - PIECE;
    (0..PIECES).all(|index| {
        let at = last / (PIECES - 1) * index;
        a[at..at + PIECE] == b[at..at + PIECE]
    }) && a[last..] == b[last..]
}
