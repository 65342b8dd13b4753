//! How often experts were used, kept from one run to the next.

use crate::error::StoreError;
use crate::layout::Layout;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// What a heat file has as its `format`.
const FORMAT: &str = "moeflux-heat";
/// The version that is written and read.
const VERSION: u32 = 1;

/// Uses of each expert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heat {
    format: String,
    version: u32,
    /// In the order of the layout's.
    pub layers: Vec<LayerHeat>,
}

/// Uses of each expert of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerHeat {
    /// The mixture's name.
    pub name: String,
    /// Of each expert, by index.
    pub uses: Vec<u64>,
}

impl Heat {
    /// Of the experts of a layout, in order.
    pub(crate) fn new(layout: &Layout, uses: Vec<u64>) -> Self {
        let mut uses = uses.into_iter();
        let layer = |layer: &crate::LayerLayout| LayerHeat {
            name: layer.name.clone(),
            uses: uses.by_ref().take(layer.experts.len()).collect(),
        };
        let layers = layout.layers.iter().map(layer).collect();
        Self { format: FORMAT.to_owned(), version: VERSION, layers }
    }

    /// Reads a heat file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let fault = |what: String| StoreError::Format { path: path.to_owned(), what };
        let bytes = std::fs::read(path).map_err(|source| StoreError::File {
            path: path.to_owned(),
            what: "reading",
            source: Arc::new(source),
        })?;
        let heat: Self = serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string()))?;
        if (heat.format.as_str(), heat.version) == (FORMAT, VERSION) {
            return Ok(heat);
        }
        let (format, version) = (&heat.format, heat.version);
        Err(fault(format!("expected {FORMAT} of version {VERSION}, found {format} of version {version}")))
    }

    /// Writes a heat file, in whole or not at all.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), StoreError> {
        let path = path.as_ref();
        let write = || {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&mut file, self)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|source: std::io::Error| StoreError::File {
            path: path.to_owned(),
            what: "writing",
            source: Arc::new(source),
        })
    }

    /// Ids of experts that were used, the most used first, if this is of such a layout.
    pub(crate) fn hottest_first(&self, layout: &Layout) -> Result<Vec<u32>, StoreError> {
        let shape = |name: &str, experts: usize| format!("{name} ({experts} experts)");
        let ours = layout.layers.iter().map(|layer| shape(&layer.name, layer.experts.len()));
        let its = self.layers.iter().map(|layer| shape(&layer.name, layer.uses.len()));
        let none = || "none".to_owned();
        let mut pairs = ours.clone().map(Some).chain([None]).zip(its.clone().map(Some).chain([None]));
        if let Some((expected, found)) = pairs.find(|(ours, its)| ours != its) {
            return Err(StoreError::Layout {
                what: "heat of another model: layers".to_owned(),
                expected: expected.unwrap_or_else(none),
                found: found.unwrap_or_else(none),
            });
        }
        let mut ids: Vec<(u64, u32)> = self
            .layers
            .iter()
            .flat_map(|layer| &layer.uses)
            .copied()
            .zip(0..)
            .filter(|(uses, _)| *uses > 0)
            .collect();
        ids.sort_by_key(|&(uses, id)| (std::cmp::Reverse(uses), id));
        Ok(ids.into_iter().map(|(_, id)| id).collect())
    }
}
