//! From pieces of files to reads: which aligned ranges bring an expert, and where in its slot each piece then starts.

use crate::error::StoreError;
use crate::layout::{LayerLayout, Layout, Piece};

/// What direct reads are aligned to: a multiple of the logical block of every disk of today.
pub(crate) const ALIGNMENT: u64 = 4096;
/// Pieces with less than this between them are brought by one read.
const MERGE_GAP: u64 = 64 << 10;
/// An expert may have a slot that is larger than it needs by one part in so many.
const CLASS_SLACK: u64 = 32;

/// A layout as a store needs it. Experts of all layers are numbered through: `id`.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    /// The id of each layer's first expert, and the number of all.
    first: Vec<u32>,
    experts: Vec<ExpertPlan>,
    /// Bytes of the slots of each class, the largest first.
    pub(crate) classes: Vec<u64>,
}

/// How one expert is read.
#[derive(Debug)]
pub(crate) struct ExpertPlan {
    pub(crate) reads: Box<[RangeRead]>,
    pub(crate) pieces: Box<[Place]>,
    /// Which of [`Plan::classes`] its slot is of.
    pub(crate) class: usize,
    /// XXH3 of its one range.
    pub(crate) checksum: Option<u64>,
}

/// Where a piece starts in its slot, and its length.
type Place = (usize, usize);

/// One aligned range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RangeRead {
    pub(crate) file: u32,
    pub(crate) offset: u64,
    /// Its length, aligned; the file may end before.
    pub(crate) len: u64,
    /// From where on its bytes are of a piece, and to where.
    pub(crate) used: (u64, u64),
    /// Where it goes in the slot.
    pub(crate) slot_offset: u64,
}

impl Plan {
    /// Plans a layout; `file_bytes` are the lengths of its files.
    pub(crate) fn new(layout: Layout, file_bytes: &[u64]) -> Result<Self, StoreError> {
        let mut first = vec![0];
        let mut planned = Vec::new();
        for layer in &layout.layers {
            check_checksums(layer)?;
            for (expert, pieces) in layer.experts.iter().enumerate() {
                let checksum = layer.checksums.as_ref().map(|checksums| checksums[expert]);
                let what = |piece: &str| format!("{}, expert {expert}{piece}", layer.name);
                check_pieces(&layout, pieces, file_bytes, &what)?;
                let (reads, starts) = plan_reads(pieces);
                if checksum.is_some() && reads.len() != 1 {
                    let found = format!("{} apart", reads.len());
                    return Err(fault(what(" with a checksum"), "pieces in one stretch of a file", found));
                }
                let bytes: u64 = reads.iter().map(|read| read.len).sum();
                planned.push((bytes, ExpertPlan { reads, pieces: starts, class: 0, checksum }));
            }
            first.push(planned.len() as u32);
        }
        let classes = size_classes(planned.iter().map(|(bytes, _)| *bytes).collect());
        let classed = planned.into_iter().map(|(bytes, plan)| {
            // The smallest that is large enough.
            let class = classes.partition_point(|&class| class >= bytes) - 1;
            ExpertPlan { class, ..plan }
        });
        let experts = classed.collect();
        Ok(Self { layout, first, experts, classes })
    }

    /// The number of experts of all layers.
    pub(crate) fn len(&self) -> usize {
        self.experts.len()
    }

    pub(crate) fn expert(&self, id: u32) -> &ExpertPlan {
        &self.experts[id as usize]
    }

    /// The bytes of an expert's slot.
    pub(crate) fn slot_bytes(&self, id: u32) -> u64 {
        self.classes[self.expert(id).class]
    }

    /// About how many experts so many bytes hold.
    pub(crate) fn experts_in(&self, bytes: u64) -> usize {
        let all: u64 = (0..self.len() as u32).map(|id| self.slot_bytes(id)).sum();
        (bytes as f64 / all.max(1) as f64 * self.len() as f64) as usize
    }

    /// The ids of a layer's experts; empty if there is no such layer.
    pub(crate) fn layer(&self, layer: u32) -> std::ops::Range<u32> {
        match self.first.get(layer as usize..layer as usize + 2) {
            Some(&[start, end]) => start..end,
            _ => 0..0,
        }
    }

    /// The id of a layer's expert.
    pub(crate) fn id(&self, layer: u32, expert: u32) -> Result<u32, StoreError> {
        let ids = self.layer(layer);
        let missing =
            StoreError::NoSuchExpert { layer, expert, layers: self.layout.layers.len(), experts: ids.len() };
        ids.start.checked_add(expert).filter(|id| ids.contains(id)).ok_or(missing)
    }

    /// The layer and expert of an id.
    pub(crate) fn place(&self, id: u32) -> (&LayerLayout, u32) {
        let layer = self.first.partition_point(|&first| first <= id) - 1;
        (&self.layout.layers[layer], id - self.first[layer])
    }

    /// Where an expert's first read lies: reads in this order go forward through files.
    pub(crate) fn file_order(&self, id: u32) -> (u32, u64) {
        let read = self.expert(id).reads[0];
        (read.file, read.offset)
    }
}

fn fault(what: String, expected: impl ToString, found: impl ToString) -> StoreError {
    StoreError::Layout { what, expected: expected.to_string(), found: found.to_string() }
}

