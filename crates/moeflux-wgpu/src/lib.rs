//! GPU kernels of moeflux: plain functions over device buffers that know nothing of models or files, the twin of
//! `moeflux-kernels`. One set of WGSL shaders runs on Vulkan, Metal and DirectX 12.
//!
//! A kernel records its dispatches in an [`Encoder`]; nothing runs before [`Encoder::submit`]. On one device bits depend
//! on the arguments alone, not on how many tokens a call holds: every sum of floats has one order that follows from
//! shapes, written where the sum is, and no atomics touch floats.
//!
//! A view whose length disagrees with the others' is a programming error and panics.
// Said once, above.
#![allow(clippy::missing_panics_doc)]

pub mod buffer;
pub mod device;
pub mod encoder;
pub mod error;
pub mod host;
pub mod kernels;
pub mod limits;
pub mod matrix;
pub mod pipeline;
pub mod slots;

pub use buffer::View;
pub use device::{Device, DeviceInfo, Download, RecordedDownload, devices};
pub use encoder::{Encoder, Mark};
pub use error::GpuError;
pub use host::HostExperts;
pub use kernels::*;
pub use limits::{LinkBandwidth, link_bandwidth, read_bandwidth, upload_bandwidth};
pub use matrix::GpuMatrix;
pub use pipeline::Program;
pub use slots::Uploads;
