//! Reads snapshots.

use std::io::Read;

use moeflux_kernels::{KV_BLOCK, KvBlock, KvType};

use super::VERSION;
use super::section::SectionReader;
use super::{
    CACHES, CHECKPOINT, DONE, EXTRA, Expected, HEAD, MAGIC, POSITIONS, Snapshot, SnapshotError, TOKENS,
};
use crate::sequence::cache::Blocks;
use crate::sequence::restore_point::RestorePoint;
use crate::sequence::state::{Kept, State};
use crate::sequence::{Fingerprint, Held, Position, Sequence};

/// What the head says.
struct Head {
    len: usize,
    text: usize,
    restore_points: usize,
    extra: usize,
}

pub(super) fn read(input: impl Read, expected: &Expected) -> Result<Snapshot, SnapshotError> {
    let mut reader = SectionReader::new(input);
    let found: [u8; 8] = reader.raw()?;
    if found != MAGIC {
        return Err(SnapshotError::NotASnapshot { found: found.to_vec() });
    }
    let found = u32::from_le_bytes(reader.raw()?);
    if found != VERSION {
        return Err(SnapshotError::Version { expected: VERSION, found });
    }
    let head = head(&mut reader, expected)?;
    let tokens = tokens(&mut reader, head.len, expected.vocab_size)?;
    let positions = positions(&mut reader, &head)?;
    let blocks = blocks(&mut reader, head.len, &expected.empty)?;
    let restore_points = restore_points(&mut reader, &head, &expected.empty)?;
    reader.begin(EXTRA, Some(head.extra as u64))?;
    let extra = reader.bytes(head.extra)?;
    reader.end()?;
    reader.begin(DONE, Some(0))?;
    reader.end()?;
    reader.finish()?;
    if tokens.is_empty() {
        return Ok(Snapshot { sequence: expected.empty.clone(), extra });
    }
    let blocks = blocks.iter().map(Vec::as_slice);
    let sequence = expected.empty.assemble(tokens, &positions, blocks, restore_points.into_iter());
    Ok(Snapshot { sequence, extra })
}

fn head(reader: &mut SectionReader<impl Read>, expected: &Expected) -> Result<Head, SnapshotError> {
    reader.begin(HEAD, Some(16 + 4 + 4 * 8))?;
    let found = Fingerprint { architecture: reader.u64()?, weights: reader.u64()? };
    let element = reader.u32()?;
    let [len, text, restore_points, extra] = [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?];
    reader.end()?;
    let ours = expected.fingerprint;
    if found.architecture != ours.architecture {
        return Err(SnapshotError::OtherModel { expected: ours, found });
    }
    if found.weights != ours.weights {
        return Err(SnapshotError::OtherWeights { expected: ours, found });
    }
    let of_bytes = |bytes| [KvType::F32, KvType::F16].into_iter().find(|kv_type| kv_type.bytes() == bytes);
    let Some(found) = of_bytes(element as usize) else {
        return Err(reader.wrong("the bytes of a cache's element", "2 or 4", element));
    };
    let ours = expected.empty.kv_type();
    if found != ours {
        return Err(SnapshotError::KvType { expected: ours, found });
    }
    let at_most = |what, most: u64, found: u64| {
        if found <= most {
            Ok(found as usize)
        } else {
            Err(reader.wrong(what, format!("at most {most}"), found))
        }
    };
    let len = at_most("the number of tokens", expected.context_length as u64, len)?;
    let text = at_most("the number of tokens at their index", len as u64, text)?;
    let restore_points = at_most("the number of checkpoints", len as u64, restore_points)?;
    let extra = at_most("the length of what is beside", 1 << 40, extra)?;
    Ok(Head { len, text, restore_points, extra })
}

fn tokens(
    reader: &mut SectionReader<impl Read>,
    len: usize,
    vocab_size: usize,
) -> Result<Vec<u32>, SnapshotError> {
    reader.begin(TOKENS, Some(4 * len as u64))?;
    let tokens: Vec<u32> =
        reader.bytes(4 * len)?.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
    reader.end()?;
    match tokens.iter().find(|&&token| token as usize >= vocab_size) {
        Some(token) => Err(reader.wrong("a token", format!("less than {vocab_size}"), token)),
        None => Ok(tokens),
    }
}

