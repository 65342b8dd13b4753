use moeflux_kernels::{self as cpu, Encoding, Float, Matrix};
use moeflux_wgpu::GpuMatrix;

use crate::support::{Gpu, POOL, Random, assert_close, bits};
use crate::weights::Weights;

/// Every encoding that shaders read, and some that are widened.
fn encodings() -> Vec<Encoding> {
    let mut all: Vec<_> = [Float::F32, Float::F16, Float::Bf16].map(Encoding::Float).into();
    for bits in [2, 3, 4, 5, 6, 8] {
        all.push(Encoding::Affine { bits, group: 64, params: Float::Bf16 });
    }
    for (group, params) in [(32, Float::F16), (128, Float::F32)] {
        all.push(Encoding::Affine { bits: 4, group, params });
    }
    all.extend([Encoding::Mxfp4, Encoding::Mxfp8, Encoding::Nvfp4]);
    all
}

pub(crate) fn linear_is_the_cpus_and_does_not_depend_on_the_number_of_rows() {
    let (gpu, mut random) = (Gpu::new(), Random(11));
    for encoding in encodings() {
        let group = encoding.group();
        let mut shapes = vec![(1, group), (37, if group == 1 { 77 } else { group * 3 }), (130, 640)];
        if encoding.bits() == 4 {
            // More groups than chains, and not as many for each.
            shapes.push((5, 4224));
        }
        for (rows, cols) in shapes {
            let weights = Weights::random(&mut random, rows, cols, encoding);
            let w = weights.matrix();
            let on_device = GpuMatrix::upload(&gpu.0, "w", &w).unwrap();
            let x = random.floats(64 * cols, 1.0);
            let bias = random.floats(rows, 1.0);
            let (gx, gbias) = (gpu.up(&x), gpu.up(&bias));
            let mut expected = vec![0.0; 64 * rows];
            cpu::linear(&POOL, &w, &x, &mut expected);
            let mut all = Vec::new();
            for n in [64, 1, 2, 7, 33] {
                let y = gpu.out(n * rows);
                gpu.run(|enc| moeflux_wgpu::linear(enc, &on_device, None, &gx.slice(0..n * cols), &y));
                let y = gpu.down(&y);
                assert_close(&format!("{encoding:?} {rows} {cols} {n}"), &y, &expected[..n * rows]);
                if all.is_empty() {
                    all.clone_from(&y);
                }
                assert_eq!(bits(&y), bits(&all[..n * rows]), "{encoding:?}: {n} rows");
            }
            let y = gpu.out(64 * rows);
            gpu.run(|enc| moeflux_wgpu::linear(enc, &on_device, Some(&gbias), &gx, &y));
            cpu::add_to_rows(&bias, &mut expected);
            assert_close("with bias", &gpu.down(&y), &expected);
        }
    }
}

/// Many rows go by tiles, of sizes that follow from shapes; one row has the same bits.
pub(crate) fn tiles_give_the_bits_of_a_row_by_itself() {
    let (gpu, mut random) = (Gpu::new(), Random(16));
    let affine = |bits| Encoding::Affine { bits, group: 64, params: Float::Bf16 };
    for (n, rows, cols, encoding) in [
        (1030, 1410, 128, affine(4)),
        (500, 1500, 192, affine(4)),
        (450, 450, 4224, affine(4)),
        (450, 450, 320, affine(8)),
        (500, 1500, 96, Encoding::Mxfp4),
        (450, 450, 77, Encoding::Float(Float::F16)),
    ] {
        let weights = Weights::random(&mut random, rows, cols, encoding);
        let w = weights.matrix();
        let on_device = GpuMatrix::upload(&gpu.0, "w", &w).unwrap();
        let x = random.floats(n * cols, 1.0);
        let (gx, y) = (gpu.up(&x), gpu.out(n * rows));
        gpu.run(|enc| moeflux_wgpu::linear(enc, &on_device, None, &gx, &y));
        let mut expected = vec![0.0; n * rows];
        cpu::linear(&POOL, &w, &x, &mut expected);
        let all = gpu.down(&y);
        assert_close(&format!("{encoding:?} {n} {rows} {cols}"), &all, &expected);
        for row in [0, 33, n - 1] {
            let y = gpu.out(rows);
            let x = gx.slice(row * cols..(row + 1) * cols);
            gpu.run(|enc| moeflux_wgpu::linear(enc, &on_device, None, &x, &y));
            assert_eq!(
                bits(&gpu.down(&y)),
                bits(&all[row * rows..(row + 1) * rows]),
                "{encoding:?}: row {row}"
            );
        }
    }
}

