//! Linear maps of FP8 checkpoints: `weight` in E4M3, and scales that it is multiplied with.

use super::Weights;
use crate::error::Error;
use crate::matrix::Matrix;
use crate::quantization::ModuleQuantization;
use crate::tensor::{Dtype, Span, Tensor};
use moeflux_kernels::Encoding;

/// What the scales are called. Those of the first name multiply too: they are inverses of what divided.
const SCALES: [&str; 2] = ["weight_scale_inv", "weight_scale"];

/// What the scale is called that inputs can be rounded with.
const INPUT_SCALE: &str = "input_scale";

impl Weights<'_> {
    /// A module that is quantised if its weight is: with one scale for each `block` of rows and columns or, if there are
    /// no blocks, for each row or all of them. A scale of its inputs counts as used: inputs stay what they are.
    pub(super) fn fp8(
        &self,
        module: &str,
        weight: &Tensor,
        block: Option<[usize; 2]>,
        shape: &[usize],
    ) -> Result<Matrix, Error> {
        if weight.dtype != Dtype::F8E4M3 {
            return self.plain(weight, shape);
        }
        let names = SCALES.map(|scales| format!("{module}.{scales}"));
        if let ([rows, cols], Some([block_rows, block_cols])) = (shape, block)
            && names.iter().all(|name| self.checkpoint.tensor(name).is_none())
            && let Some((scales, span)) =
                self.fused_scales(module, [rows.div_ceil(block_rows), cols.div_ceil(block_cols)])?
        {
            self.check_shape(weight, shape)?;
            return Ok(Matrix {
                name: weight.name.clone(),
                rows: *rows,
                cols: *cols,
                encoding: Encoding::Fp8 { block_rows, block_cols, params: self.float(scales)? },
                runs: None,
                codes: weight.span,
                scales: Some(span),
                biases: None,
                groups: None,
            });
        }
        let name = names.iter().find(|name| self.checkpoint.tensor(name).is_some()).unwrap_or(&names[0]);
        let scales = self.tensor(name)?;
        let params = self.float(scales)?;
        self.check_shape(weight, shape)?;
        let [rows, cols] = *shape else {
            return Err(Error::ModuleQuantization {
                path: self.checkpoint.file_path(weight.span),
                tensor: weight.name.clone(),
                expected: "one linear map, since it has FP8 scales".to_owned(),
                found: format!("shape {shape:?}"),
            });
        };
        let [block_rows, block_cols] = match (block, scales.shape.as_slice()) {
            (Some(block), _) => {
                self.check_shape(scales, &[rows.div_ceil(block[0]), cols.div_ceil(block[1])])?;
                block
            }
            (None, [] | [1] | [1, 1]) => [rows, cols],
            (None, [_]) => {
                self.check_shape(scales, &[rows])?;
                [1, cols]
            }
            (None, _) => {
                self.check_shape(scales, &[rows, 1])?;
                [1, cols]
            }
        };
        let input_scale = format!("{module}.{INPUT_SCALE}");
        if self.checkpoint.tensor(&input_scale).is_some() {
            self.tensor(&input_scale)?;
        }
        Ok(Matrix {
            name: weight.name.clone(),
            rows,
            cols,
            encoding: Encoding::Fp8 { block_rows, block_cols, params },
            runs: None,
            codes: weight.span,
            scales: Some(scales.span),
            biases: None,
            groups: None,
        })
    }

    /// The scales `[rows, cols]` of an expert's module in the tensor that holds those of all experts of a layer, which
    /// transformers 5 can write beside weights of one expert each: `experts.gate_up_proj_scale_inv`, the gate's above
    /// the up-projection's, and `experts.down_proj_scale_inv`.
    fn fused_scales(&self, module: &str, [rows, cols]: [usize; 2]) -> Result<Option<(&Tensor, Span)>, Error> {
        let Some((experts, rest)) = module.split_once(".experts.") else { return Ok(None) };
        let Some((expert, part)) = rest.split_once('.') else { return Ok(None) };
        let Ok(expert) = expert.parse::<usize>() else { return Ok(None) };
        let (fused, parts, index) = match part {
            "gate_proj" => ("gate_up_proj", 2, 0),
            "up_proj" => ("gate_up_proj", 2, 1),
            "down_proj" => ("down_proj", 1, 0),
            _ => return Ok(None),
        };
        let name = format!("{experts}.experts.{fused}_scale_inv");
        if self.checkpoint.tensor(&name).is_none() {
            return Ok(None);
        }
        let scales = self.tensor(&name)?;
        let count = scales.shape.first().copied().unwrap_or(0).max(expert + 1);
        self.check_shape(scales, &[count, parts * rows, cols])?;
        let len = (rows * cols * self.float(scales)?.bytes()) as u64;
        let offset = scales.span.offset + (expert * parts + index) as u64 * len;
        Ok(Some((scales, Span { offset, len, ..scales.span })))
    }

    /// Whether a tensor is the scale of an FP8 module's inputs, which nothing here uses.
    pub(crate) fn is_input_scale(&self, tensor: &Tensor) -> bool {
        if self.is_needless_part(tensor) {
            return true;
        }
        let default = self.checkpoint.quantization().map(|quantization| quantization.default);
        let module = tensor.name.strip_suffix(INPUT_SCALE);
        matches!(default, Some(ModuleQuantization::Fp8 { .. }))
            && module.is_some_and(|rest| rest.ends_with('.'))
    }
}
