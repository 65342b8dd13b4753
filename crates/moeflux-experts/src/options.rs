//! How a store works.

use crate::file::ReadAt;
use crate::measure::DiskSpeed;
use crate::policy::PolicyKind;
use crate::trace::Recorder;
use std::sync::Arc;
use std::time::Duration;

/// What stands between a store and each of its files.
pub type Through = Arc<dyn Fn(Arc<dyn ReadAt>) -> Arc<dyn ReadAt> + Send + Sync>;

/// Options of a store; [`StoreOptions::new`] has sensible ones for everything but the budget.
#[derive(Clone)]
pub struct StoreOptions {
    /// Bytes of memory for experts.
    pub budget: u64,
    /// How files are read.
    pub io: Io,
    /// Which experts stay.
    pub policy: PolicyKind,
    /// Threads that read: at most so many reads are in flight.
    pub readers: usize,
    /// Reads are at most so long, in bytes. Readers share an expert that is longer, so the first one comes soon, and
    /// there are as many reads in flight as for several.
    pub chunk: u64,
    /// Whether the checksums of the layout are compared on every read.
    pub verify: bool,
    /// Experts (layer, expert) that are loaded first and never evicted.
    pub pinned: Vec<(u32, u32)>,
    /// Where fetches are written down.
    pub trace: Option<Recorder>,
    /// How long a fetch waits, while no read is in flight, for leases to be dropped before it is
    /// [`Starved`](crate::StoreError::Starved).
    pub patience: Duration,
    /// Stands before each file; for tests. Not with [`Io::Mapped`].
    #[doc(hidden)]
    pub through: Option<Through>,
}

impl StoreOptions {
    /// The defaults under a budget in bytes.
    pub fn new(budget: u64) -> Self {
        Self {
            budget,
            io: Io::Auto,
            policy: PolicyKind::default(),
            readers: 8,
            chunk: 512 << 10,
            verify: false,
            pinned: Vec::new(),
            trace: None,
            patience: Duration::from_mins(1),
            through: None,
        }
    }

    /// With the readers and chunks that a measurement found best.
    #[must_use]
    pub fn tuned(self, speed: &DiskSpeed) -> Self {
        Self { readers: speed.readers, chunk: speed.chunk, ..self }
    }
}

/// How files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// [`Direct`](Io::Direct) if the file system takes it, else [`Buffered`](Io::Buffered).
    #[default]
    Auto,
    /// Past the page cache.
    Direct,
    /// Through the page cache, which is told to forget what was read.
    Buffered,
    /// Through the page cache, which keeps what was read: for experts that are read once, from files that others may read.
    Cached,
    /// Files are mapped and leases point into them: for models that fit into memory. The budget means nothing then.
    Mapped,
}
