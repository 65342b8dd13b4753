//! Linear maps of GPTQ's, AWQ's, llm-compressor's and modelopt's checkpoints, read as they lie. Their tensors say widths
//! and groups; what does not fit the map's shape is an error.

use super::Weights;
use crate::error::Error;
use crate::family::Layout;
use crate::matrix::Matrix;
use crate::quantization::ModuleQuantization;
use crate::tensor::{Dtype, Tensor};
use moeflux_kernels::{Encoding, Float, Packing, decode_floats};
use std::sync::Arc;

/// Rows that words of zeros hold together, in every width.
const TOGETHER: usize = 32;
/// Columns in a group are a multiple of so many.
const LEAST_GROUP: usize = 32;

/// Endings of tensors that hold a module's codes.
pub(super) const CODES: [&str; 3] = [".weight", ".qweight", ".weight_packed"];

/// Tensors that describe inputs, which stay what they are, or repeat what others say.
const NEEDLESS: [&str; 7] = [
    "input_scale",
    "input_global_scale",
    "input_zero_point",
    "weight_shape",
    "g_idx",
    "weight.quant_state.bitsandbytes__nf4",
    "weight.quant_state.bitsandbytes__fp4",
];

impl Weights<'_> {
    /// A module of a checkpoint that is packed so; plain if it has no codes.
    pub(super) fn packed(
        &self,
        module: &str,
        how: ModuleQuantization,
        shape: &[usize],
    ) -> Result<Matrix, Error> {
        let has = |part: &str| self.checkpoint.tensor(&format!("{module}.{part}")).is_some();
        let (codes, is_transposed) = match how {
            ModuleQuantization::Gptq { .. } | ModuleQuantization::Awq if has("qweight") => ("qweight", true),
            ModuleQuantization::CompressedTensors if has("weight_packed") => ("weight_packed", false),
            _ => ("weight", false),
        };
        let weight = self.tensor(&format!("{module}.{codes}"))?;
        let [rows, cols] = *shape else {
            return if weight.dtype.encoding().is_some() {
                self.plain(weight, shape)
            } else {
                Err(self.contradiction(
                    weight,
                    "one linear map, since it has codes",
                    format!("shape {shape:?}"),
                ))
            };
        };
        for needless in NEEDLESS {
            if has(needless) {
                self.tensor(&format!("{module}.{needless}"))?;
            }
        }
        let map = Map { weights: self, module, weight, rows, cols };
        match (how, weight.dtype) {
            (ModuleQuantization::Gptq { less_one, ordered }, _) if is_transposed => {
                map.gptq(less_one, ordered)
            }
            (ModuleQuantization::Awq, _) if is_transposed => map.awq(),
            (_, dtype) if is_int32(dtype) => map.integers(),
            (_, Dtype::Other(safetensors::Dtype::I8)) => map.signed_bytes(),
            (ModuleQuantization::Bitsandbytes, Dtype::U8) => self.codebook(module, weight, [rows, cols]),
            (_, Dtype::U8) => map.halves(how),
            (_, Dtype::F8E4M3) if map.has_exponents() => map.mxfp8(),
            (_, Dtype::F8E4M3) => self.fp8(module, weight, None, shape),
            _ => self.plain(weight, shape),
        }
    }

    /// A module of a GGUF file: blocks with a scale beside them for each matrix of a stack, as files have that were made of
    /// modelopt's NVFP4, or without.
    pub(super) fn scaled(&self, module: &str, weight: &Tensor, shape: &[usize]) -> Result<Matrix, Error> {
        let matrix = self.plain(weight, shape)?;
        let tensor = |part: &str| {
            let name = format!("{module}.{part}");
            self.checkpoint.tensor(&name).map(|_| self.tensor(&name)).transpose()
        };
        tensor("input_scale")?;
        let (Some(scale), Encoding::Ggml(ggml)) = (tensor("scale")?, matrix.encoding) else {
            return Ok(matrix);
        };
        self.check_dtype(scale, Dtype::F32, "F32")?;
        let stacked = if shape.len() == 3 { shape[0] } else { 1 };
        self.check_shape(scale, &[stacked])?;
        Ok(Matrix { encoding: Encoding::GgmlScaled(ggml), biases: Some(scale.span), ..matrix })
    }

    /// Whether a tensor belongs to a packed module and says nothing that its other tensors do not.
    pub(crate) fn is_needless_part(&self, tensor: &Tensor) -> bool {
        let module = NEEDLESS.iter().find_map(|part| tensor.name.strip_suffix(part)?.strip_suffix('.'));
        let is_packed = |how: Option<ModuleQuantization>| how.is_some_and(ModuleQuantization::is_packed);
        let is_gguf = self.conventions.layout == Layout::Gguf && tensor.name.ends_with(".input_scale");
        is_gguf
            || module.is_some()
                && is_packed(self.checkpoint.quantization().map(|quantization| quantization.default))
    }

    /// The shape of the linear map whose codes are this tensor of a packed checkpoint; `None` if it can't be told.
    pub(super) fn packed_shape(
        &self,
        module: &str,
        codes: &Tensor,
        how: ModuleQuantization,
    ) -> Option<Vec<usize>> {
        let tensor = |part: &str| self.checkpoint.tensor(&format!("{module}.{part}"));
        let [first, last] = *codes.shape.as_slice() else { return None };
        if codes.name.ends_with(".qweight") {
            return match how {
                ModuleQuantization::Awq => Some(vec![last.checked_mul(8)?, first]),
                _ => {
                    // Zeros are as wide as codes, and packed along the rows.
                    let packed_rows = *tensor("qzeros")?.shape.last()?;
                    let bits = packed_rows.checked_mul(32)?.checked_div(last)?;
                    Some(vec![last, first.checked_mul(32)?.checked_div(bits)?])
                }
            };
        }
        match codes.dtype {
            Dtype::U8 if how == ModuleQuantization::Bitsandbytes => self.codebook_shape(module),
            Dtype::U8 => Some(vec![first, last.checked_mul(2)?]),
            dtype if is_int32(dtype) => {
                let stored = tensor("weight_shape")?;
                let bytes = self.checkpoint.bytes(stored.span);
                let cols = match stored.dtype {
                    Dtype::Other(safetensors::Dtype::I64) => u64::from_le_bytes(*bytes.last_chunk()?),
                    dtype if is_int32(dtype) => u32::from_le_bytes(*bytes.last_chunk()?).into(),
                    _ => return None,
                };
                Some(vec![first, usize::try_from(cols).ok()?])
            }
            _ => Some(codes.shape.clone()),
        }
    }

    /// Whether a tensor is a bias of zeros: some of GPTQ's writers add one to maps that have none.
    pub(super) fn is_zero_bias(&self, tensor: &Tensor) -> bool {
        let Some(float) = tensor.dtype.float().filter(|_| tensor.name.ends_with("_proj.bias")) else {
            return false;
        };
        let mut values = vec![0.0; tensor.shape.iter().product()];
        decode_floats(float, self.checkpoint.bytes(tensor.span), &mut values);
        values.iter().all(|&value| value == 0.0)
    }

    fn contradiction(&self, tensor: &Tensor, expected: &str, found: String) -> Error {
        Error::ModuleQuantization {
            path: self.checkpoint.file_path(tensor.span),
            tensor: tensor.name.clone(),
            expected: expected.to_owned(),
            found,
        }
    }
}