fn positions(reader: &mut SectionReader<impl Read>, head: &Head) -> Result<Vec<Position>, SnapshotError> {
    let bytes = 12 * (head.len - head.text);
    reader.begin(POSITIONS, Some(bytes as u64))?;
    let text = (0..head.text as u32).map(|position| [position; 3]);
    let bytes = reader.bytes(bytes)?;
    let numbers: Vec<u32> = bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
    reader.end()?;
    Ok(text.chain(numbers.as_chunks().0.iter().copied()).collect())
}

fn blocks(
    reader: &mut SectionReader<impl Read>,
    len: usize,
    empty: &Sequence,
) -> Result<Vec<Vec<KvBlock>>, SnapshotError> {
    let bytes = block_bytes(empty);
    let count = len.div_ceil(KV_BLOCK);
    reader.begin(CACHES, Some((count * bytes.iter().sum::<usize>()) as u64))?;
    let mut block = |bytes: usize| Ok(KvBlock::from_le_bytes(&reader.bytes(bytes)?, empty.kv_type()));
    let blocks: Result<Vec<Vec<KvBlock>>, SnapshotError> =
        (0..count).map(|_| bytes.iter().map(|&bytes| block(bytes)).collect()).collect();
    let blocks = blocks?;
    reader.end()?;
    Ok(blocks)
}

/// Bytes of each part of [`Sequence::block`].
pub(super) fn block_bytes(sequence: &Sequence) -> Vec<usize> {
    let caches = sequence.states().iter().flat_map(State::full_caches);
    caches.map(Blocks::block_bytes).collect()
}

fn restore_points(
    reader: &mut SectionReader<impl Read>,
    head: &Head,
    empty: &Sequence,
) -> Result<Vec<RestorePoint>, SnapshotError> {
    let mut restore_points: Vec<RestorePoint> = Vec::new();
    for _ in 0..head.restore_points {
        reader.begin(CHECKPOINT, None)?;
        let after = restore_points.last().map_or(0, |restore_point| restore_point.len);
        let len = reader.u64()?;
        if len <= after as u64 || len > head.len as u64 {
            return Err(reader.wrong(
                "the place of a checkpoint",
                format!("{} to {}", after + 1, head.len),
                len,
            ));
        }
        let len = len as usize;
        let kept = empty.states().iter().map(|state| kept(reader, len, state, empty.kv_type()));
        let kept = kept.collect::<Result<_, _>>()?;
        reader.end()?;
        restore_points.push(RestorePoint::from_kept(len, kept));
    }
    let last = restore_points.last().map_or(0, |restore_point| restore_point.len);
    if empty.needs_restore_points() && last < head.len {
        return Err(reader.wrong("the place of the last checkpoint", head.len, last));
    }
    Ok(restore_points)
}

/// What a restore point at `len` tokens keeps of a state.
fn kept(
    reader: &mut SectionReader<impl Read>,
    len: usize,
    state: &State,
    kv_type: KvType,
) -> Result<Kept, SnapshotError> {
    match state {
        State::Recurrent(recurrent) => {
            let bytes = reader.bytes(4 * recurrent.current().len())?;
            let floats = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            Ok(Kept::Recurrent(Held::Host(floats)))
        }
        State::Kv(cache) if cache.has_window() => {
            let (first, most) = (reader.u64()?, cache.first_block(len));
            if first > most as u64 {
                return Err(reader.wrong("the first block of a window", format!("at most {most}"), first));
            }
            let first = first as usize;
            let mut side = || {
                let bytes = cache.parts()[0].block_bytes();
                let blocks = (first..len.div_ceil(KV_BLOCK))
                    .map(|_| Ok::<_, SnapshotError>(KvBlock::from_le_bytes(&reader.bytes(bytes)?, kv_type)));
                blocks.collect::<Result<Vec<KvBlock>, _>>()
            };
            Ok(Kept::Window { first, keys: side()?, values: side()? })
        }
        State::Kv(_) | State::Latent(_) => Ok(Kept::Nothing),
    }
}
