//! Pulls that are stopped in the middle, in every way a process can end.

use crate::{ANSWER, Bench, QUESTION, Result, demo};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;

/// That the store's folder has the demo's files, all of them and nothing else, and the list of them.
fn assert_whole(bench: &Bench) -> Result<()> {
    let folder = bench.models().join("owner/Demo-48M@main");
    let files: Vec<_> = demo()?.into_iter().filter(|(name, _)| *name != "README.md").collect();
    assert_eq!(fs::read_dir(&folder)?.count(), files.len() + 1);
    for (name, content) in files {
        assert!(fs::read(folder.join(name))? == content, "{name} has other bytes than the demo");
    }
    let left = fs::read_dir(bench.models().join(".partial/owner"))?;
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["Demo-48M@main~lock"]);
    Ok(())
}

#[test]
fn killed_at_ten_points() -> Result<()> {
    let bench = Bench::new()?;
    // About two seconds for the whole of it.
    bench.server.state().rate = Some(14_000_000);
    let mut random = 17_u32;
    let mut killed = 0;
    for point in 0..10 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let pause = Duration::from_millis(u64::from(random >> 16) % 350);
        let mut child = bench.command(&["pull", "owner/Demo-48M"]).spawn()?;
        thread::sleep(pause);
        child.kill()?;
        let status = child.wait()?;
        killed += usize::from(status.signal() == Some(SIGKILL));
        let part = bench.models().join(".partial/owner/Demo-48M@main/model.safetensors.part");
        let there = fs::metadata(part).map_or(0, |metadata| metadata.len());
        println!("kill {point}, after {pause:?}: {status}, {there} bytes of the weights are there");
        if status.signal() == Some(SIGKILL) && bench.models().exists() {
            let run = bench.moeflux(&["run", "-m", "demo-48m", QUESTION])?;
            assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "it must not be taken for whole: {run:?}");
        }
    }
    assert!(killed >= 8, "{killed} of 10 were killed in the middle");
    bench.moeflux(&["pull", "owner/Demo-48M"])?.text();
    assert_whole(&bench)?;
    assert_eq!(bench.moeflux(&["run", "demo-48m", QUESTION, "--temperature", "0"])?.text(), ANSWER);
    let again: Vec<_> = bench.server.take_seen().into_iter().filter_map(|seen| seen.from).collect();
    assert!(!again.is_empty(), "no kill left anything to go on with");
    Ok(())
}

/// Killed around the last steps, when the files are there and the folder takes its place.
#[test]
fn killed_near_the_end() -> Result<()> {
    let bench = Bench::new()?;
    let started = Instant::now();
    bench.moeflux(&["pull", "owner/Demo-48M"])?.text();
    let whole = started.elapsed();
    for point in 0..10 {
        fs::remove_dir_all(bench.models())?;
        let mut child = bench.command(&["pull", "owner/Demo-48M"]).spawn()?;
        thread::sleep(whole * (12 + point) / 20);
        child.kill()?;
        child.wait()?;
        bench.moeflux(&["pull", "owner/Demo-48M"])?.text();
        assert_whole(&bench)?;
    }
    Ok(())
}

#[test]
fn ctrl_c_keeps_what_is_there() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().rate = Some(14_000_000);
    let child = bench.command(&["pull", "owner/Demo-48M"]).spawn()?;
    thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status()?.success());
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(130));
    let stderr = String::from_utf8(output.stderr)?;
    assert!(stderr.ends_with("stopped; what is there is kept, and the same command goes on\n"), "{stderr}");

    let run = bench.moeflux(&["run", "-m", "demo-48m", QUESTION])?;
    run.fails_with(&["owner/Demo-48M is not complete", "of 27627", "`moeflux pull owner/Demo-48M` goes on"]);
    let list = bench.moeflux(&["list"])?;
    assert!(list.text().contains("incomplete, "), "{list:?}");
    let dry = bench.moeflux(&["pull", "owner/Demo-48M", "--dry-run"])?;
    assert!(dry.text().contains("MB of it there already\n"), "{dry:?}");
    bench.moeflux(&["pull", "owner/Demo-48M"])?.text();
    assert_whole(&bench)?;
    Ok(())
}
