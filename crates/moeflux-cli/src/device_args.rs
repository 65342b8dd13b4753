//! Which device computes.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::Args;
use moeflux::{Engine, EngineOptions, Model};

use crate::size::Amount;

/// What `--device` names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DeviceArg {
    /// A GPU that has room for the whole model, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// By its place in the list of devices.
    Gpu(usize),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected auto, cpu, gpu or gpu:N, found {text}");
        match text {
            "auto" => Ok(DeviceArg::Auto),
            "cpu" => Ok(DeviceArg::Cpu),
            "gpu" => Ok(DeviceArg::Gpu(0)),
            _ => {
                let index = text.strip_prefix("gpu:").ok_or_else(wrong)?;
                index.parse().map(DeviceArg::Gpu).map_err(|_| wrong())
            }
        }
    }
}

impl fmt::Display for DeviceArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceArg::Auto => f.write_str("auto"),
            DeviceArg::Cpu => f.write_str("cpu"),
            DeviceArg::Gpu(index) => write!(f, "gpu:{index}"),
        }
    }
}

/// Flags about the device.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct DeviceArgs {
    /// Device that computes: cpu, gpu (the first device of `moeflux devices`), gpu:N, or auto (a GPU with room for the
    /// whole model, otherwise the CPU)
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceArg,
    /// GPU memory for weights, experts and states: a size such as 24G, or slots for a share of the experts such as 25%
    /// and whatever else is needed. Experts without a slot are copied to the GPU when a router chooses them [default:
    /// the free memory]
    #[arg(long, value_name = "SIZE")]
    gpu_memory: Option<Amount>,
}

impl DeviceArgs {
    /// Whether it is a GPU for this model; `limits_memory` says that a flag limits the host's memory, so that `auto` is not
    /// to take a GPU that would do without.
    pub(crate) fn is_gpu(&self, model: &Model, limits_memory: bool) -> Result<bool> {
        Ok(self.index(model, limits_memory)?.is_some())
    }

    /// An engine there.
    pub(crate) fn engine(
        &self,
        model: Model,
        options: &EngineOptions,
        limits_memory: bool,
    ) -> Result<Engine> {
        match self.index(&model, limits_memory)? {
            None => Ok(Engine::new(model, options)?),
            Some(index) => on_gpu(index, model, options, self.gpu_memory),
        }
    }

    /// The same flags, with room for all experts.
    pub(crate) fn with_all_experts(self) -> Self {
        DeviceArgs { gpu_memory: None, ..self }
    }

    /// Bytes a second that the device reads from its own memory: the processor with so many threads.
    pub(crate) fn read_bandwidth(&self, model: &Model, limits_memory: bool, threads: usize) -> Result<f64> {
        match self.index(model, limits_memory)? {
            Some(index) => gpu_bandwidth(index),
            None => Ok(moeflux_kernels::read_bandwidth(&moeflux_kernels::ThreadPool::new(threads)?)),
        }
    }

    /// Bytes a second that come to the GPU from the host's memory: what it is able to read and copy by itself, if there is a
    /// copy of experts for that, or what so many threads send.
    pub(crate) fn host_bandwidth(&self, model: &Model, threads: usize, has_copy: bool) -> Result<f64> {
        let index = self.index(model, false)?.context("a GPU has experts brought")?;
        host_bandwidth(index, threads, has_copy)
    }

    /// The GPU, if it is one.
    fn index(&self, model: &Model, limits_memory: bool) -> Result<Option<usize>> {
        match self.device {
            DeviceArg::Cpu if self.gpu_memory.is_some() => {
                anyhow::bail!("--gpu-memory has no effect with --device cpu: remove one of them")
            }
            DeviceArg::Cpu => Ok(None),
            DeviceArg::Gpu(index) => Ok(Some(index)),
            DeviceArg::Auto if limits_memory && self.gpu_memory.is_none() => Ok(None),
            DeviceArg::Auto => with_room(model, self.gpu_memory.is_some()),
        }
    }
}

#[cfg(feature = "gpu")]
fn on_gpu(index: usize, model: Model, options: &EngineOptions, memory: Option<Amount>) -> Result<Engine> {
    use moeflux::backend::gpu::{GpuMemory, bytes_of_experts};
    let memory = match memory {
        None => GpuMemory::Free,
        Some(Amount::Bytes(bytes)) => GpuMemory::Bytes(bytes),
        Some(share @ Amount::Percent(_)) => GpuMemory::Experts(share.of(bytes_of_experts(&model)?)),
    };
    Ok(Engine::on_gpu(model, moeflux_gpu::Device::open(index)?, memory, options)?)
}

#[cfg(not(feature = "gpu"))]
fn on_gpu(index: usize, _: Model, _: &EngineOptions, _: Option<Amount>) -> Result<Engine> {
    anyhow::bail!("--device gpu:{index}: this program was built without GPUs; build it with `--features gpu`")
}

#[cfg(feature = "gpu")]
fn gpu_bandwidth(index: usize) -> Result<f64> {
    Ok(moeflux_gpu::read_bandwidth(&moeflux_gpu::Device::open(index)?)?)
}

#[cfg(not(feature = "gpu"))]
fn gpu_bandwidth(_: usize) -> Result<f64> {
    anyhow::bail!("this program was built without GPUs")
}

#[cfg(feature = "gpu")]
fn host_bandwidth(index: usize, threads: usize, has_copy: bool) -> Result<f64> {
    let device = moeflux_gpu::Device::open(index)?;
    if has_copy {
        return Ok(moeflux_gpu::link_bandwidth(&device)?.most());
    }
    Ok(moeflux_gpu::upload_bandwidth(&device, &moeflux_kernels::ThreadPool::new(threads)?)?)
}

#[cfg(not(feature = "gpu"))]
fn host_bandwidth(_: usize, _: usize, _: bool) -> Result<f64> {
    anyhow::bail!("this program was built without GPUs")
}

/// The first device other than the processor whose memory is known and has room for all weights, and a fifth of it for
/// activations and states; if `any_room` will do, the first one at all.
#[cfg(feature = "gpu")]
fn with_room(model: &Model, any_room: bool) -> Result<Option<usize>> {
    let needed: u64 = model.summary()?.files.iter().map(|file| file.bytes).sum();
    let has_room = |device: &moeflux_gpu::DeviceInfo| {
        !device.is_cpu && (any_room || device.memory.is_some_and(|memory| needed <= memory / 5 * 4))
    };
    Ok(moeflux_gpu::devices().iter().position(has_room))
}

#[cfg(not(feature = "gpu"))]
#[allow(clippy::unnecessary_wraps)] // as with GPUs
fn with_room(_: &Model, _: bool) -> Result<Option<usize>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::DeviceArg;

    #[test]
    fn devices_have_names() {
        for device in [DeviceArg::Auto, DeviceArg::Cpu, DeviceArg::Gpu(0), DeviceArg::Gpu(12)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("gpu".parse(), Ok(DeviceArg::Gpu(0)));
        for wrong in ["", "gpu:", "gpu:-1", "gpu0", "GPU", "cuda"] {
            assert!(wrong.parse::<DeviceArg>().is_err(), "{wrong}");
        }
    }
}
