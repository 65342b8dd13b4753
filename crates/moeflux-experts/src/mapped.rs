//! Files as the system maps them: for models that fit into memory.

use crate::counters::Counters;
use crate::error::StoreError;
use crate::plan::Plan;
use crate::reader;
use memmap2::Mmap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Mapped files and the counts that are kept of them.
pub(crate) struct Mapped {
    pub(crate) plan: Arc<Plan>,
    files: Vec<Mmap>,
    uses: Vec<AtomicU64>,
    /// Which experts' checksums were compared; `None` if none is to be.
    checked: Option<Vec<AtomicBool>>,
    hits: AtomicU64,
}

impl Mapped {
    pub(crate) fn new(plan: Arc<Plan>, verify: bool) -> Result<Self, StoreError> {
        let map = |path: &std::path::PathBuf| {
            // SAFETY: files of models are not written to while they are in use; whoever truncates one under a mapping
            // gets SIGBUS, which is why this is for models that fit and not the default.
            let mapped = File::open(path).and_then(|file| unsafe { Mmap::map(&file) });
            mapped.map_err(|source| StoreError::File {
                path: path.clone(),
                what: "mapping",
                source: Arc::new(source),
            })
        };
        let files = plan.layout.files.iter().map(map).collect::<Result<_, _>>()?;
        let uses = (0..plan.len()).map(|_| AtomicU64::new(0)).collect();
        let checked = verify.then(|| (0..plan.len()).map(|_| AtomicBool::new(false)).collect());
        Ok(Self { plan, files, uses, checked, hits: AtomicU64::new(0) })
    }

    /// Asks the system to read what is not in memory; it does so beside us.
    pub(crate) fn will_need(&self, ids: &[u32]) {
        #[cfg(unix)]
        for range in ids.iter().flat_map(|&id| &self.plan.expert(id).reads) {
            let len = range.used.1 as usize;
            // Advice: without it, pages come when they are touched.
            let _ = self.files[range.file as usize].advise_range(
                memmap2::Advice::WillNeed,
                range.offset as usize,
                len,
            );
        }
        #[cfg(not(unix))]
        let _ = ids;
    }

    pub(crate) fn count_uses(&self, ids: &[u32]) {
        self.hits.fetch_add(ids.len() as u64, Ordering::Relaxed);
        for &id in ids {
            self.uses[id as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn uses(&self) -> Vec<u64> {
        self.uses.iter().map(|uses| uses.load(Ordering::Relaxed)).collect()
    }

    /// Compares an expert's checksum the first time that it is wanted.
    pub(crate) fn check(&self, id: u32) -> Result<(), StoreError> {
        let plan = self.plan.expert(id);
        let (Some(checked), Some(expected)) = (&self.checked, plan.checksum) else { return Ok(()) };
        if checked[id as usize].load(Ordering::Relaxed) {
            return Ok(());
        }
        let range = plan.reads[0];
        let bytes = &self.files[range.file as usize][range.offset as usize..];
        reader::check(&self.plan, id, bytes, range, expected)?;
        checked[id as usize].store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The bytes of an expert's piece.
    pub(crate) fn piece(&self, id: u32, i: usize) -> &[u8] {
        let (layer, expert) = self.plan.place(id);
        let piece = layer.experts[expert as usize][i];
        if piece.len == 0 {
            return &[];
        }
        &self.files[piece.file as usize][piece.offset as usize..][..piece.len as usize]
    }

    /// Every use is a hit: what the system reads for a mapping it does not tell.
    pub(crate) fn counters(&self) -> Counters {
        Counters { hits: self.hits.load(Ordering::Relaxed), ..Counters::default() }
    }

    pub(crate) fn reset_counters(&self) {
        self.hits.store(0, Ordering::Relaxed);
    }
}
