//! The experts of artifacts: packed, or where they were.

use super::{expert_index, find};
use crate::error::Error;
use crate::files::Contents;
use crate::stacked::{BlockLayout, MatrixKind, StackedExperts};
use crate::tensor::{Dtype, Span, Tensor};
use moeflux_kernels::{Encoding, Float};
use serde_json::{Map, Value};
use std::path::Path;

/// Folders of packed experts with the bits of their codes, and what comes first where several are there.
const PACKED: [(&str, u8); 2] = [("packed_experts", 4), ("packed_experts_2bit", 2)];

/// Shapes of the experts of any layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) count: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) group: usize,
}

impl Sizes {
    /// Reads them from the fields of a `config.json`.
    pub(super) fn read(path: &Path, fields: &Map<String, Value>, group: usize) -> Result<Self, Error> {
        let fields = fields.get("text_config").and_then(Value::as_object).unwrap_or(fields);
        let size = |names: &[&str]| {
            let found = names.iter().find_map(|name| fields.get(*name));
            // What the family's config was checked against is far below this.
            let size = found.and_then(Value::as_u64).filter(|size| (1..1 << 22).contains(size));
            size.map(|size| size as usize).ok_or_else(|| Error::Field {
                path: path.to_owned(),
                field: names[0].to_owned(),
                expected: "a whole number above 0".to_owned(),
                found: found.map_or_else(|| "nothing".to_owned(), Value::to_string),
            })
        };
        Ok(Sizes {
            count: size(&["num_experts", "n_routed_experts"])?,
            hidden: size(&["hidden_size"])?,
            intermediate: size(&["moe_intermediate_size"])?,
            group,
        })
    }

    /// Gate, up and down in codes of so many bits.
    pub(super) fn kinds(&self, bits: u8) -> [MatrixKind; 3] {
        let encoding = Encoding::Affine { bits, group: self.group, params: Float::Bf16 };
        let inner = MatrixKind { rows: self.intermediate, cols: self.hidden, encoding };
        [inner, inner, MatrixKind { rows: self.hidden, cols: self.intermediate, encoding }]
    }
}

/// Adds the experts of every layer that has some: packed with `bits` a code if that is asked for, else whatever is
/// there. Says which.
pub(super) fn add(
    contents: &mut Contents,
    folder: &Path,
    sizes: Sizes,
    bits: Option<u8>,
) -> Result<String, Error> {
    let wanted = PACKED.iter().filter(|(_, packed)| bits.is_none_or(|bits| bits == *packed));
    for (name, bits) in wanted {
        if let Some(packed) = find(folder, &["", "root", "artifacts", "mlx"], name) {
            add_packed(contents, &packed, sizes, *bits)?;
            return Ok(format!("packed with {bits} bits"));
        }
    }
    let index = find(folder, &["", "artifacts", "root"], expert_index::NAME).filter(|_| bits.is_none());
    if let Some(index) = index {
        expert_index::add(contents, folder, &index, sizes)?;
        return Ok("in place in safetensors".to_owned());
    }
    Err(Error::MissingExperts { folder: folder.to_owned(), bits })
}

/// `layer_00.bin` and so on, each with blocks one behind the other; layers without experts have none.
fn add_packed(contents: &mut Contents, folder: &Path, sizes: Sizes, bits: u8) -> Result<(), Error> {
    let kinds = sizes.kinds(bits);
    let layout = BlockLayout::new(&kinds, 1).ok_or_else(|| Error::Field {
        path: folder.to_owned(),
        field: "moe_intermediate_size".to_owned(),
        expected: format!("a multiple of {}, as hidden_size", sizes.group),
        found: format!("{} and {}", sizes.intermediate, sizes.hidden),
    })?;
    let io = |source| Error::Io { path: folder.to_owned(), source };
    let mut layers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let layer =
            name.and_then(|name| name.strip_prefix("layer_")?.strip_suffix(".bin")?.parse::<u32>().ok());
        layers.extend(layer.map(|layer| (layer, path)));
    }
    layers.sort();
    for (layer, path) in layers {
        let (file, mapped) = contents.map(&path)?;
        let (expected, found) = (layout.len().saturating_mul(sizes.count as u64), mapped.len());
        if found != expected {
            return Err(Error::PackedExperts {
                path,
                count: sizes.count,
                block: layout.len(),
                expected,
                found,
            });
        }
        let span = Span { file, offset: 0, len: found };
        add_mixture(contents, layer, span, layout.stack(file, sizes.count, layout.len()))?;
    }
    Ok(())
}

/// Adds the experts of a layer, with a tensor that stands for their bytes.
pub(super) fn add_mixture(
    contents: &mut Contents,
    layer: u32,
    span: Span,
    experts: StackedExperts,
) -> Result<(), Error> {
    let name = format!("model.layers.{layer}.mlp.experts");
    let shape = vec![span.len as usize];
    contents.add(Tensor { name: name.clone(), dtype: Dtype::U8, shape, span })?;
    contents.mixtures.insert(name, experts);
    Ok(())
}
