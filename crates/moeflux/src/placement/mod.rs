//! Placement: what of a model lives in which memory, and how fast that is. One arithmetic for the CPU, for GPUs, for the
//! server and for `moeflux plan`.
//!
//! | file | what it decides |
//! |---|---|
//! | `machine` | what memory there is: of the system, of control groups, of the process |
//! | `needs` | what a model takes of a memory, in bytes: [`Needs`], one struct for the host and for any device |
//! | `cost` | what an operation reads and computes: one function from [`Op`](crate::graph::Op) to bytes and operations |
//! | `tiers` | where experts live on the host, one [`Reserve`] for what is left to others, one rule for steps of a prompt |
//! | `device` | how a device's memory is shared out, and where the host has the experts that have no slot there |
//! | `forecast` | tokens a second of a placement, from its bytes and what was measured |
//!
//! The tiers of an expert, from slow to fast: file, slots of the host's store, mapped in the host's memory, a copy in the
//! host's memory that a device reads ([`HostTier::Copy`]), slots of a device, all on a device.
//!
//! Decisions are functions of numbers. What is particular to a kind of device comes in through two traits, so that callers
//! see [`Placement`], [`DevicePlacement`] and [`Forecast`] whatever computes:
//!
//! - **A second kind of GPU backend** implements [`DeviceSizes`] (how many bytes its matrices, experts and buffers take) and
//!   describes a device by [`DeviceFacts`]; [`DevicePlacement::decide`] does the rest. It takes a `&DevicePlacement` and
//!   [`ComputeOptions`](crate::options::ComputeOptions) to open, measures its [`Speeds`], and is listed in
//!   [`devices`](crate::devices).
//! - **Several devices** are a `DevicePlacement` each, decided one after the other: each gets a range of layers, or of each
//!   layer's experts ([`ExpertClass`] names layers and counts slots), and the budget of the next is what the ones before
//!   leave. [`ExpertShare`] adds up; the forecast takes the slowest link of those that a token waits for.
//! - **Several machines** add a tier above the host's: `HostTier` gets a variant for experts that another machine computes
//!   or sends, whose [`Speeds::link`] is measured over the network. Nothing above reads more of it than an `ExpertShare`.
//!
//! How a step of a prompt is told from one of decoding is the store's rule, [`is_prompt_sized`].

mod cost;
mod device;
mod error;
mod forecast;
mod machine;
mod needs;
mod tiers;

pub use cost::{Cost, StepFacts, WeightCost, cost, weight_cost};
pub use device::{
    DeviceFacts, DevicePlacement, DeviceSizes, ExpertClass, GpuMemory, GpuMemoryError, HostCopyError,
    HostTier,
};
pub use error::PlacementError;
pub use forecast::{
    DECODE_NOT_OVERLAPPED, ExpertShare, Forecast, Hits, PREFILL_NOT_OVERLAPPED, Speeds, StepForecast,
};
pub use machine::Machine;
pub use moeflux_experts::is_prompt_sized;
#[cfg(feature = "gpu")]
pub(crate) use needs::expert_layers;
pub use needs::{HostSizes, Needs, Sizes, needs};
pub use tiers::{MemoryError, Placement, Reserve, Residence, StateBudget, free_states, residence};

pub use crate::options::MemoryRequest;
