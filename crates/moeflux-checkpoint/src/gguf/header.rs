//! What stands before the data of a GGUF file: magic, version, metadata, and the list of tensors.
//!
//! After `gguf.md` of the GGML project. Every count and length is checked against the bytes that are left before
//! anything of that size is allocated.

use super::metadata::{Metadata, Value};
use crate::error::Error;
use crate::tensor::Dtype;
use moeflux_kernels::{Encoding, Ggml};
use std::collections::HashSet;
use std::path::Path;

/// The longest header that is read, in bytes: more than ten times any real one.
pub const MAX_HEADER_LEN: usize = 256 << 20;

/// Most dimensions that a tensor can have.
const MAX_DIMS: u32 = 4;

/// A tensor as a header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, the slowest first: the reverse of the file's order.
    pub shape: Vec<usize>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Number of bytes: what `dtype` and `shape` imply.
    pub len: u64,
}

/// Reads and checks the header of the file `bytes`; `path` names it in errors. The tensors have different names, lie
/// inside the file, aligned, and do not overlap; they come in the order of the list.
pub fn parse_header(path: &Path, bytes: &[u8]) -> Result<(Metadata, Vec<Entry>), Error> {
    let mut reader = Reader { path, bytes: &bytes[..bytes.len().min(MAX_HEADER_LEN)], at: 0 };
    let magic = reader.array::<4>("the magic number")?;
    if magic != *b"GGUF" {
        return Err(reader.error(
            "the magic number",
            0,
            "GGUF",
            format!("{:?}", magic.escape_ascii().to_string()),
        ));
    }
    let version = reader.u32("the version")?;
    if !matches!(version, 2 | 3) {
        let found = match version.swap_bytes() {
            swapped @ 1..=3 => format!("version {swapped} in big-endian order"),
            _ => version.to_string(),
        };
        return Err(reader.error("the version", 4, "2 or 3, little-endian", found));
    }
    // A tensor has at least a name's length, a number of dimensions, a type and an offset; a pair at least a key's
    // length, a type and a byte.
    let tensor_count = reader.count("the number of tensors", 24)?;
    let pair_count = reader.count("the number of metadata pairs", 13)?;

    let mut metadata = Metadata::new(path);
    for _ in 0..pair_count {
        let start = reader.at;
        let key = reader.text("a metadata key")?;
        let value = reader.value(&format!("metadata key {key}"))?;
        if !metadata.insert(key.clone(), value) {
            return Err(reader.error(
                &format!("metadata key {key}"),
                start,
                "each key once",
                "a second one".into(),
            ));
        }
    }
    metadata.end = reader.at;
    let alignment = alignment(&metadata)?;

    let tensors: Vec<Listed> = (0..tensor_count).map(|_| reader.tensor()).collect::<Result<_, _>>()?;
    let data_start = (reader.at as u64).next_multiple_of(alignment);
    let entries = place(&reader, bytes.len() as u64, tensors, data_start, alignment)?;
    Ok((metadata, entries))
}

/// The start of the file `bytes`, which has this metadata, as that of a file without tensors.
pub(crate) fn without_tensors(metadata: &Metadata, bytes: &[u8]) -> Vec<u8> {
    const TENSOR_COUNT: std::ops::Range<usize> = 8..16;
    let mut head = bytes[..metadata.end].to_vec();
    head[TENSOR_COUNT].fill(0);
    head
}

/// `general.alignment`: what tensors' offsets are multiples of.
fn alignment(metadata: &Metadata) -> Result<u64, Error> {
    const KEY: &str = "general.alignment";
    const LARGEST: u64 = 1 << 20;
    match metadata.whole(KEY)? {
        None => Ok(32),
        Some(alignment) if alignment.is_power_of_two() && alignment <= LARGEST => Ok(alignment),
        Some(_) => Err(metadata.wrong(KEY, "a power of two up to 1048576")),
    }
}

/// A tensor as the list has it.
struct Listed {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// From the start of the data.
    offset: u64,
    len: u64,
    /// Where it stands in the list.
    at: usize,
}

