//! What a store promises, one promise a test.

// A test that cannot go on says so by failing; helper functions are not recognised as tests.

use crate::common::{Model, watched, with_faults};
use moeflux_experts::faults::{Fault, Faults};
use moeflux_experts::{
    ExpertStore, Heat, Io, Lease, PolicyKind, Recorder, StoreError, StoreOptions, Trace, TraceEntry, measure,
};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn delay(milliseconds: u64) -> Fault {
    Fault::Delay(Duration::from_millis(milliseconds))
}

#[test]
fn every_way_of_reading_gives_the_files_bytes() {
    for (one_stretch, seed) in [(true, 1), (false, 2), (false, 3)] {
        let model = Model::new(3, 12, one_stretch, seed);
        for io in [Io::Auto, Io::Direct, Io::Buffered, Io::Cached, Io::Mapped] {
            for budget in [model.least_budget(), model.least_budget() * 7, model.full_budget()] {
                let options = StoreOptions { io, verify: true, chunk: 8192, ..StoreOptions::new(budget) };
                let store = model.open(&options);
                let all: Vec<u32> = (0..12).collect();
                for wanted in [&all[..], &[3, 7], &all[4..9], &[], &[11]] {
                    for layer in 0..3 {
                        model.run(&store, layer, wanted).unwrap();
                    }
                }
                let counters = store.counters();
                assert_eq!(counters.hits + counters.misses, 3 * (12 + 2 + 5 + 1));
                assert!(counters.bytes_used <= budget);
                assert_eq!(counters.bytes_used > 0, io != Io::Mapped);
                assert_eq!(store.holds_all(), budget == model.full_budget() && io != Io::Mapped);
            }
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_system_without_direct_reads() {
    let layout = || {
        let mut layout = Model::new(1, 1, true, 1).layout;
        layout.files = vec!["/proc/version".into()];
        layout
    };
    let open =
        |io| ExpertStore::open(layout(), &StoreOptions { io, ..StoreOptions::new(1 << 30) }).map(|_| ());
    let error = open(Io::Direct).unwrap_err();
    assert!(
        matches!(&error, StoreError::File { source, .. } if source.kind() == ErrorKind::InvalidInput),
        "{error}"
    );
    // Opened, and found to be shorter than the layout says: files of /proc have no length.
    let error = open(Io::Auto).unwrap_err();
    assert!(
        matches!(&error, StoreError::Layout { expected, .. } if expected.contains("inside the 0 bytes")),
        "{error}"
    );
}

#[test]
fn what_is_in_memory_comes_first_and_waits_for_nothing() {
    let model = Model::new(1, 8, true, 4);
    let faults = Faults::new(|_| None);
    let store = model.open(&with_faults(model.full_budget(), &faults));
    model.run(&store, 0, &[2, 5]).unwrap();
    faults.set(|_| Some(delay(400)));
    let started = Instant::now();
    let mut fetch = store.fetch(0, &[6, 5, 2, 1, 5]);
    let leases = fetch.next().unwrap().unwrap();
    assert_eq!(leases.iter().map(Lease::expert).collect::<Vec<_>>(), [2, 5]);
    assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
    let mut later = model.drain(0, fetch).unwrap();
    later.sort_unstable();
    assert_eq!(later, [1, 6]);
    assert!(started.elapsed() >= Duration::from_millis(400));
    let counters = store.counters();
    assert_eq!((counters.hits, counters.misses), (2, 4));
    assert!(counters.stall_time >= Duration::from_millis(150), "{counters:?}");
    assert!(counters.busy_time >= Duration::from_millis(400) && counters.read_time >= counters.busy_time);
}

#[test]
fn nothing_is_read_twice() {
    let model = Model::new(2, 8, true, 5);
    let faults = Faults::new(|_| Some(delay(50)));
    let options = StoreOptions { chunk: 64 << 20, ..with_faults(model.full_budget(), &faults) };
    let store = model.open(&options);
    store.hint(0, &[1, 2, 99]);
    store.hint(0, &[2, 3]);
    let first = store.fetch(0, &[1, 2]);
    let second = store.fetch(0, &[2, 1]);
    model.drain(0, second).unwrap();
    model.drain(0, first).unwrap();
    store.hint(0, &[1]);
    // The hint for 3 had begun, or was forgotten when the layer was fetched without it.
    model.run(&store, 0, &[3]).unwrap();
    assert_eq!(faults.reads(), 3);
    let counters = store.counters();
    assert_eq!((counters.reads, counters.hits + counters.misses), (3, 5));
    assert_eq!(counters.hints_issued, 3);
    assert_eq!(counters.hints_used + counters.hints_wasted, 3, "{counters:?}");
    assert!(counters.late_hints >= 2, "{counters:?}");
}

#[test]
fn what_is_wanted_overtakes_hints() {
    let model = Model::new(2, 8, true, 6);
    let order = Arc::new(Mutex::new(Vec::new()));
    let log = order.clone();
    let options = StoreOptions {
        readers: 1,
        chunk: 64 << 20,
        through: Some(Arc::new(move |file| Arc::new(Slow { file, log: log.clone() }))),
        ..StoreOptions::new(model.full_budget())
    };
    let store = model.open(&options);
    store.hint(0, &[0, 1, 2, 3]);
    model.run(&store, 1, &[4]).unwrap();
    // Those hints were not for this layer, and are still good.
    while store.counters().reads < 5 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let offset = |layer: usize, expert: usize| model.layout.layers[layer].experts[expert][0].offset;
    let expected = [offset(0, 0), offset(1, 4), offset(0, 1), offset(0, 2), offset(0, 3)];
    let order = order.lock().unwrap();
    // The first hint's read may not have begun when the fetch came.
    assert!(order[..2].contains(&expected[1]), "{order:?}");
    assert_eq!(order.len(), 5);
}

struct Slow {
    file: Arc<dyn moeflux_experts::ReadAt>,
    log: Arc<Mutex<Vec<u64>>>,
}

impl moeflux_experts::ReadAt for Slow {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.log.lock().unwrap().push(offset);
        std::thread::sleep(Duration::from_millis(30));
        self.file.read_at(bytes, offset)
    }
}

#[test]
fn hints_evict_nothing_that_is_wanted_or_leased() {
    let model = Model::new(2, 16, true, 7);
    let faults = Faults::new(|_| Some(delay(5)));
    let options = StoreOptions { chunk: 64 << 20, ..with_faults(model.least_budget() * 4, &faults) };
    let store = model.open(&options);
    model.run(&store, 0, &[1, 2, 3, 4]).unwrap();
    let reads = faults.reads();
    let mut fetch = store.fetch(0, &[1, 2, 3, 4]);
    store.hint(0, &[5, 6, 7, 8, 9, 10]);
    store.hint(1, &[5, 6, 7, 8, 9, 10]);
    std::thread::sleep(Duration::from_millis(60));
    let leases = fetch.next().unwrap().unwrap();
    assert_eq!(leases.len(), 4);
    assert_eq!(faults.reads() - reads, 0);
    model.check_all(0, &leases);
    drop(leases);
    std::thread::sleep(Duration::from_millis(60));
    assert!(faults.reads() > reads, "now hints have slots");
}

#[test]
fn any_budget_of_one_expert_is_enough() {
    watched(|| {
        let model = Model::new(2, 9, true, 8);
        let store = model.open(&StoreOptions::new(model.least_budget()));
        let all: Vec<u32> = (0..9).collect();
        for layer in [0, 1, 0] {
            model.run(&store, layer, &all).unwrap();
        }
        // Two fetches of one thread, each of which could keep the only slot from the other.
        let mut first = store.fetch(0, &all);
        let mut second = store.fetch(1, &all);
        std::thread::sleep(Duration::from_millis(20));
        for _ in 0..9 {
            for (layer, fetch) in [(1, &mut second), (0, &mut first)] {
                let leases = fetch.next().unwrap().unwrap();
                model.check_all(layer, &leases);
            }
        }
        assert!(first.next().unwrap().is_none() && second.next().unwrap().is_none());
        assert!(store.counters().bytes_used <= model.least_budget());
    });
}

#[test]
fn half_of_a_crowded_store_is_left_to_reads() {
    let model = Model::new(1, 16, true, 9);
    let store = model.open(&StoreOptions::new(model.least_budget() * 8));
    let all: Vec<u32> = (0..16).collect();
    model.run(&store, 0, &all).unwrap();
    let mut fetch = store.fetch(0, &all);
    let first = fetch.next().unwrap().unwrap();
    assert_eq!(first.len(), 4);
    drop(first);
    model.drain(0, fetch).unwrap();
}

#[test]
fn who_waits_with_all_leases_in_hand_gets_an_error() {
    watched(|| {
        let model = Model::new(1, 9, true, 10);
        let store = model.open(&StoreOptions::new(model.least_budget() * 2));
        let mut fetch = store.fetch(0, &[0, 1, 2, 3]);
        let mut held = Vec::new();
        let error = loop {
            match fetch.next() {
                Ok(leases) => held.extend(leases.unwrap()),
                Err(error) => break error,
            }
        };
        assert_eq!(held.len(), 2);
        assert!(matches!(&error, StoreError::Starved { leased, budget, .. } if leased == budget), "{error}");
        assert!(matches!(fetch.next(), Err(StoreError::Starved { .. })), "an error stays");
        model.check_all(0, &held);
        // Leases of a fetch that was ended are somebody else's: the store waits for them, but not for ever.
        drop(fetch);
        let options =
            StoreOptions { patience: Duration::from_millis(50), ..StoreOptions::new(model.least_budget()) };
        let impatient = model.open(&options);
        let kept = impatient.fetch(0, &[1]).next().unwrap();
        assert!(matches!(impatient.fetch(0, &[2]).next(), Err(StoreError::Starved { .. })));
        drop(kept);
        model.run(&impatient, 0, &[2]).unwrap();
        drop(held);
        model.run(&store, 0, &[0, 1, 2, 3]).unwrap();
    });
}

#[test]
fn leases_of_another_thread_are_waited_for() {
    watched(|| {
        let model = Arc::new(Model::new(1, 9, true, 11));
        let store = Arc::new(model.open(&StoreOptions::new(model.least_budget())));
        let kept = store.fetch(0, &[1]).next().unwrap().unwrap();
        let thread = {
            let (model, store) = (model.clone(), store.clone());
            std::thread::spawn(move || model.run(&store, 0, &[2]).unwrap())
        };
        std::thread::sleep(Duration::from_millis(50));
        model.check(0, &kept[0]);
        drop(kept);
        thread.join().unwrap();
    });
}

#[test]
fn a_fault_at_any_read_fails_that_fetch_alone() {
    const EIO: i32 = 5;
    let model = Model::new(2, 6, true, 12);
    let wanted = [0, 2, 3];
    let reads = {
        let faults = Faults::new(|_| None);
        let store = model.open(&StoreOptions { chunk: 16384, ..with_faults(model.full_budget(), &faults) });
        model.run(&store, 1, &wanted).unwrap();
        faults.reads()
    };
    assert!(reads > 3);
    for fault in [Fault::Error(EIO), Fault::Short(1), Fault::BitFlip(0)] {
        for site in 0..reads {
            for readers in [1, 4] {
                // A short read is a fault only if the file goes on to be short.
                let faults = Faults::new(move |read| {
                    (read == site || read > site && matches!(fault, Fault::Short(_))).then_some(fault)
                });
                let options = StoreOptions {
                    chunk: 16384,
                    readers,
                    verify: true,
                    ..with_faults(model.least_budget() * 3, &faults)
                };
                let store = model.open(&options);
                let outcome = model.run(&store, 1, &wanted);
                if faults.reads() <= site {
                    // Readers that are busy make fewer and longer reads.
                    assert!(site >= 3, "an expert is at least one read");
                    continue;
                }
                let error = outcome.unwrap_err();
                let text = error.to_string();
                match (&error, fault) {
                    (StoreError::Read { source, .. }, Fault::Error(_)) => {
                        assert_eq!(source.raw_os_error(), Some(EIO));
                    }
                    (StoreError::Read { source, .. }, Fault::Short(_)) => {
                        assert_eq!(source.kind(), ErrorKind::UnexpectedEof);
                    }
                    (StoreError::Checksum { .. }, Fault::BitFlip(_)) => {}
                    _ => panic!("{fault:?} at {site}: {text}"),
                }
                assert!(text.contains("layers.1.mlp.experts, expert ") && text.contains("file0"), "{text}");
                faults.set(|_| None);
                // The disk works again, and no slot was lost.
                for layer in 0..2 {
                    model.run(&store, layer, &wanted).unwrap();
                    model.run(&store, layer, &[0, 1, 2, 3, 4, 5]).unwrap();
                }
                assert!(store.counters().bytes_used <= model.least_budget() * 3);
            }
        }
    }
}

/// The same where an expert lies in several ranges, in several files, as in a checkpoint in place.
#[test]
fn a_fault_in_any_range_of_an_expert_fails_it() {
    let model = Model::new(1, 4, false, 22);
    let all = [0, 1, 2, 3];
    let faults = Faults::new(|_| None);
    model.run(&model.open(&with_faults(model.full_budget(), &faults)), 0, &all).unwrap();
    let reads = faults.reads();
    assert!(reads > 4, "experts have several ranges: {reads}");
    for fault in [Fault::Error(5), Fault::Short(0)] {
        for site in 0..reads {
            let faults = Faults::new(move |read| {
                (read == site || read > site && matches!(fault, Fault::Short(_))).then_some(fault)
            });
            let store = model.open(&StoreOptions { readers: 1, ..with_faults(model.full_budget(), &faults) });
            let error = model.run(&store, 0, &all).unwrap_err();
            let StoreError::Read { layer, path, len, .. } = &error else { panic!("{error}") };
            assert!(layer == "layers.0.mlp.experts" && path.exists() && *len > 0, "{error}");
            faults.set(|_| None);
            model.run(&store, 0, &all).unwrap();
        }
    }
}

/// What was read because it is pinned, or was hot, and failed: nobody is failed, and who wants it reads it.
#[test]
fn a_failed_read_that_nobody_waits_for_is_made_again() {
    for pinned in [vec![(0, 1), (0, 2)], Vec::new()] {
        let model = Model::new(1, 4, true, 23);
        let heat = {
            let store = model.open(&StoreOptions::new(model.full_budget()));
            model.run(&store, 0, &[1, 2]).unwrap();
            store.heat()
        };
        let faults = Faults::new(|_| Some(Fault::Error(5)));
        let store =
            model.open(&StoreOptions { pinned: pinned.clone(), ..with_faults(model.full_budget(), &faults) });
        if pinned.is_empty() {
            store.warm(&heat).unwrap();
        }
        while store.counters().failed_reads < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        faults.set(|_| None);
        model.run(&store, 0, &[0, 1, 2, 3]).unwrap();
        store.reset_counters();
        model.run(&store, 0, &[0, 1, 2, 3]).unwrap();
        assert_eq!(store.counters().misses, 0);
    }
}

#[test]
fn a_mapped_expert_is_verified_when_it_is_first_wanted() {
    let mut model = Model::new(1, 4, true, 24);
    let at = model.layout.layers[0].experts[2][1].offset as usize;
    model.bytes[0][at] ^= 1;
    model.write_files();
    let open = |verify| model.open(&StoreOptions { io: Io::Mapped, verify, ..StoreOptions::new(0) });
    let store = open(true);
    model.run(&store, 0, &[0, 1, 3]).unwrap();
    let error = model.run(&store, 0, &[2]).unwrap_err();
    assert!(matches!(&error, StoreError::Checksum { expert: 2, .. }), "{error}");
    model.run(&store, 0, &[0, 1, 3]).unwrap();
    model.run(&open(false), 0, &[2]).unwrap();
}

#[test]
fn a_bit_flip_is_not_seen_without_verification() {
    let model = Model::new(1, 2, true, 13);
    let faults = Faults::new(|_| Some(Fault::BitFlip(0)));
    let store = model.open(&with_faults(model.full_budget(), &faults));
    let leases = store.fetch(0, &[0]).next().unwrap().unwrap();
    assert_ne!(leases[0].piece(0)[0], model.bytes[0][model.layout.layers[0].experts[0][0].offset as usize]);
}

#[test]
fn a_failed_hint_fails_nobody() {
    let model = Model::new(1, 4, true, 14);
    let faults = Faults::new(|_| Some(Fault::Error(5)));
    let store = model.open(&with_faults(model.least_budget(), &faults));
    store.hint(0, &[0, 1, 2, 3]);
    while store.counters().failed_reads < 4 {
        std::thread::sleep(Duration::from_millis(1));
    }
    faults.set(|_| None);
    model.run(&store, 0, &[0, 1, 2, 3]).unwrap();
    assert_eq!(store.counters().hints_wasted, 4);
}

#[test]
fn a_truncated_file_is_an_error_until_it_is_whole_again() {
    for io in [Io::Direct, Io::Buffered] {
        let model = Model::new(1, 6, true, 15);
        let store = model.open(&StoreOptions { io, ..StoreOptions::new(model.full_budget()) });
        let file = std::fs::OpenOptions::new().write(true).open(&model.layout.files[0]).unwrap();
        file.set_len(model.layout.layers[0].experts[5][2].offset + 7).unwrap();
        let error = store.fetch(0, &[5]).next().unwrap_err();
        let StoreError::Read { expert: 5, source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.kind(), ErrorKind::UnexpectedEof);
        model.run(&store, 0, &[4]).unwrap();
        model.write_files();
        model.run(&store, 0, &[4, 5]).unwrap();
    }
}

#[test]
fn a_deleted_file_stays_readable() {
    let model = Model::new(1, 6, true, 16);
    let store = model.open(&StoreOptions::new(model.full_budget()));
    std::fs::remove_file(&model.layout.files[0]).unwrap();
    model.run(&store, 0, &[0, 3]).unwrap();
    let gone = ExpertStore::open(model.layout.clone(), &StoreOptions::new(1 << 30)).map(|_| ()).unwrap_err();
    assert!(matches!(gone, StoreError::File { .. }), "{gone}");
}

#[test]
fn fetches_may_be_dropped_and_leases_outlive_everything() {
    watched(|| {
        let model = Model::new(2, 16, true, 17);
        let faults = Faults::new(|_| Some(delay(2)));
        let store = model.open(&with_faults(model.least_budget() * 6, &faults));
        let all: Vec<u32> = (0..16).collect();
        for _ in 0..20 {
            drop(store.fetch(0, &all));
            let mut fetch = store.fetch(1, &all[..5]);
            let leases = fetch.next().unwrap();
            drop(fetch);
            drop(leases);
        }
        model.run(&store, 0, &all).unwrap();
        let kept = store.fetch(1, &[7]).next().unwrap().unwrap();
        drop(store.fetch(0, &all));
        drop(store);
        model.check(1, &kept[0]);
    });
}

#[test]
fn budgets_change_at_once() {
    let model = Model::new(2, 16, true, 18);
    let least = model.least_budget();
    let store = model.open(&StoreOptions::new(model.full_budget()));
    let all: Vec<u32> = (0..16).collect();
    (0..2).for_each(|layer| model.run(&store, layer, &all).unwrap());
    let kept = store.fetch(1, &[1, 2, 3]).next().unwrap().unwrap();
    store.resize(least).unwrap();
    assert_eq!(store.counters().slots_used, 3, "what is leased stays");
    model.check_all(1, &kept);
    drop(kept);
    assert!(store.counters().bytes_used <= least);
    assert!(
        matches!(store.resize(least - 1), Err(StoreError::BudgetTooSmall { needed, .. }) if needed == least)
    );
    model.run(&store, 0, &all).unwrap();
    store.resize(model.full_budget()).unwrap();
    (0..2).for_each(|layer| model.run(&store, layer, &all).unwrap());
    store.reset_counters();
    (0..2).for_each(|layer| model.run(&store, layer, &all).unwrap());
    assert_eq!(store.counters().misses, 0);
}

#[test]
fn pinned_experts_stay() {
    let model = Model::new(2, 16, true, 19);
    let pinned = vec![(0, 3), (1, 4), (1, 5)];
    let budget = model.least_budget() * 5;
    let store = model.open(&StoreOptions { pinned: pinned.clone(), ..StoreOptions::new(budget) });
    while store.counters().slots_used < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let all: Vec<u32> = (0..16).collect();
    for _ in 0..2 {
        (0..2).for_each(|layer| model.run(&store, layer, &all).unwrap());
    }
    store.hint(0, &all);
    store.reset_counters();
    model.run(&store, 0, &[3]).unwrap();
    model.run(&store, 1, &[4, 5]).unwrap();
    assert_eq!(store.counters().misses, 0);
    let options = StoreOptions { pinned, ..StoreOptions::new(model.least_budget() * 2) };
    let error = ExpertStore::open(model.layout.clone(), &options).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::BudgetTooSmall { .. }), "{error}");
    let options = StoreOptions { pinned: vec![(0, 16)], ..StoreOptions::new(budget) };
    let error = ExpertStore::open(model.layout.clone(), &options).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::NoSuchExpert { expert: 16, experts: 16, .. }), "{error}");
}

