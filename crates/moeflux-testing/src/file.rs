//! Where the tensors of a safetensors or a GGUF file lie, by the bytes before them.

use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use crate::Result;

/// How the numbers of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// GGML's blocks of 32 codes of 8 bits and a scale in F16.
    Q8_0,
    /// Codes, which a recipe makes byte by byte.
    Bytes,
}

/// A tensor of a file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As the file has it.
    pub name: String,
    /// How its numbers are stored.
    pub kind: Kind,
    /// Rows before columns, also for GGUF.
    pub shape: Vec<usize>,
    /// Its bytes, counted from the header's end.
    pub bytes: Range<usize>,
}

/// The end of the header of a file, safetensors if its path does not end in `.gguf`, and its tensors by their place.
pub fn read(path: &Path, file: &[u8]) -> Result<(usize, Vec<Entry>)> {
    let is_gguf = path.extension().is_some_and(|extension| extension == "gguf");
    let (end, mut entries) = if is_gguf { gguf(file)? } else { safetensors(file)? };
    entries.sort_by_key(|entry| entry.bytes.start);
    Ok((end, entries))
}

fn safetensors(file: &[u8]) -> Result<(usize, Vec<Entry>)> {
    let len = file.first_chunk().ok_or("the file is shorter than 8 bytes")?;
    let end = 8 + u64::from_le_bytes(*len) as usize;
    let json = file.get(8..end).ok_or("the file ends in its header")?;
    let header: serde_json::Map<String, Value> =
        serde_json::from_slice(json).map_err(|error| format!("the header is not JSON: {error}"))?;
    let mut entries = Vec::new();
    for (name, fields) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let numbers = |field: &str| -> Option<Vec<usize>> {
            fields[field].as_array()?.iter().map(|number| Some(number.as_u64()? as usize)).collect()
        };
        let (shape, offsets) = numbers("shape")
            .zip(numbers("data_offsets"))
            .filter(|(_, offsets)| offsets.len() == 2)
            .ok_or_else(|| format!("{name}: no shape and offsets"))?;
        let kind = match fields["dtype"].as_str() {
            Some("F32") => Kind::F32,
            Some("F16") => Kind::F16,
            Some("BF16") => Kind::Bf16,
            Some("U8" | "U32" | "F8_E4M3") => Kind::Bytes,
            other => return Err(format!("{name}: dtype {other:?} is not supported")),
        };
        entries.push(Entry { name, kind, shape, bytes: offsets[0]..offsets[1] });
    }
    Ok((end, entries))
}

fn gguf(file: &[u8]) -> Result<(usize, Vec<Entry>)> {
    let mut reader = Reader { file, place: 8 };
    let (tensors, pairs) = (reader.u64()?, reader.u64()?);
    for _ in 0..pairs {
        reader.string()?;
        let kind = reader.u32()?;
        reader.skip_value(kind)?;
    }
    let mut entries = Vec::new();
    for _ in 0..tensors {
        let name = reader.string()?;
        let n_dims = reader.u32()?;
        let mut shape = (0..n_dims).map(|_| Ok(reader.u64()? as usize)).collect::<Result<Vec<_>>>()?;
        shape.reverse();
        let numbers: usize = shape.iter().product();
        let (kind, len) = match reader.u32()? {
            0 => (Kind::F32, numbers * 4),
            1 => (Kind::F16, numbers * 2),
            8 => (Kind::Q8_0, numbers / 32 * 34),
            30 => (Kind::Bf16, numbers * 2),
            // MXFP4.
            39 => (Kind::Bytes, numbers / 32 * 17),
            other => return Err(format!("{name}: GGML type {other} is not supported")),
        };
        let start = reader.u64()? as usize;
        entries.push(Entry { name, kind, shape, bytes: start..start + len });
    }
    Ok((reader.place.next_multiple_of(32), entries))
}

struct Reader<'a> {
    file: &'a [u8],
    place: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let bytes = self.file.get(self.place..).and_then(|rest| rest.get(..len));
        self.place += len;
        bytes.ok_or_else(|| "the file ends in its header".to_owned())
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(self.take(4)?.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from(self.u32()?) | u64::from(self.u32()?) << 32)
    }

    fn string(&mut self) -> Result<String> {
        let len = self.u64()? as usize;
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    fn skip_value(&mut self, kind: u32) -> Result<()> {
        let len = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => self.u64()? as usize,
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                return (0..count).try_for_each(|_| self.skip_value(kind));
            }
            other => return Err(format!("a value of the unknown type {other}")),
        };
        self.take(len).map(drop)
    }
}