/// Places the tensors in the file.
fn place(
    reader: &Reader<'_>,
    file_len: u64,
    tensors: Vec<Listed>,
    data_start: u64,
    alignment: u64,
) -> Result<Vec<Entry>, Error> {
    let mut names = HashSet::new();
    for Listed { name, offset, len, at, .. } in &tensors {
        let error =
            |expected: &str, found: String| reader.error(&format!("tensor {name}"), *at, expected, found);
        if !names.insert(name.as_str()) {
            return Err(error("each tensor once", "a second one".to_owned()));
        }
        if !offset.is_multiple_of(alignment) {
            return Err(error(&format!("an offset that is a multiple of {alignment}"), offset.to_string()));
        }
        let end = data_start.checked_add(*offset).and_then(|start| start.checked_add(*len));
        if end.is_none_or(|end| end > file_len) {
            let expected = format!("{len} bytes of data within the file of {file_len} bytes");
            let found = format!("offset {offset} from byte {data_start}; the file is cut short or damaged");
            return Err(error(&expected, found));
        }
    }
    let mut by_place: Vec<&Listed> = tensors.iter().filter(|tensor| tensor.len > 0).collect();
    by_place.sort_by_key(|tensor| tensor.offset);
    for pair in by_place.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let end = first.offset + first.len;
        if second.offset < end {
            return Err(Error::Overlap {
                path: reader.path.to_owned(),
                tensor: second.name.clone(),
                other: first.name.clone(),
                expected: end,
                found: second.offset,
            });
        }
    }
    let entry = |Listed { name, dtype, shape, offset, len, .. }: Listed| Entry {
        name,
        dtype,
        shape,
        offset: data_start + offset,
        len,
    };
    Ok(tensors.into_iter().map(entry).collect())
}

/// Reads a header from front to back.
struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next `N` bytes.
    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Error> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => Err(self.ends(what, N as u64)),
        }
    }

    fn u32(&mut self, what: &str) -> Result<u32, Error> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, Error> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number of things that take at least `least` bytes each.
    fn count(&mut self, what: &str, least: usize) -> Result<usize, Error> {
        let start = self.at;
        let count = self.u64(what)?;
        let left = (self.bytes.len() - self.at) / least;
        match usize::try_from(count) {
            Ok(count) if count <= left => Ok(count),
            _ => Err(self.error(
                what,
                start,
                &format!("at most {left}, for which bytes are left"),
                count.to_string(),
            )),
        }
    }

    /// A string: its length in bytes, then UTF-8.
    fn text(&mut self, what: &str) -> Result<String, Error> {
        let start = self.at;
        let len = self.count(&format!("the length of {what}"), 1)?;
        let bytes = &self.bytes[self.at..self.at + len];
        self.at += len;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => {
                let shown = bytes[..len.min(20)].escape_ascii().to_string();
                Err(self.error(what, start, "UTF-8", shown))
            }
        }
    }

    /// A type, then a value of it.
    fn value(&mut self, what: &str) -> Result<Value, Error> {
        let start = self.at;
        let kind = self.u32(what)?;
        Ok(match kind {
            0..=5 | 10 | 11 => Value::Integer(self.integer(kind, what)?),
            6 | 12 => Value::Float(self.float(kind, what)?),
            7 => Value::Flag(self.flag(what)?),
            8 => Value::Text(self.text(what)?),
            9 => {
                let start = self.at;
                let kind = self.u32(what)?;
                let least = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    8 | 10..=12 => 8,
                    _ => {
                        return Err(self.error(
                            what,
                            start,
                            "an array of values of type 0 to 8 or 10 to 12",
                            format!("type {kind}"),
                        ));
                    }
                };
                let count = self.count(&format!("the length of {what}"), least)?;
                match kind {
                    7 => Value::Flags((0..count).map(|_| self.flag(what)).collect::<Result<_, _>>()?),
                    8 => Value::Texts((0..count).map(|_| self.text(what)).collect::<Result<_, _>>()?),
                    6 | 12 => {
                        Value::Floats((0..count).map(|_| self.float(kind, what)).collect::<Result<_, _>>()?)
                    }
                    _ => Value::Integers(
                        (0..count).map(|_| self.integer(kind, what)).collect::<Result<_, _>>()?,
                    ),
                }
            }
            _ => return Err(self.error(what, start, "a type from 0 to 12", format!("type {kind}"))),
        })
    }

    fn integer(&mut self, kind: u32, what: &str) -> Result<i64, Error> {
        let start = self.at;
        Ok(match kind {
            0 => self.array(what).map(u8::from_le_bytes)?.into(),
            1 => self.array(what).map(i8::from_le_bytes)?.into(),
            2 => self.array(what).map(u16::from_le_bytes)?.into(),
            3 => self.array(what).map(i16::from_le_bytes)?.into(),
            4 => self.u32(what)?.into(),
            5 => self.array(what).map(i32::from_le_bytes)?.into(),
            11 => self.array(what).map(i64::from_le_bytes)?,
            _ => {
                let number = self.u64(what)?;
                i64::try_from(number)
                    .map_err(|_| self.error(what, start, "a number below 2^63", number.to_string()))?
            }
        })
    }

    fn float(&mut self, kind: u32, what: &str) -> Result<f64, Error> {
        match kind {
            6 => self.array(what).map(f32::from_le_bytes).map(f64::from),
            _ => self.array(what).map(f64::from_le_bytes),
        }
    }

    fn flag(&mut self, what: &str) -> Result<bool, Error> {
        let start = self.at;
        match self.array(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.error(what, start, "0 or 1", other.to_string())),
        }
    }

    /// One line of the list of tensors.
    fn tensor(&mut self) -> Result<Listed, Error> {
        let at = self.at;
        let name = self.text("a tensor's name")?;
        let what = format!("tensor {name}");
        let dims = self.u32(&what)?;
        if dims > MAX_DIMS {
            return Err(self.error(&what, at, &format!("at most {MAX_DIMS} dimensions"), dims.to_string()));
        }
        let dims: Vec<u64> = (0..dims).map(|_| self.u64(&what)).collect::<Result<_, _>>()?;
        let kind = self.u32(&what)?;
        let offset = self.u64(&what)?;
        let dtype = dtype(kind).ok_or_else(|| {
            let known = TYPES.iter().map(|(_, dtype)| dtype.to_string()).collect::<Vec<_>>().join(", ");
            self.error(&what, at, &format!("a type among {known}"), unsupported(kind))
        })?;
        let shape: Option<Vec<usize>> = dims.iter().rev().map(|&dim| usize::try_from(dim).ok()).collect();
        let len = byte_len(dtype, &dims);
        let (Some(shape), Some(len)) = (shape, len) else {
            let block = dtype.encoding().map_or(1, Encoding::group);
            let expected =
                format!("dimensions whose product fits 64 bits, the first a multiple of {block} for {dtype}");
            return Err(self.error(&what, at, &expected, format!("{dims:?}")));
        };
        Ok(Listed { name, dtype, shape, offset, len, at })
    }

    fn ends(&self, what: &str, wanted: u64) -> Error {
        let left = self.bytes.len() - self.at;
        self.error(
            what,
            self.at,
            &format!("{wanted} bytes"),
            format!("{left}; the file is cut short or damaged"),
        )
    }

    fn error(&self, what: &str, offset: usize, expected: &str, found: String) -> Error {
        Error::Gguf {
            path: self.path.to_owned(),
            what: what.to_owned(),
            offset: offset as u64,
            expected: expected.to_owned(),
            found,
        }
    }
}

