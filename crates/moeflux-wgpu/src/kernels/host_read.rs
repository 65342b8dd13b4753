//! The routed experts of a layer that has not places for all of them: shaders bring what routers choose from the host's memory,
//! and nothing waits for the host.

use moeflux_kernels::{ExpertWeights, ExpertsArgs};

use crate::device::Device;
use crate::host::HostExperts;
use crate::{Encoder, GpuError, Program, View};

use super::LANES;
use super::experts::{
    ExpertScratch, GROUPED, GpuExpertBiases, GpuExperts, combine_experts, group, placed_experts,
};

static SLOTS: Program =
    Program { name: "experts_slots", entry: "main", source: &[include_str!("experts_slots.wgsl")] };
static FETCH: Program =
    Program { name: "experts_fetch", entry: "main", source: &[include_str!("experts_fetch.wgsl")] };

/// A layer's experts.
#[derive(Clone, Copy, Debug)]
pub struct HostReadExperts<'a> {
    /// How many there are.
    pub count: usize,
    /// All of them.
    pub host: &'a HostExperts,
    /// Those that are on the device.
    pub places: &'a GpuExperts,
    /// Where others are computed, if places are not enough.
    pub landings: &'a Landings,
    /// What layers use one after the other.
    pub memory: &'a HostReadScratch,
}

/// Memory where experts are for as long as it takes to compute them; layers share it.
#[derive(Clone, Debug)]
pub struct Landings(GpuExperts);

/// Which places hold whom.
#[derive(Clone, Copy, Debug)]
pub struct PlaceTable<'a> {
    /// `[places, 2]`: each place and the expert in it, or [`NOBODY`]; who gives way first comes first.
    pub order: &'a View,
    /// How many places may be taken, from the first on.
    pub offered: usize,
    /// Experts that have a place.
    pub taken: usize,
    /// Becomes the [bits](chosen_words) of who was chosen, from which it follows who is where now.
    pub chosen: &'a View,
}

/// In a [`PlaceTable`] the expert of a place that is free.
pub const NOBODY: u32 = u32::MAX;

/// Memory for what a layer's experts have to do, used again by the next.
#[derive(Debug)]
pub struct HostReadScratch {
    slots: View,
    list: View,
}

impl HostReadScratch {
    /// For layers of up to `count` experts.
    pub fn new(device: &Device, count: usize) -> Result<Self, GpuError> {
        Ok(HostReadScratch {
            slots: device.alloc("the experts' slots", count.max(GROUPED))?,
            list: device.alloc("the experts on their way", 2 + 2 * count)?,
        })
    }
}

/// Words that tell which of so many experts a layer's router chose, a bit each.
pub fn chosen_words(count: usize) -> usize {
    count.div_ceil(32)
}

impl Landings {
    /// Room for `count` experts at once, for layers of up to `experts` experts like `like`.
    pub fn alloc(
        device: &Device,
        name: &str,
        count: usize,
        experts: usize,
        like: &ExpertWeights<'_>,
    ) -> Result<Self, GpuError> {
        let without = ExpertWeights { biases: None, ..*like };
        // Products find biases by slot, and slots go on past the places.
        let biases = like.biases.map(|_| {
            Ok::<_, GpuError>(GpuExpertBiases {
                gate_up: device.alloc(name, experts * 2 * like.gate.rows())?,
                down: device.alloc(name, experts * like.down.rows())?,
            })
        });
        let landings = GpuExperts::alloc(device, name, count, &without)?;
        Ok(Landings(GpuExperts { biases: biases.transpose()?, ..landings }))
    }

    /// Bytes that they take.
    pub fn bytes(count: usize, experts: usize, like: &ExpertWeights<'_>) -> u64 {
        let all = GpuExperts::bytes_of_one(like);
        let without = GpuExperts::bytes_of_one(&ExpertWeights { biases: None, ..*like });
        count as u64 * without + experts as u64 * (all - without)
    }

    /// The landings as slots from `first` on.
    fn at_slot(&self, first: usize) -> GpuExperts {
        let GpuExperts { count, gate_up, down, biases } = &self.0;
        let [rows, down_rows] = [gate_up, down].map(|matrix| matrix.rows() / count);
        GpuExperts {
            count: first + count,
            gate_up: gate_up.moved_to(first * rows),
            down: down.moved_to(first * down_rows),
            biases: biases.clone(),
        }
    }
}

