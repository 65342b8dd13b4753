//! Writes snapshots.

use std::io::Write;

use moeflux_kernels::{KV_BLOCK, KvBlock};

use super::section::SectionWriter;
use super::{CACHES, CHECKPOINT, DONE, EXTRA, HEAD, MAGIC, POSITIONS, SnapshotError, SnapshotOptions};
use super::{TOKENS, VERSION};
use crate::sequence::restore_point::RestorePoint;
use crate::sequence::state::Kept;
use crate::sequence::{Fingerprint, Sequence};

pub(super) fn write(
    sequence: &Sequence,
    output: &mut impl Write,
    fingerprint: Fingerprint,
    options: &SnapshotOptions,
) -> Result<(), SnapshotError> {
    let sequence = &sequence.on_host()?;
    let (len, text) = (sequence.len(), sequence.positions.text());
    let mut restore_points: Vec<RestorePoint> = sequence.points().collect();
    if !options.checkpoints {
        restore_points.retain(|restore_point| restore_point.len == len);
    }
    output.write_all(&MAGIC)?;
    output.write_all(&VERSION.to_le_bytes())?;

    let mut head = Vec::new();
    head.extend(fingerprint.architecture.to_le_bytes());
    head.extend(fingerprint.weights.to_le_bytes());
    head.extend((sequence.kv_type().bytes() as u32).to_le_bytes());
    for count in [len, text, restore_points.len(), options.extra.len()] {
        head.extend((count as u64).to_le_bytes());
    }
    whole(output, HEAD, &head)?;
    let tokens: Vec<u8> = sequence.tokens().iter().flat_map(|token| token.to_le_bytes()).collect();
    whole(output, TOKENS, &tokens)?;
    let positions = (text..len).flat_map(|index| sequence.position(index));
    let positions: Vec<u8> = positions.flat_map(u32::to_le_bytes).collect();
    whole(output, POSITIONS, &positions)?;

    let blocks = len.div_ceil(KV_BLOCK);
    let block_bytes = super::read::block_bytes(sequence);
    let mut section = SectionWriter::new(output, CACHES, blocks * block_bytes.iter().sum::<usize>())?;
    for index in 0..blocks {
        for block in sequence.block(index) {
            section.put(&block.to_le_bytes())?;
        }
    }
    section.end()?;

    for restore_point in &restore_points {
        let lens = restore_point.kept.iter().map(|kept| match kept {
            Kept::Window { .. } => 8 + kept.bytes(),
            Kept::Nothing | Kept::Recurrent(_) => kept.bytes(),
        });
        let mut section = SectionWriter::new(output, CHECKPOINT, 8 + lens.sum::<usize>())?;
        section.put(&(restore_point.len as u64).to_le_bytes())?;
        for kept in &restore_point.kept {
            match kept {
                Kept::Nothing => {}
                Kept::Window { first, keys, values } => {
                    section.put(&(*first as u64).to_le_bytes())?;
                    let blocks = keys.iter().chain(values).map(KvBlock::to_le_bytes);
                    blocks.into_iter().try_for_each(|bytes| section.put(&bytes))?;
                }
                Kept::Recurrent(state) => {
                    let bytes: Vec<u8> = state.host().iter().flat_map(|x| x.to_le_bytes()).collect();
                    section.put(&bytes)?;
                }
            }
        }
        section.end()?;
    }
    whole(output, EXTRA, &options.extra)?;
    whole(output, DONE, &[])?;
    Ok(output.flush()?)
}

/// A section whose content is at hand.
fn whole(output: &mut impl Write, kind: super::Kind, content: &[u8]) -> Result<(), SnapshotError> {
    let mut section = SectionWriter::new(output, kind, content.len())?;
    section.put(content)?;
    section.end()
}
