//! Which device computes.

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use moeflux::{Engine, EngineOptions, Model};

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

impl DeviceArg {
    /// Whether it is a GPU for this model; `limits_memory` says that a flag gives experts a budget of the host's memory,
    /// which is the CPU's.
    pub(crate) fn is_gpu(self, model: &Model, limits_memory: bool) -> Result<bool> {
        Ok(self.index(model, limits_memory)?.is_some())
    }

    /// An engine there.
    pub(crate) fn engine(self, model: Model, options: &EngineOptions, limits_memory: bool) -> Result<Engine> {
        match self.index(&model, limits_memory)? {
            None => Ok(Engine::new(model, options)?),
            Some(index) => on_gpu(index, model, options),
        }
    }

    /// The GPU, if it is one.
    fn index(self, model: &Model, limits_memory: bool) -> Result<Option<usize>> {
        match self {
            DeviceArg::Cpu => Ok(None),
            DeviceArg::Gpu(_) if limits_memory => {
                anyhow::bail!(
                    "--device {self} keeps the whole model in the GPU's memory: leave out the limits of memory"
                )
            }
            DeviceArg::Gpu(index) => Ok(Some(index)),
            DeviceArg::Auto if limits_memory => Ok(None),
            DeviceArg::Auto => with_room(model),
        }
    }
}

#[cfg(feature = "gpu")]
fn on_gpu(index: usize, model: Model, options: &EngineOptions) -> Result<Engine> {
    let backend = moeflux::backend::gpu::GpuBackend::new(moeflux_gpu::Device::open(index)?)?;
    Ok(Engine::with_backend(model, Box::new(backend), options)?)
}

#[cfg(not(feature = "gpu"))]
fn on_gpu(index: usize, _model: Model, _options: &EngineOptions) -> Result<Engine> {
    anyhow::bail!(
        "--device gpu:{index}: this program was built without GPUs (`cargo build --features gpu` has them)"
    )
}

/// The first device other than the processor whose memory is known and has room for all weights, and a fifth of it for
/// activations and states.
#[cfg(feature = "gpu")]
fn with_room(model: &Model) -> Result<Option<usize>> {
    let needed: u64 = model.summary()?.files.iter().map(|file| file.bytes).sum();
    let has_room = |device: &moeflux_gpu::DeviceInfo| {
        !device.is_cpu && device.memory.is_some_and(|memory| needed <= memory / 5 * 4)
    };
    Ok(moeflux_gpu::devices().iter().position(has_room))
}

#[cfg(not(feature = "gpu"))]
#[allow(clippy::unnecessary_wraps)] // as with GPUs
fn with_room(_model: &Model) -> Result<Option<usize>> {
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
