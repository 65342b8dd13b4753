//! Replays of traces against simple, slow models of the same.

// A test that cannot go on says so by failing; helper functions are not recognised as tests.

use crate::common::{Model, Random};
use crate::property;
use moeflux_experts::{PolicyKind, Recorder, StoreOptions, Trace, TraceEntry, TraceLayer};
use proptest::prelude::*;
use std::collections::HashMap;

fn trace(experts: &[u32], entries: Vec<(u32, Vec<u32>)>) -> Trace {
    let layer = |(i, &experts): (usize, &u32)| TraceLayer { name: format!("layers.{i}"), experts, bytes: 10 };
    let entries =
        entries.into_iter().zip(0..).map(|((layer, experts), step)| TraceEntry(step, layer, experts));
    Trace { layers: experts.iter().enumerate().map(layer).collect(), entries: entries.collect() }
}

/// Experts 0..n in one layer of many, one used at a time.
fn single(uses: &[u32]) -> Trace {
    trace(&[100], uses.iter().map(|&expert| (0, vec![expert])).collect())
}

/// The least misses over every choice of what to evict.
fn brute_force(uses: &[u32], slots: usize) -> u64 {
    fn least(
        uses: &[u32],
        memory: Vec<u32>,
        slots: usize,
        known: &mut HashMap<(usize, Vec<u32>), u64>,
    ) -> u64 {
        let Some((&expert, later)) = uses.split_first() else { return 0 };
        let key = (uses.len(), memory.clone());
        if let Some(&misses) = known.get(&key) {
            return misses;
        }
        let mut with = memory.clone();
        let misses = if memory.contains(&expert) {
            least(later, memory, slots, known)
        } else if memory.len() < slots {
            with.push(expert);
            with.sort_unstable();
            1 + least(later, with, slots, known)
        } else {
            let without = |i: usize| {
                let mut kept = memory.clone();
                kept[i] = expert;
                kept.sort_unstable();
                kept
            };
            // Or it takes nobody's place.
            let stay = least(later, memory.clone(), slots, known);
            1 + (0..slots).map(|i| least(later, without(i), slots, known)).fold(stay, u64::min)
        };
        known.insert(key, misses);
        misses
    }
    least(uses, Vec::new(), slots, &mut HashMap::new())
}

/// Misses of the least recently used, by looking back.
fn naive_lru(uses: &[u32], slots: usize) -> u64 {
    let mut memory: Vec<u32> = Vec::new();
    let mut misses = 0;
    for &expert in uses {
        if let Some(at) = memory.iter().position(|&other| other == expert) {
            memory.remove(at);
        } else {
            misses += 1;
            if memory.len() == slots {
                memory.remove(0);
            }
        }
        memory.push(expert);
    }
    misses
}

proptest! {
    #![proptest_config(property::config(300))]

    #[test]
    fn the_optimum_is_what_trying_everything_finds(
        uses in proptest::collection::vec(0..6u32, 0..14),
        slots in 1..5usize,
    ) {
        let best = single(&uses).replay_optimum(slots as u64 * 10);
        prop_assert_eq!(best.misses, brute_force(&uses, slots));
        prop_assert_eq!(best.hits + best.misses, uses.len() as u64);
        prop_assert_eq!(best.bytes_read, best.misses * 10);
    }

    #[test]
    fn lru_is_the_naive_one(uses in proptest::collection::vec(0..20u32, 0..200), slots in 1..12usize) {
        let replayed = single(&uses).replay(PolicyKind::Lru, slots as u64 * 10);
        prop_assert_eq!(replayed.misses, naive_lru(&uses, slots));
    }

    #[test]
    fn no_policy_beats_the_optimum(seed in any::<u64>(), budget in 1..400u64) {
        let mut random = Random(seed | 1);
        let entries = (0..40).map(|i| {
            let percent = [20, 100][random.below(2) as usize];
            (i % 3, random.subset(8, percent))
        });
        let trace = trace(&[8, 8, 8], entries.collect());
        let best = trace.replay_optimum(budget);
        for policy in PolicyKind::ALL {
            let replayed = trace.replay(policy, budget);
            prop_assert_eq!(replayed.hits + replayed.misses, best.hits + best.misses);
            prop_assert!(replayed.misses >= best.misses, "{}: {:?}, {:?}", policy, replayed, best);
        }
    }
}

#[test]
fn a_store_has_the_hits_of_its_replay() {
    // One layer: all of its slots are of one size.
    let model = Model::new(1, 48, true, 31);
    let least = model.least_budget();
    for policy in PolicyKind::ALL {
        for slots in [4, 11, 25] {
            let path = model.folder.path().join("trace.jsonl");
            let recorder = Recorder::create(&path, &model.layout).unwrap();
            // One reader, so that experts come in the order in which they are asked for.
            let options = StoreOptions {
                policy,
                readers: 1,
                trace: Some(recorder.clone()),
                ..StoreOptions::new(least * slots)
            };
            let store = model.open(&options);
            let mut random = Random(5);
            for step in 0..300 {
                let wanted = match step {
                    150 => (0..48).collect(),
                    _ => random.subset(48, 8),
                };
                model.run(&store, 0, &wanted).unwrap();
            }
            recorder.finish().unwrap();
            let trace = Trace::load(&path).unwrap();
            let replayed = trace.replay(policy, trace.layers[0].bytes * slots);
            let counters = store.counters();
            let (real, simulated) = (counters.hits as f64, replayed.hits as f64);
            assert!(
                (real - simulated).abs() <= 0.03 * (counters.hits + counters.misses) as f64,
                "{policy}, {slots}: {real}, {simulated}"
            );
        }
    }
}
