//! How a manifest spells encodings and element types.

use crate::quantization::ModuleQuantization;
use crate::tensor::Dtype;
use moeflux_kernels::{Codebook, Encoding, Float, Ggml, Packing};

const FLOATS: [(Float, &str); 3] = [(Float::F32, "f32"), (Float::F16, "f16"), (Float::Bf16, "bf16")];

/// `bf16`, `affine4g64-bf16`, `symmetric4g32-bf16`, `mxfp4`, `fp8b128x128-f32`, `ggml-Q4_K`. The names of packed encodings are
/// for reading alone: no pack holds them.
pub(crate) fn encoding_name(encoding: Encoding) -> String {
    match encoding {
        Encoding::Float(float) => float_name(float).to_owned(),
        Encoding::Affine { bits, group, params } => format!("affine{bits}g{group}-{}", float_name(params)),
        Encoding::Mxfp4 => "mxfp4".to_owned(),
        Encoding::Mxfp8 => "mxfp8".to_owned(),
        Encoding::Nvfp4 => "nvfp4".to_owned(),
        Encoding::Nvfp4Scaled { divided: true } => "nvfp4d".to_owned(),
        Encoding::Nvfp4Scaled { divided: false } => "nvfp4m".to_owned(),
        Encoding::Symmetric { bits, group, params, signed } => {
            let kind = if signed { "signed" } else { "symmetric" };
            format!("{kind}{bits}g{group}-{}", float_name(params))
        }
        Encoding::Codebook { table, group } => format!("{}g{group}", codebook_name(table)),
        Encoding::Packed { bits, group, params, packing } => {
            let kind = match packing {
                Packing::Gptq { .. } => "gptq",
                Packing::Awq => "awq",
                Packing::ZerosByRow => "asymmetric",
            };
            format!("{kind}{bits}g{group}-{}", float_name(params))
        }
        Encoding::Fp8 { block_rows, block_cols, params } => {
            format!("fp8b{block_rows}x{block_cols}-{}", float_name(params))
        }
        Encoding::Ggml(ggml) => format!("ggml-{}", ggml.name()),
        Encoding::GgmlScaled(ggml) => format!("ggml-{}-scaled", ggml.name()),
    }
}

/// The encoding of that name.
pub(crate) fn parse_encoding(name: &str) -> Option<Encoding> {
    if let Some((quantization, params)) = name.split_once('-').filter(|(kind, _)| *kind != "ggml") {
        let params = parse_float(params)?;
        if let Some(symmetric) = parse_symmetric(quantization, params) {
            return Some(symmetric);
        }
        return match parse_quantization(quantization)? {
            ModuleQuantization::Affine { bits, group_size: group } => {
                Some(Encoding::Affine { bits, group, params })
            }
            ModuleQuantization::Fp8 { block: Some([block_rows, block_cols]) } => {
                Some(Encoding::Fp8 { block_rows, block_cols, params })
            }
            _ => None,
        };
    }
    match name {
        "mxfp4" => Some(Encoding::Mxfp4),
        "mxfp8" => Some(Encoding::Mxfp8),
        "nvfp4" => Some(Encoding::Nvfp4),
        "nvfp4d" => Some(Encoding::Nvfp4Scaled { divided: true }),
        "nvfp4m" => Some(Encoding::Nvfp4Scaled { divided: false }),
        _ if name.starts_with("nf4g") || name.starts_with("fp4g") => {
            let table = if name.starts_with("nf4") { Codebook::Nf4 } else { Codebook::Fp4 };
            let group = name.get(4..)?.parse().ok()?;
            (group > 0 && group % 2 == 0).then_some(Encoding::Codebook { table, group })
        }
        _ => match name.strip_prefix("ggml-") {
            Some(ggml) => match ggml.strip_suffix("-scaled") {
                Some(ggml) => parse_ggml(ggml).map(Encoding::GgmlScaled),
                None => parse_ggml(ggml).map(Encoding::Ggml),
            },
            None => parse_float(name).map(Encoding::Float),
        },
    }
}

/// `symmetric4g32` or `signed8g4096`.
fn parse_symmetric(name: &str, params: Float) -> Option<Encoding> {
    let (signed, rest) = match name.strip_prefix("signed") {
        Some(rest) => (true, rest),
        None => (false, name.strip_prefix("symmetric")?),
    };
    let (bits, group) = rest.split_once('g')?;
    let (bits, group): (u8, usize) = (bits.parse().ok()?, group.parse().ok()?);
    let exists = (2..=8).contains(&bits) && (bits == 8 || !signed) && group > 0 && group.is_multiple_of(8);
    exists.then_some(Encoding::Symmetric { bits, group, params, signed })
}

