//! The GPU backend: float32 throughout, weights dequantised as they are read, each operation one kernel of the same
//! meaning. A step waits for the device once, at its end.
//!
//! A sequence's states live on the device from the first step on. The sequence holds them as it holds the host's memory, so
//! they are forked, cut and kept like any other backend's; what is saved is read back ([`Sequence::on_host`]).
//!
//! [`Sequence::on_host`]: crate::Sequence::on_host

mod arena;
mod fuse;
mod host_read;
mod inputs;
mod measure;
mod pool;
mod record;
mod recorder;
mod sizes;
mod states;
mod streamed;
mod weights;

use std::sync::Arc;
use std::time::Instant;

use moeflux_experts::ExpertStore;
use moeflux_kernels::{KvType, ThreadPool};
use moeflux_wgpu::{self as kernels, Device, Download, GpuError, View};

use self::arena::Arena;
use self::fuse::{Fused, FusedPlans, Joined, Place};
use self::host_read::HostRead;
use self::inputs::Inputs;
use self::record::{Others, Scratch};
use self::recorder::Recorder;
use self::sizes::{GpuSizes, facts};
use self::states::States;
use self::streamed::{Streamed, Work};
use self::weights::DeviceWeights;
use super::cpu::rope::RopeTable;
use super::{Backend, BackendError, CancelToken, Data, Observer, OpenError, Step, store};
use crate::experts::DeviceTally;
use crate::graph::{Element, Graph, Op, Plan, TensorId};
use crate::model::Model;
use crate::options::{ComputeOptions, EngineOptions};
use crate::placement::{DevicePlacement, HostTier, PlacementError};
use crate::sequence::Position;

pub use self::sizes::bytes_of_experts;
pub use crate::placement::{GpuMemory, GpuMemoryError, HostCopyError};

/// Runs graphs on a GPU. The weights that graphs read are kept in its memory, from their first use on; of experts, where
/// there is not room for all, those that are used most.
#[derive(Debug)]
pub struct GpuBackend {
    device: Device,
    weights: DeviceWeights,
    states: States,
    inputs: Inputs,
    arena: Arena,
    fused: FusedPlans,
    experts: Option<Scratch>,
    /// If not all of them stay, and shaders bring the others.
    host_read: Option<HostRead>,
    /// If not all of them stay, and the host sends the others.
    streamed: Option<Streamed>,
    /// For attention split over blocks.
    parts: View,
    logits: Vec<f32>,
}

/// Floats of memory for attention split over blocks.
const PARTS: usize = 1 << 20;

impl GpuBackend {
    /// Decides where a model lives that runs on a device which may hold so much of it.
    pub fn place(
        device: &Device,
        model: &Model,
        memory: GpuMemory,
        options: &EngineOptions,
    ) -> Result<DevicePlacement, PlacementError> {
        DevicePlacement::decide(model, &facts(device.info()), &GpuSizes, memory, options)
    }

    /// A backend for a model that lives as a placement says. Experts that have no slot come from the host's memory: from a
    /// copy of all of them that shaders read, from mapped files, or from a store.
    pub fn open(
        device: Device,
        model: &Model,
        placement: &DevicePlacement,
        options: &ComputeOptions,
    ) -> Result<Self, OpenError> {
        if let Some(limit) = placement.limit {
            device.limit_memory(limit);
        }
        let mut backend = GpuBackend::new(device).map_err(BackendError::from)?;
        let Some(classes) = &placement.classes else { return Ok(backend) };
        let threads = options.threads;
        let pool = ThreadPool::new(threads).map_err(|source| OpenError::Threads { threads, source })?;
        let sent = match placement.host {
            HostTier::Unused => return Ok(backend),
            HostTier::Sent(sent) => sent,
            HostTier::Copy { otherwise, .. } => {
                match (HostRead::open(&backend.device, model, classes, &pool, options), otherwise) {
                    (Ok(host_read), _) => {
                        backend.host_read = Some(host_read);
                        return Ok(backend);
                    }
                    (Err(error), Some(sent)) if host_read::is_lack(&error) => {
                        tracing::info!("experts are sent to the GPU as they are wanted: {error}");
                        sent
                    }
                    (Err(error), _) => return Err(error),
                }
            }
        };
        let store = store::open(model, &sent, options)?;
        let streamed = Streamed::new(&backend.device, model, classes, options.policy(), pool, store);
        backend.streamed = Some(streamed.map_err(BackendError::from)?);
        Ok(backend)
    }

