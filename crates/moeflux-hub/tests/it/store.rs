//! Models that are there: found, listed, removed.

use crate::{Bench, Result, SHARD, assert_holds, repository, server::Fault};
use moeflux_hub::{Error, Model};
use std::fs;
use std::sync::{Barrier, mpsc};
use std::thread;

fn names(bench: &Bench) -> Result<Vec<String>> {
    Ok(bench.store().models()?.into_iter().flatten().map(|model: Model| model.name.to_string()).collect())
}

#[test]
fn names_and_short_names() -> Result<()> {
    let bench = Bench::new()?;
    assert!(names(&bench)?.is_empty());
    for repo in ["owner/model", "other/model", "other/Unique-1B"] {
        bench.server.publish(repo, "main", &repository(1));
        bench.server.publish(repo, "refs/pr/1", &repository(2));
        bench.pull(repo)?;
    }
    bench.pull("owner/model@refs/pr/1")?;
    let all = ["other/Unique-1B", "other/model", "owner/model", "owner/model@refs/pr/1"];
    assert_eq!(names(&bench)?, all);
    for (query, expected) in [
        ("owner/model", "owner/model"),
        ("owner/model@main", "owner/model"),
        ("model@refs/pr/1", "owner/model@refs/pr/1"),
        ("unique-1b", "other/Unique-1B"),
    ] {
        let found = bench.store().find(query)?.ok_or(query)?;
        assert_eq!(found.name.to_string(), expected, "{query}");
    }
    let ambiguous = bench.store().find("model");
    assert!(matches!(&ambiguous, Err(Error::Ambiguous { names, .. }) if names.len() == 3), "{ambiguous:?}");
    for query in ["nothing", "What is 17 + 25?", "", "owner", "owner/model@v9", "../owner/model"] {
        assert!(bench.store().find(query)?.is_none(), "{query}");
    }
    assert_holds(&bench.open("model@refs/pr/1")?, &repository(2));
    Ok(())
}

#[test]
fn removal_takes_all_of_it() -> Result<()> {
    let bench = Bench::new()?;
    bench.pull("owner/model")?;
    bench.server.state().always.insert(SHARD.to_owned(), Fault::Cut(10));
    bench.server.publish("owner/half", "main", &repository(3));
    bench.pull("owner/half").expect_err("it never ends");
    let half = bench.store().find("half")?.ok_or("the half")?;
    assert!(!half.is_complete() && half.there < half.size, "{half:?}");
    assert_eq!(names(&bench)?, ["owner/half", "owner/model"]);

    bench.store().remove(&half)?;
    assert_eq!(names(&bench)?, ["owner/model"]);
    bench.store().remove(&bench.store().find("model")?.ok_or("the model")?)?;
    assert!(names(&bench)?.is_empty());
    let left: Vec<_> = fs::read_dir(bench.store().root())?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, [".partial"]);
    Ok(())
}

#[test]
fn one_at_a_time() -> Result<()> {
    let bench = Bench::new()?;
    let (hub, plan) = (bench.hub()?, bench.plan("owner/model")?);
    let (store, begun) = (bench.store(), Barrier::new(2));
    let (end, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            store.pull(&hub, &plan, &|_| {
                // The first event waits for the second pull's failure.
                let waiting = wait.lock().expect("a lock").take();
                if let Some(end) = waiting {
                    begun.wait();
                    let _ = end.recv();
                }
            })
        });
        begun.wait();
        let second = store.pull(&hub, &plan, &|_| {});
        end.send(()).expect("the first pull waits");
        assert!(matches!(&second, Err(Error::Busy { name }) if name == "owner/model"), "{second:?}");
        first.join().expect("no panic").expect("the first goes on");
    });
    assert_holds(&bench.open("model")?, &repository(1));
    Ok(())
}

#[test]
fn a_damaged_list_hides_no_other_model() -> Result<()> {
    let bench = Bench::new()?;
    bench.pull("owner/model")?;
    bench.server.publish("owner/other", "main", &repository(2));
    bench.pull("owner/other")?;
    let path = bench.open("other")?.join("pulled.json");
    for wrong in ["{", "{\"format\": 1}", "[]"] {
        fs::write(&path, wrong)?;
        assert_holds(&bench.open("model")?, &repository(1));
        assert_eq!(bench.store().models()?.iter().filter(|model| model.is_err()).count(), 1);
        let message = bench.open("other").expect_err("its list is damaged").to_string();
        assert!(message.contains("pulled.json: not a list of a model's files"), "{message}");
    }
    let text = fs::read_to_string(bench.open("model")?.join("pulled.json"))?;
    fs::write(&path, text.replace("\"config.json\"", "\"../../config.json\""))?;
    assert!(bench.open("other").is_err());
    assert_holds(&bench.pull("owner/other")?.open_folder()?, &repository(2));
    Ok(())
}

/// Killed between the two steps of a replacement.
#[test]
fn the_old_model_comes_back() -> Result<()> {
    let bench = Bench::new()?;
    let folder = bench.pull("owner/model")?.open_folder()?;
    let old = bench.store().root().join(".partial/owner/model@main~old");
    fs::rename(&folder, &old)?;
    assert!(bench.store().find("owner/model")?.is_none());
    bench.server.take_seen();
    assert_holds(&bench.pull("owner/model")?.open_folder()?, &repository(1));
    assert_eq!(bench.server.take_seen().iter().filter(|seen| seen.to_cdn).count(), 0);
    assert!(!old.exists());
    Ok(())
}
