//! `--device` and `moeflux devices`.

use crate::cli::{Result, moeflux};

#[test]
fn the_cpu_is_a_device_of_every_build() -> Result<()> {
    let args = ["run", "What is 17 + 25?", "--temperature", "0", "--device", "cpu"];
    assert_eq!(moeflux(&args)?.text(), "17 + 25 = 42.\n");
    Ok(())
}

#[cfg(not(feature = "gpu"))]
#[test]
fn without_gpus_the_error_says_how_to_have_them() -> Result<()> {
    moeflux(&["run", "Hello", "--device", "gpu"])?.fails_with(&["--features gpu"]);
    Ok(())
}
