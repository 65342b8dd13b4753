//! The routed experts of a mixture-of-experts layer, straight from their stacks by indices that are on the device.

use moeflux_kernels::{Activation, ExpertsArgs};

use crate::device::Device;
use crate::matrix::GpuMatrix;
use crate::{Encoder, GpuError, Program, View};

use super::linear::{Input, Product, TILE, Tiles};
use super::{ACTIVATED, EACH, ELEMENT, LANES, MATH, grid};

static GROUP: Program =
    Program { name: "experts_group", entry: "main", source: &[include_str!("experts_group.wgsl")] };
static ACTIVATE: Program = Program {
    name: "experts_activate",
    entry: "main",
    source: &[include_str!("experts_activate.wgsl"), ELEMENT, ACTIVATED, MATH],
};
static COMBINE: Program =
    Program { name: "experts_combine", entry: "main", source: &[include_str!("experts_combine.wgsl")] };

/// The linear maps of all experts of a layer, one expert after the other.
#[derive(Clone, Debug)]
pub struct GpuExperts {
    /// How many experts there are.
    pub count: usize,
    /// `[count, 2, intermediate, hidden]`: an expert's gate and then its up.
    pub gate_up: GpuMatrix,
    /// `[count, hidden, intermediate]`.
    pub down: GpuMatrix,
    /// What is added to the products, if anything.
    pub biases: Option<GpuExpertBiases>,
}

/// The biases of all experts.
#[derive(Clone, Debug)]
pub struct GpuExpertBiases {
    /// `[count, 2, intermediate]`.
    pub gate_up: View,
    /// `[count, hidden]`.
    pub down: View,
}

/// Memory that layers of experts use again.
#[derive(Debug)]
pub struct ExpertScratch {
    gate_up: View,
    down: View,
    tiles: View,
    order: View,
}

impl ExpertScratch {
    /// Memory for `choices` choices of experts with these widths, `count` of them a layer.
    pub fn new(
        device: &Device,
        choices: usize,
        hidden: usize,
        intermediate: usize,
        count: usize,
    ) -> Result<Self, GpuError> {
        let floats = |width| device.alloc("the experts' activations", choices * width);
        Ok(ExpertScratch {
            gate_up: floats(2 * intermediate)?,
            down: floats(hidden)?,
            tiles: device.alloc("the experts' tiles", tiles(choices, count) * 3)?,
            order: device.alloc("the experts' choices", choices)?,
        })
    }
}

/// The most tiles that choices of `count` experts make.
fn tiles(choices: usize, count: usize) -> usize {
    choices / TILE + count.min(choices)
}

/// Choices from which on they are grouped by expert, so that weights are read once for several.
pub(super) const GROUPED: usize = 64;

/// `y_t = Σ w · down(act(gate x_t, up x_t))` over the token's `k` experts, in ascending order of expert index; biases
/// are added to the products where experts have them.
///
/// `y` is `[n, hidden]`; the indices are below `experts.count`, and `scratch` has room for `n·k` choices.
pub fn experts(
    enc: &mut Encoder<'_>,
    experts: &GpuExperts,
    args: &ExpertsArgs<&View, &View>,
    scratch: &ExpertScratch,
    y: &View,
) {
    let ExpertsArgs { x, indices: ids, weights, k, activation } = *args;
    let choices = ids.len();
    let (tiles, order) =
        if choices < GROUPED { (ids.clone(), None) } else { group(enc, ids, experts.count, None, scratch) };
    placed_experts(enc, experts, x, &tiles, order.as_ref(), choices, k, activation, scratch);
    combine_experts(enc, ids, weights, k, scratch, y);
}

/// Groups choices of `count` experts: the tiles, whose matrices are the experts or their `slots`, and the choices' order.
pub(super) fn group(
    enc: &mut Encoder<'_>,
    ids: &View,
    count: usize,
    slots: Option<&View>,
    scratch: &ExpertScratch,
) -> (View, Option<View>) {
    let choices = ids.len();
    let order = scratch.order.slice(0..choices);
    let table = scratch.tiles.slice(0..tiles(choices, count) * 3);
    let constants = [
        ("LANES", LANES as u32),
        ("EXPERTS", count as u32),
        ("TILE", TILE as u32),
        ("HAS_SLOTS", u32::from(slots.is_some())),
    ];
    let params = [choices as u32, (table.len() / 3) as u32];
    let views = [ids, slots.unwrap_or(ids), &table, &order];
    enc.dispatch(&GROUP, &constants, &views, &params, [1, 1, 1]);
    (table, Some(order))
}

