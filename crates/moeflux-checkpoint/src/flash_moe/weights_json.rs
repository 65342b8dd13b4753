//! `model_weights.json`: the tensors of `model_weights.bin`.

use crate::error::Error;
use crate::pack::manifest::tensor_bytes;
use crate::pack::names::parse_dtype;
use crate::quantization::ModuleQuantization;
use crate::tensor::Dtype;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Tensors start at multiples of this.
const ALIGNMENT: u64 = 64;
/// Columns that share a scale unless the file says another number.
const GROUP_SIZE: usize = 64;

/// What the file lists, checked against the length of the file that it is about.
#[derive(Clone, Debug)]
pub struct Index {
    /// In the order of their data.
    pub tensors: Vec<Entry>,
    /// How modules with scales are quantised.
    pub modules: BTreeMap<String, ModuleQuantization>,
    /// Columns that share a scale.
    pub group_size: usize,
    /// Sizes of the model, under the names of `config.json`.
    pub config: Map<String, Value>,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions, the slowest first.
    pub shape: Vec<usize>,
    /// Its first byte.
    pub offset: u64,
    /// Its length in bytes, which is what type and shape imply.
    pub size: u64,
    /// Bits of a code, if the file says so.
    pub bits: Option<u64>,
}

#[derive(Deserialize)]
struct Json {
    #[serde(default)]
    config: Map<String, Value>,
    num_tensors: Option<u64>,
    tensors: Pairs,
}

#[derive(Deserialize)]
struct JsonEntry {
    offset: u64,
    size: u64,
    shape: Vec<usize>,
    dtype: String,
    bits: Option<u64>,
}

impl Index {
    /// Reads the bytes of the file, which `path` names in errors; `file_len` is the length of `model_weights.bin`.
    pub fn parse(path: &Path, bytes: &[u8], file_len: u64) -> Result<Self, Error> {
        let json: Json =
            serde_json::from_slice(bytes).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        let wrong = |field: String, expected: String, found: String| Error::Field {
            path: path.to_owned(),
            field,
            expected,
            found,
        };
        let Pairs(pairs) = json.tensors;
        if let Some(expected) = json.num_tensors.filter(|expected| *expected != pairs.len() as u64) {
            return Err(wrong(
                "tensors".into(),
                format!("{expected}, as num_tensors says"),
                pairs.len().to_string(),
            ));
        }
        let mut tensors = Vec::with_capacity(pairs.len());
        for (name, JsonEntry { offset, size, shape, dtype: dtype_name, bits }) in pairs {
            let field = |part: &str| format!("tensors.{name}.{part}");
            let dtype = parse_dtype(&dtype_name)
                .ok_or_else(|| wrong(field("dtype"), "an element type".into(), dtype_name.clone()))?;
            if tensor_bytes(dtype, &shape) != Some(size) {
                let expected = format!("the bytes of {dtype} {shape:?}");
                return Err(wrong(field("size"), expected, size.to_string()));
            }
            if !offset.is_multiple_of(ALIGNMENT) || offset.checked_add(size).is_none_or(|end| end > file_len)
            {
                let expected =
                    format!("a multiple of {ALIGNMENT} with {size} bytes behind it in a file of {file_len}");
                return Err(wrong(field("offset"), expected, offset.to_string()));
            }
            tensors.push(Entry { name, dtype, shape, offset, size, bits });
        }
        tensors.sort_by(|a, b| (a.offset, a.size, &a.name).cmp(&(b.offset, b.size, &b.name)));
        for pair in tensors.windows(2) {
            let end = pair[0].offset + pair[0].size;
            if pair[1].offset < end {
                let (field, found) = (format!("tensors.{}.offset", pair[1].name), pair[1].offset.to_string());
                return Err(wrong(field, format!("at least {end}, where {} ends", pair[0].name), found));
            }
        }

        let group_size = match json.config.get("default_group_size") {
            None => GROUP_SIZE,
            Some(value) => {
                let known = [32, 64, 128].into_iter().find(|size| value.as_u64() == Some(*size as u64));
                let field = "config.default_group_size".to_owned();
                known.ok_or_else(|| wrong(field, "32, 64 or 128".into(), value.to_string()))?
            }
        };
        let modules = modules(&tensors, group_size)
            .map_err(|(name, expected, found)| wrong(format!("tensors.{name}.shape"), expected, found))?;
        Ok(Index { tensors, modules, group_size, config: json.config })
    }
}

/// How modules are quantised: the widths of codes and scales say it. Some writers note it too, and must agree.
fn modules(
    tensors: &[Entry],
    group_size: usize,
) -> Result<BTreeMap<String, ModuleQuantization>, (String, String, String)> {
    let by_name: HashMap<&str, &Entry> = tensors.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut modules = BTreeMap::new();
    for weight in tensors.iter().filter(|entry| entry.dtype == Dtype::U32) {
        let Some(module) = weight.name.strip_suffix(".weight") else { continue };
        let groups = by_name.get(format!("{module}.scales").as_str()).and_then(|scales| scales.shape.last());
        let bits = groups.zip(weight.shape.last()).and_then(|(groups, words)| {
            let cols = groups.checked_mul(group_size)?;
            let bits = words.checked_mul(32)?.checked_div(cols)?;
            (bits.checked_mul(cols) == words.checked_mul(32)).then_some(bits)
        });
        let noted = |bits: &usize| weight.bits.is_none_or(|noted| noted == *bits as u64);
        match bits.filter(|bits| matches!(bits, 2..=6 | 8)).filter(noted) {
            Some(bits) => {
                modules
                    .insert(module.to_owned(), ModuleQuantization::Affine { bits: bits as u8, group_size });
            }
            None => {
                let bits = weight.bits.map_or("2 to 6 or 8".to_owned(), |bits| bits.to_string());
                let expected = format!("codes of {bits} bits with a scale for each {group_size}");
                return Err((weight.name.clone(), expected, format!("{:?}", weight.shape)));
            }
        }
    }
    Ok(modules)
}

/// The entries of an object, each name once.
struct Pairs(Vec<(String, JsonEntry)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor).map(Pairs)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Vec<(String, JsonEntry)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map from tensor names to offset, size, shape and dtype")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs: BTreeMap<String, JsonEntry> = BTreeMap::new();
        while let Some((name, entry)) = map.next_entry::<String, JsonEntry>()? {
            if pairs.insert(name.clone(), entry).is_some() {
                return Err(serde::de::Error::custom(format!("{name} is given twice")));
            }
        }
        Ok(pairs.into_iter().collect())
    }
}
