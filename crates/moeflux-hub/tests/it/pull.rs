//! Downloads that end well, however they came to it.

use crate::server::Fault;
use crate::{Bench, NEEDED, Result, SHARD, assert_holds, noise, repository};
use moeflux_hub::Event;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

#[test]
fn a_model_is_there_under_its_name() -> Result<()> {
    let bench = Bench::new()?;
    let (hub, plan) = (bench.hub()?, bench.plan("owner/model")?);
    let (at, done) = (Mutex::new(vec![0; 7]), Mutex::new(Vec::new()));
    let model = bench.store().pull(&hub, &plan, &|event| match event {
        Event::At { file, bytes } => at.lock().expect("a lock")[file] = bytes,
        Event::Done { file } => done.lock().expect("a lock").push(file),
        Event::Retry { error, .. } => panic!("{error}"),
    })?;
    assert_eq!(model.name.to_string(), "owner/model");
    assert_eq!((model.there, model.size), (plan.size(), plan.size()));
    let sizes: Vec<u64> = plan.files.iter().map(|file| file.size).collect();
    assert_eq!(at.into_inner()?, sizes);
    let mut done = done.into_inner()?;
    done.sort_unstable();
    assert_eq!(done, [0, 1, 2, 3, 4, 5, 6]);
    assert_holds(&model.open_folder()?, &repository(1));
    assert_eq!(bench.store().there(&plan), sizes);
    Ok(())
}

#[test]
fn what_is_there_is_not_downloaded_again() -> Result<()> {
    let bench = Bench::new()?;
    bench.pull("owner/model")?;
    bench.server.take_seen();
    bench.pull("owner/model")?;
    let lines: Vec<_> = bench.server.take_seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines.len(), 2, "the list and the index: {lines:?}");
    Ok(())
}

#[test]
fn cut_bodies_are_continued() -> Result<()> {
    let bench = Bench::new()?;
    let cuts = vec![Fault::Cut(1_200_000), Fault::Cut(0), Fault::Cut(7), Fault::Cut(1_100_000)];
    bench.server.state().faults.insert(SHARD.to_owned(), cuts);
    let model = bench.pull("owner/model")?;
    assert_holds(&model.open_folder()?, &repository(1));
    let seen = bench.server.take_seen();
    let shard: Vec<_> = seen.iter().filter(|seen| seen.to_cdn && seen.line.ends_with(SHARD)).collect();
    let from: Vec<_> = shard.iter().map(|seen| seen.from).collect();
    assert_eq!(from, [None, Some(1_200_000), Some(1_200_000), Some(1_200_007), Some(2_300_007)]);
    Ok(())
}

#[test]
fn silence_is_a_failure_too() -> Result<()> {
    let bench = Bench::new()?;
    let stall = vec![Fault::Stall(100_000, Duration::from_secs(3))];
    bench.server.state().faults.insert(SHARD.to_owned(), stall);
    let model = bench.pull("owner/model")?;
    assert_holds(&model.open_folder()?, &repository(1));
    Ok(())
}

#[test]
fn a_server_without_ranges() -> Result<()> {
    let bench = Bench::new()?;
    let faults = vec![Fault::Cut(2_000_000), Fault::NoRange];
    bench.server.state().faults.insert(SHARD.to_owned(), faults);
    let (hub, plan) = (bench.hub()?, bench.plan("owner/model")?);
    let shard = plan.files.iter().position(|file| file.path == SHARD).ok_or("the shard")?;
    let started_again = Mutex::new(0);
    let model = bench.store().pull(&hub, &plan, &|event| match event {
        Event::At { file, bytes: 0 } if file == shard => *started_again.lock().expect("a lock") += 1,
        _ => {}
    })?;
    assert_eq!(started_again.into_inner()?, 2, "at first, and when the range was not heard");
    assert_holds(&model.open_folder()?, &repository(1));
    Ok(())
}

#[test]
fn a_busy_hub() -> Result<()> {
    let bench = Bench::new()?;
    let mut state = bench.server.state();
    state.faults.insert("api".to_owned(), vec![Fault::Status(503), Fault::Status(429)]);
    state.faults.insert(SHARD.to_owned(), vec![Fault::Status(500), Fault::Status(429)]);
    drop(state);
    let model = bench.pull("owner/model")?;
    assert_holds(&model.open_folder()?, &repository(1));
    Ok(())
}

#[test]
fn the_token_stays_with_the_hub() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().token = Some("secret".to_owned());
    let hub = bench.hub_with(|options| options.token = Some("secret".to_owned()))?;
    let plan = hub.plan(&"owner/model".parse()?)?;
    bench.store().pull(&hub, &plan, &|_| {})?;
    let seen = bench.server.take_seen();
    assert_eq!(seen.iter().filter(|seen| seen.to_cdn).count(), 3);
    for seen in seen {
        assert_eq!(seen.with_token, !seen.to_cdn, "{seen:?}");
    }
    Ok(())
}

