//! A device's memory: all of a model, or as many of its experts as a budget allows while the host has the others.

use super::tiers::{LargerChunk, larger_chunk};
use super::{Machine, MemoryRequest, Needs, Placement, PlacementError, Reserve, Residence, Sizes, residence};
use crate::graph::{Graph, StepShape};
use crate::model::Model;
use crate::options::{EngineOptions, HostCopy};

/// How much of a GPU's memory the backend may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuMemory {
    /// What is free, less a twentieth of it or 256 MiB, whichever is more; three quarters of all where the driver does not
    /// tell what is free, and 4 GiB where it tells nothing.
    #[default]
    Free,
    /// So many bytes, for weights, experts, activations and states.
    Bytes(u64),
    /// So many bytes for experts, which come and go even if all of them would fit; everything else takes what it takes.
    Experts(u64),
}

/// A GPU's memory is too small for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given} bytes of GPU memory are too few: weights that every token reads take {dense}, buffers {transient}, sequences \
     {sequence}, and the experts of one token {least_experts}; allow {needed} bytes or more, shorten the prefill chunk, or \
     run on the CPU"
)]
#[non_exhaustive]
pub struct GpuMemoryError {
    /// What was asked for, or found free.
    pub given: u64,
    /// The least that would do.
    pub needed: u64,
    /// Weights that stay.
    pub dense: u64,
    /// Tensors between operations, and what experts come through.
    pub transient: u64,
    /// States of a context of ordinary length.
    pub sequence: u64,
    /// Places for the experts that one token takes of a layer.
    pub least_experts: u64,
}

/// What is known of a device before anything is done with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its name.
    pub name: String,
    /// Its memory, in bytes, where the driver says so.
    pub memory: Option<u64>,
    /// What this process may still take of it.
    pub free: Option<u64>,
    /// Whether its kernels read the host's memory.
    pub reads_host: bool,
}

/// What the backend of a kind of device says of a model: sizes there, and which experts can share slots.
pub trait DeviceSizes: Sizes {
    /// The model's experts by shape and encoding, without places.
    fn classes(&self, model: &Model, graph: &Graph) -> Vec<ExpertClass>;

    /// All experts in memory of the host that the device reads.
    fn host_copy(&self, model: &Model) -> u64;
}

/// Where a model lives that runs on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlacement {
    /// What the model needs of the device in prefill steps of `prefill_chunk` tokens.
    pub needs: Needs,
    /// The most bytes that the device may be asked for.
    pub limit: Option<u64>,
    /// Slots for experts; `None` if all of them stay.
    pub classes: Option<Vec<ExpertClass>>,
    /// Tokens of a prompt in one step.
    pub prefill_chunk: usize,
    /// Where the host has the experts that have no slot.
    pub host: HostTier,
}

/// Where the host has experts for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostTier {
    /// Nowhere: all of them stay on the device.
    Unused,
    /// In memory that the device reads by itself, all of them.
    Copy {
        /// Bytes of the copy.
        bytes: u64,
        /// What to do where the device does not give so much; `None` is an error.
        otherwise: Option<Placement>,
    },
    /// Mapped, or in slots of a store; the host packs and sends what routers ask for.
    Sent(Placement),
}

/// Experts of one shape and encoding, which share slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertClass {
    /// By index in the model's table.
    pub layers: Vec<usize>,
    /// Of all these layers.
    pub experts: u64,
    /// Of the layer that has most.
    pub most_of_layer: u64,
    /// That one takes on a device.
    pub bytes_of_one: u64,
    /// Experts of a token.
    pub k: u64,
    /// Slots that they have on the device.
    pub places: u64,
}

/// Tokens of a prompt in one step where all experts are on the device.
const RESIDENT_CHUNK: usize = 512;
/// Bytes for a device whose driver tells nothing.
const UNKNOWN: u64 = 4 << 30;

