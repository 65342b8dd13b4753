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
mod recorder;
mod sizes;
mod states;
mod streamed;
mod weights;

use std::sync::Arc;
use std::time::Instant;

use moeflux_experts::ExpertStore;
use moeflux_kernels::{ExpertsArgs, GatedDeltaArgs, KvType, RopeArgs, ThreadPool};
use moeflux_wgpu::{
    self as kernels, AttentionArgs, Device, Download, Encoder, ExpertScratch, GpuError, View,
};

use self::arena::Arena;
use self::fuse::{Fused, FusedPlans, Joined, Place};
use self::host_read::{HostRead, Mixture};
use self::inputs::Inputs;
use self::recorder::Recorder;
use self::sizes::{GpuSizes, facts};
use self::states::{States, recurrent};
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

/// Memory for the experts of a layer, and what it is enough for.
#[derive(Debug)]
struct Scratch {
    choices: usize,
    /// Hidden and intermediate size, number of experts.
    shape: [usize; 3],
    memory: ExpertScratch,
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

/// What is done together with an operation.
struct Others<'a> {
    /// The operation before, that this one does as well.
    before: Option<&'a Op>,
    /// The linear maps that this one does, and where what they write lies.
    with: Option<(&'a [usize], View)>,
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
    /// Records an operation, and those that are done together with it.
    fn record(
        &mut self,
        enc: &mut Encoder<'_>,
        op: &Op,
        Others { before, with }: Others<'_>,
        run: &mut Run<'_, '_, '_>,
        view: impl Fn(TensorId) -> View,
    ) -> Result<(), GpuError> {
        let GpuBackend { device, weights, states, inputs, experts: scratch, host_read, parts, .. } = self;
        let Run { model, graph, ropes, step } = run;
        if let (Some((members, y)), &Op::Linear { x, weight, .. }) = (with, op) {
            if let Some(whole) = weights.joined(weight) {
                kernels::linear(enc, whole, None, &view(x), &y);
                return Ok(());
            }
            for &member in members {
                if let Op::Linear { weight, out, .. } = graph.ops()[member] {
                    let w = weights.matrix(device, model, weight, 1)?;
                    kernels::linear(enc, w, None, &view(x), &view(out));
                }
            }
            return Ok(());
        }
        let cols = |id: TensorId| graph.tensor(id).cols;
        match *op {
            Op::Embed { table, out } => {
                let ids = inputs.add(device, step.tokens)?;
                kernels::embed(enc, weights.matrix(device, model, table, 1)?, &ids, &view(out));
            }
            Op::HiddenInput { out } => enc.copy(&inputs.add_floats(device, step.hidden_input)?, &view(out)),
            Op::SelectOutputs { x, out } => {
                let rows: Vec<u32> = step.outputs.iter().map(|&row| row as u32).collect();
                let rows = inputs.add(device, &rows)?;
                kernels::select_outputs(enc, &view(x), cols(x), &rows, &view(out));
            }
            Op::RmsNorm { x, weight, eps, out } => {
                let weight = weights.vector(device, model, weight)?;
                let (x, y) = (view(x), view(out));
                match before {
                    Some(&Op::Add { a, b, .. }) => {
                        kernels::add_rms_norm(enc, &view(a), &view(b), weight, eps, &x, &y);
                    }
                    _ => kernels::rms_norm(enc, &x, weight, eps, &y),
                }
            }
            Op::Linear { x, weight, bias, out } => {
                let bias = bias.map(|bias| weights.vector(device, model, bias).cloned()).transpose()?;
                let w = weights.matrix(device, model, weight, 1)?;
                match before {
                    Some(&Op::Swiglu { gate, up, .. }) => {
                        kernels::swiglu_linear(enc, w, bias.as_ref(), &view(gate), &view(up), &view(out));
                    }
                    _ => kernels::linear(enc, w, bias.as_ref(), &view(x), &view(out)),
                }
            }
            Op::Add { a, b, out } => kernels::add(enc, &view(a), &view(b), &view(out)),
            Op::Concat { a, b, out } => {
                kernels::concat(enc, &view(a), cols(a), &view(b), cols(b), &view(out));
            }
            Op::Columns { x, group, ref parts, out } => {
                kernels::columns(enc, &view(x), cols(x), group, parts, &view(out));
            }
            Op::Rope { x, head_dim, rope, out } => {
                let (spec, [cos, sin], heads) =
                    (model.weights().rope(rope), &ropes[rope.0], cols(x) / head_dim);
                let (x, rotary_dim, layout) = (&view(x), spec.rotary_dim, spec.layout);
                let args = RopeArgs { x, heads, head_dim, rotary_dim, layout, cos, sin };
                kernels::rope(enc, &args, &view(out));
            }
            Op::HeadLinear { x, weight, heads, transposed, out } => {
                let w = weights.matrix(device, model, weight, heads)?;
                let product = if transposed { kernels::head_linear_transposed } else { kernels::head_linear };
                product(enc, w, heads, &view(x), &view(out));
            }
            Op::Attention { q, k, v, state, ref shape, sinks, scale, out } => {
                let sinks = sinks.map(|sinks| weights.vector(device, model, sinks).cloned()).transpose()?;
                let (query_width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
                let caches = states.caches(device, inputs, step.segments, state)?;
                for (segment, cache) in step.segments.iter().zip(caches) {
                    let first_position = segment.sequence.len();
                    let rows = segment.rows.clone();
                    let part = |id, width| view(id).slice(rows.start * width..rows.end * width);
                    let (k, v) = (part(k, kv_width), part(v, kv_width));
                    kernels::kv_write(enc, &k, &v, shape, first_position, &cache);
                    let args = AttentionArgs { first_position, scale, parts };
                    let (q, y) = (part(q, query_width), part(out, query_width));
                    kernels::attention(enc, &q, &cache, sinks.as_ref(), shape, &args, &y);
                }
            }
            Op::MlaAttention { q, q_rope, latent, k_rope, state, ref shape, scale, out } => {
                let (heads, rank, rope_dim) = (shape.heads, shape.rank, shape.rope_dim);
                let caches = states.caches(device, inputs, step.segments, state)?;
                for (segment, cache) in step.segments.iter().zip(caches) {
                    let first_position = segment.sequence.len();
                    let rows = segment.rows.clone();
                    let part = |id, width| view(id).slice(rows.start * width..rows.end * width);
                    let (latent, k_rope) = (part(latent, rank), part(k_rope, rope_dim));
                    kernels::latent_write(enc, &latent, &k_rope, shape, first_position, &cache);
                    let args = AttentionArgs { first_position, scale, parts };
                    let (q, q_rope) = (part(q, heads * rank), part(q_rope, heads * rope_dim));
                    let y = part(out, heads * rank);
                    kernels::mla_attention(enc, &q, &q_rope, &cache, shape, &args, &y);
                }
            }
            Op::SigmoidGate { x, gate, out } => {
                kernels::sigmoid_gate(enc, &view(x), &view(gate), &view(out));
            }
            Op::Conv1dSilu { x, weight, kernel, state, out } => {
                let (weight, width) = (weights.vector(device, model, weight)?, cols(x));
                for segment in step.segments.iter_mut() {
                    let rows = segment.rows.start * width..segment.rows.end * width;
                    let [current, next] = recurrent(device, segment, state)?;
                    let (x, y) = (view(x).slice(rows.clone()), view(out).slice(rows));
                    kernels::conv1d_silu(enc, &x, weight, kernel, &current, &next, &y);
                }
            }
            Op::L2Norm { x, dim, eps, scale, out } => {
                kernels::l2_norm(enc, &view(x), dim, eps, scale, &view(out));
            }
            Op::DecayBeta { a, b, a_log, dt_bias, decay, beta } => {
                let a_log = weights.vector(device, model, a_log)?.clone();
                let dt_bias = weights.vector(device, model, dt_bias)?;
                let (a, b, decay, beta) = (view(a), view(b), view(decay), view(beta));
                kernels::decay_beta(enc, &a, &b, &a_log, dt_bias, &decay, &beta);
            }
            Op::GatedDelta { q, k, v, decay, beta, state, ref shape, out } => {
                let (keys, values) = (shape.key_heads * shape.key_dim, shape.value_heads * shape.value_dim);
                for segment in step.segments.iter_mut() {
                    let rows = segment.rows.clone();
                    let part = |id, width| view(id).slice(rows.start * width..rows.end * width);
                    let [current, next] = recurrent(device, segment, state)?;
                    let (q, k, v) = (&part(q, keys), &part(k, keys), &part(v, values));
                    let (decay, beta) = (&part(decay, shape.value_heads), &part(beta, shape.value_heads));
                    let args = GatedDeltaArgs { q, k, v, decay, beta, shape, state: &current };
                    kernels::gated_delta(enc, &args, &next, &part(out, values));
                }
            }
            Op::GatedRmsNorm { x, gate, weight, eps, out } => {
                let weight = weights.vector(device, model, weight)?;
                kernels::gated_rms_norm(enc, &view(x), &view(gate), weight, eps, &view(out));
            }
            Op::Route { logits, correction_bias, ref routing, ids, weights: shares } => {
                let bias = correction_bias.map(|bias| weights.vector(device, model, bias)).transpose()?;
                kernels::route(enc, &view(logits), cols(logits), bias, routing, &view(ids), &view(shares));
            }
            Op::Experts { x, ids, weights: shares, experts: layer, activation, k, out } => {
                let (x, ids, shares, y) = (&view(x), &view(ids), &view(shares), &view(out));
                let args = ExpertsArgs { x, indices: ids, weights: shares, k, activation };
                if let Some(host_read) = host_read {
                    let scratch = Scratch::of(scratch, device, ids.len(), host_read.shape(layer.0))?;
                    let mixture = Mixture { layer: layer.0, args, y };
                    host_read.record(device, enc, inputs, &mixture, scratch)?;
                } else {
                    let experts = weights.experts(device, model, layer)?;
                    let shape = [experts.gate_up.cols(), experts.down.cols(), experts.count];
                    let memory = Scratch::of(scratch, device, ids.len(), shape)?;
                    kernels::experts(enc, experts, &args, memory, y);
                }
            }
            Op::Swiglu { gate, up, out } => kernels::swiglu(enc, &view(gate), &view(up), &view(out)),
            Op::ScaleBySigmoid { x, score, out } => {
                kernels::scale_by_sigmoid(enc, &view(x), &view(score), &view(out));
            }
        }
        Ok(())
    }
}

impl Scratch {
    /// The memory that is held, if it is enough, or more.
    fn of<'s>(
        held: &'s mut Option<Scratch>,
        device: &Device,
        choices: usize,
        shape: [usize; 3],
    ) -> Result<&'s ExpertScratch, GpuError> {
        let is_enough = |held: &Scratch| held.choices >= choices && held.shape == shape;
        if !held.as_ref().is_some_and(is_enough) {
            // What is too small is not to take room beside what replaces it.
            *held = None;
        }
        Ok(match held {
            Some(held) => &held.memory,
            None => {
                let [hidden, intermediate, count] = shape;
                let memory = ExpertScratch::new(device, choices, hidden, intermediate, count)?;
                &held.insert(Scratch { choices, shape, memory }).memory
            }
        })
    }
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
