//! A GGUF file in memory, to write and to break.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use moeflux_checkpoint::gguf::Value;
use moeflux_checkpoint::{Checkpoint, Dtype, OpenOptions};
use std::path::Path;

/// Metadata and tensors, written as version 3 and with an alignment of 32.
#[derive(Clone)]
pub struct GgufFile {
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<Stored>,
}

/// A tensor with its bytes.
#[derive(Clone)]
pub struct Stored {
    pub name: String,
    /// The type's number in files.
    pub kind: u32,
    /// The slowest first, as in [`moeflux_checkpoint::Tensor`].
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl GgufFile {
    /// Reads a file, metadata and tensors.
    pub fn read(path: &Path) -> Self {
        let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
        let metadata = checkpoint.metadata().unwrap().iter();
        let stored = |tensor: &moeflux_checkpoint::Tensor| Stored {
            name: tensor.name.clone(),
            kind: kind(tensor.dtype),
            shape: tensor.shape.clone(),
            bytes: checkpoint.bytes(tensor.span).to_vec(),
        };
        GgufFile {
            metadata: metadata.map(|(key, value)| (key.to_owned(), value.clone())).collect(),
            tensors: checkpoint.tensors().map(stored).collect(),
        }
    }

    /// One key and two tensors, of two F32 and of a block of Q8_0.
    pub fn tiny() -> Self {
        let stored = |name: &str, kind, shape: &[usize], len| Stored {
            name: name.to_owned(),
            kind,
            shape: shape.to_owned(),
            bytes: vec![0; len],
        };
        GgufFile {
            metadata: vec![("general.architecture".to_owned(), Value::Text("qwen35moe".to_owned()))],
            tensors: vec![stored("one", 0, &[2], 8), stored("two", 8, &[1, 32], 34)],
        }
    }

    /// Sets a key, new or not.
    pub fn set(&mut self, key: &str, value: Value) {
        self.remove(key);
        self.metadata.push((key.to_owned(), value));
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) {
        self.metadata.retain(|(known, _)| known != key);
    }

    /// The tensor of this name.
    pub fn tensor(&mut self, name: &str) -> &mut Stored {
        self.tensors
            .iter_mut()
            .find(|tensor| tensor.name == name)
            .unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut out, key);
            write(&mut out, value);
        }
        let mut offset = 0;
        for Stored { name, kind, shape, bytes } in &self.tensors {
            text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|dim| out.extend((*dim as u64).to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset = (offset + bytes.len()).next_multiple_of(32);
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&tensor.bytes);
        }
        out
    }
}

fn write(out: &mut Vec<u8>, value: &Value) {
    let mut head = |kinds: &[u32], len: Option<usize>| {
        out.extend(kinds.iter().flat_map(|kind| kind.to_le_bytes()));
        out.extend(len.iter().flat_map(|len| (*len as u64).to_le_bytes()));
    };
    match value {
        Value::Flag(_) => head(&[7], None),
        Value::Text(_) => head(&[8], None),
        Value::Integer(_) => head(&[11], None),
        Value::Float(_) => head(&[12], None),
        Value::Flags(values) => head(&[9, 7], Some(values.len())),
        Value::Texts(values) => head(&[9, 8], Some(values.len())),
        Value::Integers(values) => head(&[9, 11], Some(values.len())),
        Value::Floats(values) => head(&[9, 12], Some(values.len())),
    }
    match value {
        Value::Flag(value) => out.push(u8::from(*value)),
        Value::Text(value) => text(out, value),
        Value::Integer(value) => out.extend(value.to_le_bytes()),
        Value::Float(value) => out.extend(value.to_le_bytes()),
        Value::Flags(values) => out.extend(values.iter().map(|value| u8::from(*value))),
        Value::Texts(values) => values.iter().for_each(|value| text(out, value)),
        Value::Integers(values) => values.iter().for_each(|value| out.extend(value.to_le_bytes())),
        Value::Floats(values) => values.iter().for_each(|value| out.extend(value.to_le_bytes())),
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The numbers of the types in the files that tests write.
fn kind(dtype: Dtype) -> u32 {
    match dtype.to_string().as_str() {
        "F32" => 0,
        "F16" => 1,
        "Q8_0" => 8,
        "BF16" => 30,
        "MXFP4" => 39,
        other => panic!("{other}"),
    }
}
