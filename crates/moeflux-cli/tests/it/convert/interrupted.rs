//! Conversions that are stopped in the middle, in every way a process can end.

use crate::convert::{Bench, Result, contents};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

const SIGKILL: i32 = 9;
const CONVERT: [&str; 5] = ["convert", "@source", "@pack", "--bits", "4"];

/// A source that takes a while, and the pack that an undisturbed conversion makes of it.
fn source_and_pack() -> Result<Bench> {
    let bench = Bench::new()?;
    let shape = ["--shape", "demo", "--bits", "bf16"];
    bench.moeflux(&[&["bench", "make-model", "@source"], &shape[..]].concat())?.notes();
    bench.moeflux(&["convert", "@source", "@expected", "--bits", "4"])?.notes();
    Ok(bench)
}

/// Bytes of the journal.
fn noted(bench: &Bench) -> u64 {
    fs::metadata(bench.path("pack.partial/convert.journal")).map_or(0, |metadata| metadata.len())
}

/// Waits until something is so, as long as the process runs.
fn wait_until(child: &mut Child, is_so: impl Fn() -> bool) -> Result<()> {
    while !is_so() && child.try_wait()?.is_none() {
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

#[test]
fn killed_at_ten_points() -> Result<()> {
    let bench = source_and_pack()?;
    let expected = contents(&bench.path("expected"))?;
    // A line of at most 55 bytes for each of some 400 units.
    let whole = 12_000;
    let mut state = 17_u32;
    let mut random = |below: u64| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u64::from(state >> 8) % below
    };
    let mut killed = 0;
    for point in 0..10 {
        let mut child = bench.command(&CONVERT).spawn()?;
        match point {
            0 => thread::sleep(Duration::from_millis(random(30))),
            // Around the last steps: small files, manifest, names.
            8 => wait_until(&mut child, || bench.path("pack.partial/config.json").exists())?,
            9 => wait_until(&mut child, || bench.path("pack.partial/moeflux.json").exists())?,
            _ => {
                let bytes = (point - 1) * whole / 8 + random(whole / 8);
                wait_until(&mut child, || noted(&bench) >= bytes)?;
            }
        }
        child.kill()?;
        let was_killed = child.wait()?.signal() == Some(SIGKILL);
        println!("kill {point}: killed {was_killed}, {} bytes noted", noted(&bench));
        killed += usize::from(was_killed);
        if bench.path("pack").exists() {
            assert!(contents(&bench.path("pack"))? == expected, "something that only looks whole");
        } else {
            // What is not whole does not open.
            assert_ne!(bench.moeflux(&["inspect", "@pack"])?.code, Some(0));
        }
        bench.moeflux(&CONVERT)?.notes();
        assert!(contents(&bench.path("pack"))? == expected, "another result after kill {point}");
        assert!(!bench.path("pack.partial").exists());
        fs::remove_dir_all(bench.path("pack"))?;
    }
    assert!(killed >= 8, "only {killed} of ten were killed before they ended");
    Ok(())
}

#[test]
fn killed_again_and_again_it_goes_on() -> Result<()> {
    let bench = source_and_pack()?;
    let mut before = 0;
    for step in 1..4 {
        let mut child = bench.command(&CONVERT).spawn()?;
        wait_until(&mut child, || noted(&bench) >= step * 2_500)?;
        child.kill()?;
        child.wait()?;
        assert!(noted(&bench) > before, "nothing was added in step {step}");
        before = noted(&bench);
    }
    // Another recipe would not go on with it.
    let other = bench.moeflux(&["convert", "@source", "@pack", "--bits", "5"])?;
    other.exits(1, &["pack.partial", "another recipe", "--restart"]);
    // A source that has changed neither.
    let shard = bench.path("source/model-00001-of-00009.safetensors");
    let bytes = fs::read(&shard)?;
    fs::write(&shard, &bytes)?;
    bench.moeflux(&CONVERT)?.exits(1, &["pack.partial", "have changed since", "--restart"]);
    let anew = bench.moeflux(&[&CONVERT[..], &["--restart"]].concat())?;
    assert!(!anew.notes().contains("found done"), "{anew:?}");
    assert!(contents(&bench.path("pack"))? == contents(&bench.path("expected"))?);
    Ok(())
}

#[test]
fn what_was_done_is_not_done_again() -> Result<()> {
    let bench = source_and_pack()?;
    let mut child = bench.command(&CONVERT).spawn()?;
    wait_until(&mut child, || noted(&bench) >= 6_000)?;
    child.kill()?;
    child.wait()?;
    let resumed = bench.moeflux(&CONVERT)?;
    assert!(resumed.notes().contains(" found done"), "{resumed:?}");
    assert!(contents(&bench.path("pack"))? == contents(&bench.path("expected"))?);
    Ok(())
}

/// A disk that takes no more is played by a limit on the length of files.
#[test]
fn a_full_disk_leaves_nothing_that_looks_whole() -> Result<()> {
    let bench = source_and_pack()?;
    let moeflux = bench.command(&CONVERT);
    let mut limited = Command::new("bash");
    // In blocks of 1024 bytes; the signal that comes with it is ignored.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 2000; exec \"$0\" \"$@\""]).arg(moeflux.get_program());
    limited.args(moeflux.get_args()).stdin(Stdio::null());
    let output = limited.output()?;
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: ") && said.contains("pack.partial/"), "{said}");
    assert!(!bench.path("pack").exists());
    assert!(!bench.path("pack.partial/moeflux.json").exists());
    bench.moeflux(&CONVERT)?.notes();
    assert!(contents(&bench.path("pack"))? == contents(&bench.path("expected"))?);
    Ok(())
}