/// A linear map that is being read: `weight` has its codes.
struct Map<'m, 'a> {
    weights: &'m Weights<'a>,
    module: &'m str,
    weight: &'a Tensor,
    rows: usize,
    cols: usize,
}

impl<'a> Map<'_, 'a> {
    fn part(&self, part: &str) -> Result<&'a Tensor, Error> {
        self.weights.tensor(&format!("{}.{part}", self.module))
    }

    fn optional(&self, part: &str) -> Result<Option<&'a Tensor>, Error> {
        let name = format!("{}.{part}", self.module);
        self.weights.checkpoint.tensor(&name).map(|_| self.weights.tensor(&name)).transpose()
    }

    fn matrix(&self, encoding: Encoding, scales: &Tensor, biases: Option<&Tensor>) -> Result<Matrix, Error> {
        let group = encoding.group();
        if !self.cols.is_multiple_of(group) {
            let expected = format!("a multiple of {group} columns, which share a scale");
            return Err(self.weights.contradiction(self.weight, &expected, format!("{} columns", self.cols)));
        }
        Ok(Matrix {
            name: self.weight.name.clone(),
            rows: self.rows,
            cols: self.cols,
            encoding,
            runs: None,
            codes: self.weight.span,
            scales: Some(scales.span),
            biases: biases.map(|biases| biases.span),
            groups: None,
        })
    }

    /// `qweight` along the columns, `scales`, `qzeros` and, if columns are ordered, `g_idx`.
    fn gptq(&self, less_one: bool, ordered: bool) -> Result<Matrix, Error> {
        let (scales, zeros) = (self.part("scales")?, self.part("qzeros")?);
        let words = self.weight.shape.first().copied().unwrap_or(0);
        let bits = self.bits(words)?;
        let (group, params) = self.groups_by_column(scales)?;
        self.words(self.weight, &[self.cols * bits / 32, self.rows])?;
        self.words(zeros, &[self.cols / group, self.rows * bits / 32])?;
        let packing = Packing::Gptq { less_one };
        let encoding = Encoding::Packed { bits: bits as u8, group, params, packing };
        let groups = match self.optional("g_idx")? {
            Some(order) if ordered => self.order(order, group)?,
            _ => None,
        };
        Ok(Matrix { groups, ..self.matrix(encoding, scales, Some(zeros))? })
    }

    /// `qweight` and `qzeros` along the rows, and `scales`.
    fn awq(&self) -> Result<Matrix, Error> {
        let (scales, zeros) = (self.part("scales")?, self.part("qzeros")?);
        let (group, params) = self.groups_by_column(scales)?;
        self.words(self.weight, &[self.cols, self.rows / 8])?;
        self.words(zeros, &[self.cols / group, self.rows / 8])?;
        let encoding = Encoding::Packed { bits: 4, group, params, packing: Packing::Awq };
        self.matrix(encoding, scales, Some(zeros))
    }

    /// `weight_packed` in words row by row, `weight_scale`, and `weight_zero_point` if it is asymmetric.
    fn integers(&self) -> Result<Matrix, Error> {
        if let Some(order) = self.optional("weight_g_idx")? {
            let group = self.group_by_row(self.part("weight_scale")?)?.0;
            if self.order(order, group)?.is_some() {
                let expected =
                    "columns in the order of their groups; other orders are read of GPTQ's files alone";
                return Err(self.weights.contradiction(order, expected, "another order".to_owned()));
            }
        }
        let scales = self.part("weight_scale")?;
        let (group, params) = self.group_by_row(scales)?;
        let bits = self.bits(self.weight.shape.last().copied().unwrap_or(0))?;
        self.words(self.weight, &[self.rows, self.cols * bits / 32])?;
        let Some(zeros) = self.optional("weight_zero_point")? else {
            let encoding = Encoding::Symmetric { bits: bits as u8, group, params, signed: false };
            return self.matrix(encoding, scales, None);
        };
        self.rows_together()?;
        if !group.is_multiple_of(LEAST_GROUP) {
            let expected = format!("groups of a multiple of {LEAST_GROUP} columns");
            return Err(self.weights.contradiction(scales, &expected, format!("{group}")));
        }
        self.words(zeros, &[self.rows * bits / 32, self.cols / group])?;
        let packing = Packing::ZerosByRow;
        self.matrix(Encoding::Packed { bits: bits as u8, group, params, packing }, scales, Some(zeros))
    }

    /// Signed bytes and `weight_scale`.
    fn signed_bytes(&self) -> Result<Matrix, Error> {
        self.weights.check_shape(self.weight, &[self.rows, self.cols])?;
        if let Some(zeros) = self.optional("weight_zero_point")?
            && self.weights.checkpoint.bytes(zeros.span).iter().any(|&byte| byte != 0)
        {
            return Err(self.weights.contradiction(
                zeros,
                "zeros alone: asymmetric bytes are not supported; convert the original",
                "others".to_owned(),
            ));
        }
        let scales = self.part("weight_scale")?;
        let (group, params) = self.group_by_row(scales)?;
        self.matrix(Encoding::Symmetric { bits: 8, group, params, signed: true }, scales, None)
    }

    /// Two e2m1 codes a byte: NVFP4 with a scale of the whole, or MXFP4.
    fn halves(&self, how: ModuleQuantization) -> Result<Matrix, Error> {
        self.weights.check_shape(self.weight, &[self.rows, self.cols / 2])?;
        let scales = self.part("weight_scale")?;
        if is_exponent(scales.dtype) {
            self.weights.check_shape(scales, &[self.rows, self.cols / 32])?;
            return self.matrix(Encoding::Mxfp4, scales, None);
        }
        self.weights.check_dtype(scales, Dtype::F8E4M3, "F8_E4M3, or U8 for exponents")?;
        self.weights.check_shape(scales, &[self.rows, self.cols / 16])?;
        let divided = how == ModuleQuantization::CompressedTensors;
        let whole = self.part(if divided { "weight_global_scale" } else { "weight_scale_2" })?;
        self.weights.check_dtype(whole, Dtype::F32, "F32")?;
        if !whole.shape.is_empty() {
            self.weights.check_shape(whole, &[1])?;
        }
        self.matrix(Encoding::Nvfp4Scaled { divided }, scales, Some(whole))
    }

    /// Whether scales are exponents, as MXFP8 has them.
    fn has_exponents(&self) -> bool {
        let scales = self.weights.checkpoint.tensor(&format!("{}.weight_scale", self.module));
        scales.is_some_and(|scales| is_exponent(scales.dtype))
    }

    fn mxfp8(&self) -> Result<Matrix, Error> {
        let scales = self.part("weight_scale")?;
        self.weights.check_shape(self.weight, &[self.rows, self.cols])?;
        self.weights.check_shape(scales, &[self.rows, self.cols / 32])?;
        self.matrix(Encoding::Mxfp8, scales, None)
    }

    /// The width of codes, of which `words` words hold a row.
    fn bits(&self, words: usize) -> Result<usize, Error> {
        let bits = words.saturating_mul(32) / self.cols.max(1);
        if (2..=8).contains(&bits) && (self.cols * bits).is_multiple_of(32) && self.cols * bits / 32 == words
        {
            return Ok(bits);
        }
        let expected = format!("words that hold {} codes of 2 to 8 bits", self.cols);
        Err(self.weights.contradiction(self.weight, &expected, format!("{:?}", self.weight.shape)))
    }

    /// Columns in a group, of scales `[groups, rows]`, and their type.
    fn groups_by_column(&self, scales: &Tensor) -> Result<(usize, Float), Error> {
        self.rows_together()?;
        let groups = scales.shape.first().copied().unwrap_or(0);
        let group = self.cols.checked_div(groups).unwrap_or(0);
        if group == 0 || !group.is_multiple_of(LEAST_GROUP) {
            let expected = format!("groups of a multiple of {LEAST_GROUP} columns");
            return Err(self.weights.contradiction(scales, &expected, format!("{:?}", scales.shape)));
        }
        self.weights.check_shape(scales, &[self.cols / group, self.rows])?;
        Ok((group, self.weights.float(scales)?))
    }

    /// Columns in a group, of scales `[rows, groups]`, and their type.
    fn group_by_row(&self, scales: &Tensor) -> Result<(usize, Float), Error> {
        let groups = match scales.shape[..] {
            [_, groups] => groups,
            _ => 1,
        };
        let group = self.cols.checked_div(groups).unwrap_or(0);
        if group == 0 || !group.is_multiple_of(8) {
            let expected = "a scale for each row, or for each group of a multiple of 8 columns";
            return Err(self.weights.contradiction(scales, expected, format!("{:?}", scales.shape)));
        }
        match scales.shape[..] {
            [rows] if groups == 1 && rows == self.rows => {}
            _ => self.weights.check_shape(scales, &[self.rows, self.cols / group])?,
        }
        Ok((group, self.weights.float(scales)?))
    }

    /// Refuses rows that are cut from those whose zeros lie together.
    fn rows_together(&self) -> Result<(), Error> {
        if self.rows.is_multiple_of(TOGETHER) {
            return Ok(());
        }
        let expected = format!("a multiple of {TOGETHER} rows, which are packed together");
        Err(self.weights.contradiction(self.weight, &expected, format!("{} rows", self.rows)))
    }

    fn words(&self, tensor: &Tensor, shape: &[usize]) -> Result<(), Error> {
        if !is_int32(tensor.dtype) {
            return Err(self.weights.wrong_dtype(tensor, "I32"));
        }
        self.weights.check_shape(tensor, shape)
    }

    /// The group of each column; `None` if they are in order.
    fn order(&self, order: &Tensor, group: usize) -> Result<Option<Arc<[u16]>>, Error> {
        self.words(order, &[self.cols])?;
        let groups = self.cols / group;
        let bytes = self.weights.checkpoint.bytes(order.span).as_chunks::<4>().0;
        let numbers = bytes.iter().map(|&bytes| u32::from_le_bytes(bytes));
        if numbers.clone().enumerate().all(|(col, number)| number as usize == col / group) {
            return Ok(None);
        }
        let read = |number: u32| u16::try_from(number).ok().filter(|&number| usize::from(number) < groups);
        numbers.map(read).collect::<Option<Arc<[u16]>>>().map(Some).ok_or_else(|| {
            let expected = format!("the number of a group, from 0 to {}, for each column", groups - 1);
            self.weights.contradiction(order, &expected, "another number".to_owned())
        })
    }
}

fn is_int32(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::U32 | Dtype::Other(safetensors::Dtype::I32))
}

/// Whether scales are powers of two.
fn is_exponent(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::U8 | Dtype::Other(safetensors::Dtype::F8_E8M0))
}
