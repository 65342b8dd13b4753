//! The header of a safetensors file: eight bytes of length, then JSON that names the tensors, then their data without
//! gaps.
//!
//! The JSON is read by the `safetensors` crate's own types. Its checks are written out again here because its errors
//! say neither what was expected nor found, and because it adds lengths that a hostile header can make overflow.

mod folder;

pub(crate) use folder::open;

use crate::error::Error;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Deserializer as _;
use serde::de::{Error as _, MapAccess, Visitor};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// The longest header that is read, in bytes: the limit of the `safetensors` crate.
pub const MAX_HEADER_LEN: u64 = 100_000_000;

/// Bytes in front of the header that hold its length.
const LENGTH_LEN: u64 = 8;

/// A tensor as a header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, the slowest first.
    pub shape: Vec<usize>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Number of bytes: what `dtype` and `shape` imply.
    pub len: u64,
}

/// Reads and checks the header of a file. `bytes` is its start, at least up to the end of the header; `file_len` the
/// length of the whole; `path` names it in errors. The entries come in the order of their data, cover it without gap or
/// overlap, and have different names.
pub fn parse_header(path: &Path, file_len: u64, bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    let (header, data_start) = header_json(path, file_len, bytes)?;
    let mut json = serde_json::Deserializer::from_slice(header);
    let mut raw = json
        .deserialize_map(HeaderVisitor)
        .and_then(|raw| json.end().map(|()| raw))
        .map_err(|source| Error::Json { path: path.to_owned(), source })?;

    raw.sort_by(|(a_name, a), (b_name, b)| (a.data_offsets, a_name).cmp(&(b.data_offsets, b_name)));
    let entries = check_layout(path, raw, data_start)?;

    let end = entries.last().map_or(data_start, |last| last.offset + last.len);
    if end != file_len {
        let tensor = entries.last().map_or_else(|| "none".to_owned(), |last| last.name.clone());
        return Err(Error::FileLength { path: path.to_owned(), tensor, expected: end, found: file_len });
    }
    Ok(entries)
}

/// The JSON part, and where the data starts.
fn header_json<'a>(path: &Path, file_len: u64, bytes: &'a [u8]) -> Result<(&'a [u8], u64), Error> {
    let too_long = |expected| Error::HeaderTooLong { path: path.to_owned(), expected, found: file_len };
    let length = bytes.first_chunk::<8>().ok_or_else(|| too_long(LENGTH_LEN))?;
    let header_len = u64::from_le_bytes(*length);
    let data_start = header_len.saturating_add(LENGTH_LEN);
    if data_start > file_len {
        return Err(too_long(data_start));
    }
    if header_len > MAX_HEADER_LEN {
        return Err(Error::HeaderTooLarge {
            path: path.to_owned(),
            limit: MAX_HEADER_LEN,
            found: header_len,
        });
    }
    let header = bytes.get(LENGTH_LEN as usize..data_start as usize).ok_or_else(|| too_long(data_start))?;
    Ok((header, data_start))
}

/// Checks that tensors, sorted by their place, follow each other without gap or overlap and are as long as shape and
/// dtype imply.
fn check_layout(path: &Path, raw: Vec<(String, TensorInfo)>, data_start: u64) -> Result<Vec<Entry>, Error> {
    let mut entries: Vec<Entry> = Vec::with_capacity(raw.len());
    let mut end_of_last = 0u64;
    for (name, info) in raw {
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        match entries.last() {
            Some(other) if start < end_of_last => {
                return Err(Error::Overlap {
                    path: path.to_owned(),
                    tensor: name,
                    other: other.name.clone(),
                    expected: end_of_last,
                    found: start,
                });
            }
            _ if start != end_of_last => {
                return Err(Error::Gap {
                    path: path.to_owned(),
                    tensor: name,
                    expected: end_of_last,
                    found: start,
                });
            }
            _ => {}
        }
        let len = byte_len(info.dtype, &info.shape);
        // The sum is checked because later arithmetic adds the start of the data to every end.
        if len.is_none() || len != end.checked_sub(start) || data_start.checked_add(end).is_none() {
            return Err(Error::TensorLength {
                path: path.to_owned(),
                tensor: name,
                dtype: info.dtype.into(),
                shape: info.shape,
                expected: len.map_or_else(|| "no number of bytes".to_owned(), |len| format!("{len} bytes")),
                start,
                end,
            });
        }
        entries.push(Entry {
            name,
            dtype: info.dtype,
            shape: info.shape,
            offset: data_start + start,
            len: end - start,
        });
        end_of_last = end;
    }
    Ok(entries)
}

/// Bytes that a tensor takes; `None` if the number overflows or is not whole.
fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let elements = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim as u64))?;
    let bits = elements.checked_mul(dtype.bitsize() as u64)?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Reads the header's map one tensor at a time, so that an error names the tensor and a name given twice is seen.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Vec<(String, TensorInfo)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map from tensor names to dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tensors = Vec::new();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("{name} is given twice")));
            }
            if name == "__metadata__" {
                // Read for its form alone: strings under names.
                map.next_value::<Option<HashMap<String, String>>>()?;
                continue;
            }
            let info: TensorInfo =
                map.next_value().map_err(|error| A::Error::custom(format!("tensor {name}: {error}")))?;
            tensors.push((name, info));
        }
        Ok(tensors)
    }
}
