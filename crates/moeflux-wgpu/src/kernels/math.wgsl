// What the exponential is made of; the same polynomial as the CPU's `math.rs`.

/// e^x within about two units in the last place: x = n·ln 2 + r, the Taylor polynomial of degree 7 for e^r, and 2^n in
/// two exact halves.
fn exponential(x: f32) -> f32 {
    let clamped = clamp(x, -104.0, 89.0);
    let n = round(clamped * 1.44269504);
    let r = fma(n, 2.12194440e-4, fma(n, -0.693359375, clamped));
    var p = 1.98412698e-4;
    p = fma(p, r, 1.38888889e-3);
    p = fma(p, r, 8.33333333e-3);
    p = fma(p, r, 4.16666667e-2);
    p = fma(p, r, 1.66666667e-1);
    p = fma(p, r, 0.5);
    let e_r = fma(p, r * r, r) + 1.0;
    let half = i32(n) >> 1u;
    return e_r * power_of_two(half) * power_of_two(i32(n) - half);
}

fn power_of_two(n: i32) -> f32 {
    return bitcast<f32>(u32(n + 127) << 23u);
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exponential(-x));
}

fn silu(x: f32) -> f32 {
    return x / (1.0 + exponential(-x));
}

/// ln(1 + e^x), and x itself above 20. With u = e^-|x|, ln(1 + u) = 2·artanh(u / (2 + u)) as a series.
fn softplus(x: f32) -> f32 {
    if (x > 20.0) {
        return x;
    }
    let u = exponential(-abs(x));
    let s = u / (2.0 + u);
    let square = s * s;
    var sum = 1.0 / 17.0;
    sum = fma(sum, square, 1.0 / 15.0);
    sum = fma(sum, square, 1.0 / 13.0);
    sum = fma(sum, square, 1.0 / 11.0);
    sum = fma(sum, square, 1.0 / 9.0);
    sum = fma(sum, square, 1.0 / 7.0);
    sum = fma(sum, square, 0.2);
    sum = fma(sum, square, 1.0 / 3.0);
    sum = fma(sum, square, 1.0);
    return max(x, 0.0) + 2.0 * s * sum;
}
