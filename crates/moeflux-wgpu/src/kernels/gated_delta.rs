//! The gated delta rule (Yang et al. 2024).

use moeflux_kernels::{DeltaShape, GatedDeltaArgs, HeadOrder};

use crate::{Encoder, Program, View};

static GATED_DELTA: Program =
    Program { name: "gated_delta", entry: "main", source: &[include_str!("gated_delta.wgsl")] };

/// Value channels of a workgroup.
const CHANNELS: usize = 16;
/// Invocations that share a channel's key.
const PARTS: usize = 8;

/// The gated delta rule: for each value head and token in turn, with a state `S` of `[key_dim, value_dim]`,
/// `S ← decay·S`, `S ← S + k ⊗ (beta·(v - Sᵀk))`, `y = Sᵀq`.
///
/// `y` is `[n, value_heads, value_dim]`. `new_states` gets the state after the last token if it has room for one, the state after
/// each if it has room for `n`.
pub fn gated_delta(enc: &mut Encoder<'_>, args: &GatedDeltaArgs<'_, &View>, new_states: &View, y: &View) {
    let GatedDeltaArgs { q, k, v, decay, beta, shape, state } = *args;
    let DeltaShape { key_heads, value_heads, key_dim, value_dim, order } = *shape;
    let n = decay.len() / value_heads;
    let states = new_states.len() / state.len();
    assert!(value_heads.is_multiple_of(key_heads));
    assert!(decay.len() == n * value_heads && beta.len() == decay.len());
    assert!(q.len() == n * key_heads * key_dim && k.len() == q.len());
    assert!(v.len() == n * value_heads * value_dim && y.len() == v.len());
    assert!(state.len() == value_heads * key_dim * value_dim && new_states.len() == states * state.len());
    assert!(states == 1 || states == n);
    let grouped = match order {
        HeadOrder::Grouped => value_heads / key_heads,
        HeadOrder::Tiled => 0,
    };
    let constants =
        [("CHANNELS", CHANNELS as u32), ("PARTS", PARTS as u32), ("KEYS", key_dim.div_ceil(PARTS) as u32)];
    let params = [n, key_heads, value_heads, key_dim, value_dim, states, grouped].map(|x| x as u32);
    let views = [q, k, v, decay, beta, state, new_states, y];
    let groups = [value_dim.div_ceil(CHANNELS) as u32, value_heads as u32, 1];
    enc.dispatch(&GATED_DELTA, &constants, &views, &params, groups);
}
