use crate::support::{Gpu, Random};

pub(crate) fn the_largest_by_falling_value_then_by_index() {
    let (gpu, mut random) = (Gpu::new(), Random(10));
    for (rows, cols, k) in [(1, 1, 1), (3, 7, 7), (2, 2048, 64), (1, 151_936, 64), (2, 5000, 1024)] {
        let mut values = random.floats(rows * cols, 20.0);
        for (i, value) in values.iter_mut().enumerate() {
            match i % 5 {
                0 => *value = value.round(),
                1 if i % 35 == 1 => *value = f32::NAN,
                2 if i % 70 == 2 => *value = f32::NEG_INFINITY,
                _ => {}
            }
        }
        let gvalues = gpu.up(&values);
        let scratch = [(); 2].map(|()| {
            let len = moeflux_wgpu::top_k_scratch_len(rows, cols, k);
            (gpu.out(len), gpu.up_u32(&vec![0; len]))
        });
        let (gtop, gindices) = (gpu.out(rows * k), gpu.up_u32(&vec![0; rows * k]));
        gpu.run(|enc| moeflux_wgpu::top_k(enc, &gvalues, cols, k, &scratch, &gtop, &gindices));
        let (top, indices) = (gpu.down(&gtop), gpu.down_u32(&gindices));
        for row in 0..rows {
            let values = &values[row * cols..(row + 1) * cols];
            let mut expected: Vec<u32> = (0..cols as u32).collect();
            let key = |i: u32| {
                let value = values[i as usize];
                if value.is_nan() { (1, 0.0) } else { (0, -value) }
            };
            expected.sort_by(|&a, &b| key(a).partial_cmp(&key(b)).unwrap().then(a.cmp(&b)));
            assert_eq!(indices[row * k..(row + 1) * k], expected[..k]);
            for (value, &i) in top[row * k..].iter().zip(&expected[..k]) {
                let expected = values[i as usize];
                assert!(*value == expected || (value.is_nan() && expected.is_nan()));
            }
        }
    }
}
