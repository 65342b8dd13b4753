//! Runs tests that need a GPU: without one they are reported as ignored, with the reason.
#![allow(clippy::print_stdout, reason = "a harness reports")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use moeflux_wgpu::Device;

/// Makes a missing GPU a failure rather than a reason to ignore tests.
const REQUIRE: &str = "MOEFLUX_REQUIRE_GPU";

/// A test by name.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) needs_gpu: bool,
    pub(crate) run: fn() -> Result<(), Failed>,
}

/// A [`Test`] made of the path of a function; `without_gpu` before the path: it needs no device.
macro_rules! test {
    (without_gpu $($path:ident)::+) => {
        crate::harness::Test { needs_gpu: false, ..crate::harness::test!($($path)::+) }
    };
    ($($path:ident)::+) => {
        crate::harness::Test {
            name: concat!($("::", stringify!($path)),+).split_at(2).1,
            needs_gpu: true,
            run: || crate::harness::Outcome::into_result($($path)::+()),
        }
    };
}
pub(crate) use test;

/// What test functions return.
pub(crate) trait Outcome {
    fn into_result(self) -> Result<(), Failed>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), Failed> {
        Ok(())
    }
}

impl Outcome for Result<(), Box<dyn std::error::Error>> {
    fn into_result(self) -> Result<(), Failed> {
        self.map_err(|error| error.to_string().into())
    }
}

/// Runs the tests that the command line selects, as the standard harness does.
pub(crate) fn run(tests: Vec<Test>) -> ExitCode {
    let arguments = Arguments::from_args();
    let reason = missing_gpu();
    if let Some(reason) = &reason {
        println!("tests that need a GPU are ignored: {reason} ({REQUIRE}=1 makes that a failure)");
    }
    let trials = tests.into_iter().map(|test| {
        let trial = Trial::test(test.name, test.run);
        if test.needs_gpu && reason.is_some() {
            trial.with_kind("no GPU").with_ignored_flag(true)
        } else {
            trial
        }
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Why tests cannot run, unless their absence is a failure anyway.
fn missing_gpu() -> Option<String> {
    if std::env::var_os(REQUIRE).is_some() {
        return None;
    }
    Device::open(0).err().map(|error| error.to_string())
}
