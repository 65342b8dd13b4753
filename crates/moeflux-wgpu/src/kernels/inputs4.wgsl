// What a product reads of x and of what is multiplied with it, four values at a time: where rows are whole units, and begin
// where vectors do.

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> up: array<vec4<f32>>;

fn four_of_x(at: u32, left: u32) -> vec4<f32> {
    return x[(p.x_at + at) / 4u];
}

fn four_of_up(at: u32, left: u32) -> vec4<f32> {
    return up[(p.up_at + at) / 4u];
}
