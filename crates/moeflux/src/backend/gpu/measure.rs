//! What a step takes on a GPU, from four measurements: how long a dispatch takes that does next to nothing, how long the host
//! waits for a result, how fast the device reads its memory, and how fast it multiplies.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use moeflux_kernels::Precision;
use moeflux_wgpu::{self as kernels, Device, Encoder, GpuError, GpuMatrix, View, read_bandwidth};

use super::GpuBackend;
use crate::backend::{BackendError, MeasureError};
use crate::graph::{Graph, Op, StepShape};
use crate::model::Model;
use crate::placement::{StepFacts, cost};

/// Of a step's operations each takes as long as so many dispatches that do nothing: some are several dispatches, others are part
/// of one, and most do more than nothing. On an H200, where a dispatch takes 3.7 to 5 µs, tokens of 8 layers take 2.1 ms and those
/// of 40 layers 6.6 ms, at 28 operations a layer.
const DISPATCHES_OF_ONE: f64 = 1.1;
/// Of the rate of large products, what experts reach, whose tiles are not full.
const EXPERT_SHARE: f64 = 0.42;
/// How long a measurement goes on.
const TIME: Duration = Duration::from_millis(100);

impl GpuBackend {
    /// Seconds that a step of `n` tokens after `after` positions takes where all weights are on the device; of experts that are
    /// `streamed`, the host first learns the router's choice, in each layer.
    pub fn measure(
        device: &Device,
        model: &Model,
        n: usize,
        after: usize,
        streamed: bool,
    ) -> Result<f64, MeasureError> {
        let graph = model.graph(StepShape { n_tokens: n, n_outputs: 1 })?;
        let bandwidth = read_bandwidth(device).map_err(BackendError::from)?;
        let dispatch = dispatch_seconds(device).map_err(BackendError::from)?;
        let products = product_rate(device, model, n, dispatch, bandwidth).map_err(BackendError::from)?;
        let logits = round_trip_seconds(device, model.vocab_size()).map_err(BackendError::from)?;
        let choice = if streamed { round_trip_seconds(device, 64).map_err(BackendError::from)? } else { 0.0 };
        tracing::debug!(n, bandwidth, dispatch, products, logits, choice, "a GPU's speeds");
        let visited = visited(&graph, model, n);
        let facts =
            StepFacts { first: after, cache_element: 4, precision: Precision::Exact, visited: &visited };
        let of_one = |op: &Op| {
            let cost = cost(op, &graph, model.weights(), &facts);
            let rate = if matches!(op, Op::Experts { .. }) { products * EXPERT_SHARE } else { products };
            let operations = match op {
                Op::Linear { .. } | Op::HeadLinear { .. } | Op::Experts { .. } => cost.operations,
                _ => 0,
            };
            let waits = if matches!(op, Op::Experts { .. }) { choice } else { 0.0 };
            waits
                + DISPATCHES_OF_ONE * dispatch
                + (cost.bytes as f64 / bandwidth).max(operations as f64 / rate)
        };
        Ok(logits + graph.ops().iter().map(of_one).sum::<f64>())
    }
}

/// Distinct experts that the tokens of a step choose, if all are chosen alike.
fn visited(graph: &Graph, model: &Model, n: usize) -> HashMap<crate::graph::TensorId, usize> {
    let of_op = |op: &Op| match *op {
        Op::Experts { ids, experts, k, .. } => {
            let count = model.weights().experts_of(experts).experts.len() as f64;
            let missed = (1.0 - k as f64 / count.max(1.0)).max(0.0).powi(n as i32);
            Some((ids, (count * (1.0 - missed)).ceil() as usize))
        }
        _ => None,
    };
    graph.ops().iter().filter_map(of_op).collect()
}

/// Seconds of one dispatch among many that wait for each other.
fn dispatch_seconds(device: &Device) -> Result<f64, GpuError> {
    const FEW: usize = 64;
    const MANY: usize = 512;
    let [a, b, c] = [device.alloc(WHAT, 64)?, device.alloc(WHAT, 64)?, device.alloc(WHAT, 64)?];
    // Each time two of them.
    let seconds = |times: usize| {
        let record = |enc: &mut Encoder<'_>| {
            kernels::add(enc, &a, &b, &c);
            kernels::add(enc, &c, &b, &a);
        };
        fastest(device, times, record)
    };
    // The first ones find the device at rest.
    seconds(MANY)?;
    let (few, many) = (seconds(FEW)?, seconds(MANY)?);
    Ok((many - few).max(0.0) / (2 * (MANY - FEW)) as f64)
}

/// Seconds of a submission of one dispatch whose `len` numbers the host waits for.
fn round_trip_seconds(device: &Device, len: usize) -> Result<f64, GpuError> {
    let [a, b] = [device.alloc(WHAT, len)?, device.alloc(WHAT, len)?];
    let (mut start, mut best) = (Instant::now(), f64::INFINITY);
    let end = start + TIME;
    while best.is_infinite() || start < end {
        let mut enc = device.encoder();
        kernels::add(&mut enc, &a, &a, &b);
        device.submit_and_download(enc, &b)?.finish::<f32>()?;
        let now = Instant::now();
        best = best.min((now - start).as_secs_f64());
        start = now;
    }
    Ok(best)
}

/// Multiplications and additions a second of a product with `n` rows, on the largest matrix within a layer. The time of a dispatch
/// is not counted, since each operation of a step has its own; what is left is at least the time of reading the matrix.
fn product_rate(
    device: &Device,
    model: &Model,
    n: usize,
    dispatch: f64,
    bandwidth: f64,
) -> Result<f64, GpuError> {
    const TIMES: usize = 8;
    let table = model.weights();
    // Embedding and output projection are the ones as long as the vocabulary.
    let inner = table.matrices().iter().filter(|named| named.matrix.rows < model.vocab_size());
    let Some(named) = inner.max_by_key(|named| named.matrix.parameters()) else { return Ok(f64::INFINITY) };
    let matrix = model.checkpoint().view(&named.matrix);
    let on_device = GpuMatrix::upload(device, &named.name, &matrix)?;
    let x = device.upload(WHAT, &vec![0.5f32; n * matrix.cols()])?;
    let y: View = device.alloc(WHAT, n * matrix.rows())?;
    let seconds = |times: usize| fastest(device, times, |enc| kernels::linear(enc, &on_device, None, &x, &y));
    let each = (seconds(2 * TIMES)? - seconds(TIMES)?) / TIMES as f64 - dispatch;
    let each = each.max(named.matrix.bytes() as f64 / bandwidth);
    Ok(2.0 * (n * matrix.rows() * matrix.cols()) as f64 / each)
}

/// What the memory is for.
const WHAT: &str = "a measurement";

/// Seconds of `times` recordings that are submitted together, the least of several such submissions.
fn fastest(device: &Device, times: usize, record: impl Fn(&mut Encoder<'_>)) -> Result<f64, GpuError> {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    let mut rounds = 0;
    while rounds < 2 || start.elapsed() < TIME {
        let mut enc = device.encoder();
        (0..times).for_each(|_| record(&mut enc));
        let start = Instant::now();
        enc.submit()?;
        device.wait(WHAT)?;
        best = best.min(start.elapsed().as_secs_f64());
        rounds += 1;
    }
    Ok(best)
}