#[test]
fn a_prompt_does_not_push_out_what_decoding_uses() {
    let model = Model::new(4, 32, true, 20);
    let all: Vec<u32> = (0..32).collect();
    let hot = [1, 4, 9];
    for policy in PolicyKind::ALL {
        let store = model.open(&StoreOptions { policy, ..StoreOptions::new(model.least_budget() * 40) });
        (0..4).for_each(|layer| model.run(&store, layer, &hot).unwrap());
        (0..4).for_each(|layer| model.run(&store, layer, &all).unwrap());
        // A second prompt finds what the first left.
        store.reset_counters();
        (0..4).for_each(|layer| model.run(&store, layer, &all).unwrap());
        let share = store.counters().hits as f64 / 128.0;
        assert!(share > 0.25, "{policy}: {share} of a cycle that fits to {:.2}", 40.0 / 128.0);
        store.reset_counters();
        (0..4).for_each(|layer| model.run(&store, layer, &hot).unwrap());
        assert_eq!(store.counters().misses, 0, "{policy}");
    }
}

#[test]
fn heat_warms_the_next_start() {
    let model = Model::new(2, 16, true, 21);
    let store = model.open(&StoreOptions::new(model.full_budget()));
    for (layer, experts, times) in [(0, [1, 2, 3], 5), (1, [7, 8, 9], 3), (0, [10, 11, 12], 1)] {
        (0..times).for_each(|_| model.run(&store, layer, &experts).unwrap());
    }
    let path = model.folder.path().join("heat.json");
    store.heat().save(&path).unwrap();
    let heat = Heat::load(&path).unwrap();
    assert_eq!(heat, store.heat());
    assert_eq!(heat.layers[1].uses[6..10], [0, 3, 3, 3]);
    let next = model.open(&StoreOptions::new(model.least_budget() * 6));
    next.warm(&heat).unwrap();
    while next.counters().slots_used < 6 || next.counters().reads < 6 {
        std::thread::sleep(Duration::from_millis(1));
    }
    model.run(&next, 0, &[1, 2, 3]).unwrap();
    model.run(&next, 1, &[7, 8, 9]).unwrap();
    assert_eq!(next.counters().misses, 0, "{:?}", next.counters());
    assert_eq!(next.heat().layers[0].uses[..4], [0, 3, 3, 3]);
    let other = Model::new(2, 15, true, 21);
    let error = other.open(&StoreOptions::new(other.full_budget())).warm(&heat).unwrap_err().to_string();
    assert!(error.contains("(15 experts)") && error.contains("(16 experts)"), "{error}");
    for broken in ["", "{}", r#"{"format":"moeflux-heat","version":2,"layers":[]}"#] {
        std::fs::write(&path, broken).unwrap();
        assert!(matches!(Heat::load(&path), Err(StoreError::Format { .. })));
    }
}

