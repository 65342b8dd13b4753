//! The kernels: one file an operation or a close group of them, beside its shader, under the names of the CPU's.

pub mod attention;
pub mod columns;
pub mod conv1d_silu;
pub mod decay_beta;
pub mod elementwise;
pub mod experts;
pub mod gated_delta;
pub mod host_read;
pub mod linear;
pub mod norm;
pub mod rope;
pub mod route;
pub mod select_outputs;
pub mod top_k;

pub use attention::{AttentionArgs, KvView, attention, kv_write, latent_write, mla_attention};
pub use columns::{columns, concat};
pub use conv1d_silu::conv1d_silu;
pub use decay_beta::decay_beta;
pub use elementwise::{add, scale_by_sigmoid, sigmoid_gate, swiglu};
pub use experts::{
    ExpertScratch, GpuExpertBiases, GpuExperts, PlacedChoices, combine_experts, experts, placed_experts,
};
pub use gated_delta::gated_delta;
pub use host_read::{
    HostReadExperts, HostReadScratch, Landings, NOBODY, PlaceTable, chosen_words, host_read_experts,
};
pub use linear::{embed, head_linear, head_linear_transposed, linear, swiglu_linear};
pub use norm::{add_rms_norm, gated_rms_norm, l2_norm, rms_norm};
pub use rope::rope;
pub use route::route;
pub use select_outputs::select_outputs;
pub use top_k::{MAX_TOP_K, top_k, top_k_scratch_len};

/// What shaders share.
pub(crate) const MATH: &str = include_str!("math.wgsl");
pub(crate) const ACTIVATED: &str = include_str!("activated.wgsl");
pub(crate) const WEIGHTS: &str = concat!(include_str!("scales.wgsl"), include_str!("weights.wgsl"));
pub(crate) const ORDER: &str = include_str!("order.wgsl");
pub(crate) const ELEMENT: &str = include_str!("element.wgsl");

/// Workgroups in a row of the grid: more than one row where there are more of them than a dimension may have.
pub(crate) const GRID_ROW: u32 = 32_768;

/// A grid of so many workgroups, in rows of [`GRID_ROW`]; what is past the last one has nothing to do.
pub(crate) fn grid(workgroups: usize) -> [u32; 3] {
    let row = GRID_ROW as usize;
    if workgroups <= row { [workgroups as u32, 1, 1] } else { [GRID_ROW, workgroups.div_ceil(row) as u32, 1] }
}

/// Invocations of a workgroup where each has a value of its own.
pub(crate) const LANES: usize = 256;

/// Constants of shaders in which each invocation has a value of its own.
pub(crate) const EACH: [(&str, u32); 2] = [("LANES", LANES as u32), ("GRID_ROW", GRID_ROW)];
