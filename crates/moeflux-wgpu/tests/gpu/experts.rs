use std::collections::{BTreeSet, VecDeque};

use moeflux_kernels::{
    self as cpu, Activation, Encoding, ExpertBiases, ExpertWeights, ExpertsArgs, Float, Matrix, Precision,
};
use moeflux_wgpu::{
    ExpertScratch, GpuExpertBiases, GpuExperts, GpuMatrix, HostExperts, HostReadExperts, HostReadScratch,
    Landings, NOBODY, PlaceTable, PlacedChoices, Uploads, View, chosen_words, combine_experts,
    host_read_experts, placed_experts,
};

use crate::support::{Gpu, POOL, Random, assert_close, bits};
use crate::weights::Weights;

pub(crate) fn experts_are_the_cpus_and_do_not_depend_on_the_number_of_tokens() {
    let (gpu, mut random) = (Gpu::new(), Random(21));
    let affine = Encoding::Affine { bits: 4, group: 64, params: Float::Bf16 };
    let clamped = Activation::ClampedSwiglu { alpha: 1.702, limit: 0.7 };
    for (encoding, activation, count, k, hidden, intermediate) in [
        (affine, Activation::Swiglu, 32, 8, 256, 128),
        (Encoding::Mxfp4, clamped, 5, 3, 96, 64),
        (Encoding::Float(Float::Bf16), Activation::Swiglu, 3, 1, 40, 24),
        (Encoding::Float(Float::Bf16), clamped, 4, 2, 41, 23),
    ] {
        let maps = |random: &mut Random, rows, cols| -> Vec<Weights> {
            (0..count).map(|_| Weights::random(random, rows, cols, encoding)).collect()
        };
        let gate = maps(&mut random, intermediate, hidden);
        let up = maps(&mut random, intermediate, hidden);
        let down = maps(&mut random, hidden, intermediate);
        let float = Encoding::Float(Float::F32);
        let biases = (activation != Activation::Swiglu).then(|| {
            [intermediate, intermediate, hidden].map(|rows| {
                (0..count).map(|_| Weights::random(&mut random, rows, 1, float)).collect::<Vec<_>>()
            })
        });
        let stack = |maps: &[&[Weights]]| {
            let maps: Vec<Matrix<'_>> =
                (0..count).flat_map(|id| maps.iter().map(move |maps| maps[id].matrix())).collect();
            GpuMatrix::stack(&gpu.0, "experts", &maps, maps.len() / count).unwrap()
        };
        let column = |maps: &[&[Weights]]| {
            let values = (0..count).flat_map(|id| maps.iter().flat_map(move |maps| maps[id].values()));
            gpu.up(&values.collect::<Vec<f32>>())
        };
        let on_device = GpuExperts {
            count,
            gate_up: stack(&[&gate, &up]),
            down: stack(&[&down]),
            biases: biases.as_ref().map(|[gate, up, down]| GpuExpertBiases {
                gate_up: column(&[gate, up]),
                down: column(&[down]),
            }),
        };
        let expert = |id: u32| {
            let id = id as usize;
            ExpertWeights {
                gate: gate[id].matrix(),
                up: up[id].matrix(),
                down: down[id].matrix(),
                biases: biases.as_ref().map(|[gate, up, down]| ExpertBiases {
                    gate: gate[id].matrix(),
                    up: up[id].matrix(),
                    down: down[id].matrix(),
                }),
            }
        };
        let tokens = 70;
        let x = random.floats(tokens * hidden, 1.0);
        let weights = random.floats(tokens * k, 1.0);
        let ids: Vec<u32> = (0..tokens)
            .flat_map(|_| {
                let mut left: Vec<u32> = (0..count as u32).collect();
                (0..k).map(|_| left.swap_remove(random.next() as usize % left.len())).collect::<Vec<_>>()
            })
            .collect();
        let mut expected = vec![0.0; tokens * hidden];
        let mut scratch = cpu::ExpertScratch::default();
        cpu::experts(
            &POOL,
            ExpertsArgs { x: &x[..], indices: &ids[..], weights: &weights[..], k, activation },
            expert,
            Precision::Exact,
            &mut scratch,
            &mut expected,
        );
        let scratch = ExpertScratch::new(&gpu.0, tokens * k, hidden, intermediate, count).unwrap();
        let (gx, gids, gweights) = (gpu.up(&x), gpu.up_u32(&ids), gpu.up(&weights));
        let mut all = Vec::new();
        for n in [tokens, 1, 2, 9] {
            let y = gpu.out(n * hidden);
            gpu.run(|enc| {
                let (x, ids) = (gx.slice(0..n * hidden), gids.slice(0..n * k));
                let weights = gweights.slice(0..n * k);
                let args = ExpertsArgs { x: &x, indices: &ids, weights: &weights, k, activation };
                moeflux_wgpu::experts(enc, &on_device, &args, &scratch, &y);
            });
            let y = gpu.down(&y);
            assert_close(&format!("experts in {encoding:?}, {n} tokens"), &y, &expected[..n * hidden]);
            if all.is_empty() {
                all.clone_from(&y);
            }
            assert_eq!(bits(&y), bits(&all[..n * hidden]), "{n} tokens");
        }
        // The same in places, in another order, some experts after the others, each where another one was before.
        let slots = GpuExperts::alloc(&gpu.0, "places", count, &expert(0)).unwrap();
        let one = GpuExperts::bytes_of_one(&expert(0));
        let place = |id: u32| (id + 2) % count as u32;
        let mut uploads = Uploads::new(&gpu.0, one);
        for n in [tokens, 2] {
            let (x, ids_of_n) = (gx.slice(0..n * hidden), &ids[..n * k]);
            let y = gpu.out(n * hidden);
            let mut upload = |ids: &[u32], place_of: &dyn Fn(u32) -> u32| {
                let mut enc = gpu.0.encoder();
                let experts: Vec<_> = ids.iter().map(|&id| (place_of(id), expert(id))).collect();
                let bytes = uploads.record(&mut enc, &POOL, &slots, &experts).unwrap();
                assert_eq!(bytes, one * ids.len() as u64);
                uploads.submit(&gpu.0, enc).unwrap();
            };
            let every: Vec<u32> = (0..count as u32).collect();
            upload(&every, &|id| count as u32 - 1 - id);
            for part in every.chunks(count.div_ceil(2)) {
                upload(part, &place);
                let placed = |id: &u32| part.contains(id).then(|| place(*id));
                let PlacedChoices { tiles, order } =
                    PlacedChoices::new(&ids_of_n.iter().map(placed).collect::<Vec<_>>());
                let (tiles, order): (View, View) = (gpu.up_u32(&tiles), gpu.up_u32(&order));
                let order = (!order.is_empty()).then_some(&order);
                gpu.run(|enc| {
                    placed_experts(enc, &slots, &x, &tiles, order, n * k, k, activation, &scratch);
                });
            }
            let (ids, weights) = (gids.slice(0..n * k), gweights.slice(0..n * k));
            gpu.run(|enc| combine_experts(enc, &ids, &weights, k, &scratch, &y));
            assert_eq!(bits(&gpu.down(&y)), bits(&all[..n * hidden]), "{n} tokens in places");
        }
        // The same from the host's memory, with few places and many, one after the other in which others come and go.
        let host = HostExperts::alloc(&gpu.0, "host", count, &expert(0)).unwrap();
        let every: Vec<_> = (0..count as u32).map(|id| (id, expert(id))).collect();
        let mut enc = gpu.0.encoder();
        uploads.record(&mut enc, &POOL, &host, &every).unwrap();
        uploads.submit(&gpu.0, enc).unwrap();
        let memory = HostReadScratch::new(&gpu.0, count).unwrap();
        for (all_places, at_once) in [(0, 1), (1, count), (count / 2, 2), (count, 1)] {
            let places = GpuExperts::alloc(&gpu.0, "places", all_places, &expert(0)).unwrap();
            let landings = Landings::alloc(&gpu.0, "landings", at_once, count, &expert(0)).unwrap();
            let layer =
                HostReadExperts { count, host: &host, places: &places, landings: &landings, memory: &memory };
            let mut order: Vec<[u32; 2]> =
                (0..all_places as u32).rev().map(|place| [place, NOBODY]).collect();
            for (step, n) in [2, tokens, 1, 9, 1, 2].into_iter().enumerate() {
                let what = format!("{encoding:?}: {all_places} places, step {step}: {n} tokens");
                let free = order.iter().filter(|[_, expert]| *expert == NOBODY).count();
                // Who is free comes first.
                order.sort_by_key(|[_, expert]| *expert != NOBODY);
                let offered = if n == tokens { free } else { all_places };
                let table = PlaceTable {
                    order: &gpu.up_u32(order.as_flattened()),
                    offered,
                    taken: all_places - free,
                    chosen: &gpu.up_u32(&vec![7; chosen_words(count)]),
                };
                let (x, ids_of_n) = (gx.slice(0..n * hidden), gids.slice(0..n * k));
                let (weights, y) = (gweights.slice(0..n * k), gpu.out(n * hidden));
                gpu.run(|enc| {
                    let out = &y;
                    let args = ExpertsArgs { x: &x, indices: &ids_of_n, weights: &weights, k, activation };
                    host_read_experts(enc, &layer, &table, &args, &scratch, out);
                });
                assert_eq!(bits(&gpu.down(&y)), bits(&all[..n * hidden]), "{what}");
                let wanted: BTreeSet<u32> = ids[..n * k].iter().copied().collect();
                let chosen = gpu.down_u32(table.chosen);
                let is_chosen = |id: u32| chosen[id as usize / 32] >> (id % 32) & 1 == 1;
                assert!((0..count as u32).all(|id| is_chosen(id) == wanted.contains(&id)), "{what}");
                // Those without a place, in order, to places of those who are not wanted, in order.
                let mut missing = wanted
                    .iter()
                    .copied()
                    .filter(|id| !order.iter().any(|[_, held]| held == id))
                    .collect::<VecDeque<_>>();
                for [_, held] in order.iter_mut().take(offered) {
                    if !wanted.contains(held) {
                        *held = missing.pop_front().unwrap_or(*held);
                    }
                }
                order.rotate_left(usize::from(all_places > 2));
            }
        }
    }
}
