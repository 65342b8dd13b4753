//! How much memory there is decides where experts live; what the process holds takes part in the decision.

use std::path::Path;

use crate::common::root;
use moeflux::experts::{ExpertOptions, Io, StoreOptions};
use moeflux::placement::MemoryRequest;
use moeflux::{Engine, EngineOptions, Error, Model, ModelOptions};

fn open(folder: &Path) -> Model {
    Model::open(folder, &ModelOptions::default()).unwrap()
}

#[test]
fn memory_decides_between_mapped_and_streamed() {
    let _alone = crate::alone();
    let folder = root().join("models/demo");
    let engine = |memory: MemoryRequest, io: Io| {
        let store = StoreOptions { io, ..StoreOptions::new(0) };
        let experts = ExpertOptions { memory, store, ..ExpertOptions::default() };
        Engine::new(open(&folder), &EngineOptions { experts, ..EngineOptions::default() })
    };
    // Everything fits into what is free, or into a large limit.
    assert!(engine(MemoryRequest::default(), Io::Auto).unwrap().experts().is_none());
    let process = |bytes| MemoryRequest { process: Some(bytes), experts: None };
    assert!(engine(process(64 << 30), Io::Auto).unwrap().experts().is_none());
    let error = engine(process(1 << 20), Io::Auto).unwrap_err();
    let Error::Memory(error) = error else { panic!("{error}") };
    assert_eq!(error.given, 1 << 20);
    // What would just do does.
    let engine_with_little = engine(process(error.needed + (8 << 20)), Io::Auto).unwrap();
    let store = engine_with_little.experts().unwrap();
    assert!(store.counters().budget < store.bytes_of_all());
    // Mapping was asked for.
    let experts = MemoryRequest { process: None, experts: Some(1 << 20) };
    assert!(engine(experts, Io::Mapped).unwrap().experts().is_none());
}

#[test]
fn long_sequences_take_room_from_experts() {
    let _alone = crate::alone();
    let folder = root().join("models/demo");
    let engine = |bytes| {
        let memory = MemoryRequest { process: Some(bytes), experts: None };
        // No room for states but what experts give up.
        let experts = ExpertOptions { memory, context: 0, ..ExpertOptions::default() };
        Engine::new(open(&folder), &EngineOptions { experts, ..EngineOptions::default() })
    };
    let Error::Memory(least) = engine(1 << 20).unwrap_err() else { panic!("1 MiB is too little") };
    let mut engine = engine(least.needed + (8 << 20)).unwrap();
    let store = engine.experts().unwrap().clone();
    let before = store.counters().budget;
    let mut sequence = engine.sequence();
    engine.eval(&mut sequence, &[1; 500]).unwrap();
    let (during, states) = (store.counters().budget, sequence.state_bytes() as u64);
    assert!(
        during < before && before - during <= states,
        "{before} bytes, then {during} beside {states} of states"
    );
    engine.eval(&mut engine.sequence(), &[1]).unwrap();
    assert!(store.counters().budget > during);
}
