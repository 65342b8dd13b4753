//! How a checkpoint's modules are quantised: the `quantization` block that MLX writes into `config.json`; those of FP8
//! checkpoints are read in [`fp8`], those of GPTQ, AWQ, llm-compressor and modelopt in [`packed`].

mod fp8;
mod packed;

use crate::config::Fields;
use crate::error::Error;
use crate::tensor::Dtype;
use moeflux_kernels::Encoding;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// How one module is quantised. What the modes mean is in [`Encoding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleQuantization {
    /// A scale and a bias, of the type that the file has, for each group.
    Affine {
        /// Width of a code: 2, 3, 4, 5, 6 or 8.
        bits: u8,
        /// Columns in a group: 32, 64 or 128.
        group_size: usize,
    },
    /// 4-bit floats, an 8-bit exponent for each 32.
    Mxfp4,
    /// 8-bit floats, an 8-bit exponent for each 32.
    Mxfp8,
    /// 4-bit floats, an 8-bit float scale for each 16.
    Nvfp4,
    /// E4M3 floats with float scales.
    Fp8 {
        /// Rows and columns that share a scale; `None`: each row has one, or all have one together, as their shape says.
        block: Option<[usize; 2]>,
    },
    /// Integers with scales and zeros by group, packed along the columns as GPTQ's tools write them.
    Gptq {
        /// Whether zeros are stored less 1, as the format's first version has it.
        less_one: bool,
        /// Whether columns need not be in the order of their groups.
        ordered: bool,
    },
    /// Integers of 4 bits with scales and zeros by group, packed along the rows as AutoAWQ writes them.
    Awq,
    /// What llm-compressor's tensors say: packed integers, signed bytes, NVFP4, MXFP4, MXFP8, FP8.
    CompressedTensors,
    /// What modelopt's tensors say: FP8, NVFP4, MXFP8.
    Modelopt,
    /// NF4 or FP4 of bitsandbytes, as the module's tensors say.
    Bitsandbytes,
}

impl ModuleQuantization {
    /// The encoding of a module with scales of this dtype; `None` if they cannot be its scales. That of FP8 depends on
    /// shapes too.
    pub(crate) fn encoding(self, scales: Dtype) -> Option<Encoding> {
        match self {
            ModuleQuantization::Fp8 { .. } => None,
            _ if self.is_packed() => None,
            ModuleQuantization::Affine { bits, group_size: group } => {
                Some(Encoding::Affine { bits, group, params: scales.float()? })
            }
            _ if scales != Dtype::U8 => None,
            ModuleQuantization::Mxfp4 => Some(Encoding::Mxfp4),
            ModuleQuantization::Mxfp8 => Some(Encoding::Mxfp8),
            _ => Some(Encoding::Nvfp4),
        }
    }

    /// Whether a module's tensors say more of it than this does.
    pub(crate) fn is_packed(self) -> bool {
        matches!(
            self,
            ModuleQuantization::Gptq { .. }
                | ModuleQuantization::Awq
                | ModuleQuantization::CompressedTensors
                | ModuleQuantization::Modelopt
                | ModuleQuantization::Bitsandbytes
        )
    }

    /// Reads `mode`, `bits` and `group_size`; absent ones have MLX's defaults: affine, and what belongs to the mode.
    fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
        let mode = fields.text("mode")?;
        let (module, bits, group_sizes): (_, &[usize], &[usize]) = match mode {
            None | Some("affine") => {
                (ModuleQuantization::Affine { bits: 4, group_size: 64 }, &[2, 3, 4, 5, 6, 8], &[32, 64, 128])
            }
            Some("mxfp4") => (ModuleQuantization::Mxfp4, &[4], &[32]),
            Some("mxfp8") => (ModuleQuantization::Mxfp8, &[8], &[32]),
            Some("nvfp4") => (ModuleQuantization::Nvfp4, &[4], &[16]),
            Some(_) => return Err(fields.wrong("mode", "affine, mxfp4, mxfp8 or nvfp4")),
        };
        let mut one_of = |name: &str, allowed: &[usize]| {
            let expected = allowed.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ");
            fields.read(name, &expected, |value| {
                allowed.iter().copied().find(|&allowed| value.as_u64() == Some(allowed as u64))
            })
        };
        let (bits, group_size) = (one_of("bits", bits)?, one_of("group_size", group_sizes)?);
        Ok(match module {
            ModuleQuantization::Affine { .. } => ModuleQuantization::Affine {
                bits: bits.unwrap_or(4) as u8,
                group_size: group_size.unwrap_or(64),
            },
            other => other,
        })
    }
}

