//! Experts on a device that has not room for all of them, and whose shaders read the others in the host's memory.
//!
//! The host has a copy of all experts, as the device reads them, in memory that the device reaches. What a router chooses and
//! has no place comes by a dispatch, to the place of an expert that is worth less, and a token is one submission. Who is
//! worth how much the host says before the step, in a small table for each layer; from who was chosen, which comes with the
//! step's results, it follows who is where afterwards.

use std::fmt;
use std::sync::Arc;

use moeflux_experts::{ExpertStore, Io, Places, StoreOptions, is_prompt_sized};
use moeflux_kernels::{ExpertsArgs, ThreadPool};
use moeflux_wgpu::{
    self as kernels, Device, Encoder, ExpertScratch, GpuError, GpuExperts, HostExperts, HostReadExperts,
    HostReadScratch, Landings, NOBODY, PlaceTable, Uploads, View, chosen_words,
};

use super::inputs::Inputs;
use super::sizes::{group_bytes, landings};
use crate::backend::store::check_in_place;
use crate::backend::{BackendError, OpenError};
use crate::experts::{self, DeviceTally};
use crate::graph::ExpertsId;
use crate::model::Model;
use crate::options::ComputeOptions;
use crate::placement::{ExpertClass, needs};

/// Experts that come and go without the host.
pub(super) struct HostRead {
    /// Of each class.
    landings: Vec<Landings>,
    /// By index in the model's table.
    layers: Vec<Option<Layer>>,
    memory: HostReadScratch,
    /// Who was chosen: so many words a layer.
    chosen: View,
    words: usize,
    /// What the step has recorded so far.
    ran: Vec<Ran>,
    tally: Arc<DeviceTally>,
}

struct Layer {
    class: usize,
    count: usize,
    host: HostExperts,
    places: GpuExperts,
    holders: Places,
    bytes_of_one: u64,
}

/// A layer of a step.
struct Ran {
    layer: usize,
    /// Places that others could take.
    offered: usize,
    /// Whether it says who will be used next.
    counts: bool,
}

/// A layer's experts at work.
pub(super) struct Mixture<'a> {
    pub(super) layer: usize,
    pub(super) args: ExpertsArgs<&'a View, &'a View>,
    pub(super) y: &'a View,
}

impl fmt::Debug for HostRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostRead").field("tally", &self.tally.counters()).finish_non_exhaustive()
    }
}

impl HostRead {
    /// Copies all experts to memory that the device reads, and gives it places as planned.
    pub(super) fn open(
        device: &Device,
        model: &Model,
        plans: &[ExpertClass],
        pool: &ThreadPool,
        options: &ComputeOptions,
    ) -> Result<Self, OpenError> {
        let host_read = Self::with_room(device, model, plans, options)?;
        host_read.fill(device, model, plans, pool, options)?;
        Ok(host_read)
    }

    fn with_room(
        device: &Device,
        model: &Model,
        plans: &[ExpertClass],
        options: &ComputeOptions,
    ) -> Result<Self, OpenError> {
        let failed = BackendError::from;
        let table = model.weights();
        let mut layers: Vec<Option<Layer>> = table.experts().iter().map(|_| None).collect();
        let mut all_landings = Vec::new();
        let tally = Arc::<DeviceTally>::default();
        for (class, plan) in plans.iter().enumerate() {
            for &layer in &plan.layers {
                let named = &table.experts()[layer];
                let (name, count) = (&named.name, named.experts.len());
                let like = table.expert(model.checkpoint(), ExpertsId(layer), 0);
                // Each layer has its part of the class's places.
                let places = (plan.places * count as u64 / plan.experts).min(count as u64) as usize;
                let bytes_of_one = HostExperts::bytes_of_one(&like);
                layers[layer] = Some(Layer {
                    class,
                    count,
                    host: HostExperts::alloc(device, name, count, &like).map_err(failed)?,
                    places: GpuExperts::alloc(device, name, places, &like).map_err(failed)?,
                    holders: Places::new(options.policy(), count, places),
                    bytes_of_one,
                });
                tally.count(|of| {
                    of.places += places as u64;
                    of.bytes += places as u64 * plan.bytes_of_one;
                    of.host_copy += count as u64 * bytes_of_one;
                });
            }
            let like = table.expert(model.checkpoint(), ExpertsId(plan.layers[0]), 0);
            let (count, most) = (landings(plan, plans) as usize, plan.most_of_layer as usize);
            let landings = Landings::alloc(device, "experts on their way", count, most, &like);
            all_landings.push(landings.map_err(failed)?);
        }
        let most = plans.iter().map(|plan| plan.most_of_layer as usize).max().unwrap_or(0);
        let words = chosen_words(most);
        let chosen = device.alloc("the experts that were chosen", layers.len() * words).map_err(failed)?;
        let memory = HostReadScratch::new(device, most).map_err(failed)?;
        Ok(HostRead { landings: all_landings, layers, memory, chosen, words, ran: Vec::new(), tally })
    }

