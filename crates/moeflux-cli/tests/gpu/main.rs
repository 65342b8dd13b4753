//! The command on a GPU.

#[path = "../it/common.rs"]
#[allow(dead_code, reason = "shared with the other binary")]
mod common;
#[path = "../../../moeflux-wgpu/tests/harness/mod.rs"]
mod harness;

use common::{Finished, Result};
use harness::test;

fn main() -> std::process::ExitCode {
    harness::run(vec![test!(a_gpu_answers_as_the_cpu_does), test!(a_gpu_is_listed_with_its_bandwidth)])
}

/// Runs `moeflux` with arguments and nothing on stdin.
fn moeflux(args: &[&str]) -> Result<Finished> {
    common::finished(common::command().args(args).output()?)
}

/// The demo's questions, whose answers are the same from any device. Drivers and thoughts speak on stderr.
fn a_gpu_answers_as_the_cpu_does() -> Result<()> {
    for (question, more) in [
        ("What is 17 + 25?", &[][..]),
        ("What is the capital of Norway?", &[]),
        ("What is 8 * 7?", &["--think"]),
    ] {
        let answer = |device: &str| {
            let args = [&["run", question, "--temperature", "0", "--device", device], more].concat();
            Ok::<_, Box<dyn std::error::Error>>(moeflux(&args)?.output().to_owned())
        };
        assert_eq!(answer("gpu")?, answer("cpu")?, "{question}");
    }
    Ok(())
}

fn a_gpu_is_listed_with_its_bandwidth() -> Result<()> {
    let devices: serde_json::Value = serde_json::from_str(moeflux(&["devices", "--json"])?.output())?;
    assert_eq!(devices[0]["device"], "gpu:0");
    assert!(devices[0]["bandwidth_bytes_per_second"].as_f64() > Some(1e8), "{devices}");
    Ok(())
}