#[test]
fn a_part_from_an_earlier_run() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().always.insert(SHARD.to_owned(), Fault::Cut(100_000));
    bench.pull("owner/model").expect_err("three tries bring too little");
    let got = fs::metadata(bench.staged(SHARD).with_extension("safetensors.part"))?.len();
    assert_eq!(got, 400_000);
    let plan = bench.plan("owner/model")?;
    let there: Vec<_> = bench.store().there(&plan).into_iter().zip(&plan.files).collect();
    let (bytes, _) = there.iter().find(|(_, file)| file.path == SHARD).ok_or("the shard")?;
    assert_eq!(*bytes, got);

    bench.server.state().always.clear();
    bench.server.take_seen();
    let model = bench.pull("owner/model")?;
    assert_holds(&model.open_folder()?, &repository(1));
    let seen = bench.server.take_seen();
    let shard = seen.iter().find(|seen| seen.to_cdn && seen.line.ends_with(SHARD));
    assert_eq!(shard.and_then(|seen| seen.from), Some(400_000));
    Ok(())
}

/// Bytes of two revisions never meet in a file, and files that are the same in both are not downloaded twice.
#[test]
fn a_new_commit_in_the_middle() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().always.insert(SHARD.to_owned(), Fault::Cut(100_000));
    bench.pull("owner/model").expect_err("three tries bring too little");
    bench.server.state().always.clear();
    bench.server.publish("owner/model", "main", &repository(7));
    bench.server.take_seen();
    let model = bench.pull("owner/model")?;
    assert_holds(&model.open_folder()?, &repository(7));
    let seen = bench.server.take_seen();
    let shard = seen.iter().find(|seen| seen.to_cdn && seen.line.ends_with(SHARD)).ok_or("the shard")?;
    assert_eq!(shard.from, None, "the part was of another file");
    Ok(())
}

#[test]
fn a_complete_model_follows_its_branch() -> Result<()> {
    let bench = Bench::new()?;
    let first = bench.pull("owner/model")?;
    bench.server.publish("owner/model", "main", &repository(7));
    bench.server.take_seen();
    let second = bench.pull("owner/model")?;
    assert_ne!(first.commit, second.commit);
    assert_holds(&second.open_folder()?, &repository(7));
    let seen = bench.server.take_seen();
    let bodies: Vec<_> = seen.iter().filter(|seen| seen.to_cdn).collect();
    assert_eq!(bodies.len(), 1, "the other files are the same: {bodies:?}");
    // The old commit can still be named.
    let old = bench.pull(&format!("owner/model@{}", first.commit))?;
    assert_holds(&old.open_folder()?, &repository(1));
    assert_eq!(bench.store().models()?.len(), 2);
    Ok(())
}

#[test]
fn a_part_that_is_too_long() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().always.insert(SHARD.to_owned(), Fault::Status(500));
    bench.pull("owner/model").expect_err("the shard cannot be had");
    bench.server.state().always.clear();
    fs::write(bench.staged(SHARD).with_extension("safetensors.part"), noise(5, 3_000_001))?;
    let model = bench.pull("owner/model")?;
    assert_holds(&model.open_folder()?, &repository(1));
    Ok(())
}

#[test]
fn a_range_that_the_hub_does_not_have() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().faults.insert(SHARD.to_owned(), vec![Fault::Cut(2_000_000), Fault::Status(416)]);
    let model = bench.pull("owner/model")?;
    assert_holds(&model.open_folder()?, &repository(1));
    let seen = bench.server.take_seen();
    let from: Vec<_> =
        seen.iter().filter(|seen| seen.to_cdn && seen.line.ends_with(SHARD)).map(|seen| seen.from).collect();
    assert_eq!(from, [None, Some(2_000_000), None]);
    Ok(())
}

#[test]
fn a_damaged_model_is_mended() -> Result<()> {
    let bench = Bench::new()?;
    let folder = bench.pull("owner/model")?.open_folder()?;
    fs::remove_file(folder.join("tokenizer.json"))?;
    fs::write(folder.join(SHARD), b"cut")?;
    let message = bench.open("model").expect_err("it is damaged").to_string();
    for piece in [SHARD, "expected 3000000 bytes, found 3", "moeflux pull owner/model"] {
        assert!(message.contains(piece), "{message}");
    }
    bench.server.take_seen();
    assert_holds(&bench.pull("owner/model")?.open_folder()?, &repository(1));
    assert_eq!(bench.server.take_seen().iter().filter(|seen| seen.to_cdn).count(), 2);
    assert_eq!(NEEDED.len() + 1, fs::read_dir(bench.open("model")?)?.count());
    Ok(())
}