impl DevicePlacement {
    /// Decides for a model on a device.
    pub fn decide(
        model: &Model,
        device: &DeviceFacts,
        sizes: &dyn DeviceSizes,
        memory: GpuMemory,
        options: &EngineOptions,
    ) -> Result<Self, PlacementError> {
        let chunk = options.prefill_chunk;
        let prefill_chunk = chunk.unwrap_or(RESIDENT_CHUNK);
        let needs = |chunk| Needs::of(model, sizes, chunk, options.experts.context);
        let least = needs(prefill_chunk)?;
        let mut classes = sizes.classes(model, &model.graph(StepShape { n_tokens: 1, n_outputs: 1 })?);
        let whole = DevicePlacement {
            needs: least,
            limit: None,
            classes: None,
            prefill_chunk,
            host: HostTier::Unused,
        };
        let limit = match memory {
            GpuMemory::Bytes(bytes) => bytes,
            GpuMemory::Free => device.usable(),
            GpuMemory::Experts(budget) => {
                share(&mut classes, budget).map_err(|of_experts| {
                    let experts = Needs { experts: least.experts, ..Needs::default() };
                    GpuMemoryError::of(budget, of_experts, experts)
                })?;
                if classes.is_empty() {
                    return Ok(whole);
                }
                let host = HostTier::decide(model, device, sizes, options)?;
                return Ok(DevicePlacement { classes: Some(classes), host, ..whole });
            }
        };
        let whole = DevicePlacement { limit: Some(limit), ..whole };
        if least.resident() + least.experts <= limit {
            return Ok(whole);
        }
        let budget = limit.saturating_sub(least.besides_experts());
        share(&mut classes, budget).map_err(|of_experts| GpuMemoryError::of(limit, of_experts, least))?;
        let host = HostTier::decide(model, device, sizes, options)?;
        let found = DevicePlacement { classes: Some(classes), host, ..whole };
        if chunk.is_some() {
            return Ok(found);
        }
        let all = found.classes.clone().unwrap_or_default();
        let mut larger = all.clone();
        let fits = |extra| {
            larger.clone_from(&all);
            share(&mut larger, budget - extra).is_ok()
        };
        Ok(match larger_chunk(model, budget, &least, needs, fits)? {
            None => found,
            Some(LargerChunk { needs, prefill_chunk, .. }) => {
                DevicePlacement { needs, classes: Some(larger), prefill_chunk, ..found }
            }
        })
    }

    /// Bytes of all slots for experts; all experts where they stay.
    pub fn expert_bytes(&self) -> u64 {
        match &self.classes {
            None => self.needs.experts,
            Some(classes) => classes.iter().map(|class| class.places * class.bytes_of_one).sum(),
        }
    }
}

impl HostTier {
    /// Whether experts are copied to memory that the device reads, by the arithmetic that maps or streams them, or sent.
    fn decide(
        model: &Model,
        device: &DeviceFacts,
        sizes: &dyn DeviceSizes,
        options: &EngineOptions,
    ) -> Result<Self, PlacementError> {
        let wish = options.experts.host_copy;
        let copy = match wish {
            HostCopy::Never => None,
            _ => match host_copy(model, device, sizes, options) {
                Ok(bytes) => Some(bytes),
                Err(PlacementError::HostCopy(error)) if wish == HostCopy::Auto => {
                    tracing::info!("experts are sent to the GPU as they are wanted: {error}");
                    None
                }
                Err(error) => return Err(error),
            },
        };
        Ok(match copy {
            None => HostTier::Sent(Placement::decide(model, options)?),
            Some(bytes) => HostTier::Copy {
                bytes,
                otherwise: match wish {
                    HostCopy::Auto => Placement::decide(model, options).ok(),
                    HostCopy::Always | HostCopy::Never => None,
                },
            },
        })
    }
}

/// Bytes of a copy of all experts that the device reads, if the host has room for it.
fn host_copy(
    model: &Model,
    device: &DeviceFacts,
    sizes: &dyn DeviceSizes,
    options: &EngineOptions,
) -> Result<u64, PlacementError> {
    if !device.reads_host {
        return Err(HostCopyError::Unreadable { name: device.name.clone() }.into());
    }
    let experts = &options.experts;
    if experts.store.trace.is_some() {
        return Err(HostCopyError::Traced.into());
    }
    let needed = sizes.host_copy(model);
    let dense = super::needs(model, 1, 0)?.dense;
    let machine = Machine::measure();
    let MemoryRequest { process, experts: budget } = experts.memory;
    if process.is_none() && machine.free().is_none() && experts.host_copy == HostCopy::Auto {
        return Err(HostCopyError::Unknown.into());
    }
    let needs = Needs { dense, experts: needed, ..Needs::default() };
    let found = residence(&MemoryRequest { process, experts: None }, &needs, &machine);
    if found != Ok(Residence::Mapped) || budget.is_some_and(|budget| needed > budget) {
        return Err(HostCopyError::NoRoom { needed }.into());
    }
    Ok(needed)
}