#[test]
fn traces_come_back_as_they_were_recorded() {
    let model = Model::new(3, 8, false, 22);
    let path = model.folder.path().join("trace.jsonl");
    let recorder = Recorder::create(&path, &model.layout).unwrap();
    let store =
        model.open(&StoreOptions { trace: Some(recorder.clone()), ..StoreOptions::new(model.full_budget()) });
    for (layer, experts) in [(0, [1, 2]), (2, [3, 4]), (0, [5, 6]), (0, [1, 7])] {
        model.run(&store, layer, &experts).unwrap();
    }
    recorder.finish().unwrap();
    model.run(&store, 0, &[3]).unwrap();
    let trace = Trace::load(&path).unwrap();
    assert_eq!(trace.layers.len(), 3);
    assert_eq!((trace.layers[1].name.as_str(), trace.layers[1].experts), ("layers.1.mlp.experts", 8));
    let entry = |step, layer, experts: [u32; 2]| TraceEntry(step, layer, experts.to_vec());
    assert_eq!(
        trace.entries,
        [entry(0, 0, [1, 2]), entry(0, 2, [3, 4]), entry(1, 0, [5, 6]), entry(2, 0, [1, 7])]
    );
    for (line, what) in
        [("[0,3,[1]]", "line 6: there is no layer 3"), ("[0,0,[8]]", "has no expert 8"), ("[0", "EOF")]
    {
        let text = std::fs::read_to_string(&path).unwrap();
        let broken = model.folder.path().join("broken.jsonl");
        std::fs::write(&broken, text + line).unwrap();
        let error = Trace::load(&broken).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn experts_that_there_are_not() {
    let model = Model::new(2, 8, true, 23);
    let store = model.open(&StoreOptions::new(model.full_budget()));
    for (layer, expert) in [(0, 8), (2, 0), (u32::MAX, u32::MAX)] {
        let error = store.fetch(layer, &[0, expert]).next().unwrap_err();
        assert!(matches!(error, StoreError::NoSuchExpert { .. }), "{error}");
        store.hint(layer, &[expert]);
    }
    assert!(store.fetch(0, &[]).next().unwrap().is_none());
}

#[test]
fn disks_are_measured() {
    let model = Model::new(2, 8, false, 24);
    let speed = measure(&model.layout, Io::Auto, Duration::from_millis(60)).unwrap();
    assert!(speed.bytes_per_second > 1e6 && speed.readers > 0 && speed.chunk > 0, "{speed:?}");
    let store = model.open(&StoreOptions::new(model.full_budget()).tuned(&speed));
    model.run(&store, 0, &[1, 2]).unwrap();
}
