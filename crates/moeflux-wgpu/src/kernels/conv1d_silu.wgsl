// Causal depthwise convolution over tokens, then SiLU: y[t][c] = silu(Σ_j weight[c][j] · input[t + j][c]), where the
// inputs are the KERNEL - 1 kept from before and then those of x. Taps are summed from the oldest on.
//
// Invocations past the last token's write the states: the last KERNEL - 1 inputs after the last token, or after each.

struct Params {
    x_at: u32,
    weight_at: u32,
    state_at: u32,
    new_state_at: u32,
    y_at: u32,
    tokens: u32,
    channels: u32,
    states: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> state: array<f32>;
@group(0) @binding(3) var<storage, read_write> new_state: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
var<immediate> p: Params;

const HISTORY: u32 = KERNEL - 1u;

fn input(i: u32, channel: u32) -> f32 {
    if (i < HISTORY) {
        return state[p.state_at + i * p.channels + channel];
    }
    return x[p.x_at + (i - HISTORY) * p.channels + channel];
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = element(group, lane);
    let row = i / p.channels;
    let channel = i % p.channels;
    if (row < p.tokens) {
        var sum = 0.0;
        for (var tap = 0u; tap < KERNEL; tap++) {
            sum = fma(weight[p.weight_at + channel * KERNEL + tap], input(row + tap, channel), sum);
        }
        y[p.y_at + i] = silu(sum);
    } else if (row < p.tokens + p.states * HISTORY) {
        let kept = row - p.tokens;
        // Of the last token if one state is kept, of each otherwise.
        let token = p.tokens - p.states + kept / max(HISTORY, 1u);
        let value = input(token + 1u + kept % max(HISTORY, 1u), channel);
        new_state[p.new_state_at + kept * p.channels + channel] = value;
    }
}
