// Needs `alpha` and `limit` among the immediates, and math.wgsl.

/// What an expert makes of its two products.
fn activated(value: f32, raw: f32) -> f32 {
    if (ACTIVATION == 1u) {
        return silu(value) * raw;
    }
    // A NaN passes.
    let gate = select(value, p.limit, value > p.limit);
    let above = select(raw, p.limit, raw > p.limit);
    let cut = select(above, -p.limit, above < -p.limit);
    return (cut + 1.0) * (gate * sigmoid(gate * p.alpha));
}
