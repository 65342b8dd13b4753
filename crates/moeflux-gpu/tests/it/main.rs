//! Each kernel against the CPU's exact one on the same data.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // helpers fail by panicking; errors found are shown
#![allow(clippy::single_range_in_vec_init)] // a list of one range is meant

mod support;
mod translate;

mod attention;
mod delta;
mod elementwise;
mod errors;
mod experts;
mod linear;
mod norm;
mod route;
mod top_k;
mod weights;
