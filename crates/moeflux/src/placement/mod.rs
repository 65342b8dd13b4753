//! Placement: what of a model fits into which memory, and what that costs. A function of numbers alone, so that the
//! engine, `plan` and a test ask the same one.

mod device;
mod error;
mod machine;
mod needs;
mod tiers;

pub use device::{
    DeviceFacts, DevicePlacement, DeviceSizes, ExpertClass, GpuMemory, GpuMemoryError, HostCopyError,
    HostTier,
};
pub use error::PlacementError;
pub use machine::Machine;
#[cfg(feature = "gpu")]
pub(crate) use needs::expert_layers;
pub use needs::{HostSizes, Needs, Sizes, needs};
pub use tiers::{MemoryError, Placement, Reserve, Residence, StateRoom, residence};

pub use crate::options::MemoryRequest;
