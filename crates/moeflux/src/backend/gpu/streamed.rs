//! Experts on a device that has not room for all of them: places for some, and the others' way there while a step runs.
//!
//! A layer's routing is read back; in steps of many tokens the device computes meanwhile what stands between router and
//! experts, and then the experts that are there, while the others are packed into staging memory, some at a time. Each such
//! group is a submission: the device computes one while the next is packed. A choice's products have a place
//! of their own and are added at the end by index of expert, so no order of arrival changes a bit.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moeflux_experts::{ExpertStore, Places, PolicyKind, is_prompt_sized};
use moeflux_kernels::{Activation, ExpertWeights, ThreadPool};
use moeflux_wgpu::{
    self as kernels, Device, Encoder, ExpertScratch, GpuError, GpuExperts, PlacedChoices, Uploads, View,
};

use super::inputs::Inputs;
use super::sizes::group_bytes;
use crate::backend::BackendError;
use crate::experts::{self, DeviceCounters, DeviceTally};
use crate::graph::ExpertsId;
use crate::model::Model;
use crate::placement::ExpertClass;

/// Most tokens of a step in which what is computed meanwhile takes less time than a submission of its own.
pub(super) const FEW: usize = 16;

/// Experts that come and go, and where they come from.
pub(super) struct Streamed {
    classes: Vec<Class>,
    /// By index in the model's table.
    layers: Vec<Layer>,
    uploads: Uploads,
    pool: ThreadPool,
    /// The host's, if it has not room for all experts either.
    store: Option<Arc<ExpertStore>>,
    tally: Arc<DeviceTally>,
}

/// Experts of one shape and encoding, which share places.
struct Class {
    slots: GpuExperts,
    places: Places,
    /// Experts that are brought together.
    group: usize,
}

/// Where a layer's experts belong.
#[derive(Clone, Debug, Default)]
struct Layer {
    class: usize,
    /// Their numbers in the class.
    ids: Range<u32>,
}

/// A layer's experts at work.
pub(super) struct Work<'a> {
    pub(super) layer: usize,
    /// What the router chose, `[n, k]`.
    pub(super) chosen: &'a [u32],
    pub(super) k: usize,
    pub(super) activation: Activation,
    pub(super) x: &'a View,
    pub(super) scratch: &'a ExpertScratch,
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").field("tally", &self.tally.counters()).finish_non_exhaustive()
    }
}

impl Streamed {
    /// Places as planned, all free.
    pub(super) fn new(
        device: &Device,
        model: &Model,
        plans: &[ExpertClass],
        policy: PolicyKind,
        pool: ThreadPool,
        store: Option<Arc<ExpertStore>>,
    ) -> Result<Self, GpuError> {
        let table = model.weights();
        let mut layers = vec![Layer::default(); table.experts().len()];
        let mut classes = Vec::with_capacity(plans.len());
        let mut counters = DeviceCounters::default();
        let of_group = group_bytes(plans);
        for (class, plan) in plans.iter().enumerate() {
            let mut end = 0;
            for &layer in &plan.layers {
                let first = end;
                end += table.experts()[layer].experts.len() as u32;
                layers[layer] = Layer { class, ids: first..end };
            }
            let name = &table.experts()[plan.layers[0]].name;
            let like = table.expert(model.checkpoint(), ExpertsId(plan.layers[0]), 0);
            let slots = GpuExperts::alloc(device, name, plan.places as usize, &like)?;
            let places = Places::new(policy, end as usize, plan.places as usize);
            let group = (of_group / plan.bytes_of_one).max(1) as usize;
            classes.push(Class { slots, places, group });
            counters.places += plan.places;
            counters.bytes += plan.places * plan.bytes_of_one;
        }
        let tally = Arc::<DeviceTally>::default();
        tally.count(|of| *of = counters);
        Ok(Streamed { classes, layers, uploads: Uploads::new(device, of_group), pool, store, tally })
    }

    pub(super) fn store(&self) -> Option<&Arc<ExpertStore>> {
        self.store.as_ref()
    }

    pub(super) fn tally(&self) -> &Arc<DeviceTally> {
        &self.tally
    }

    /// Hidden and intermediate size of a layer's experts.
    pub(super) fn widths(&self, layer: usize) -> [usize; 2] {
        let slots = &self.classes[self.layers[layer].class].slots;
        [slots.gate_up.cols(), slots.down.cols()]
    }

