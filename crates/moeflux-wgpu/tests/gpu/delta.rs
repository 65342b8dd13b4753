use moeflux_kernels::{self as cpu, DeltaShape, GatedDeltaArgs, HeadOrder};

use crate::support::{Gpu, POOL, Random, assert_close, bits};

pub(crate) fn decay_beta() {
    let (gpu, mut random) = (Gpu::new(), Random(6));
    for (n, heads) in [(1, 1), (3, 7), (65, 32)] {
        let (a, b) = (random.floats(n * heads, 25.0), random.floats(n * heads, 9.0));
        let (a_log, dt_bias) = (random.floats(heads, 3.0), random.floats(heads, 2.0));
        let views = [&a, &b, &a_log, &dt_bias].map(|x| gpu.up(x));
        let (decay, beta) = (gpu.out(a.len()), gpu.out(a.len()));
        gpu.run(|enc| {
            moeflux_wgpu::decay_beta(enc, &views[0], &views[1], &views[2], &views[3], &decay, &beta);
        });
        let (mut d, mut s) = (vec![0.0; a.len()], vec![0.0; a.len()]);
        cpu::decay_beta(&POOL, &a, &b, &a_log, &dt_bias, &mut d, &mut s);
        assert_close("decay", &gpu.down(&decay), &d);
        assert_close("beta", &gpu.down(&beta), &s);
    }
}

pub(crate) fn convolution() {
    let (gpu, mut random) = (Gpu::new(), Random(7));
    for (n, channels, kernel) in [(1, 1, 1), (1, 300, 4), (2, 70, 4), (7, 33, 3), (64, 8192, 4)] {
        let x = random.floats(n * channels, 2.0);
        let weight = random.floats(channels * kernel, 1.0);
        let state = random.floats((kernel - 1) * channels, 2.0);
        let (gx, gw, gs) = (gpu.up(&x), gpu.up(&weight), gpu.up(&state));
        let (gy, gnew, geach) = (gpu.out(x.len()), gpu.out(state.len()), gpu.out(n * state.len()));
        gpu.run(|enc| {
            moeflux_wgpu::conv1d_silu(enc, &gx, &gw, kernel, &gs, &geach, &gy);
            moeflux_wgpu::conv1d_silu(enc, &gx, &gw, kernel, &gs, &gnew, &gy);
        });
        let (mut y, mut new) = (vec![0.0; x.len()], vec![0.0; state.len()]);
        cpu::conv1d_silu(&POOL, &x, &weight, kernel, &state, &mut new, &mut y);
        assert_close(&format!("conv1d_silu {n}x{channels}"), &gpu.down(&gy), &y);
        assert_eq!(gpu.down(&gnew), new);
        let each = gpu.down(&geach);
        for t in 0..n {
            let x = &x[..(t + 1) * channels];
            cpu::conv1d_silu(&POOL, x, &weight, kernel, &state, &mut new, &mut y[..x.len()]);
            assert_eq!(each[t * new.len()..(t + 1) * new.len()], new, "after token {t}");
        }
    }
}

pub(crate) fn gated_delta() {
    let (gpu, mut random) = (Gpu::new(), Random(8));
    for (n, key_heads, value_heads, key_dim, value_dim, order) in [
        (1, 1, 1, 1, 1, HeadOrder::Grouped),
        (5, 2, 6, 20, 37, HeadOrder::Grouped),
        (6, 2, 6, 16, 16, HeadOrder::Tiled),
        (3, 16, 32, 128, 128, HeadOrder::Grouped),
        (40, 2, 4, 128, 128, HeadOrder::Tiled),
    ] {
        let shape = DeltaShape { key_heads, value_heads, key_dim, value_dim, order };
        let unit = |random: &mut Random| {
            let x = random.floats(n * key_heads * key_dim, 1.0);
            let mut y = vec![0.0; x.len()];
            cpu::l2_norm(&POOL, &x, key_dim, 1e-6, 1.0, &mut y);
            y
        };
        let (q, k) = (unit(&mut random), unit(&mut random));
        let v = random.floats(n * value_heads * value_dim, 2.0);
        let positive = |x: Vec<f32>| x.into_iter().map(f32::abs).collect::<Vec<_>>();
        let decay = positive(random.floats(n * value_heads, 1.0));
        let beta = positive(random.floats(n * value_heads, 1.0));
        let state = random.floats(value_heads * key_dim * value_dim, 1.0);
        let inputs = [&q, &k, &v, &decay, &beta, &state].map(|x| gpu.up(x));
        let run = |tokens: std::ops::Range<usize>, state: &moeflux_wgpu::View, states: usize| {
            let part = |view: &moeflux_wgpu::View| {
                let width = view.len() / n;
                view.slice(tokens.start * width..tokens.end * width)
            };
            let [q, k, v, decay, beta, _] = &inputs;
            let y = gpu.out(tokens.len() * value_heads * value_dim);
            let new = gpu.out(states * state.len());
            gpu.run(|enc| {
                let [q, k, v, decay, beta] = &[part(q), part(k), part(v), part(decay), part(beta)];
                let args = GatedDeltaArgs { q, k, v, decay, beta, shape: &shape, state };
                moeflux_wgpu::gated_delta(enc, &args, &new, &y);
            });
            (y, new)
        };
        let (gy, gnew) = run(0..n, &inputs[5], 1);
        let (mut y, mut new) = (vec![0.0; v.len()], vec![0.0; state.len()]);
        {
            let [q, k, v, decay, beta, state] = [&q, &k, &v, &decay, &beta, &state].map(|x| &x[..]);
            let args = GatedDeltaArgs { q, k, v, decay, beta, shape: &shape, state };
            cpu::gated_delta(&POOL, &args, &mut new, &mut y);
        }
        let (gy, gnew) = (gpu.down(&gy), gpu.down(&gnew));
        assert_close(&format!("gated_delta {shape:?}"), &gy, &y);
        assert_close("gated_delta's state", &gnew, &new);

        // Token by token, and with a state kept after each: the same bits.
        let each = gpu.down(&run(0..n, &inputs[5], n).1);
        let (mut state, mut outputs) = (inputs[5].clone(), Vec::new());
        for t in 0..n {
            let (y, new) = run(t..t + 1, &state, 1);
            outputs.extend(gpu.down(&y));
            state = new;
            assert_eq!(bits(&gpu.down(&state)), bits(&each[t * state.len()..][..state.len()]));
        }
        assert_eq!(bits(&outputs), bits(&gy));
        assert_eq!(bits(&gpu.down(&state)), bits(&gnew));
    }
}
