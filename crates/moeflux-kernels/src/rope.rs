//! Rotary position embedding (Su et al. 2021).

/// Which two channels of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeLayout {
    /// Channel `i` with `i + rotary_dim/2`.
    HalfSplit,
    /// Channel `2·i` with `2·i + 1`.
    Interleaved,
}

/// Turns pair `i` of each head by the angle whose cosine and sine are `cos[t][i]` and `sin[t][i]`
/// (`[n, rotary_dim/2]`): `(a, b)` becomes `(a·cos - b·sin, b·cos + a·sin)`. `x` and `y` are `[n, heads, head_dim]`;
/// channels from `rotary_dim` on are copied.
pub fn rope(
    x: &[f32],
    heads: usize,
    head_dim: usize,
    rotary_dim: usize,
    layout: RopeLayout,
    cos: &[f32],
    sin: &[f32],
    y: &mut [f32],
) {
    let pairs = rotary_dim / 2;
    assert!(rotary_dim.is_multiple_of(2) && rotary_dim <= head_dim);
    assert!(x.len() == y.len() && cos.len() == sin.len() && x.len() * pairs == cos.len() * heads * head_dim);
    for (head, (x, y)) in x.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim)).enumerate() {
        let angles = head / heads * pairs..(head / heads + 1) * pairs;
        let turns = cos[angles.clone()].iter().zip(&sin[angles]);
        for (i, (cos, sin)) in turns.enumerate() {
            let (first, second) = match layout {
                RopeLayout::HalfSplit => (i, i + pairs),
                RopeLayout::Interleaved => (2 * i, 2 * i + 1),
            };
            let (a, b) = (x[first], x[second]);
            y[first] = a * cos - b * sin;
            y[second] = b * cos + a * sin;
        }
        y[rotary_dim..].copy_from_slice(&x[rotary_dim..]);
    }
}
