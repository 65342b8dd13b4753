//! How many cases property tests try, and from which seed. Each test crate that has such tests includes this file.
//!
//! `MOEFLUX_PROPERTY_CASES` multiplies the number of cases of every test: 100 for a night, 0.05 where a processor is
//! emulated. `MOEFLUX_PROPERTY_SEED` repeats a run: without it the seed is another one each time. A test that fails shows
//! the smallest input found that fails, and the command that repeats the run.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and shows how to repeat it"
)]
#![allow(dead_code, reason = "not every test crate needs all of it")]

use std::cell::Cell;
use std::env::VarError;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::str::FromStr;
use std::sync::Once;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

const CASES: &str = "MOEFLUX_PROPERTY_CASES";
const SEED: &str = "MOEFLUX_PROPERTY_SEED";

/// Runs `test`, which panics where it fails, on so many random inputs, times what the environment says. Shows the first
/// failure; those on the way to a smaller input that fails are not shown.
#[track_caller]
pub(crate) fn check<S: Strategy>(cases: u32, inputs: &S, test: impl Fn(S::Value)) {
    hush_shrinking();
    let outcome = TestRunner::new(config(cases)).run(inputs, |input| {
        std::panic::catch_unwind(AssertUnwindSafe(|| test(input))).map_err(|panic| {
            IS_SHRINKING.set(true);
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            TestCaseError::fail(text.unwrap_or("a panic without a text").to_owned())
        })
    });
    IS_SHRINKING.set(false);
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

thread_local! {
    /// Whether this thread has failed, and now looks for a smaller input that fails.
    static IS_SHRINKING: Cell<bool> = const { Cell::new(false) };
}

fn hush_shrinking() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let show = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_SHRINKING.get() {
                show(info);
            }
        }));
    });
}

/// A configuration of so many cases, times what the environment says, for `proptest!`. Prints how to repeat the run, which
/// the test harness shows if the test fails.
pub(crate) fn config(cases: u32) -> Config {
    let seed = variable::<u64>(SEED).unwrap_or_else(|| RandomState::new().hash_one(0));
    let multiplier = multiplier();
    let scaled = if multiplier == 1.0 { String::new() } else { format!("{CASES}={multiplier} ") };
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or("NAME_OF_THE_TEST");
    let package = env!("CARGO_PKG_NAME");
    println!("to repeat this run: {scaled}{SEED}={seed} cargo test --release -p {package} {test}");
    let cases = (f64::from(cases) * multiplier).ceil() as u32;
    let rng_seed = RngSeed::Fixed(seed);
    Config { cases, rng_seed, failure_persistence: None, max_shrink_iters: 1000, ..Config::default() }
}

/// By how much the environment multiplies cases.
pub(crate) fn multiplier() -> f64 {
    let multiplier = variable(CASES).unwrap_or(1.0);
    assert!(
        multiplier > 0.0 && multiplier <= 1e5,
        "{CASES}={multiplier}: expected a number above 0, at most 1e5"
    );
    multiplier
}

/// The counts from 1 to `most`; where the environment asks for fewer cases, the ends and every seventh between.
pub(crate) fn counts(most: usize) -> Vec<usize> {
    let step = if multiplier() < 1.0 { 7 } else { 1 };
    let mut counts: Vec<usize> = (1..most).step_by(step).collect();
    counts.push(most);
    counts
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    match std::env::var(name) {
        Ok(text) => Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number"))),
        Err(VarError::NotPresent) => None,
        Err(error) => panic!("{name}: {error}"),
    }
}
