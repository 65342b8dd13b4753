//! CPU kernels of moeflux: plain functions over slices, float32 throughout, that know nothing of models or files.
//!
//! Bits depend on the arguments alone: not on how many tokens a call holds, on the number of threads or on the
//! processor's instruction set. To that end
//!
//! - every sum of floats has one order, written where the sum is ([`dot`](mod@dot) has the one for inner products);
//! - parallel tasks split outputs, never sums;
//! - a kernel has one portable body, compiled once per instruction set, and multiply and add are never fused; but in
//!   [`int8`], which has a body for each and fuses them on every processor.
//!
//! A slice whose length disagrees with the others' is a programming error and panics.
// A body is compiled for several instruction sets by being inlined into a function of each.
#![allow(clippy::inline_always)]
// Said once, above.
#![allow(clippy::missing_panics_doc)]

pub mod attention;
pub mod conv1d_silu;
pub mod dequant;
pub mod dot;
pub mod elementwise;
pub mod encoding;
pub mod experts;
mod flash;
pub mod gated_delta;
pub mod ggml;
pub mod head_linear;
pub mod instruction_set;
pub mod int8;
pub mod kv;
pub mod limits;
pub mod linear;
pub mod logits;
pub mod math;
pub mod matrix;
pub mod mla_attention;
pub mod norm;
pub mod pool;
pub mod precision;
pub mod quantize;
pub mod rope;
pub mod route;
mod softmax;
mod tile;
mod vector;
mod weighted_sum;

pub use attention::{AttentionShape, attention, kv_read, kv_write};
pub use conv1d_silu::conv1d_silu;
pub use dequant::decode_floats;
pub use elementwise::{add, add_to_rows, columns, scale_by_sigmoid, sigmoid_gate, swiglu};
pub use encoding::{Codebook, Encoding, Float, Packing, RowBytes};
pub use experts::{
    Activation, BATCH_EXPERTS, ExpertBiases, ExpertRun, ExpertScratch, ExpertWeights, ExpertsArgs, experts,
};
pub use flash::AttentionScratch;
pub use gated_delta::{DeltaRows, DeltaShape, GatedDeltaArgs, HeadOrder, decay_beta, gated_delta};
pub use ggml::Ggml;
pub use head_linear::{head_linear, head_linear_transposed, int8_head_linear};
pub use instruction_set::{InstructionSet, instruction_set, set_instruction_set};
pub use int8::{Int8Scratch, has_int8_products, int8_linear};
pub use kv::{DeviceFloats, F16, KV_BLOCK, KvBlock, KvType};
pub use limits::{float_rate, integer_rate, read_bandwidth};
pub use linear::{embed, linear};
pub use logits::{WEIGHED, first_logit, largest_logit, sum_of_exp, weigh_logits};
pub use matrix::{Matrix, MatrixError, RowRuns};
pub use mla_attention::{MlaShape, latent_write, mla_attention};
pub use norm::{gated_rms_norm, l2_norm, rms_norm};
pub use pool::{PoolError, ThreadPool};
pub use precision::Precision;
pub use quantize::{QuantizeError, quantize_row};
pub use rope::{RopeArgs, RopeLayout, rope};
pub use route::{ExpertGroups, GroupScore, Routing, Scores, Weighting, route};
