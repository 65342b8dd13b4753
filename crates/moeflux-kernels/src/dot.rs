//! Inner products, in the one order that all kernels use.
//!
//! Column `c` goes to lane `c mod 16`; each lane adds its products in column order, and the lanes are then added as
//! a tree: lane `l` takes lane `l + 8`, then `l + 4`, `l + 2`, `l + 1`.

/// Lanes of an inner product.
const LANES: usize = 16;
type Lanes = [f32; LANES];

/// The inner product of `a` and `b`, of one length.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let mut sum = [0.0; LANES];
    for (a, b) in a.as_chunks().0.iter().zip(b.as_chunks().0) {
        add_products(&mut sum, a, b);
    }
    let [sum] = finish(&[sum], tail(a), [tail(b)]);
    sum
}

/// Inner products of `a` with each of `b`. Four at once hide the latency of the additions.
#[inline(always)]
pub(crate) fn dot4(a: &[f32], b: [&[f32]; 4]) -> [f32; 4] {
    assert!(b.iter().all(|b| b.len() == a.len()));
    // Four variables, since the compiler does not always keep an array of sums in registers.
    let (mut s0, mut s1, mut s2, mut s3) = ([0.0; LANES], [0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let [b0, b1, b2, b3] = b.map(|b| b.as_chunks().0);
    for ((((a, b0), b1), b2), b3) in a.as_chunks().0.iter().zip(b0).zip(b1).zip(b2).zip(b3) {
        add_products(&mut s0, a, b0);
        add_products(&mut s1, a, b1);
        add_products(&mut s2, a, b2);
        add_products(&mut s3, a, b3);
    }
    finish(&[s0, s1, s2, s3], tail(a), b.map(tail))
}

/// The sum of squares: the inner product of `x` with itself.
#[inline(always)]
pub(crate) fn sum_of_squares(x: &[f32]) -> f32 {
    dot(x, x)
}

#[inline(always)]
fn add_products(sum: &mut Lanes, a: &Lanes, b: &Lanes) {
    for l in 0..LANES {
        sum[l] += a[l] * b[l];
    }
}

/// The columns after the last whole chunk.
#[inline(always)]
fn tail(x: &[f32]) -> &[f32] {
    x.as_chunks::<LANES>().1
}

/// Adds the products of the tails, then the lanes, as a tree.
///
/// Not inlined: knowing the tree, the compiler would transpose the sums for it inside the callers' loops.
#[inline(never)]
fn finish<const N: usize>(sums: &[Lanes; N], a_tail: &[f32], b_tails: [&[f32]; N]) -> [f32; N] {
    std::array::from_fn(|i| {
        let mut sum = sums[i];
        for ((sum, a), b) in sum.iter_mut().zip(a_tail).zip(b_tails[i]) {
            *sum += a * b;
        }
        let mut width = LANES / 2;
        while width > 0 {
            for l in 0..width {
                sum[l] += sum[l + width];
            }
            width /= 2;
        }
        sum[0]
    })
}