/// The tensor types that are read, by their number in files.
const TYPES: [(u32, Dtype); 28] = [
    (0, Dtype::F32),
    (1, Dtype::F16),
    (2, Dtype::Ggml(Ggml::Q4_0)),
    (3, Dtype::Ggml(Ggml::Q4_1)),
    (6, Dtype::Ggml(Ggml::Q5_0)),
    (7, Dtype::Ggml(Ggml::Q5_1)),
    (8, Dtype::Ggml(Ggml::Q8_0)),
    (10, Dtype::Ggml(Ggml::Q2K)),
    (11, Dtype::Ggml(Ggml::Q3K)),
    (12, Dtype::Ggml(Ggml::Q4K)),
    (13, Dtype::Ggml(Ggml::Q5K)),
    (14, Dtype::Ggml(Ggml::Q6K)),
    (16, Dtype::Ggml(Ggml::Iq2Xxs)),
    (17, Dtype::Ggml(Ggml::Iq2Xs)),
    (18, Dtype::Ggml(Ggml::Iq3Xxs)),
    (19, Dtype::Ggml(Ggml::Iq1S)),
    (20, Dtype::Ggml(Ggml::Iq4Nl)),
    (21, Dtype::Ggml(Ggml::Iq3S)),
    (22, Dtype::Ggml(Ggml::Iq2S)),
    (23, Dtype::Ggml(Ggml::Iq4Xs)),
    (29, Dtype::Ggml(Ggml::Iq1M)),
    (30, Dtype::BF16),
    (34, Dtype::Ggml(Ggml::Tq1_0)),
    (35, Dtype::Ggml(Ggml::Tq2_0)),
    (39, Dtype::Ggml(Ggml::Mxfp4)),
    (40, Dtype::Ggml(Ggml::Nvfp4)),
    (41, Dtype::Ggml(Ggml::Q1_0)),
    (42, Dtype::Ggml(Ggml::Q2_0)),
];

fn dtype(kind: u32) -> Option<Dtype> {
    TYPES.iter().find(|(number, _)| *number == kind).map(|(_, dtype)| *dtype)
}

/// A type that exists but is not read, or does not exist, for people.
fn unsupported(kind: u32) -> String {
    let name = match kind {
        9 => "Q8_1",
        15 => "Q8_K",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        _ => return format!("type {kind}"),
    };
    format!("{name}, which is not supported")
}

/// Bytes of a tensor with these dimensions, the fastest first; `None` if the number overflows or a row is not whole
/// blocks.
fn byte_len(dtype: Dtype, dims: &[u64]) -> Option<u64> {
    let encoding = dtype.encoding()?;
    let (row, rows) = dims.split_first().unwrap_or((&1, &[]));
    if !row.is_multiple_of(encoding.group() as u64) {
        return None;
    }
    let block_bytes = encoding.row_bytes(encoding.group()).codes as u64;
    let row_bytes = (row / encoding.group() as u64).checked_mul(block_bytes)?;
    rows.iter().try_fold(row_bytes, |bytes, &dim| bytes.checked_mul(dim))
}