    /// Computes the products of a layer's choices into `work.scratch`. What was recorded before may be submitted.
    pub(super) fn compute<'d>(
        &mut self,
        device: &'d Device,
        enc: &mut Encoder<'d>,
        inputs: &mut Inputs,
        model: &Model,
        work: &Work<'_>,
    ) -> Result<(), BackendError> {
        let Layer { class, ids } = self.layers[work.layer].clone();
        let mut wanted = work.chosen.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let is_prompt = is_prompt_sized(wanted.len(), ids.len());
        let places = &mut self.classes[class].places;
        for &expert in &wanted {
            places.hold(ids.start + expert, !is_prompt);
        }
        let (hits, misses): (Vec<u32>, Vec<u32>) =
            wanted.iter().partition(|&&expert| places.of(ids.start + expert).is_some());
        self.tally.count(|of| {
            of.hits += hits.len() as u64;
            of.misses += misses.len() as u64;
        });
        let mut layer = LayerRun { device, enc, inputs, class, ids: ids.clone(), computed: Vec::new() };
        let done = self.compute_all(&mut layer, model, work, hits, &misses);
        let places = &mut self.classes[class].places;
        for &expert in &wanted {
            places.release(ids.start + expert);
        }
        done
    }

    fn compute_all(
        &mut self,
        layer: &mut LayerRun<'_, '_>,
        model: &Model,
        work: &Work<'_>,
        hits: Vec<u32>,
        misses: &[u32],
    ) -> Result<(), BackendError> {
        let store = self.store.clone();
        let fetch = store
            .as_deref()
            .filter(|_| !misses.is_empty())
            .map(|store| store.fetch(work.layer as u32, misses));
        if !hits.is_empty() {
            self.dispatch(layer, work, &hits)?;
        }
        if misses.is_empty() {
            return Ok(());
        }
        if work.chosen.len() > FEW * work.k {
            // The device is to have something to do meanwhile.
            layer.inputs.send(layer.device);
            layer.take_encoder().submit()?;
        }
        layer.computed = hits;
        let (table, group) = (model.weights(), self.classes[layer.class].group);
        match fetch {
            None => {
                for group in misses.chunks(group) {
                    let expert =
                        |&id: &u32| (id, table.expert(model.checkpoint(), ExpertsId(work.layer), id));
                    self.bring(layer, work, &group.iter().map(expert).collect::<Vec<_>>())?;
                }
            }
            Some(mut fetch) => loop {
                let start = Instant::now();
                let leases = fetch.next()?;
                self.tally.count(|of| of.stall_time += start.elapsed());
                let Some(leases) = leases else { break };
                let mut leases = leases.into_iter();
                loop {
                    // What is brought is given back before the next ones are.
                    let group: Vec<_> = leases.by_ref().take(group).collect();
                    if group.is_empty() {
                        break;
                    }
                    let named = table.experts_of(ExpertsId(work.layer));
                    let ready =
                        group.iter().map(|lease| Ok((lease.expert(), experts::weights(named, lease)?)));
                    self.bring(layer, work, &ready.collect::<Result<Vec<_>, BackendError>>()?)?;
                }
            },
        }
        Ok(())
    }

    /// Brings experts to places and computes them, in as many submissions as the places ask for.
    fn bring(
        &mut self,
        layer: &mut LayerRun<'_, '_>,
        work: &Work<'_>,
        experts: &[(u32, ExpertWeights<'_>)],
    ) -> Result<(), BackendError> {
        let mut left = experts;
        while !left.is_empty() {
            let places = &mut self.classes[layer.class].places;
            let first = layer.ids.start;
            let placed: Vec<_> = left
                .iter()
                .map_while(|&(expert, weights)| Some((places.take(first + expert)?, weights)))
                .collect();
            let (now, later) = left.split_at(placed.len());
            let now: Vec<u32> = now.iter().map(|&(expert, _)| expert).collect();
            if now.is_empty() {
                // All places are those of experts that this layer has computed, or is about to.
                assert!(!layer.computed.is_empty(), "a plan gives experts a place at least");
                layer.computed.drain(..).for_each(|expert| places.release(first + expert));
                continue;
            }
            if let Err(error) = self.upload(layer, work, &placed, &now) {
                let places = &mut self.classes[layer.class].places;
                for &expert in &now {
                    places.forget(first + expert);
                }
                return Err(error);
            }
            layer.computed.extend(now);
            left = later;
        }
        Ok(())
    }

    fn upload(
        &mut self,
        layer: &mut LayerRun<'_, '_>,
        work: &Work<'_>,
        placed: &[(u32, ExpertWeights<'_>)],
        experts: &[u32],
    ) -> Result<(), BackendError> {
        let slots = &self.classes[layer.class].slots;
        let start = Instant::now();
        let bytes = self.uploads.record(layer.enc, &self.pool, slots, placed)?;
        let packed = start.elapsed();
        self.dispatch(layer, work, experts)?;
        layer.inputs.send(layer.device);
        let start = Instant::now();
        self.uploads.submit(layer.device, layer.take_encoder())?;
        // Submitting takes a moment by itself.
        let waited = start.elapsed().saturating_sub(Duration::from_micros(100));
        self.tally.count(|of| {
            of.placed += placed.len() as u64;
            of.bytes_uploaded += bytes;
            of.upload_time += packed;
            of.stall_time += waited;
        });
        Ok(())
    }

    /// Records the products of the choices of some experts, which have places.
    fn dispatch(
        &self,
        layer: &mut LayerRun<'_, '_>,
        work: &Work<'_>,
        experts: &[u32],
    ) -> Result<(), BackendError> {
        let Class { slots, places, .. } = &self.classes[layer.class];
        let mut place_of = vec![None; layer.ids.len()];
        for &expert in experts {
            place_of[expert as usize] = places.of(layer.ids.start + expert);
        }
        let placed: Vec<_> = work.chosen.iter().map(|&expert| place_of[expert as usize]).collect();
        let PlacedChoices { tiles, order } = PlacedChoices::new(&placed);
        let tiles = layer.inputs.add(layer.device, &tiles)?;
        let order = (!order.is_empty()).then(|| layer.inputs.add(layer.device, &order)).transpose()?;
        let &Work { k, activation, x, scratch, chosen, .. } = work;
        let choices = chosen.len();
        kernels::placed_experts(layer.enc, slots, x, &tiles, order.as_ref(), choices, k, activation, scratch);
        Ok(())
    }
}

/// What the groups of one layer have in common.
struct LayerRun<'r, 'd> {
    device: &'d Device,
    enc: &'r mut Encoder<'d>,
    inputs: &'r mut Inputs,
    class: usize,
    ids: Range<u32>,
    /// Experts whose products are recorded: their places may be taken for others.
    computed: Vec<u32>,
}

impl<'d> LayerRun<'_, 'd> {
    /// What was recorded, to be submitted.
    fn take_encoder(&mut self) -> Encoder<'d> {
        std::mem::replace(self.enc, self.device.encoder())
    }
}
