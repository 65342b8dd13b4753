//! `MFLX` snapshots, versions 1 and 2, of models with gated delta nets and full attention (Qwen3.5-MoE, Qwen3-Next).
//!
//! Words of 32 bits, little-endian: [`MAGIC`], version, layers, the interval of full attention layers, KV heads, channels
//! of a head, bytes of a convolution's state, bytes of a delta rule's; in version 2 also the rank and the rotary channels
//! of latent attention, 0 here. Then by layer, in float32: of full attention the number of tokens (`i32`), keys after RoPE
//! and values (`[tokens, kv_heads, head_dim]` each); of a delta net the last inputs of its convolution (`[3, channels]`,
//! oldest first), then its state (`[value_heads, value_dim, key_dim]`).
//!
//! Such a file names neither tokens nor model and has no checksum: whoever imports it answers for the tokens, and for the
//! weights being those it was made with. What the header says is checked.

use std::fmt::Display;

use moeflux_kernels::{AttentionShape, DeltaShape, KvBlock, kv_read, kv_write};

use super::{Position, Sequence, State, StateMut};
use crate::graph::{Graph, Op, StateId};

/// How every file begins, as a number.
pub const MAGIC: u32 = 0x4d46_4c58;

/// Why an `MFLX` snapshot can't be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MflxError {
    /// A word of the header, or a number of tokens, that is not what the model has.
    #[error("{what} is {found}, expected {expected}")]
    Mismatch {
        /// Which word.
        what: String,
        /// What this model has.
        expected: String,
        /// What the file says.
        found: String,
    },
    /// The file is not as long as its header says.
    #[error("it has {found} bytes, expected {expected}")]
    Length {
        /// What its layers take.
        expected: usize,
        /// What it has.
        found: usize,
    },
    /// The model has something that these files can't hold.
    #[error("models with {0} have no such snapshots")]
    Unsupported(&'static str),
    /// The states are on a device that does not give them back.
    #[error("the states can't be read: {0}")]
    Device(String),
}

/// What a layer remembers, and in which states.
#[derive(Clone, Copy)]
enum Layer {
    Attention { state: StateId, shape: AttentionShape },
    Delta { conv: StateId, delta: StateId, history: usize, shape: DeltaShape },
}

/// The sequence whose states a file holds after `tokens`, starting from an empty one. The model is known by a graph of
/// its layers, and by the most tokens that a sequence may have.
pub fn import(
    graph: &Graph,
    context_length: usize,
    mut empty: Sequence,
    bytes: &[u8],
    tokens: &[u32],
) -> Result<Sequence, MflxError> {
    let layers = layers(graph)?;
    let mut words = bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
    let mut word = || words.next().unwrap_or_default();
    expect("the magic number", MAGIC, word())?;
    let version = word();
    if version != 1 {
        expect("the version", 2, version)?;
    }
    let header = header(&layers, version)?;
    for (what, expected) in &header {
        expect(what, *expected, word())?;
    }
    let len = tokens.len();
    if len > context_length {
        expect("the number of tokens", format!("at most {context_length}"), len)?;
    }
    let start = 4 * (2 + header.len());
    let expected = start + layers.iter().map(|layer| layer.bytes(len)).sum::<usize>();
    // The number of tokens is said in each layer; a wrong one is better told than its consequence.
    let mut rest = &bytes[start.min(bytes.len())..];
    let mut parsed = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let length = || MflxError::Length { expected, found: bytes.len() };
        if let Layer::Attention { .. } = layer {
            let (found, tail) = rest.split_first_chunk().ok_or_else(length)?;
            expect(format!("layer {index}: the number of tokens"), len, i32::from_le_bytes(*found))?;
            rest = tail;
        }
        let (content, tail) = rest.split_at_checked(layer.floats(len)).ok_or_else(length)?;
        parsed
            .push(content.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect::<Vec<f32>>());
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(MflxError::Length { expected, found: bytes.len() });
    }
    if len == 0 {
        return Ok(empty);
    }
    empty.reserve(len);
    for (layer, floats) in layers.iter().zip(&parsed) {
        layer.import(&mut empty, floats);
    }
    let positions: Vec<Position> = (0..len as u32).map(|position| [position; 3]).collect();
    empty.commit(tokens, &positions);
    empty.mark();
    Ok(empty)
}

