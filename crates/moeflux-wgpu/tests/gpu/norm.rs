use moeflux_kernels as cpu;

use crate::support::{Gpu, POOL, Random, assert_close, bits};

pub(crate) fn norms_are_those_of_the_cpu() {
    let (gpu, mut random) = (Gpu::new(), Random(1));
    for (rows, dim) in [(1, 1), (3, 16), (7, 129), (512, 128), (1, 2048), (5, 7168)] {
        let (x, gate) = (random.floats(rows * dim, 3.0), random.floats(rows * dim, 8.0));
        let weight = random.floats(dim, 2.0);
        let (gx, ggate, gweight) = (gpu.up(&x), gpu.up(&gate), gpu.up(&weight));
        let (rms, gated, l2) = (gpu.out(rows * dim), gpu.out(rows * dim), gpu.out(rows * dim));
        gpu.run(|enc| {
            moeflux_wgpu::rms_norm(enc, &gx, &gweight, 1e-6, &rms);
            moeflux_wgpu::gated_rms_norm(enc, &gx, &ggate, &gweight, 1e-6, &gated);
            moeflux_wgpu::l2_norm(enc, &gx, dim, 1e-6, 0.25, &l2);
        });
        let mut y = vec![0.0; rows * dim];
        cpu::rms_norm(&POOL, &x, &weight, 1e-6, &mut y);
        assert_close(&format!("rms_norm {rows}x{dim}"), &gpu.down(&rms), &y);
        cpu::gated_rms_norm(&POOL, &x, &gate, &weight, 1e-6, &mut y);
        assert_close(&format!("gated_rms_norm {rows}x{dim}"), &gpu.down(&gated), &y);
        cpu::l2_norm(&POOL, &x, dim, 1e-6, 0.25, &mut y);
        assert_close(&format!("l2_norm {rows}x{dim}"), &gpu.down(&l2), &y);
    }
}

pub(crate) fn a_row_has_the_same_bits_alone_and_among_others() {
    let (gpu, mut random) = (Gpu::new(), Random(2));
    let (rows, dim) = (64, 200);
    let (x, weight) = (gpu.up(&random.floats(rows * dim, 1.0)), gpu.up(&random.floats(dim, 1.0)));
    let (all, one) = (gpu.out(rows * dim), gpu.out(dim));
    gpu.run(|enc| {
        moeflux_wgpu::rms_norm(enc, &x, &weight, 1e-6, &all);
        moeflux_wgpu::rms_norm(enc, &x.slice(37 * dim..38 * dim), &weight, 1e-6, &one);
    });
    assert_eq!(bits(&gpu.down(&all)[37 * dim..38 * dim]), bits(&gpu.down(&one)));
}

/// Two operations in one dispatch have the bits of both by themselves.
pub(crate) fn a_sum_and_its_norm_are_those_of_two_dispatches() {
    let (gpu, mut random) = (Gpu::new(), Random(3));
    for (rows, dim) in [(1, 2048), (5, 129)] {
        let [a, b] = [1.0, 2.0].map(|scale| gpu.up(&random.floats(rows * dim, scale)));
        let weight = gpu.up(&random.floats(dim, 1.0));
        let [sum, norm, sum_alone, norm_alone] = [0; 4].map(|_| gpu.out(rows * dim));
        gpu.run(|enc| {
            moeflux_wgpu::add_rms_norm(enc, &a, &b, &weight, 1e-6, &sum, &norm);
            moeflux_wgpu::add(enc, &a, &b, &sum_alone);
            moeflux_wgpu::rms_norm(enc, &sum_alone, &weight, 1e-6, &norm_alone);
        });
        assert_eq!(bits(&gpu.down(&sum)), bits(&gpu.down(&sum_alone)));
        assert_eq!(bits(&gpu.down(&norm)), bits(&gpu.down(&norm_alone)));
    }
}