    /// A backend on a device that has room for the whole model.
    pub fn new(device: Device) -> Result<Self, GpuError> {
        let parts = device.alloc("attention over blocks", PARTS)?;
        Ok(GpuBackend {
            device,
            weights: DeviceWeights::default(),
            states: States::default(),
            inputs: Inputs::default(),
            arena: Arena::default(),
            fused: FusedPlans::default(),
            experts: None,
            host_read: None,
            streamed: None,
            parts,
            logits: Vec::new(),
        })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

/// Where the tensors of a step lie.
struct Tensors<'r> {
    graph: &'r Graph,
    plan: &'r Plan,
    fused: &'r Fused,
    arena: Arena,
}

impl Tensors<'_> {
    fn view(&self, id: TensorId) -> View {
        match self.fused.place(id) {
            Place::Planned => self.arena.view(self.graph, self.plan, id),
            Place::Part(whole, range) => self.arena.view(self.graph, self.plan, whole).slice(range),
            Place::Spare(index, range) => self.arena.spare(index, range),
        }
    }
}

/// What the operations of one run have in common.
struct Run<'r, 'a, 's> {
    model: &'r Model,
    graph: &'r Graph,
    ropes: Vec<[View; 2]>,
    step: &'r mut Step<'a, 's>,
}

impl GpuBackend {
    /// Prepares memory and inputs for a step, and returns the cosines and sines of each rotary embedding.
    fn begin(
        &mut self,
        model: &Model,
        plan: &Plan,
        fused: &Fused,
        positions: &[Position],
    ) -> Result<Vec<[View; 2]>, GpuError> {
        let GpuBackend { device, weights, inputs, arena, host_read, .. } = self;
        weights.of(model);
        arena.fit(device, plan, fused.spare_lens())?;
        for alike in fused.alike() {
            weights.join(device, model, alike)?;
        }
        inputs.begin(device)?;
        if let Some(host_read) = host_read {
            host_read.begin();
        }
        let table = |spec| {
            let RopeTable { cos, sin } = RopeTable::new(spec, positions);
            Ok([inputs.add_floats(device, &cos)?, inputs.add_floats(device, &sin)?])
        };
        model.weights().ropes().iter().map(table).collect()
    }

    /// Records all operations of a graph, and hands them to the device portion by portion.
    fn record_all(
        &mut self,
        recorder: &mut Recorder<'_>,
        tensors: &Tensors<'_>,
        run: &mut Run<'_, '_, '_>,
        mut observer: Option<&mut dyn Observer>,
    ) -> Result<(), BackendError> {
        let (graph, fused) = (tensors.graph, tensors.fused);
        let view = |id: TensorId| tensors.view(id);
        let mut routed = Vec::new();
        for (index, op) in graph.ops().iter().enumerate() {
            if run.step.cancel.is_some_and(CancelToken::is_cancelled) {
                return Err(BackendError::Cancelled);
            }
            // The head of a step that wants no logits.
            if op.writes().iter().all(|&id| graph.tensor(id).is_empty()) || fused.skips(index) {
                continue;
            }
            let start = Instant::now();
            match op {
                Op::Experts { .. } if self.streamed.is_some() => {
                    self.stream(recorder, op, &mut routed, run.model, view)?;
                }
                _ => {
                    let with = fused.with(index).map(|Joined { members, spare, len }| {
                        (members.as_slice(), tensors.arena.spare(*spare, 0..*len))
                    });
                    let others = Others { before: fused.before(graph, index), with };
                    self.record(&mut recorder.enc, op, others, run, view)?;
                }
            }
            if let (&Op::Route { ids, .. }, Some(_)) = (op, &self.streamed)
                && run.step.tokens.len() > streamed::FEW
            {
                routed.push((ids, recorder.submit_and_download(&mut self.inputs, &view(ids))?));
            }
            match observer.as_deref_mut() {
                Some(observer) => {
                    recorder.submit(&mut self.inputs)?;
                    recorder.device.wait(op.name())?;
                    observer.ran(op, start.elapsed());
                    show(recorder.device, op, tensors, observer)?;
                }
                None => recorder.submit_portion(&mut self.inputs)?,
            }
        }
        Ok(())
    }