fn check_checksums(layer: &LayerLayout) -> Result<(), StoreError> {
    let experts = layer.experts.len();
    let checksums = layer.checksums.as_ref().map_or(experts, Vec::len);
    if checksums == experts {
        return Ok(());
    }
    Err(fault(format!("{}, checksums", layer.name), experts, checksums))
}

fn check_pieces(
    layout: &Layout,
    pieces: &[Piece],
    file_bytes: &[u64],
    what: &impl Fn(&str) -> String,
) -> Result<(), StoreError> {
    if pieces.iter().all(|piece| piece.len == 0) {
        return Err(fault(what(""), "at least one byte", "none"));
    }
    for (i, piece) in pieces.iter().enumerate() {
        let (Some(path), Some(&bytes)) =
            (layout.files.get(piece.file as usize), file_bytes.get(piece.file as usize))
        else {
            let expected = format!("one of {} files", layout.files.len());
            return Err(fault(what(&format!(", piece {i}")), expected, format!("file {}", piece.file)));
        };
        if piece.offset.checked_add(piece.len).is_none_or(|end| end > bytes) {
            let found = format!("{} bytes at {}", piece.len, piece.offset);
            let expected = format!("a range inside the {bytes} bytes of {}", path.display());
            return Err(fault(what(&format!(", piece {i}")), expected, found));
        }
    }
    Ok(())
}

/// Merges pieces into aligned reads, which lie one after the other in a slot.
fn plan_reads(pieces: &[Piece]) -> (Box<[RangeRead]>, Box<[Place]>) {
    let mut order: Vec<usize> = (0..pieces.len()).filter(|&i| pieces[i].len > 0).collect();
    order.sort_by_key(|&i| (pieces[i].file, pieces[i].offset));
    // Ranges of bytes first, aligned when they are whole.
    let mut ranges: Vec<(u32, u64, u64)> = Vec::new();
    let mut range_of = vec![0; pieces.len()];
    for i in order {
        let Piece { file, offset, len } = pieces[i];
        match ranges.last_mut() {
            Some((last, _, end)) if *last == file && offset < end.saturating_add(MERGE_GAP) => {
                *end = (*end).max(offset + len);
            }
            _ => ranges.push((file, offset, offset + len)),
        }
        range_of[i] = ranges.len() - 1;
    }
    let mut slot_offset = 0;
    let align = |(file, start, end): (u32, u64, u64)| {
        let offset = start / ALIGNMENT * ALIGNMENT;
        let len = end.next_multiple_of(ALIGNMENT) - offset;
        let read = RangeRead { file, offset, len, used: (start - offset, end - offset), slot_offset };
        slot_offset += len;
        read
    };
    let reads: Box<[RangeRead]> = ranges.into_iter().map(align).collect();
    let start = |(piece, &range): (&Piece, &usize)| match piece.len {
        0 => (0, 0),
        len => ((reads[range].slot_offset + piece.offset - reads[range].offset) as usize, len as usize),
    };
    let starts = pieces.iter().zip(&range_of).map(start).collect();
    (reads, starts)
}

/// Sizes of slots, the largest first, such that each of `sizes` has one with little slack.
fn size_classes(mut sizes: Vec<u64>) -> Vec<u64> {
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let mut classes: Vec<u64> = Vec::new();
    for size in sizes {
        if classes.last().is_none_or(|&class| size < class - class / CLASS_SLACK) {
            classes.push(size);
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(file: u32, offset: u64, len: u64) -> Piece {
        Piece { file, offset, len }
    }

    #[test]
    fn neighbours_merge_and_pieces_keep_their_skew() {
        let pieces =
            [piece(0, 5000, 100), piece(1, 0, 1), piece(0, 4999, 1), piece(0, 1 << 20, 8192), piece(0, 7, 0)];
        let (reads, starts) = plan_reads(&pieces);
        let read = |file, offset, len, used, slot_offset| RangeRead { file, offset, len, used, slot_offset };
        assert_eq!(
            *reads,
            [
                read(0, 4096, 4096, (903, 1004), 0),
                read(0, 1 << 20, 8192, (0, 8192), 4096),
                read(1, 0, 4096, (0, 1), 12288)
            ]
        );
        assert_eq!(*starts, [(904, 100), (12288, 1), (903, 1), (4096, 8192), (0, 0)]);
    }

    #[test]
    fn classes_waste_little() {
        assert_eq!(size_classes(vec![4096, 1 << 20, (1 << 20) - 4096, 8192, 4096]), [1 << 20, 8192, 4096]);
    }

    #[test]
    fn layouts_that_do_not_fit_are_refused() {
        let layout = |pieces: Vec<Piece>, checksums| Layout {
            files: vec!["a".into()],
            layers: vec![LayerLayout { name: "l".into(), experts: vec![pieces], checksums }],
        };
        let refused = |pieces, checksums| {
            let plan = Plan::new(layout(pieces, checksums), &[1000]);
            plan.map(|_| ()).unwrap_err().to_string()
        };
        assert!(refused(vec![piece(1, 0, 1)], None).contains("file 1"));
        assert!(refused(vec![piece(0, 999, 2)], None).contains("inside the 1000 bytes"));
        assert!(refused(vec![piece(0, u64::MAX, 2)], None).contains("inside the 1000 bytes"));
        assert!(refused(vec![], None).contains("at least one byte"));
        assert!(refused(vec![piece(0, 0, 1)], Some(vec![])).contains("checksums"));
        assert!(Plan::new(layout(vec![piece(0, 0, 1000)], Some(vec![1])), &[1000]).is_ok());
    }
}
