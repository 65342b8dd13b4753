//! Many things at once, in random order and with random delays and faults: every byte is right, every fetch ends, and
//! the budget is kept.

// A test that cannot go on says so by failing; helper functions are not recognised as tests.

use crate::common::{Model, Random, watched, with_faults};
use crate::property;
use moeflux_experts::faults::{Fault, Faults};
use moeflux_experts::{ExpertStore, Io, PolicyKind, StoreError, StoreOptions};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LAYERS: u32 = 3;
const EXPERTS: u32 = 10;

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    one_stretch: bool,
    /// In eighths of what holds everything, but never too little.
    budget: u64,
    resizes: bool,
    io: Io,
    policy: PolicyKind,
    readers: usize,
    chunk: u64,
    consumers: u64,
    /// In a thousand reads.
    faults: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let first = (any::<u64>(), any::<bool>(), 0..9u64, any::<bool>());
    let io = prop_oneof![Just(Io::Direct), Just(Io::Buffered)];
    let policy = prop_oneof![Just(PolicyKind::Lru), Just(PolicyKind::Lfru)];
    let chunk = prop_oneof![Just(4096u64), Just(16384), Just(1 << 20)];
    let faults = prop_oneof![Just(0u64), Just(20)];
    (first, io, policy, 1..6usize, chunk, 1..4u64, faults).prop_map(
        |((seed, one_stretch, budget, resizes), io, policy, readers, chunk, consumers, faults)| Case {
            seed,
            one_stretch,
            budget,
            resizes,
            io,
            policy,
            readers,
            chunk,
            consumers,
            faults,
        },
    )
}

proptest! {
    #![proptest_config(property::config(32))]

    #[test]
    fn whatever_happens(case in case()) {
        watched(move || run(&case));
    }
}

fn run(case: &Case) {
    let model = Arc::new(Model::new(LAYERS, EXPERTS, case.one_stretch, case.seed));
    let (least, full) = (model.least_budget(), model.full_budget());
    let budget = (full / 8 * case.budget).max(least);
    let mut random = Random(case.seed | 1);
    let per_mille = case.faults;
    // Wrong bits are seen where there are checksums.
    let kinds = if case.one_stretch { 3 } else { 2 };
    let faults = Faults::new(move |_| match random.below(1000) {
        dice if dice < per_mille => {
            Some([Fault::Error(5), Fault::Short(0), Fault::BitFlip(9)][random.below(kinds) as usize])
        }
        dice if dice < 300 => Some(Fault::Delay(Duration::from_micros(random.below(600)))),
        _ => None,
    });
    let options = StoreOptions {
        io: case.io,
        policy: case.policy,
        readers: case.readers,
        chunk: case.chunk,
        verify: true,
        ..with_faults(budget, &faults)
    };
    let store = Arc::new(model.open(&options));
    let stop = Arc::new(AtomicBool::new(false));
    let consumers: Vec<_> = (0..case.consumers)
        .map(|i| {
            let (model, store, case) = (model.clone(), store.clone(), case.clone());
            std::thread::spawn(move || consume(&model, &store, &case, i))
        })
        .collect();
    let watcher = {
        let (store, stop, case) = (store.clone(), stop.clone(), case.clone());
        std::thread::spawn(move || {
            let mut random = Random(case.seed | 2);
            while !stop.load(Ordering::Relaxed) {
                if case.resizes {
                    store.resize((full / 16 * random.below(17)).max(least)).unwrap();
                } else {
                    assert!(store.counters().bytes_used <= budget);
                }
                std::thread::sleep(Duration::from_micros(500));
            }
        })
    };
    for consumer in consumers {
        consumer.join().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    // Everything was let go: the budget is kept, whatever it is by now, and the store is as good as new.
    faults.set(|_| None);
    let all: Vec<u32> = (0..EXPERTS).collect();
    (0..LAYERS).for_each(|layer| model.run(&store, layer, &all).unwrap());
    store.resize(least).unwrap();
    let counters = store.counters();
    assert!(counters.bytes_used <= least, "{counters:?}");
    assert!(counters.hints_used + counters.hints_wasted <= counters.hints_issued, "{counters:?}");
    assert!(case.faults > 0 || counters.failed_reads == 0);
    assert!(counters.slots_used >= 1);
}

fn consume(model: &Model, store: &ExpertStore, case: &Case, consumer: u64) {
    let mut random = Random(case.seed.wrapping_add(consumer * 77) | 1);
    for _ in 0..60 {
        let layer = random.below(u64::from(LAYERS)) as u32;
        if random.below(3) == 0 {
            store.hint(random.below(u64::from(LAYERS)) as u32, &random.subset(EXPERTS, 30));
        }
        let share = [20, 20, 50, 100][random.below(4) as usize];
        let wanted = random.subset(EXPERTS, share);
        let mut missing = wanted.clone();
        let mut fetch = store.fetch(layer, &wanted);
        // Another fetch is begun before this one is used, as for the layer that comes next.
        let ahead = (random.below(4) == 0).then(|| store.fetch((layer + 1) % LAYERS, &wanted));
        let give_up = random.below(10) == 0;
        let outcome = loop {
            match fetch.next() {
                Ok(Some(leases)) => {
                    for lease in &leases {
                        model.check(layer, lease);
                        let at = missing.iter().position(|&expert| expert == lease.expert());
                        missing.swap_remove(at.unwrap());
                    }
                    if random.below(3) == 0 {
                        std::thread::sleep(Duration::from_micros(random.below(300)));
                    }
                    // Nothing has changed under the leases.
                    model.check_all(layer, &leases);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            if give_up {
                break Ok(());
            }
        };
        match outcome {
            Ok(()) => assert!(give_up || missing.is_empty(), "{missing:?} did not come"),
            Err(StoreError::Read { .. } | StoreError::Checksum { .. }) if case.faults > 0 => {}
            Err(error) => panic!("{error}"),
        }
        drop(fetch);
        if let Some(ahead) = ahead {
            match model.drain((layer + 1) % LAYERS, ahead) {
                Ok(experts) => assert_eq!(experts.len(), wanted.len()),
                Err(StoreError::Read { .. } | StoreError::Checksum { .. }) if case.faults > 0 => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}