    /// Computes experts that come and go. Waits for the router's answer, which may be among `routed` already.
    fn stream<'d>(
        &mut self,
        recorder: &mut Recorder<'d>,
        op: &Op,
        routed: &mut Vec<(TensorId, Download)>,
        model: &Model,
        view: impl Fn(TensorId) -> View,
    ) -> Result<(), BackendError> {
        let (&Op::Experts { x, ids, weights, experts, activation, k, out }, Some(streamed)) =
            (op, &mut self.streamed)
        else {
            unreachable!("only streamed experts are")
        };
        let answer = match routed.iter().position(|(written, _)| *written == ids) {
            Some(asked) => {
                // What stands between router and experts computes meanwhile.
                recorder.submit(&mut self.inputs)?;
                routed.swap_remove(asked).1
            }
            None => recorder.submit_and_download(&mut self.inputs, &view(ids))?,
        };
        let chosen: Vec<u32> = answer.finish()?;
        let [hidden, intermediate] = streamed.widths(experts.0);
        let (device, enc): (&'d Device, _) = (recorder.device, &mut recorder.enc);
        let scratch = Scratch::of(&mut self.experts, device, chosen.len(), [hidden, intermediate, 0])?;
        let (x, y) = (view(x), view(out));
        let work = Work { layer: experts.0, chosen: &chosen, k, activation, x: &x, scratch };
        streamed.compute(device, enc, &mut self.inputs, model, &work)?;
        kernels::combine_experts(enc, &view(ids), &view(weights), k, scratch, &y);
        Ok(())
    }

    /// Hands the last operations to the device, waits for the step, and takes its logits and the rows that the graph keeps.
    fn finish(
        &mut self,
        recorder: Recorder<'_>,
        tensors: &Tensors<'_>,
        step: &mut Step<'_, '_>,
    ) -> Result<(), BackendError> {
        let Recorder { device, mut enc, .. } = recorder;
        self.inputs.send(device);
        let chosen = self.host_read.as_ref().and_then(HostRead::chosen);
        let chosen = chosen.map(|chosen| device.record_download(&mut enc, chosen));
        let logits = tensors.view(tensors.graph.logits());
        let chosen = if logits.is_empty() {
            let mark = enc.submit_marked()?;
            let chosen = chosen.map(|chosen| chosen.submitted(mark));
            device.wait("a step")?;
            self.logits.clear();
            chosen
        } else {
            let answer = device.submit_and_download(enc, &logits)?;
            let chosen = chosen.map(|chosen| chosen.submitted(answer.mark().clone()));
            answer.finish_into(&mut self.logits)?;
            chosen
        };
        if let (Some(host_read), Some(chosen)) = (&mut self.host_read, chosen) {
            host_read.learn(&chosen.finish::<u32>()?);
        }
        if let (Some(kept), Some(id)) = (&mut step.kept, tensors.graph.kept()) {
            **kept = device.download(&tensors.view(id))?;
        }
        Ok(())
    }
}

/// Shows an observer what an operation has written.
fn show(
    device: &Device,
    op: &Op,
    tensors: &Tensors<'_>,
    observer: &mut dyn Observer,
) -> Result<(), GpuError> {
    for id in op.writes() {
        let tensor = tensors.graph.tensor(id);
        match tensor.element {
            Element::F32 => observer.wrote(tensor, Data::F32(&device.download(&tensors.view(id))?)),
            Element::U32 => observer.wrote(tensor, Data::U32(&device.download(&tensors.view(id))?)),
        }
    }
    Ok(())
}

impl Backend for GpuBackend {
    fn name(&self) -> &'static str {
        "gpu"
    }

    fn run(
        &mut self,
        model: &Model,
        graph: &Graph,
        plan: &Plan,
        step: &mut Step<'_, '_>,
        observer: Option<&mut dyn Observer>,
    ) -> Result<&[f32], BackendError> {
        // Whoever observes sees every operation by itself.
        let fused = match observer {
            Some(_) => Arc::default(),
            None => self.fused.of(graph, plan, model),
        };
        let ropes = self.begin(model, plan, &fused, step.positions)?;
        // A wgpu device is shared by its clones, and `self` is written while operations are recorded.
        let device = self.device.clone();
        let tensors = Tensors { graph, plan, fused: &fused, arena: self.arena.clone() };
        let mut recorder = Recorder::new(&device);
        let mut run = Run { model, graph, ropes, step };
        self.record_all(&mut recorder, &tensors, &mut run, observer)?;
        self.finish(recorder, &tensors, run.step)?;
        Ok(&self.logits)
    }

    fn kv_type(&self) -> KvType {
        KvType::F32
    }

    fn transient_bytes(&self) -> usize {
        self.arena.bytes() + 4 * PARTS
    }

    fn experts(&self) -> Option<&Arc<ExpertStore>> {
        self.streamed.as_ref().and_then(Streamed::store)
    }

    fn device_experts(&self) -> Option<&Arc<DeviceTally>> {
        let host_read = self.host_read.as_ref().map(HostRead::tally);
        host_read.or_else(|| self.streamed.as_ref().map(Streamed::tally))
    }
}
