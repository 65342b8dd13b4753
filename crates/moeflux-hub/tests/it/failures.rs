//! Downloads that cannot end well: what is said, and what is left.

use crate::server::Fault;
use crate::{Bench, Result, SHARD, assert_holds, repository};
use moeflux_hub::{Error, Hub, HubOptions};
use std::time::Duration;

#[track_caller]
fn says(error: &impl ToString, pieces: &[&str]) {
    let message = error.to_string();
    for piece in pieces {
        assert!(message.contains(piece), "{piece:?} is not in {message:?}");
    }
}

#[test]
fn names_that_are_not_there() -> Result<()> {
    let bench = Bench::new()?;
    let error = bench.plan("owner/nothing").expect_err("no such model");
    says(&error, &["owner/nothing", "no such model, or it is private", "HF_TOKEN"]);
    let hub = bench.hub_with(|options| options.token = Some("a token".to_owned()))?;
    let error = hub.plan(&"owner/nothing".parse()?).expect_err("no such model");
    says(&error, &["owner/nothing", "your token may not read it"]);
    let error = bench.plan("owner/model@v9").expect_err("no such revision");
    says(&error, &["no revision \"v9\"", "owner/model lists branches and tags"]);
    Ok(())
}

#[test]
fn gated_models() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().token = Some("secret".to_owned());
    let error = bench.plan("owner/model").expect_err("no token");
    let page = format!("ask for access at {}/owner/model", bench.server.endpoint());
    says(&error, &["owner/model is gated", &page, "set HF_TOKEN"]);
    let hub = bench.hub_with(|options| options.token = Some("wrong".to_owned()))?;
    let error = hub.plan(&"owner/model".parse()?).expect_err("a wrong token");
    says(&error, &["status 401", "the hub refuses your token"]);
    Ok(())
}

#[test]
fn a_file_that_has_gone() -> Result<()> {
    let bench = Bench::new()?;
    let (hub, plan) = (bench.hub()?, bench.plan("owner/model")?);
    bench.server.state().always.insert(SHARD.to_owned(), Fault::Status(404));
    let error = bench.store().pull(&hub, &plan, &|_| {}).expect_err("it has gone");
    says(&error, &[SHARD, "no such file"]);
    Ok(())
}

#[test]
fn forbidden_files_are_not_tried_again() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().always.insert("config.json".to_owned(), Fault::Status(403));
    says(&bench.pull("owner/model").expect_err("forbidden"), &["config.json", "403", "HF_TOKEN"]);
    let seen = bench.server.take_seen();
    assert_eq!(seen.iter().filter(|seen| seen.line.ends_with("/config.json")).count(), 1);
    Ok(())
}

#[test]
fn truncated_for_good() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().always.insert(SHARD.to_owned(), Fault::Cut(1000));
    let error = bench.pull("owner/model").expect_err("it never ends");
    assert!(matches!(&error, Error::GaveUp { got: 4000, size: 3_000_000, tries: 4, .. }), "{error:?}");
    says(
        &error,
        &[SHARD, "4000 of 3000000 bytes", "after 4 tries", "pulling again goes on", "ended at byte 4000"],
    );

    let message = bench.open("owner/model").expect_err("it is not complete").to_string();
    says(&message, &["owner/model is not complete", "`moeflux pull owner/model` goes on"]);
    Ok(())
}

#[test]
fn wrong_content_is_deleted() -> Result<()> {
    for file in [SHARD, "generation_config.json"] {
        let bench = Bench::new()?;
        bench.server.state().always.insert(file.to_owned(), Fault::Flip);
        let error = bench.pull("owner/model").expect_err("wrong content");
        assert!(matches!(&error, Error::WrongDigest { file: wrong, .. } if wrong == file), "{error}");
        says(&error, &[file, "it was deleted", "expected", "found"]);
        let part = format!("{}.part", bench.staged(file).display());
        assert!(!bench.staged(file).exists() && !std::path::Path::new(&part).exists());
        assert!(bench.open("owner/model").is_err());
        bench.server.state().always.clear();
        assert_holds(&bench.pull("owner/model")?.open_folder()?, &repository(1));
    }
    Ok(())
}

#[test]
fn a_part_with_wrong_content() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().always.insert(SHARD.to_owned(), Fault::Cut(1000));
    bench.pull("owner/model").expect_err("it never ends");
    bench.server.state().always.clear();
    std::fs::write(bench.staged(SHARD).with_extension("safetensors.part"), [0; 2000])?;
    assert!(matches!(bench.pull("owner/model"), Err(Error::WrongDigest { .. })));
    assert_holds(&bench.pull("owner/model")?.open_folder()?, &repository(1));
    Ok(())
}

#[test]
fn nobody_answers() -> Result<()> {
    let bench = Bench::new()?;
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let hub = bench.hub_with(|options| options.endpoint = format!("http://127.0.0.1:{port}/"))?;
    let error = hub.plan(&"owner/model".parse()?).expect_err("nobody is there");
    says(&error, &[&format!("http://127.0.0.1:{port}/api/models/owner/model")]);
    for endpoint in ["huggingface.co", "ftp://x", "", "http://"] {
        let options = HubOptions { endpoint: endpoint.to_owned(), ..HubOptions::default() };
        assert!(matches!(Hub::new(options), Err(Error::Endpoint { .. })), "{endpoint}");
    }
    Ok(())
}

/// Somebody else's certificate, or none: not tried again.
#[test]
fn no_plain_text_for_tls() -> Result<()> {
    let bench = Bench::new()?;
    let endpoint = bench.server.endpoint().replace("http:", "https:");
    let hub = bench.hub_with(|options| options.endpoint = endpoint)?;
    assert!(matches!(hub.plan(&"owner/model".parse()?), Err(Error::Connection { .. })));
    Ok(())
}

#[test]
fn one_failure_stops_all_and_is_the_one_told() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().always.insert("tokenizer.json".to_owned(), Fault::Status(404));
    bench.server.state().always.insert(SHARD.to_owned(), Fault::Stall(1000, Duration::from_secs(2)));
    let hub = bench.hub_with(|options| options.timeout = Duration::from_secs(10))?;
    let plan = bench.plan("owner/model")?;
    let error = bench.store().pull(&hub, &plan, &|_| {}).expect_err("a file has gone");
    says(&error, &["tokenizer.json", "no such file"]);
    Ok(())
}

#[test]
fn no_space() -> Result<()> {
    let bench = Bench::new()?;
    let (hub, mut plan) = (bench.hub()?, bench.plan("owner/model")?);
    plan.files[2].size = 1 << 60;
    let error = bench.store().pull(&hub, &plan, &|_| {}).expect_err("it cannot fit");
    assert!(matches!(&error, Error::TooLittleSpace { needed, .. } if *needed > 1 << 60), "{error}");
    says(&error, &["not enough disk space", "bytes are needed", "free"]);
    Ok(())
}