/// The same as [`experts`](super::experts()), with the same bits.
///
/// An expert that has no place comes to one: those of [`PlaceTable::order`] that hold nobody who is chosen are taken in their
/// order, by experts in the order of their indices. For those that are left there are landings.
pub fn host_read_experts(
    enc: &mut Encoder<'_>,
    layer: &HostReadExperts<'_>,
    table: &PlaceTable<'_>,
    args: &ExpertsArgs<&View, &View>,
    scratch: &ExpertScratch,
    y: &View,
) {
    let ExpertsArgs { x, indices: ids, weights, k, activation } = *args;
    let &HostReadExperts { count, host, places, landings, memory: HostReadScratch { slots, list } } = layer;
    let &PlaceTable { order, offered, taken, chosen } = table;
    let (choices, all_places) = (ids.len(), places.count);
    assert!(order.len() == 2 * all_places && chosen.len() == chosen_words(count));
    let is_each = choices < GROUPED;
    let slots = slots.slice(0..if is_each { choices } else { count });
    let constants = [
        ("LANES", LANES as u32),
        ("EXPERTS", count as u32),
        ("PLACES", all_places as u32),
        ("IS_EACH", u32::from(is_each)),
    ];
    let params = [choices, offered].map(|x| x as u32);
    enc.dispatch(&SLOTS, &constants, &[ids, order, &slots, list, chosen], &params, [1, 1, 1]);
    let (tiles, order) = if is_each { (slots, None) } else { group(enc, ids, count, Some(&slots), scratch) };
    let compute = |enc: &mut Encoder<'_>, experts: &GpuExperts| {
        placed_experts(enc, experts, x, &tiles, order.as_ref(), choices, k, activation, scratch);
    };

    let (most, most_missing) = (choices.min(count), choices.min(count - taken));
    fetch(enc, host, list, Coming::ToPlaces(most_missing.min(offered)), places, 0);
    compute(enc, places);
    // Places that are free are all taken; of others that are offered some may hold who is chosen, and is not missing.
    let most_left = if offered <= all_places - taken { most_missing } else { most };
    let landing = most_left.saturating_sub(offered);
    for first in (0..landing).step_by(landings.0.count) {
        let slots = all_places + first;
        let experts = landings.at_slot(slots);
        let count = landings.0.count.min(landing - first);
        fetch(enc, host, list, Coming::ToLandings { first, count }, &experts, slots);
        compute(enc, &experts);
    }
    combine_experts(enc, ids, weights, k, scratch, y);
}

/// Who of those that have to come is fetched.
#[derive(Clone, Copy)]
enum Coming {
    /// So many, at most.
    ToPlaces(usize),
    /// Of those that come to landings, so many from the `first` one on.
    ToLandings { first: usize, count: usize },
}

/// Vectors that an invocation brings.
const EACH: usize = 4;

/// Brings experts of the `list` to slots of `to`, whose memory begins with slot `first_slot`.
fn fetch(
    enc: &mut Encoder<'_>,
    host: &HostExperts,
    list: &View,
    coming: Coming,
    to: &GpuExperts,
    first_slot: usize,
) {
    if to.count == first_slot {
        return;
    }
    let (is_landing, first, most) = match coming {
        Coming::ToPlaces(count) => (0, 0, count),
        Coming::ToLandings { first, count } => (1, first, count),
    };
    let ends = host.pieces().ends();
    let constants = [
        ("LANES", LANES),
        ("QUADS", ends[5]),
        ("END0", ends[0]),
        ("END1", ends[1]),
        ("END2", ends[2]),
        ("END3", ends[3]),
        ("END4", ends[4]),
    ];
    let lens = ["LEN0", "LEN1", "LEN2", "LEN3", "LEN4", "LEN5"].into_iter().zip(host.pieces().0);
    let constants: Vec<_> =
        constants.into_iter().chain(lens).map(|(name, value)| (name, value as u32)).collect();
    let grid = [ends[5].div_ceil(EACH * LANES), most, 1].map(|x| x as u32);
    let [rows, down_rows] = [to.gate_up.rows(), to.down.rows()].map(|rows| rows / to.count);
    let none = enc.no_view();
    // Both matrices may lie in several buffers, which need not end at the same slots.
    let starts = to.gate_up.parts().iter().map(|part| part.first_row / rows);
    let down_starts = to.down.parts().iter().map(|part| part.first_row / down_rows);
    let mut starts: Vec<usize> = starts.chain(down_starts).chain([to.count]).collect();
    starts.sort_unstable();
    starts.dedup();
    for slots in starts.windows(2) {
        let [start, end] = [slots[0], slots[1]];
        let count = end - start;
        let [codes, params] = to.gate_up.places(start * rows, count * rows);
        let [down, down_params] = to.down.places(start * down_rows, count * down_rows);
        let bias = |of: &View, rows: usize| of.slice(start * rows..(end * rows).min(of.len()));
        let biases = to.biases.as_ref();
        let [gate_up_bias, down_bias] = biases
            .map_or([none.clone(), none.clone()], |to| [bias(&to.gate_up, rows), bias(&to.down, down_rows)]);
        for part in host.parts() {
            let params_of_part =
                [is_landing, first, most, part.first, part.count, start, count].map(|x| x as u32);
            let views = [&part.words, list, &codes, &params, &down, &down_params, &gate_up_bias, &down_bias];
            enc.dispatch(&FETCH, &constants, &views, &params_of_part, grid);
        }
    }
}
