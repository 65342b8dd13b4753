//! CPU kernels of moeflux: plain functions over slices, float32 throughout, that know nothing of models or files.
//!
//! Bits depend on the arguments alone: not on how many tokens a call holds, on the number of threads or on the
//! processor's instruction set. To that end
//!
//! - every sum of floats has one order, written where the sum is ([`dot`](mod@dot) has the one for inner products);
//! - parallel tasks split outputs, never sums;
//! - a kernel has one portable body, compiled once per instruction set; multiply and add are never fused.
//!
//! A slice whose length disagrees with the others' is a programming error and panics.
// A body is compiled for several instruction sets by being inlined into a function of each.
#![allow(clippy::inline_always)]
// Said once, above.
#![allow(clippy::missing_panics_doc)]

pub mod attention;
pub mod delta;
pub mod dequant;
pub mod dot;
pub mod elementwise;
pub mod encoding;
pub mod experts;
pub mod ggml;
pub mod head_linear;
pub mod instruction_set;
pub mod linear;
pub mod math;
pub mod matrix;
pub mod mla;
pub mod norm;
pub mod pool;
pub mod quantize;
pub mod rope;
pub mod router;
mod softmax;
mod tile;
mod weighted_sum;

pub use attention::{AttentionShape, KV_BLOCK, attention, kv_write};
pub use delta::{DeltaShape, HeadOrder, causal_conv1d_silu, decay_and_beta, gated_delta_rule};
pub use dequant::decode_floats;
pub use elementwise::{add, add_to_rows, gather_columns, scale_rows_by_sigmoid, sigmoid_gate, swiglu};
pub use encoding::{Encoding, Float, RowBytes};
pub use experts::{Activation, ExpertBiases, ExpertScratch, ExpertWeights, experts};
pub use ggml::Ggml;
pub use head_linear::{head_linear, head_linear_transposed};
pub use instruction_set::{InstructionSet, instruction_set, set_instruction_set};
pub use linear::{embed, linear};
pub use matrix::{Matrix, MatrixError, RowRuns};
pub use mla::{MlaShape, latent_write, mla_attention};
pub use norm::{gated_rms_norm, l2_norm, rms_norm};
pub use pool::{PoolError, ThreadPool};
pub use quantize::{QuantizeError, quantize_row};
pub use rope::{RopeLayout, rope};
pub use router::{ExpertGroups, GroupScore, Routing, Scores, Weighting, route};
