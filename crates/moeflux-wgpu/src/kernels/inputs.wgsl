// What a product reads of x and of what is multiplied with it, value by value.

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read> up: array<f32>;

/// Four values, or as many as are left and zeros.
fn four_of_x(at: u32, left: u32) -> vec4<f32> {
    let i = p.x_at + at;
    if (IS_WHOLE || left >= 4u) {
        return vec4(x[i], x[i + 1u], x[i + 2u], x[i + 3u]);
    }
    var values = vec4<f32>(x[i], 0.0, 0.0, 0.0);
    if (left > 1u) {
        values.y = x[i + 1u];
    }
    if (left > 2u) {
        values.z = x[i + 2u];
    }
    return values;
}

fn four_of_up(at: u32, left: u32) -> vec4<f32> {
    let i = p.up_at + at;
    if (IS_WHOLE || left >= 4u) {
        return vec4(up[i], up[i + 1u], up[i + 2u], up[i + 3u]);
    }
    var values = vec4<f32>(up[i], 0.0, 0.0, 0.0);
    if (left > 1u) {
        values.y = up[i + 1u];
    }
    if (left > 2u) {
        values.z = up[i + 2u];
    }
    return values;
}
