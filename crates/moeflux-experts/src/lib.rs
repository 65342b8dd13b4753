//! Experts of a mixture that is larger than memory, read from disk as they are wanted.
//!
//! An [`ExpertStore`] knows where experts lie ([`Layout`]) and keeps as many of them in memory as a budget of bytes
//! allows. A layer that has routed its tokens begins a [`Fetch`], computes whatever needs no experts, and takes
//! [`Lease`]s as they come, those in memory first:
//!
//! ```
//! use moeflux_experts::{ExpertStore, LayerLayout, Layout, Piece, StoreOptions};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("experts");
//! # std::fs::write(&path, [7; 20_000])?;
//! let expert = |e: u64| vec![Piece { file: 0, offset: e * 5000, len: 5000 }];
//! let layer = LayerLayout { name: "layers.0".to_owned(), experts: (0..4).map(expert).collect(), checksums: None };
//! let store = ExpertStore::open(Layout { files: vec![path], layers: vec![layer] }, &StoreOptions::new(1 << 20))?;
//!
//! let mut fetch = store.fetch(0, &[1, 3]);
//! // … what needs no experts is computed here …
//! let mut seen = 0;
//! while let Some(leases) = fetch.next()? {
//!     for lease in &leases {
//!         assert_eq!(lease.piece(0), [7; 5000]);
//!         seen += lease.expert();
//!     }
//! }
//! assert_eq!(seen, 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it promises, in short (`docs/reference/expert-store.md` has all of it): `fetch` and [`hint`](ExpertStore::hint) never block; a
//! hint evicts nothing that is leased or wanted; nothing is read twice in a fetch; the budget is kept; every fetch ends
//! if its consumer drops leases before it asks for more; a read that fails fails the fetches that want it, with an
//! error that names it, and nothing else.

mod counters;
mod error;
#[doc(hidden)]
pub mod faults;
mod fetch;
mod file;
mod heat;
mod layout;
mod mapped;
mod measure;
mod options;
mod places;
mod plan;
mod policy;
mod reader;
mod replay;
mod slots;
mod store;
mod table;
mod trace;

pub use counters::Counters;
pub use error::StoreError;
pub use fetch::{Fetch, Lease};
pub use file::ReadAt;
pub use heat::{Heat, LayerHeat};
pub use layout::{LayerLayout, Layout, Piece};
pub use measure::{DiskSpeed, measure};
pub use options::{Io, StoreOptions, Through};
pub use places::Places;
pub use policy::{Policy, PolicyKind, is_prompt_sized};
pub use replay::Replayed;
pub use store::ExpertStore;
pub use trace::{Recorder, Trace, TraceEntry, TraceLayer};
