//! Pulls that are stopped in the middle, in every way a process can end.

use crate::pull::{ANSWER, Bench, QUESTION, Result, demo};
use crate::signal::{self, Signal};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
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

/// Bytes of the weights that are there, of a pull that has not ended.
fn bytes_there(bench: &Bench) -> u64 {
    let part = bench.models().join(".partial/owner/Demo-48M@main/model.safetensors.part");
    fs::metadata(part).map_or(0, |metadata| metadata.len())
}

/// Waits until as many bytes of the weights are there, as long as the process runs.
fn wait_for_bytes(bench: &Bench, child: &mut Child, bytes: u64) -> Result<()> {
    while bytes_there(bench) < bytes && child.try_wait()?.is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// At random times from the start on, and at random amounts of the weights, more each time.
#[test]
fn killed_at_ten_points() -> Result<()> {
    let bench = Bench::new()?;
    // About two seconds for the whole of it.
    bench.server.state().rate = Some(14_000_000);
    let mut state = 17_u32;
    let mut random = |below: u64| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u64::from(state >> 8) % below
    };
    for point in 0..10 {
        let mut child = bench.command(&["pull", "owner/Demo-48M"]).spawn()?;
        match point {
            0..3 => thread::sleep(Duration::from_millis(random(100))),
            _ => wait_for_bytes(&bench, &mut child, (point - 3) * 3_600_000 + random(3_600_000))?,
        }
        child.kill()?;
        let status = child.wait()?;
        println!("kill {point}: {status}, {} bytes of the weights are there", bytes_there(&bench));
        assert_eq!(status.signal(), Some(SIGKILL), "it ended before it was killed");
        let run = bench.moeflux(&["run", "-m", "demo-48m", QUESTION])?;
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "taken for whole: {run:?}");
    }
    assert!(bytes_there(&bench) > 21_000_000, "the kills left too little to go on with");
    bench.server.take_seen();
    bench.moeflux(&["pull", "owner/Demo-48M"])?.output();
    let from: Vec<_> = bench.server.take_seen().into_iter().filter_map(|seen| seen.from).collect();
    assert!(
        !from.is_empty() && from.iter().all(|byte| *byte > 21_000_000),
        "it went on where it was: {from:?}"
    );
    assert_whole(&bench)?;
    assert_eq!(bench.moeflux(&["run", "demo-48m", QUESTION, "--temperature", "0"])?.output(), ANSWER);
    Ok(())
}

/// Killed around the last steps, when the files are there and the folder takes its place.
#[test]
fn killed_near_the_end() -> Result<()> {
    let bench = Bench::new()?;
    let started = Instant::now();
    bench.moeflux(&["pull", "owner/Demo-48M"])?.output();
    let whole = started.elapsed();
    for point in 0..10 {
        fs::remove_dir_all(bench.models())?;
        let mut child = bench.command(&["pull", "owner/Demo-48M"]).spawn()?;
        thread::sleep(whole * (12 + point) / 20);
        child.kill()?;
        child.wait()?;
        bench.moeflux(&["pull", "owner/Demo-48M"])?.output();
        assert_whole(&bench)?;
    }
    Ok(())
}

#[test]
fn ctrl_c_keeps_what_is_there() -> Result<()> {
    let bench = Bench::new()?;
    bench.server.state().rate = Some(14_000_000);
    let mut child = bench.command(&["pull", "owner/Demo-48M"]).spawn()?;
    wait_for_bytes(&bench, &mut child, 2_000_000)?;
    signal::send(Signal::INT, &child);
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(130));
    let stderr = String::from_utf8(output.stderr)?;
    assert!(
        stderr.ends_with("stopped; the downloaded part is kept, and the same command continues\n"),
        "{stderr}"
    );

    let run = bench.moeflux(&["run", "-m", "demo-48m", QUESTION])?;
    run.fails_with(&["owner/Demo-48M is not complete", "of 27627", "`moeflux pull owner/Demo-48M` goes on"]);
    let list = bench.moeflux(&["list"])?;
    assert!(list.output().contains("incomplete, "), "{list:?}");
    let dry = bench.moeflux(&["pull", "owner/Demo-48M", "--dry-run"])?;
    assert!(dry.output().contains("MB of it there already\n"), "{dry:?}");
    bench.moeflux(&["pull", "owner/Demo-48M"])?.output();
    assert_whole(&bench)?;
    Ok(())
}