impl fmt::Display for ModuleQuantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModuleQuantization::Affine { bits, group_size } => {
                write!(f, "affine {bits} bits, groups of {group_size}")
            }
            ModuleQuantization::Mxfp4 => f.write_str("mxfp4"),
            ModuleQuantization::Mxfp8 => f.write_str("mxfp8"),
            ModuleQuantization::Nvfp4 => f.write_str("nvfp4"),
            ModuleQuantization::Fp8 { block: None } => f.write_str("fp8"),
            ModuleQuantization::Fp8 { block: Some([rows, cols]) } => {
                write!(f, "fp8, blocks of {rows}×{cols}")
            }
            ModuleQuantization::Gptq { less_one, ordered } => {
                let version = if *less_one { 1 } else { 2 };
                let order = if *ordered { ", ordered columns" } else { "" };
                write!(f, "GPTQ version {version}{order}")
            }
            ModuleQuantization::Awq => f.write_str("AWQ"),
            ModuleQuantization::CompressedTensors => f.write_str("compressed-tensors"),
            ModuleQuantization::Modelopt => f.write_str("modelopt"),
            ModuleQuantization::Bitsandbytes => f.write_str("bitsandbytes"),
        }
    }
}

/// How a checkpoint's modules are quantised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// Modules that are not named, if they have scales: MLX leaves one plain where its width is no multiple of the
    /// group, and FP8 checkpoints leave some plain at will.
    pub default: ModuleQuantization,
    /// Modules named on their own, by their path in the files; `None`: plain floats.
    pub modules: BTreeMap<String, Option<ModuleQuantization>>,
}

/// Reasons why fields of every method are passed over.
const SAID_BY_TENSORS: &str = "the tensors say which modules are quantised, and how";
const UNROUNDED: &str = "activations and caches are not rounded here";
const LOADS: &str = "says how transformers loads the weights";

impl Quantization {
    /// Reads `quantization`, or the copy of it that MLX writes as `quantization_config`, from the top of the config.
    pub(crate) fn read(config: &mut Fields<'_>) -> Result<Option<Self>, Error> {
        let block = config.value("quantization");
        let copy = config.value("quantization_config");
        if block.is_some() && copy.is_some() && block != copy {
            return Err(config.wrong("quantization_config", "the same as quantization"));
        }
        let name = if block.is_some() { "quantization" } else { "quantization_config" };
        let Some(mut fields) = config.object(name)? else { return Ok(None) };
        match fields.text("quant_method")? {
            None => {}
            // The tensors that are packed say so by their names, and are read for families that have them.
            Some("mxfp4") => {
                fields.pass_over(SAID_BY_TENSORS, &["modules_to_not_convert"]);
                fields.pass_over(LOADS, &["dequantize"]);
                fields.finish()?;
                return Ok(None);
            }
            Some("fp8") => return fp8::read(fields).map(Some),
            Some("compressed-tensors") => return packed::read_compressed_tensors(fields).map(Some),
            Some("gptq") => return packed::read_gptq(fields).map(Some),
            Some("awq") => return packed::read_awq(fields).map(Some),
            Some("auto-round" | "intel/auto-round") => return packed::read_auto_round(fields).map(Some),
            Some("modelopt") => return packed::read_modelopt(fields).map(Some),
            Some("bitsandbytes") => return packed::read_bitsandbytes(fields).map(Some),
            Some(_) => {
                let expected = "mxfp4, fp8, compressed-tensors, gptq, awq, auto-round, modelopt, bitsandbytes, or none, as \
                                MLX's checkpoints have it";
                return Err(fields.wrong("quant_method", expected));
            }
        }

        let default = ModuleQuantization::read(&mut fields)?;
        let mut modules = BTreeMap::new();
        for (module, value) in fields.rest() {
            let how = match value {
                Value::Bool(quantised) => quantised.then_some(default),
                _ => match fields.object(module)? {
                    Some(mut own) => {
                        let how = ModuleQuantization::read(&mut own)?;
                        own.finish()?;
                        Some(how)
                    }
                    None => continue,
                },
            };
            fields.value(module);
            modules.insert(module.to_owned(), how);
        }
        fields.finish()?;
        Ok(Some(Quantization { default, modules }))
    }
}
