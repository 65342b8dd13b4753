//! `--device` and `moeflux devices`.

use crate::cli::{Result, moeflux};

#[test]
fn the_cpu_is_a_device_of_every_build() -> Result<()> {
    let args = ["run", "What is 17 + 25?", "--temperature", "0", "--device", "cpu"];
    assert_eq!(moeflux(&args)?.text(), "17 + 25 = 42.\n");
    Ok(())
}

/// The demo's questions, whose answers are the same from any device. Drivers and thoughts speak on stderr.
#[cfg(feature = "gpu")]
#[test]
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

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_is_listed_with_its_bandwidth() -> Result<()> {
    let devices: serde_json::Value = serde_json::from_str(moeflux(&["devices", "--json"])?.output())?;
    assert_eq!(devices[0]["device"], "gpu:0");
    assert!(devices[0]["bandwidth_bytes_per_second"].as_f64() > Some(1e8), "{devices}");
    Ok(())
}

#[cfg(not(feature = "gpu"))]
#[test]
fn without_gpus_the_error_says_how_to_have_them() -> Result<()> {
    moeflux(&["run", "Hello", "--device", "gpu"])?.fails_with(&["--features gpu"]);
    Ok(())
}