/// Matrices that lie together give what each gives.
pub(crate) fn joined_matrices_are_one_and_each() {
    let (gpu, mut random) = (Gpu::new(), Random(17));
    let encoding = Encoding::Affine { bits: 4, group: 64, params: Float::Bf16 };
    let parts = [130, 1, 40].map(|rows| Weights::random(&mut random, rows, 256, encoding));
    let (whole, each) =
        GpuMatrix::joined(&gpu.0, "w", &parts.each_ref().map(Weights::matrix)).unwrap().unwrap();
    let (x, y) = (gpu.up(&random.floats(256, 1.0)), gpu.out(171));
    gpu.run(|enc| moeflux_wgpu::linear(enc, &whole, None, &x, &y));
    let all = gpu.down(&y);
    let mut start = 0;
    for (weights, part) in parts.iter().zip(&each) {
        let alone = GpuMatrix::upload(&gpu.0, "w", &weights.matrix()).unwrap();
        for w in [part, &alone] {
            let y = gpu.out(w.rows());
            gpu.run(|enc| moeflux_wgpu::linear(enc, w, None, &x, &y));
            assert_eq!(bits(&gpu.down(&y)), bits(&all[start..start + w.rows()]));
        }
        start += part.rows();
    }
    let other = Weights::random(&mut random, 8, 256, Encoding::Float(Float::F16));
    assert!(GpuMatrix::joined(&gpu.0, "w", &[parts[0].matrix(), other.matrix()]).unwrap().is_none());
}

pub(crate) fn rows_of_an_embedding_are_exact() {
    let (gpu, mut random) = (Gpu::new(), Random(12));
    for encoding in encodings() {
        let cols = if encoding.group() == 1 { 45 } else { 384 };
        let weights = Weights::random(&mut random, 19, cols, encoding);
        let w = weights.matrix();
        let on_device = GpuMatrix::upload(&gpu.0, "w", &w).unwrap();
        let ids = [18, 0, 7, 7];
        let (gids, y) = (gpu.up_u32(&ids), gpu.out(4 * cols));
        gpu.run(|enc| moeflux_wgpu::embed(enc, &on_device, &gids, &y));
        let mut expected = vec![0.0; 4 * cols];
        cpu::embed(&w, &ids, &mut expected);
        assert_close(&format!("{encoding:?}"), &gpu.down(&y), &expected);
    }
}

pub(crate) fn each_head_has_its_matrix() {
    let (gpu, mut random) = (Gpu::new(), Random(13));
    let encodings =
        [Encoding::Float(Float::Bf16), Encoding::Affine { bits: 4, group: 32, params: Float::F16 }];
    for encoding in encodings {
        for (heads, rows, cols) in [(1, 5, 32), (3, 33, 64), (8, 128, 512)] {
            let weights = Weights::random(&mut random, heads * rows, cols, encoding);
            let w = weights.matrix();
            let on_device = GpuMatrix::upload_heads(&gpu.0, "w", &w, heads).unwrap();
            for n in [1, 3, 21] {
                let x = random.floats(n * heads * cols, 1.0);
                let (gx, y) = (gpu.up(&x), gpu.out(n * heads * rows));
                gpu.run(|enc| moeflux_wgpu::head_linear(enc, &on_device, heads, &gx, &y));
                let mut expected = vec![0.0; n * heads * rows];
                cpu::head_linear(&POOL, &w, heads, &x, &mut expected);
                assert_close("head_linear", &gpu.down(&y), &expected);

                let x = random.floats(n * heads * rows, 1.0);
                let (gx, y) = (gpu.up(&x), gpu.out(n * heads * cols));
                gpu.run(|enc| moeflux_wgpu::head_linear_transposed(enc, &on_device, heads, &gx, &y));
                let mut expected = vec![0.0; n * heads * cols];
                cpu::head_linear_transposed(&POOL, &w, heads, &x, &mut expected);
                assert_close("head_linear_transposed", &gpu.down(&y), &expected);
            }
        }
    }
}

pub(crate) fn a_stack_of_two_encodings_is_refused() {
    let (gpu, mut random) = (Gpu::new(), Random(14));
    let a = Weights::random(&mut random, 2, 64, Encoding::Mxfp4);
    let b = Weights::random(&mut random, 2, 64, Encoding::Float(Float::F16));
    let stack: [Matrix<'_>; 2] = [a.matrix(), b.matrix()];
    let error = GpuMatrix::stack(&gpu.0, "experts", &stack, 1).unwrap_err();
    assert!(error.to_string().contains("experts"), "{error}");
}

/// A SwiGLU computed by the product that reads it has the bits of one computed before.
pub(crate) fn a_product_of_a_swiglu_is_that_of_two_dispatches() {
    let (gpu, mut random) = (Gpu::new(), Random(15));
    let encoding = Encoding::Affine { bits: 4, group: 64, params: Float::Bf16 };
    let weights = Weights::random(&mut random, 130, 640, encoding);
    let w = GpuMatrix::upload(&gpu.0, "w", &weights.matrix()).unwrap();
    for n in [1, 4, 20] {
        let [gate, up] = [3.0, 1.0].map(|scale| gpu.up(&random.floats(n * 640, scale)));
        let (act, y, y_alone) = (gpu.out(n * 640), gpu.out(n * 130), gpu.out(n * 130));
        gpu.run(|enc| {
            moeflux_wgpu::swiglu_linear(enc, &w, None, &gate, &up, &y);
            moeflux_wgpu::swiglu(enc, &gate, &up, &act);
            moeflux_wgpu::linear(enc, &w, None, &act, &y_alone);
        });
        assert_eq!(bits(&gpu.down(&y)), bits(&gpu.down(&y_alone)), "{n} rows");
    }
}