/// A file of version 2 with the states of a sequence.
pub fn export(graph: &Graph, sequence: &Sequence) -> Result<Vec<u8>, MflxError> {
    let layers = layers(graph)?;
    let mut bytes = Vec::new();
    for word in [MAGIC, 2].into_iter().chain(header(&layers, 2)?.into_iter().map(|(_, word)| word)) {
        bytes.extend(word.to_le_bytes());
    }
    let mut sequence = sequence.on_host().map_err(|error| MflxError::Device(error.to_string()))?;
    for layer in &layers {
        if let Layer::Attention { .. } = layer {
            bytes.extend((sequence.len() as i32).to_le_bytes());
        }
        bytes.extend(layer.export(&mut sequence).into_iter().flat_map(f32::to_le_bytes));
    }
    Ok(bytes)
}

fn expect(what: impl ToString, expected: impl Display, found: impl Display) -> Result<(), MflxError> {
    let (expected, found) = (expected.to_string(), found.to_string());
    if expected == found {
        return Ok(());
    }
    Err(MflxError::Mismatch { what: what.to_string(), expected, found })
}

/// The layers of a model, as its graph has them.
fn layers(graph: &Graph) -> Result<Vec<Layer>, MflxError> {
    let mut layers = Vec::new();
    let mut conv = None;
    for op in graph.ops() {
        match *op {
            Op::Attention { state, shape, sinks: None, .. } if shape.window.is_none() => {
                layers.push(Layer::Attention { state, shape });
            }
            Op::Attention { .. } => return Err(MflxError::Unsupported("sliding windows or attention sinks")),
            Op::MlaAttention { .. } => return Err(MflxError::Unsupported("latent attention")),
            Op::Conv1dSilu { state, kernel, .. } => conv = Some((state, kernel - 1)),
            Op::GatedDelta { state: delta, shape, .. } => {
                let Some((conv, history)) = conv.take() else {
                    return Err(MflxError::Unsupported("delta rules without convolutions"));
                };
                layers.push(Layer::Delta { conv, delta, history, shape });
            }
            _ => {}
        }
    }
    Ok(layers)
}

/// The words after magic number and version.
fn header(layers: &[Layer], version: u32) -> Result<Vec<(&'static str, u32)>, MflxError> {
    let full = |layer: &Layer| matches!(layer, Layer::Attention { .. });
    let attention = layers.iter().find_map(|layer| match layer {
        Layer::Attention { shape, .. } => Some(shape),
        Layer::Delta { .. } => None,
    });
    let delta = layers.iter().find_map(|layer| match layer {
        Layer::Delta { history, shape, .. } => Some((*history, shape)),
        Layer::Attention { .. } => None,
    });
    let (Some(attention), Some((history, delta))) = (attention, delta) else {
        return Err(MflxError::Unsupported("layers of one kind only"));
    };
    let interval = 1 + layers.iter().take_while(|layer| !full(layer)).count();
    if layers.iter().enumerate().any(|(index, layer)| full(layer) != (index + 1).is_multiple_of(interval)) {
        return Err(MflxError::Unsupported("full attention at irregular intervals"));
    }
    let mut words = vec![
        ("the number of layers", layers.len()),
        ("the interval of full attention layers", interval),
        ("the number of KV heads", attention.kv_heads),
        ("the number of a head's channels", attention.head_dim),
        ("the size of a convolution's state", 4 * history * channels(delta)),
        ("the size of a delta rule's state", 4 * delta.value_heads * delta.key_dim * delta.value_dim),
    ];
    if version == 2 {
        words.extend([("the rank of latents", 0), ("the number of rotary channels of latents", 0)]);
    }
    Ok(words.into_iter().map(|(what, word)| (what, word as u32)).collect())
}

/// Channels of a delta net's convolution: queries, keys and values.
fn channels(shape: &DeltaShape) -> usize {
    2 * shape.key_heads * shape.key_dim + shape.value_heads * shape.value_dim
}