/// Which of a step's choices are computed, and where their experts are, as [`placed_experts`] takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedChoices {
    /// The place of each choice, or the tiles of choices that share one.
    pub tiles: Vec<u32>,
    /// The choices by tile; none if each choice is its own.
    pub order: Vec<u32>,
}

impl PlacedChoices {
    /// Of all choices those that have a place, `[n, k]`.
    pub fn new(places: &[Option<u32>]) -> Self {
        if places.len() < GROUPED {
            // There is no such place, so nothing is computed.
            let tiles = places.iter().map(|place| place.unwrap_or(u32::MAX)).collect();
            return PlacedChoices { tiles, order: Vec::new() };
        }
        let placed = places.iter().zip(0..).filter_map(|(&place, choice)| Some((place?, choice)));
        let mut placed: Vec<(u32, u32)> = placed.collect();
        placed.sort_unstable();
        let (mut tiles, mut first) = (Vec::new(), 0);
        for of_one in placed.chunk_by(|a, b| a.0 == b.0) {
            for tile in of_one.chunks(TILE) {
                tiles.extend([tile[0].0, first, tile.len() as u32]);
                first += tile.len() as u32;
            }
        }
        PlacedChoices { tiles, order: placed.into_iter().map(|(_, choice)| choice).collect() }
    }
}

/// What the experts of some of the choices make of `x`, `[n, hidden]`, into `scratch`, for [`combine_experts`]. `tiles` and
/// `order` are those of [`PlacedChoices`] with places among `experts`; there are `choices` in all, `k` of each token.
pub fn placed_experts(
    enc: &mut Encoder<'_>,
    experts: &GpuExperts,
    x: &View,
    tiles: &View,
    order: Option<&View>,
    choices: usize,
    k: usize,
    activation: Activation,
    scratch: &ExpertScratch,
) {
    let (hidden, intermediate) = (experts.gate_up.cols(), experts.down.cols());
    assert!(choices.is_multiple_of(k) && x.len() == choices / k * hidden);
    let gate_up = scratch.gate_up.slice(0..choices * 2 * intermediate);
    let down = scratch.down.slice(0..choices * hidden);
    let tiles = || match order {
        Some(order) => Tiles::Grouped { tiles, order },
        None => Tiles::Each(tiles),
    };
    let biases = experts.biases.as_ref();
    let bias = biases.map(|biases| &biases.gate_up);
    let product = Product::new(&experts.gate_up, 2 * intermediate, x, &gate_up);
    Product { bias, tiles: tiles(), choices: k, ..product }.record(enc);
    let up = gate_up.slice(intermediate..gate_up.len());
    let input = match (order, activation) {
        (Some(order), _) => {
            activate(enc, &gate_up, order, intermediate, activation);
            Input::Plain
        }
        (None, Activation::Swiglu) => Input::Swiglu(&up),
        (None, Activation::ClampedSwiglu { alpha, limit }) => Input::ClampedSwiglu { up: &up, alpha, limit },
    };
    let bias = biases.map(|biases| &biases.down);
    let product = Product::new(&experts.down, hidden, &gate_up, &down);
    Product { bias, input, tiles: tiles(), x_stride: 2 * intermediate, ..product }.record(enc);
}

/// Has the gates of choices become what experts make of gate and up: each tile of the next product would compute it anew.
fn activate(enc: &mut Encoder<'_>, gate_up: &View, order: &View, width: usize, activation: Activation) {
    let (activation, alpha, limit) = match activation {
        Activation::Swiglu => (1, 0.0, 0.0),
        Activation::ClampedSwiglu { alpha, limit } => (2, alpha, limit),
    };
    let [lanes, row] = EACH;
    let n = order.len() * width;
    let params = [n as u32, width as u32, f32::to_bits(alpha), f32::to_bits(limit)];
    let constants = [lanes, row, ("ACTIVATION", activation)];
    enc.dispatch(&ACTIVATE, &constants, &[gate_up, order], &params, grid(n.div_ceil(LANES)));
}

/// Adds what the experts of all choices gave, weighted, in ascending order of expert index.
pub fn combine_experts(
    enc: &mut Encoder<'_>,
    ids: &View,
    weights: &View,
    k: usize,
    scratch: &ExpertScratch,
    y: &View,
) {
    let hidden = y.len() / (ids.len() / k).max(1);
    assert!(weights.len() == ids.len() && y.len() == ids.len() / k * hidden);
    let down = scratch.down.slice(0..ids.len() * hidden);
    let constants = [("LANES", LANES as u32), ("K", k as u32)];
    let groups = [hidden.div_ceil(LANES), ids.len() / k, 1].map(|count| count as u32);
    enc.dispatch(&COMBINE, &constants, &[&down, ids, weights, y], &[hidden as u32], groups);
}