/// Why a GPU does not read experts in the host's memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostCopyError {
    /// There is no room.
    #[error(
        "the host has not room for a copy of all experts that the GPU reads, {needed} bytes beside what else it holds; allow \
         more memory, or have experts sent as they are wanted"
    )]
    NoRoom {
        /// Bytes of all experts.
        needed: u64,
    },
    /// Nobody tells how much memory there is.
    #[error(
        "how much memory the host has is not known, so no copy of all experts is made for the GPU to read"
    )]
    Unknown,
    /// The GPU's API has no way to do it.
    #[error("GPU {name} does not read the host's memory; have experts sent as they are wanted")]
    Unreadable {
        /// The GPU.
        name: String,
    },
    /// Routing is to be written down, which the host does as it sends experts.
    #[error("a trace of routing is asked for, which there is only where experts are sent as they are wanted")]
    Traced,
}

impl DeviceFacts {
    /// What its memory leaves to a backend.
    pub fn usable(&self) -> u64 {
        match (self.free, self.memory) {
            (Some(free), _) => Reserve::SYSTEM.usable(free),
            (None, Some(memory)) => memory / 4 * 3,
            (None, None) => UNKNOWN,
        }
    }
}

impl GpuMemoryError {
    fn of(given: u64, least_experts: u64, needs: Needs) -> Self {
        // Where all stay, none come.
        let resident = needs.resident().saturating_add(needs.experts);
        let needed = needs.besides_experts().saturating_add(least_experts).min(resident);
        let transient = needs.transient.saturating_add(needs.staging);
        let Needs { dense, sequence, .. } = needs;
        GpuMemoryError { given, needed, dense, transient, sequence, least_experts }
    }
}

/// Gives each class the places of one token's experts, and its part of what is left of the budget by the bytes of all its
/// experts. The error is the least budget.
fn share(classes: &mut [ExpertClass], budget: u64) -> Result<(), u64> {
    let least = |class: &ExpertClass| class.k.min(class.experts);
    let needed: u64 = classes.iter().map(|class| least(class) * class.bytes_of_one).sum();
    let left = budget.checked_sub(needed).ok_or(needed)?;
    let beyond = |class: &ExpertClass| (class.experts - least(class)) * class.bytes_of_one;
    let all: u64 = classes.iter().map(beyond).sum();
    for class in classes {
        let part = u128::from(left.min(all)) * u128::from(beyond(class)) / u128::from(all.max(1));
        class.places = (least(class) + part as u64 / class.bytes_of_one).min(class.experts);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test

    use super::*;

    fn class(experts: u64, bytes_of_one: u64, k: u64) -> ExpertClass {
        ExpertClass { layers: vec![0], experts, most_of_layer: experts, bytes_of_one, k, places: 0 }
    }

    #[test]
    fn a_budget_is_shared_and_kept() {
        let classes = [class(100, 10, 4), class(50, 30, 8)];
        let (least, all) = (4 * 10 + 8 * 30, 100 * 10 + 50 * 30);
        for budget in [least, least + 100, 1000, all, 10 * all] {
            let mut classes = classes.clone();
            share(&mut classes, budget).unwrap();
            let bytes: u64 = classes.iter().map(|class| class.places * class.bytes_of_one).sum();
            assert!(bytes <= budget && classes.iter().all(|class| class.places >= class.k), "{classes:?}");
            assert_eq!(classes.iter().all(|class| class.places == class.experts), budget >= all, "{budget}");
        }
        assert_eq!(share(&mut classes.clone(), least - 1), Err(least));
    }

    #[test]
    fn what_a_device_leaves() {
        let usable = |free, memory| DeviceFacts { memory, free, ..DeviceFacts::default() }.usable();
        assert_eq!(usable(Some(100 << 30), Some(200 << 30)), 95 << 30);
        assert_eq!(usable(Some(1 << 30), None), (1 << 30) - (256 << 20));
        assert_eq!(usable(Some(1), None), 0);
        assert_eq!(usable(None, Some(8 << 30)), 6 << 30);
        assert_eq!(usable(None, None), UNKNOWN);
    }
}