    /// Reads all experts and packs them to where shaders read them.
    fn fill(
        &self,
        device: &Device,
        model: &Model,
        plans: &[ExpertClass],
        pool: &ThreadPool,
        options: &ComputeOptions,
    ) -> Result<(), OpenError> {
        let table = model.weights();
        let bytes = self.tally.counters().host_copy;
        tracing::info!(bytes, "copying experts to memory that the GPU reads");
        let least = needs(model, 1, 0)?.least_experts;
        let store = &options.store;
        let store = StoreOptions {
            budget: FILL_BYTES.max(4 * least),
            io: if store.io == Io::Auto { Io::Cached } else { store.io },
            pinned: Vec::new(),
            trace: None,
            ..store.clone()
        };
        check_in_place(model)?;
        let store = ExpertStore::open(experts::layout(model), &store)?;
        let mut uploads = Uploads::new(device, group_bytes(plans));
        for (index, layer) in self.layers.iter().enumerate() {
            let Some(layer) = layer else { continue };
            let group = (group_bytes(plans) / layer.bytes_of_one.max(1)).max(1) as usize;
            let all: Vec<u32> = (0..layer.count as u32).collect();
            let mut fetch = store.fetch(index as u32, &all);
            while let Some(leases) = fetch.next()? {
                let mut leases = leases.into_iter();
                loop {
                    // What is copied is given back before the next ones are.
                    let leases: Vec<_> = leases.by_ref().take(group).collect();
                    if leases.is_empty() {
                        break;
                    }
                    let named = table.experts_of(ExpertsId(index));
                    let ready =
                        leases.iter().map(|lease| Ok((lease.expert(), experts::weights(named, lease)?)));
                    let ready = ready.collect::<Result<Vec<_>, BackendError>>()?;
                    let mut enc = device.encoder();
                    uploads
                        .record(&mut enc, pool, &layer.host, &ready)
                        .and_then(|_| uploads.submit(device, enc))
                        .map_err(BackendError::from)?;
                }
            }
        }
        device.wait("copying experts").map_err(BackendError::from)?;
        Ok(())
    }

    pub(super) fn tally(&self) -> &Arc<DeviceTally> {
        &self.tally
    }

    /// Begins a step.
    pub(super) fn begin(&mut self) {
        // The step before ended early, so that nobody knows what became of its places.
        for Ran { layer, .. } in self.ran.drain(..) {
            if let Some(Layer { count, holders, .. }) = &mut self.layers[layer] {
                (0..*count as u32).for_each(|expert| holders.forget(expert));
            }
        }
    }

    /// Number of experts of a layer, and their hidden and intermediate size.
    pub(super) fn shape(&self, layer: usize) -> [usize; 3] {
        let Layer { places, count, .. } = self.layer(layer);
        [places.gate_up.cols(), places.down.cols(), *count]
    }

    /// Records a layer.
    pub(super) fn record(
        &mut self,
        device: &Device,
        enc: &mut Encoder<'_>,
        inputs: &mut Inputs,
        mixture: &Mixture<'_>,
        scratch: &ExpertScratch,
    ) -> Result<(), GpuError> {
        let &Mixture { layer: index, ref args, y } = mixture;
        let Layer { class, count, host, places, holders, .. } = self.layer(index);
        // The device finds out which of the choices are distinct; all of them are at most so many.
        let counts = !is_prompt_sized(args.indices.len(), *count);
        let offered = if counts { places.count } else { holders.free() };
        let order = holders.in_order().flat_map(|(place, expert)| [place, expert.unwrap_or(NOBODY)]);
        let first = index * self.words;
        let table = PlaceTable {
            order: &inputs.add(device, &order.collect::<Vec<_>>())?,
            offered,
            taken: places.count - holders.free(),
            chosen: &self.chosen.slice(first..first + chosen_words(*count)),
        };
        let (landings, memory) = (&self.landings[*class], &self.memory);
        let layer = HostReadExperts { count: *count, host, places, landings, memory };
        kernels::host_read_experts(enc, &layer, &table, args, scratch, y);
        self.ran.push(Ran { layer: index, offered, counts });
        Ok(())
    }

    /// Who was chosen in the step's layers, for [`learn`](Self::learn); nothing if it had none.
    pub(super) fn chosen(&self) -> Option<&View> {
        (!self.ran.is_empty()).then_some(&self.chosen)
    }

    /// Ends a step: who was chosen is who is in places now, by the rule that the device followed.
    pub(super) fn learn(&mut self, chosen: &[u32]) {
        for Ran { layer, offered, counts } in self.ran.drain(..) {
            let bits = &chosen[layer * self.words..(layer + 1) * self.words];
            let Some(Layer { count, holders, bytes_of_one, .. }) = &mut self.layers[layer] else { continue };
            let is_chosen = |expert: &u32| bits[*expert as usize / 32] & (1 << (expert % 32)) != 0;
            let wanted: Vec<u32> = (0..*count as u32).filter(is_chosen).collect();
            for &expert in &wanted {
                holders.hold(expert, counts);
            }
            let missing: Vec<u32> =
                wanted.iter().copied().filter(|&expert| holders.of(expert).is_none()).collect();
            let placed = missing.iter().take(offered).map_while(|&expert| holders.take(expert)).count();
            for &expert in &wanted {
                holders.release(expert);
            }
            self.tally.count(|of| {
                of.hits += (wanted.len() - missing.len()) as u64;
                of.misses += missing.len() as u64;
                of.placed += placed as u64;
                of.bytes_uploaded += missing.len() as u64 * *bytes_of_one;
            });
        }
    }

    fn layer(&self, layer: usize) -> &Layer {
        let Some(layer) = &self.layers[layer] else { unreachable!("a graph names experts that there are") };
        layer
    }
}

/// Memory of the host's own for experts on their way to the copy.
const FILL_BYTES: u64 = 256 << 20;

/// Whether an error says that the device does not give so much memory of the host, and not that filling it failed.
pub(super) fn is_lack(error: &OpenError) -> bool {
    matches!(error, OpenError::Backend(BackendError::Gpu(GpuError::OutOfHostMemory { .. })))
}