impl Layer {
    /// Bytes of its floats after `len` tokens.
    fn floats(&self, len: usize) -> usize {
        4 * match self {
            Layer::Attention { shape, .. } => 2 * len * shape.kv_heads * shape.head_dim,
            Layer::Delta { history, shape, .. } => {
                history * channels(shape) + shape.value_heads * shape.key_dim * shape.value_dim
            }
        }
    }

    /// Bytes in a file.
    fn bytes(&self, len: usize) -> usize {
        self.floats(len) + if matches!(self, Layer::Attention { .. }) { 4 } else { 0 }
    }

    /// Writes what a file has to the states that the next commit makes current.
    fn import(&self, sequence: &mut Sequence, floats: &[f32]) {
        match *self {
            Layer::Attention { state, shape } => {
                let (k, v) = floats.split_at(floats.len() / 2);
                let (keys, values) = caches(sequence, state);
                kv_write(k, v, &shape, 0, keys, values);
            }
            Layer::Delta { conv, delta, history, shape } => {
                let (inputs, states) = floats.split_at(history * channels(&shape));
                if let StateMut::Recurrent { next, .. } = sequence.state_mut(conv) {
                    each_input(&shape, inputs.len(), |ours, theirs| next[ours] = inputs[theirs]);
                }
                if let StateMut::Recurrent { next, .. } = sequence.state_mut(delta) {
                    each_element(&shape, |ours, theirs| next[ours] = states[theirs]);
                }
            }
        }
    }

    /// What a file has of its states.
    fn export(&self, sequence: &mut Sequence) -> Vec<f32> {
        let mut floats = vec![0.0; self.floats(sequence.len()) / 4];
        match *self {
            Layer::Attention { state, shape } => {
                let (k, v) = floats.split_at_mut(self.floats(sequence.len()) / 8);
                let (keys, values) = caches(sequence, state);
                kv_read(keys, values, &shape, k, v);
            }
            Layer::Delta { conv, delta, history, shape } => {
                let (inputs, states) = floats.split_at_mut(history * channels(&shape));
                if let State::Recurrent(conv) = &sequence.states()[conv.0] {
                    each_input(&shape, inputs.len(), |ours, theirs| inputs[theirs] = conv.current()[ours]);
                }
                if let State::Recurrent(delta) = &sequence.states()[delta.0] {
                    each_element(&shape, |ours, theirs| states[theirs] = delta.current()[ours]);
                }
            }
        }
        floats
    }
}

fn caches(sequence: &mut Sequence, state: StateId) -> (&mut [KvBlock], &mut [KvBlock]) {
    match sequence.state_mut(state) {
        StateMut::Kv(cache) => cache.blocks_mut(),
        _ => unreachable!("the loader made state {state} a KV cache"),
    }
}

/// Calls with the index of each of `n` inputs of a convolution, ours and theirs: the heads of values may stand in another
/// order.
fn each_input(shape: &DeltaShape, n: usize, mut copy: impl FnMut(usize, usize)) {
    let (channels, first_value) = (channels(shape), 2 * shape.key_heads * shape.key_dim);
    for ours in 0..n {
        let (row, channel) = (ours / channels, ours % channels);
        let theirs = match channel.checked_sub(first_value) {
            None => channel,
            Some(value) => {
                let (head, within) = (value / shape.value_dim, value % shape.value_dim);
                first_value + shape.grouped(head) * shape.value_dim + within
            }
        };
        copy(ours, row * channels + theirs);
    }
}

/// Calls with the index of each element of a delta rule's state, ours and theirs, which is turned within each head.
fn each_element(shape: &DeltaShape, mut copy: impl FnMut(usize, usize)) {
    let DeltaShape { value_heads, key_dim, value_dim, .. } = *shape;
    for head in 0..value_heads {
        let (ours, theirs) = (head * key_dim * value_dim, shape.grouped(head) * key_dim * value_dim);
        for key in 0..key_dim {
            for value in 0..value_dim {
                copy(ours + key * value_dim + value, theirs + value * key_dim + key);
            }
        }
    }
}
