//! Each operation as dispatches of its kernel.

use moeflux_kernels::{ExpertsArgs, GatedDeltaArgs, RopeArgs};
use moeflux_wgpu::{self as kernels, AttentionArgs, Device, Encoder, ExpertScratch, GpuError, View};

use super::host_read::Mixture;
use super::states::recurrent;
use super::{GpuBackend, Run};
use crate::graph::{Op, TensorId};

/// What is done together with an operation.
pub(super) struct Others<'a> {
    /// The operation before, that this one does as well.
    pub(super) before: Option<&'a Op>,
    /// The linear maps that this one does, and where what they write lies.
    pub(super) with: Option<(&'a [usize], View)>,
}

/// Memory for the experts of a layer, and what it is enough for.
#[derive(Debug)]
pub(super) struct Scratch {
    choices: usize,
    /// Hidden and intermediate size, number of experts.
    shape: [usize; 3],
    memory: ExpertScratch,
}

impl GpuBackend {
    /// Records an operation, and those that are done together with it.
    pub(super) fn record(
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
    pub(super) fn of<'s>(
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
