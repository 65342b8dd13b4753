//! What can go wrong in a store.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What went wrong. Cheap to clone, since one failed read fails every fetch that waits for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A layout that does not fit together, or with the files.
    #[error("{what}: expected {expected}, found {found}")]
    Layout {
        /// Which part of it.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A file cannot be opened, mapped, or read in the way asked for.
    #[error("{path}: {what}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What failed.
        what: &'static str,
        /// Why.
        source: Arc<io::Error>,
    },
    /// A read failed, or ended early.
    #[error("{layer}, expert {expert}: reading {len} bytes at {offset} of {path}: {source}")]
    Read {
        /// The mixture's name.
        layer: String,
        /// The expert.
        expert: u32,
        /// The file.
        path: PathBuf,
        /// The first byte of the read.
        offset: u64,
        /// Its length.
        len: u64,
        /// Why: of the kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the file is shorter than it was.
        source: Arc<io::Error>,
    },
    /// The bytes that were read are not those that were written.
    #[error(
        "{layer}, expert {expert}: {path} at {offset}, {len} bytes: expected checksum {expected:016x}, found {found:016x}; \
         the file or the disk is damaged: fetch or convert the model again"
    )]
    Checksum {
        /// The mixture's name.
        layer: String,
        /// The expert.
        expert: u32,
        /// The file.
        path: PathBuf,
        /// The first byte of the range.
        offset: u64,
        /// Its length.
        len: u64,
        /// As the layout has it.
        expected: u64,
        /// Of what was read.
        found: u64,
    },
    /// A budget that does not hold the largest expert beside what is pinned.
    #[error("a budget of {given} bytes for experts is too small: at least {needed} are needed")]
    BudgetTooSmall {
        /// The least that works.
        needed: u64,
        /// What was given.
        given: u64,
    },
    /// A layer or an expert that the layout does not have.
    #[error(
        "layer {layer}, expert {expert}: there is none in a layout of {layers} layers, {experts} experts in this one"
    )]
    NoSuchExpert {
        /// The layer asked for.
        layer: u32,
        /// The expert asked for.
        expert: u32,
        /// How many layers there are.
        layers: usize,
        /// How many experts the layer has; 0 if there is no such layer.
        experts: usize,
    },
    /// Every slot is leased and nothing will free one: the consumer waits for experts while it keeps those it has.
    #[error(
        "{layer}, expert {expert}: every slot is taken by leases ({leased} bytes of a budget of {budget}); drop leases \
         before asking for more, or give a larger budget"
    )]
    Starved {
        /// The mixture's name.
        layer: String,
        /// The expert that finds no slot.
        expert: u32,
        /// Bytes of slots that are leased.
        leased: u64,
        /// The budget in bytes.
        budget: u64,
    },
    /// Memory or threads that the system does not give.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: String,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// A heat file or a trace that cannot be read.
    #[error("{path}: {what}")]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}
