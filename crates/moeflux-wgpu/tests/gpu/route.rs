use moeflux_kernels::{self as cpu, ExpertGroups, GroupScore, Routing, Scores, Weighting};

use crate::support::{Gpu, POOL, Random, assert_close};

/// Every way of routing, over logits some of which are equal.
pub(crate) fn the_same_experts_as_the_cpu() {
    let (gpu, mut random) = (Gpu::new(), Random(9));
    for (n, experts, k) in
        [(1, 1, 1), (3, 8, 2), (5, 12, 12), (33, 64, 6), (64, 256, 8), (9, 512, 10), (2, 320, 300)]
    {
        let mut logits = random.floats(n * experts, 6.0);
        for (i, logit) in logits.iter_mut().enumerate() {
            if i % 3 == 0 {
                *logit = (*logit * 2.0).round() / 2.0;
            }
        }
        logits[0] = -0.0;
        let bias = random.floats(experts, 0.1);
        let (glogits, gbias) = (gpu.up(&logits), gpu.up(&bias));
        for scores in [Scores::Softmax, Scores::Sigmoid, Scores::Logits] {
            for weighting in [Weighting::AsScored, Weighting::SumToOne, Weighting::Softmax] {
                for has_bias in [false, true] {
                    for groups in groups_of(experts, k) {
                        let routing = Routing {
                            scores,
                            groups,
                            num_experts_per_tok: k,
                            weighting,
                            scaling_factor: 2.5,
                        };
                        let (gids, gweights) = (gpu.up_u32(&vec![9999; n * k]), gpu.out(n * k));
                        let gbias = has_bias.then_some(&gbias);
                        gpu.run(|enc| {
                            moeflux_wgpu::route(enc, &glogits, experts, gbias, &routing, &gids, &gweights);
                        });
                        let (mut ids, mut weights) = (vec![0; n * k], vec![0.0; n * k]);
                        let bias = has_bias.then_some(bias.as_slice());
                        cpu::route(&POOL, &logits, experts, bias, &routing, &mut ids, &mut weights);
                        let name = format!("route {n}x{experts} {routing:?}");
                        assert_eq!(gpu.down_u32(&gids), ids, "{name}");
                        assert_close(&name, &gpu.down(&gweights), &weights);
                    }
                }
            }
        }
    }
}

fn groups_of(experts: usize, k: usize) -> Vec<Option<ExpertGroups>> {
    let mut groups = vec![None];
    if experts == 64 || experts == 256 {
        for score in [GroupScore::Max, GroupScore::TopTwo] {
            groups.push(Some(ExpertGroups { n_group: 8, topk_group: 4, score }));
        }
    }
    if experts == 8 {
        // Fewer experts in the best group than are asked for take some from others.
        groups.push(Some(ExpertGroups { n_group: 8, topk_group: k - 1, score: GroupScore::Max }));
    }
    groups
}
