use moeflux_kernels::{self as cpu, RopeArgs, RopeLayout};

use crate::support::{Gpu, POOL, Random, assert_close};

pub(crate) fn each_value_by_itself() {
    let (gpu, mut random) = (Gpu::new(), Random(3));
    for (rows, width) in [(1, 1), (3, 5), (7, 300), (64, 2048)] {
        let n = rows * width;
        let (mut a, b, scores) = (random.floats(n, 90.0), random.floats(n, 4.0), random.floats(rows, 6.0));
        a[0] = 0.0;
        let (ga, gb, gs) = (gpu.up(&a), gpu.up(&b), gpu.up(&scores));
        let out: Vec<_> = (0..4).map(|_| gpu.out(n)).collect();
        gpu.run(|enc| {
            moeflux_wgpu::add(enc, &ga, &gb, &out[0]);
            moeflux_wgpu::swiglu(enc, &ga, &gb, &out[1]);
            moeflux_wgpu::sigmoid_gate(enc, &ga, &gb, &out[2]);
            moeflux_wgpu::scale_by_sigmoid(enc, &ga, &gs, &out[3]);
        });
        let mut y = vec![0.0; n];
        cpu::add(&POOL, &a, &b, &mut y);
        assert_eq!(gpu.down(&out[0]), y);
        cpu::swiglu(&POOL, &a, &b, &mut y);
        assert_close("swiglu", &gpu.down(&out[1]), &y);
        cpu::sigmoid_gate(&POOL, &a, &b, &mut y);
        assert_close("sigmoid_gate", &gpu.down(&out[2]), &y);
        cpu::scale_by_sigmoid(&POOL, &a, &scores, &mut y);
        assert_close("scale_by_sigmoid", &gpu.down(&out[3]), &y);
    }
}

pub(crate) fn copies_are_exact() {
    let (gpu, mut random) = (Gpu::new(), Random(4));
    for (rows, group, groups, parts) in [
        (1, 1, 1, vec![0..1]),
        (5, 7, 3, vec![2..7, 0..2]),
        (9, 256, 16, vec![0..128]),
        (2, 12, 1, vec![4..5]),
    ] {
        let cols = group * groups;
        let x = random.floats(rows * cols, 1.0);
        let n = rows * groups * parts.iter().map(std::ops::Range::len).sum::<usize>();
        let (gx, y) = (gpu.up(&x), gpu.out(n));
        gpu.run(|enc| moeflux_wgpu::columns(enc, &gx, cols, group, &parts, &y));
        let mut expected = vec![0.0; n];
        cpu::columns(&POOL, &x, cols, group, &parts, &mut expected);
        assert_eq!(gpu.down(&y), expected);
    }
    let x = random.floats(11 * 33, 1.0);
    let (gx, rows, y) = (gpu.up(&x), gpu.up_u32(&[10, 0, 3]), gpu.out(3 * 33));
    gpu.run(|enc| moeflux_wgpu::select_outputs(enc, &gx, 33, &rows, &y));
    assert_eq!(gpu.down(&y), [&x[330..], &x[..33], &x[99..132]].concat());
}

pub(crate) fn rope_turns_as_on_the_cpu() {
    let (gpu, mut random) = (Gpu::new(), Random(5));
    for (n, heads, head_dim, rotary_dim) in [(1, 1, 2, 2), (5, 3, 10, 6), (64, 16, 256, 64), (3, 2, 128, 128)]
    {
        let (x, pairs) = (random.floats(n * heads * head_dim, 2.0), rotary_dim / 2);
        let (cos, sin) = (random.floats(n * pairs, 1.0), random.floats(n * pairs, 1.0));
        let (gx, gcos, gsin, gy) = (gpu.up(&x), gpu.up(&cos), gpu.up(&sin), gpu.out(x.len()));
        for layout in [RopeLayout::HalfSplit, RopeLayout::Interleaved] {
            gpu.run(|enc| {
                let (x, cos, sin) = (&gx, &gcos, &gsin);
                moeflux_wgpu::rope(enc, &RopeArgs { x, heads, head_dim, rotary_dim, layout, cos, sin }, &gy);
            });
            let mut y = vec![0.0; x.len()];
            let (x, cos, sin) = (x.as_slice(), cos.as_slice(), sin.as_slice());
            cpu::rope(&POOL, &RopeArgs { x, heads, head_dim, rotary_dim, layout, cos, sin }, &mut y);
            assert_close("rope", &gpu.down(&gy), &y);
        }
    }
}
