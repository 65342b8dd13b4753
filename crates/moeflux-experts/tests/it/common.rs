//! A made-up model: files of random bytes, and experts whose pieces lie in them at odd places.

// Each test uses a part of this.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use moeflux_experts::faults::Faults;
use moeflux_experts::{ExpertStore, Fetch, LayerLayout, Layout, Lease, Piece, StoreError, StoreOptions};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use tempfile::TempDir;

/// A small generator of test data (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n.max(1)
    }

    /// Each of `0..n` with this chance in a hundred.
    pub(crate) fn subset(&mut self, n: u32, percent: u64) -> Vec<u32> {
        (0..n).filter(|_| self.below(100) < percent).collect()
    }
}

pub(crate) struct Model {
    pub(crate) folder: TempDir,
    pub(crate) layout: Layout,
    /// What the files hold.
    pub(crate) bytes: Vec<Vec<u8>>,
}

impl Model {
    /// Layers of so many experts each. With `one_stretch`, experts lie as in a pack, with checksums; else in several
    /// pieces, in files whose lengths are no multiples of anything.
    pub(crate) fn new(layers: u32, experts: u32, one_stretch: bool, seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(2) + 1);
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut bytes = vec![vec![random.next() as u8; random.below(5000) as usize], Vec::new(), vec![1; 3]];
        let fill = |file: &mut Vec<u8>, random: &mut Random, len: u64| {
            let offset = file.len() as u64;
            file.extend((0..len).map(|_| random.next() as u8));
            offset
        };
        let layer = |index: u32| {
            // Sizes differ from layer to layer, a little or much.
            let scale = 200 + random.below(30_000);
            let mut checksums = Vec::new();
            let experts = (0..experts).map(|_| {
                if one_stretch {
                    let start = bytes[0].len().next_multiple_of(4096);
                    bytes[0].resize(start, 0);
                    let lens = [scale * 3, scale, scale + 40_000];
                    let offsets = lens.map(|len| fill(&mut bytes[0], &mut random, len));
                    checksums.push(twox_hash::XxHash3_64::oneshot(&bytes[0][start..]));
                    return (0..3).map(|i| Piece { file: 0, offset: offsets[i], len: lens[i] }).collect();
                }
                let pieces = (0..=random.below(4)).map(|_| {
                    let file = random.below(2) as u32;
                    let gap = if random.below(3) == 0 { 70_000 } else { random.below(300) };
                    fill(&mut bytes[file as usize], &mut random, gap);
                    let len = 1 + random.below(scale);
                    Piece { file, offset: fill(&mut bytes[file as usize], &mut random, len), len }
                });
                pieces.collect()
            });
            let experts = experts.collect();
            let checksums = one_stretch.then_some(checksums);
            LayerLayout { name: format!("layers.{index}.mlp.experts"), experts, checksums }
        };
        let mut layers: Vec<LayerLayout> = (0..layers).map(layer).collect();
        if !one_stretch {
            // A whole file of three bytes, and pieces that overlap, one of them empty.
            let expert = &mut layers[0].experts[0];
            expert.push(Piece { file: 2, offset: 0, len: 3 });
            expert.push(Piece { file: 2, offset: 1, len: 1 });
            expert.push(Piece { file: 2, offset: 2, len: 0 });
        }
        let files = (0..bytes.len()).map(|i| folder.path().join(format!("file{i}"))).collect();
        let model = Self { folder, layout: Layout { files, layers }, bytes };
        model.write_files();
        model
    }

    pub(crate) fn write_files(&self) {
        for (path, bytes) in self.layout.files.iter().zip(&self.bytes) {
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub(crate) fn open(&self, options: &StoreOptions) -> ExpertStore {
        ExpertStore::open(self.layout.clone(), options).unwrap()
    }

    /// The least budget that a store takes.
    pub(crate) fn least_budget(&self) -> u64 {
        match ExpertStore::open(self.layout.clone(), &StoreOptions::new(0)).map(|_| ()) {
            Err(StoreError::BudgetTooSmall { needed, given: 0 }) => needed,
            other => panic!("{other:?}"),
        }
    }

    /// The budget that holds everything.
    pub(crate) fn full_budget(&self) -> u64 {
        self.least_budget() * self.layout.layers.iter().map(|layer| layer.experts.len() as u64).sum::<u64>()
    }

    /// Compares a lease's bytes to the file's.
    pub(crate) fn check(&self, layer: u32, lease: &Lease) {
        let pieces = &self.layout.layers[layer as usize].experts[lease.expert() as usize];
        assert_eq!(lease.pieces(), pieces.len());
        for (i, piece) in pieces.iter().enumerate() {
            let expected = &self.bytes[piece.file as usize][piece.offset as usize..][..piece.len as usize];
            assert!(lease.piece(i) == expected, "layer {layer}, {lease:?}, piece {i}");
        }
    }

    pub(crate) fn check_all(&self, layer: u32, leases: &[Lease]) {
        for lease in leases {
            self.check(layer, lease);
        }
    }

    /// Takes all that a fetch gives, checks it, and drops it at once. Returns the experts in the order they came.
    pub(crate) fn drain(&self, layer: u32, mut fetch: Fetch<'_>) -> Result<Vec<u32>, StoreError> {
        let mut experts = Vec::new();
        while let Some(leases) = fetch.next()? {
            assert!(!leases.is_empty());
            self.check_all(layer, &leases);
            experts.extend(leases.iter().map(Lease::expert));
        }
        Ok(experts)
    }

    /// Fetches and drains, and checks that each expert came once.
    pub(crate) fn run(&self, store: &ExpertStore, layer: u32, wanted: &[u32]) -> Result<(), StoreError> {
        let mut experts = self.drain(layer, store.fetch(layer, wanted))?;
        experts.sort_unstable();
        assert_eq!(experts, wanted);
        Ok(())
    }
}

/// Options whose reads pass through faults.
pub(crate) fn with_faults(budget: u64, faults: &Arc<Faults>) -> StoreOptions {
    let faults = faults.clone();
    StoreOptions {
        through: Some(Arc::new(move |file| faults.clone().before(file))),
        ..StoreOptions::new(budget)
    }
}

/// Runs a test that must not hang.
pub(crate) fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, wait) = channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(Duration::from_mins(2)) {
        panic!("the store hangs");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