/// `affine4g64`, `mxfp4`, `fp8`, `fp8b128x128`, `compressed-tensors`.
pub(crate) fn quantization_name(quantization: ModuleQuantization) -> String {
    match quantization {
        ModuleQuantization::Affine { bits, group_size } => format!("affine{bits}g{group_size}"),
        ModuleQuantization::Mxfp4 => "mxfp4".to_owned(),
        ModuleQuantization::Mxfp8 => "mxfp8".to_owned(),
        ModuleQuantization::Nvfp4 => "nvfp4".to_owned(),
        ModuleQuantization::Fp8 { block: None } => "fp8".to_owned(),
        ModuleQuantization::Fp8 { block: Some([rows, cols]) } => format!("fp8b{rows}x{cols}"),
        ModuleQuantization::CompressedTensors => "compressed-tensors".to_owned(),
        ModuleQuantization::Modelopt => "modelopt".to_owned(),
        ModuleQuantization::Bitsandbytes => "bitsandbytes".to_owned(),
        // No pack holds modules that are packed so.
        ModuleQuantization::Gptq { .. } => "gptq".to_owned(),
        ModuleQuantization::Awq => "awq".to_owned(),
    }
}

/// The quantisation of that name.
pub(crate) fn parse_quantization(name: &str) -> Option<ModuleQuantization> {
    match name {
        "mxfp4" => Some(ModuleQuantization::Mxfp4),
        "mxfp8" => Some(ModuleQuantization::Mxfp8),
        "nvfp4" => Some(ModuleQuantization::Nvfp4),
        "fp8" => Some(ModuleQuantization::Fp8 { block: None }),
        "compressed-tensors" => Some(ModuleQuantization::CompressedTensors),
        "modelopt" => Some(ModuleQuantization::Modelopt),
        "bitsandbytes" => Some(ModuleQuantization::Bitsandbytes),
        _ if name.starts_with("fp8b") => {
            let (rows, cols) = name.strip_prefix("fp8b")?.split_once('x')?;
            let block = [rows.parse().ok()?, cols.parse().ok()?];
            (!block.contains(&0)).then_some(ModuleQuantization::Fp8 { block: Some(block) })
        }
        _ => {
            let (bits, group_size) = name.strip_prefix("affine")?.split_once('g')?;
            let (bits, group_size) = (bits.parse().ok()?, group_size.parse().ok()?);
            let exists = matches!(bits, 2..=6 | 8) && matches!(group_size, 32 | 64 | 128);
            exists.then_some(ModuleQuantization::Affine { bits, group_size })
        }
    }
}

fn codebook_name(table: Codebook) -> &'static str {
    match table {
        Codebook::Nf4 => "nf4",
        Codebook::Fp4 => "fp4",
    }
}

/// The element type of the name that [`Dtype`] shows.
pub(crate) fn parse_dtype(name: &str) -> Option<Dtype> {
    // Other types are spelled as safetensors spells them.
    let plain = || serde_json::from_value::<safetensors::Dtype>(name.into()).ok().map(Dtype::from);
    parse_ggml(name).map(Dtype::Ggml).or_else(plain)
}

fn parse_ggml(name: &str) -> Option<Ggml> {
    Ggml::ALL.into_iter().find(|ggml| ggml.name() == name)
}

fn float_name(float: Float) -> &'static str {
    FLOATS.into_iter().find(|(other, _)| *other == float).map_or("", |(_, name)| name)
}

fn parse_float(name: &str) -> Option<Float> {
    FLOATS.into_iter().find(|(_, other)| *other == name).map(|(float, _)| float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let mut encodings = vec![Encoding::Mxfp4, Encoding::Mxfp8, Encoding::Nvfp4];
        encodings.extend(Ggml::ALL.map(Encoding::Ggml));
        encodings.extend(Ggml::ALL.map(Encoding::GgmlScaled));
        encodings.extend([false, true].map(|divided| Encoding::Nvfp4Scaled { divided }));
        encodings.extend([Codebook::Nf4, Codebook::Fp4].map(|table| Encoding::Codebook { table, group: 64 }));
        for (params, _) in FLOATS {
            encodings.push(Encoding::Float(params));
            encodings.push(Encoding::Symmetric { bits: 4, group: 32, params, signed: false });
            encodings.push(Encoding::Symmetric { bits: 8, group: 4096, params, signed: true });
            encodings.push(Encoding::Fp8 { block_rows: 128, block_cols: 7168, params });
            encodings.extend([2, 3, 4, 5, 6, 8].map(|bits| Encoding::Affine { bits, group: 128, params }));
        }
        for encoding in encodings {
            assert_eq!(parse_encoding(&encoding_name(encoding)), Some(encoding));
        }
        for dtype in [Dtype::U32, Dtype::BF16, Dtype::F8E4M3, Dtype::Other(safetensors::Dtype::F8_E5M2)] {
            assert_eq!(parse_dtype(&dtype.to_string()), Some(dtype));
        }
        for wrong in [
            "",
            "affine4",
            "affine7g64-bf16",
            "affine4g64",
            "affine4g64-u8",
            "ggml-Q9",
            "mxfp4-bf16",
            "fp8b0x1-f32",
            "fp8-f32",
            "symmetric9g32-bf16",
            "symmetric4g0-bf16",
            "symmetric4g32",
            "signed4g32-bf16",
            "gptq4g32-f16",
            "nf4g0",
            "nf4g63",
            "nf4",
        ] {
            assert_eq!(parse_encoding(wrong), None, "{wrong}");
        }
    }
}
