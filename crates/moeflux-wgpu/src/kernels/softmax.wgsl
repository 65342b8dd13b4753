// A softmax over scores that come block by block (the online softmax of FlashAttention, Dao et al. 2022).

/// Less than any score.
const NOTHING: f32 = -3.4028235e38;

/// The largest score so far, and the sum of weights relative to it.
struct Softmax {
    largest: f32,
    sum: f32,
}

/// The factors that the weights of one and of another now have.
fn merge(one: Softmax, other: Softmax) -> vec2<f32> {
    let largest = max(one.largest, other.largest);
    return vec2<f32>(exponential(one.largest - largest), exponential(other.largest - largest));
}

/// A sum of one's weighted values and another's. One that has seen nothing changes nothing.
fn merged_sum(one: f32, other: f32, factors: vec2<f32>) -> f32 {
    return fma(one, factors.x, other * factors.y);
}

fn merged_softmax(one: Softmax, other: Softmax, factors: vec2<f32>) -> Softmax {
    return Softmax(max(one.largest, other.largest), fma(one.sum, factors.x, other.sum * factors.y));
}
