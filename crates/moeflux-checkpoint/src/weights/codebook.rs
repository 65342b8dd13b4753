//! Linear maps of bitsandbytes' checkpoints in NF4 and FP4: `weight` in bytes of two codes, one column of them, `weight.absmax` with a
//! scale for each block of weights, and `weight.quant_state.bitsandbytes__nf4`, JSON that says the rest.
//!
//! Scales that are bytes themselves were widened when the checkpoint was opened: see [`widen`].

use super::Weights;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::files::Contents;
use crate::matrix::Matrix;
use crate::tensor::{Dtype, Tensor};
use moeflux_kernels::{Codebook, Encoding, Float, decode_floats};
use serde_json::Value;

/// The names of the state in files, by what codes stand for.
const STATES: [(&str, Codebook); 2] =
    [("quant_state.bitsandbytes__nf4", Codebook::Nf4), ("quant_state.bitsandbytes__fp4", Codebook::Fp4)];

/// Largest block of weights, and of scales, that is read.
const MAX_BLOCK: usize = 1 << 20;

/// What a state says.
struct State {
    /// Weights that share a scale; even.
    block: usize,
    /// Rows and columns.
    shape: [usize; 2],
    /// Scales in a block, and what is added to each, if scales are quantised.
    nested: Option<(usize, f32)>,
}

impl State {
    /// Reads the JSON of a state; `None` if it is none.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let state: Value = serde_json::from_slice(bytes).ok()?;
        let size = |value: &Value| {
            let size = usize::try_from(value.as_u64()?).ok()?;
            (1..=MAX_BLOCK).contains(&size).then_some(size)
        };
        let [rows, cols] = state.get("shape")?.as_array()?.as_slice() else { return None };
        let side = |value: &Value| usize::try_from(value.as_u64()?).ok();
        let nested = match (state.get("nested_blocksize"), state.get("nested_offset")) {
            (None, None) => None,
            (Some(block), Some(offset)) => Some((size(block)?, offset.as_f64()? as f32)),
            _ => return None,
        };
        let block = size(state.get("blocksize")?)?;
        let shape = [side(rows)?, side(cols)?];
        block.is_multiple_of(2).then_some(State { block, shape, nested })
    }
}

/// Has the scales of modules stand as float32, and takes out the tensors that are needed for nothing else: the tables of values,
/// which must be those that the formats define, and the scales of scales.
pub(crate) fn widen(contents: &mut Contents) -> Result<(), Error> {
    let modules: Vec<String> =
        contents.tensors.keys().filter_map(|name| Some(name.strip_suffix(".absmax")?.to_owned())).collect();
    for module in modules {
        let state = STATES.iter().find_map(|(name, table)| {
            Some((contents.tensors.get(&format!("{module}.{name}"))?.clone(), *table))
        });
        let Some((state_tensor, table)) = state else { continue };
        let wrong = |contents: &Contents, tensor: &Tensor, expected: &str| Error::ModuleQuantization {
            path: contents.path(tensor.span),
            tensor: tensor.name.clone(),
            expected: expected.to_owned(),
            found: format!("{} {:?}, or other values", tensor.dtype, tensor.shape),
        };
        let Some(state) = State::parse(contents.bytes(state_tensor.span)) else {
            return Err(wrong(contents, &state_tensor, "JSON with blocksize and shape"));
        };
        if let Some(map) = contents.tensors.remove(&format!("{module}.quant_map"))
            && floats(contents, &map).as_deref() != Some(table.values())
        {
            return Err(wrong(contents, &map, "the values that the format defines"));
        }
        let Some((block, offset)) = state.nested else { continue };
        let Some(codes) = contents.tensors.get(&format!("{module}.absmax")).cloned() else { continue };
        let mut part = |name: &str| {
            let name = format!("{module}.{name}");
            let path = contents.path(codes.span);
            contents.tensors.remove(&name).ok_or(Error::MissingTensor { path, tensor: name })
        };
        let (absmax, map) = (part("nested_absmax")?, part("nested_quant_map")?);
        let count = codes.shape.iter().product::<usize>();
        let scales = floats(contents, &absmax).filter(|scales| scales.len() == count.div_ceil(block));
        let table = floats(contents, &map).filter(|table| table.len() == crate::nested::TABLE);
        let (Some(scales), Some(table)) = (scales, table) else {
            return Err(wrong(
                contents,
                &absmax,
                "a float32 for each block of scales, and 256 for the bytes",
            ));
        };
        if codes.dtype != Dtype::U8 || codes.shape.len() != 1 {
            return Err(wrong(contents, &codes, "a list of U8"));
        }
        contents.widen(&codes.name, table, scales, block, offset);
    }
    Ok(())
}

/// The tensor that says how the codes of a module are to be read, and what they stand for.
pub(crate) fn state_of<'a>(checkpoint: &'a Checkpoint, module: &str) -> Option<(&'a Tensor, Codebook)> {
    let tensor = |name: &str| checkpoint.tensor(&format!("{module}.weight.{name}"));
    STATES.iter().find_map(|(name, table)| Some((tensor(name)?, *table)))
}

/// The numbers of a tensor of float32.
fn floats(contents: &Contents, tensor: &Tensor) -> Option<Vec<f32>> {
    let float = tensor.dtype.float().filter(|float| *float == Float::F32)?;
    let mut values = vec![0.0; tensor.shape.iter().product()];
    decode_floats(float, contents.bytes(tensor.span), &mut values);
    Some(values)
}

impl Weights<'_> {
    /// A map of bytes with two codes each.
    pub(super) fn codebook(&self, module: &str, weight: &Tensor, shape: [usize; 2]) -> Result<Matrix, Error> {
        let [rows, cols] = shape;
        let found = state_of(self.checkpoint, module);
        let (name, table) = match found {
            Some((tensor, table)) => (tensor.name.clone(), table),
            None => (format!("{module}.weight.{}", STATES[0].0), STATES[0].1),
        };
        let state_tensor = self.tensor(&name)?;
        let scales = self.tensor(&format!("{module}.weight.absmax"))?;
        let wrong = |tensor: &Tensor, expected: String, found: String| Error::ModuleQuantization {
            path: self.checkpoint.file_path(tensor.span),
            tensor: tensor.name.clone(),
            expected,
            found,
        };
        let state = State::parse(self.checkpoint.bytes(state_tensor.span)).ok_or_else(|| {
            wrong(state_tensor, "JSON with blocksize and shape".to_owned(), "something else".to_owned())
        })?;
        if state.shape != shape {
            let expected = format!("the shape {shape:?}");
            return Err(wrong(state_tensor, expected, format!("{:?}", state.shape)));
        }
        if !cols.is_multiple_of(state.block) {
            let expected = format!("rows of whole blocks of {} weights", state.block);
            return Err(wrong(weight, expected, format!("rows of {cols}")));
        }
        self.check_shape(weight, &[rows * cols / 2, 1])?;
        self.check_dtype(scales, Dtype::F32, "F32")?;
        self.check_shape(scales, &[rows * cols / state.block])?;
        Ok(Matrix {
            name: weight.name.clone(),
            rows,
            cols,
            encoding: Encoding::Codebook { table, group: state.block },
            runs: None,
            codes: weight.span,
            scales: Some(scales.span),
            biases: None,
            groups: None,
        })
    }

    /// The shape of the map whose codes are this tensor.
    pub(super) fn codebook_shape(&self, module: &str) -> Option<Vec<usize>> {
        let (tensor, _) = state_of(self.checkpoint, module)?;
        State::parse(self.checkpoint.bytes(tensor.span)).map(|state| state.shape.to_vec())
    }
}
