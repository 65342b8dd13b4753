//! Experts whose linear maps have biases, as gpt-oss has them.

use super::{FLOATS, Weights};
use crate::error::Error;
use crate::matrix::{Expert, ExpertBiases, Matrix};
use crate::tensor::Dtype;
use moeflux_kernels::{Encoding, RowRuns};

impl Weights<'_> {
    /// The routed experts of the layer's mixture `name` (`layers.3.mlp`), in order, each with its biases: MXFP4 blocks
    /// with rows of gate and up in turns, as published, the same in plain floats, as transformers saves them, or one tensor a
    /// projection, as `mlx_lm.convert` writes them.
    pub fn biased_experts(
        &self,
        name: &str,
        count: usize,
        hidden: usize,
        intermediate: usize,
    ) -> Result<Vec<Expert>, Error> {
        if let Some(experts) = self.blocks(name, [count, intermediate, hidden])? {
            return Ok(experts);
        }
        let module = |part: &str| self.conventions.module(&format!("{name}.experts.{part}"));
        let fused = module("gate_up_proj");
        let (even, odd) = (RowRuns { first: 0, len: 1, period: 2 }, RowRuns { first: 1, len: 1, period: 2 });
        // Stored as `[count, hidden, 2·intermediate]`; their rows were put in order when the file was opened.
        if self.checkpoint.tensor(&fused).is_some() {
            let down = module("down_proj");
            let gate_up = self.plain(self.tensor(&fused)?, &[count, 2 * intermediate, hidden])?;
            let gate_up_bias = self.columns(&format!("{fused}_bias"), count, 2 * intermediate)?;
            let parts = Parts {
                gate: gate_up.row_runs(even),
                up: gate_up.row_runs(odd),
                down: self.plain(self.tensor(&down)?, &[count, hidden, intermediate])?,
                gate_bias: gate_up_bias.row_runs(even),
                up_bias: gate_up_bias.row_runs(odd),
                down_bias: self.columns(&format!("{down}_bias"), count, hidden)?,
            };
            return Ok((0..count).map(|index| parts.expert(index, hidden, intermediate)).collect());
        }
        let parts = if self.checkpoint.tensor(&format!("{fused}_blocks")).is_some() {
            let gate_up = self.mxfp4_blocks(&fused, [count, 2 * intermediate, hidden])?;
            let gate_up_bias = self.columns(&format!("{fused}_bias"), count, 2 * intermediate)?;
            let down = module("down_proj");
            Parts {
                gate: gate_up.row_runs(even),
                up: gate_up.row_runs(odd),
                down: self.mxfp4_blocks(&down, [count, hidden, intermediate])?,
                gate_bias: gate_up_bias.row_runs(even),
                up_bias: gate_up_bias.row_runs(odd),
                down_bias: self.columns(&format!("{down}_bias"), count, hidden)?,
            }
        } else {
            let stack = |part: &str, rows: usize, cols: usize| {
                let weight = self.module(&module(part), &[count, rows, cols])?;
                Ok((weight, self.columns(&module(&format!("{part}.bias")), count, rows)?))
            };
            let (gate, gate_bias) = stack("gate_proj", intermediate, hidden)?;
            let (up, up_bias) = stack("up_proj", intermediate, hidden)?;
            let (down, down_bias) = stack("down_proj", hidden, intermediate)?;
            Parts { gate, up, down, gate_bias, up_bias, down_bias }
        };
        Ok((0..count).map(|index| parts.expert(index, hidden, intermediate)).collect())
    }

    /// `{name}_blocks` and `{name}_scales`: 16 bytes of codes and one scale for each 32 columns.
    fn mxfp4_blocks(&self, name: &str, [count, rows, cols]: [usize; 3]) -> Result<Matrix, Error> {
        let group = Encoding::Mxfp4.group();
        let blocks = self.tensor(&format!("{name}_blocks"))?;
        let scales = self.tensor(&format!("{name}_scales"))?;
        self.check_dtype(blocks, Dtype::U8, "U8")?;
        self.check_dtype(scales, Dtype::U8, "U8")?;
        if !cols.is_multiple_of(group) {
            return Err(Error::ModuleQuantization {
                path: self.checkpoint.file_path(blocks.span),
                tensor: blocks.name.clone(),
                expected: format!("a multiple of {group} columns for mxfp4"),
                found: format!("{cols} columns"),
            });
        }
        self.check_shape(blocks, &[count, rows, cols / group, group / 2])?;
        self.check_shape(scales, &[count, rows, cols / group])?;
        Ok(Matrix {
            name: blocks.name.clone(),
            rows: count * rows,
            cols,
            encoding: Encoding::Mxfp4,
            runs: None,
            codes: blocks.span,
            scales: Some(scales.span),
            biases: None,
            groups: None,
        })
    }

    /// A bias for each of `count` experts, `[count, rows]`, as one column.
    fn columns(&self, name: &str, count: usize, rows: usize) -> Result<Matrix, Error> {
        let tensor = self.tensor(name)?;
        self.check_shape(tensor, &[count, rows])?;
        let float = tensor.dtype.float().ok_or_else(|| self.wrong_dtype(tensor, FLOATS))?;
        Ok(Matrix {
            name: tensor.name.clone(),
            rows: count * rows,
            cols: 1,
            encoding: Encoding::Float(float),
            runs: None,
            codes: tensor.span,
            scales: None,
            biases: None,
            groups: None,
        })
    }
}

/// All experts of a layer, one above the other.
struct Parts {
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    gate_bias: Matrix,
    up_bias: Matrix,
    down_bias: Matrix,
}

impl Parts {
    fn expert(&self, index: usize, hidden: usize, intermediate: usize) -> Expert {
        let inner = |matrix: &Matrix| matrix.slice(index * intermediate, intermediate);
        let outer = |matrix: &Matrix| matrix.slice(index * hidden, hidden);
        Expert {
            gate: inner(&self.gate),
            up: inner(&self.up),
            down: outer(&self.down),
            biases: Some(ExpertBiases {
                gate: inner(&self.gate_bias),
                up: inner(&self.up_bias),
                down: outer(&self.down_bias),
            }),
        }
    }
}
