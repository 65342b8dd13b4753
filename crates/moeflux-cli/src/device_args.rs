//! Which device computes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use clap::Args;
use moeflux::devices::{self, Candidate, Device, Measurements, Question};
#[cfg(feature = "gpu")]
use moeflux::gpu;
use moeflux::placement::{GpuMemory, Hits};
use moeflux::{Engine, EngineOptions, Model, kernels};

use crate::cache;
use crate::size::Amount;

/// What `--device` names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DeviceArg {
    /// The one that is expected to be the fastest.
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
    /// Device that computes: cpu, gpu (the first device of `moeflux devices`), gpu:N, or auto: the device that is expected to be
    /// the fastest (`moeflux plan` compares them), but the CPU if --memory or --expert-budget is given, and the first GPU
    /// if --gpu-memory is given
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
    pub(crate) fn is_gpu(&self, model: &Model, options: &EngineOptions, limits_memory: bool) -> Result<bool> {
        Ok(self.index(model, options, limits_memory)?.is_some())
    }

    /// An engine there.
    pub(crate) fn engine(
        &self,
        model: Model,
        options: &EngineOptions,
        limits_memory: bool,
    ) -> Result<Engine> {
        match self.index(&model, options, limits_memory)? {
            None => Ok(Engine::new(model, options)?),
            Some(index) => {
                let memory = self.memory(&model)?;
                on_gpu(index, model, options, memory)
            }
        }
    }

    /// The same flags, with room for all experts.
    pub(crate) fn with_all_experts(self) -> Self {
        DeviceArgs { gpu_memory: None, ..self }
    }

    /// Bytes a second that the device reads from its own memory: the processor with so many threads.
    pub(crate) fn read_bandwidth(
        &self,
        model: &Model,
        options: &EngineOptions,
        limits_memory: bool,
    ) -> Result<f64> {
        match self.index(model, options, limits_memory)? {
            Some(index) => gpu_bandwidth(index),
            None => Ok(kernels::read_bandwidth(&kernels::ThreadPool::new(options.threads)?)),
        }
    }

    /// Bytes a second that come to the GPU from the host's memory: what it is able to read and copy by itself, if there is a
    /// copy of experts for that, or what threads of the host send.
    pub(crate) fn host_bandwidth(
        &self,
        model: &Model,
        options: &EngineOptions,
        has_copy: bool,
    ) -> Result<f64> {
        let index = self.index(model, options, false)?.context("a GPU has experts brought")?;
        host_bandwidth(index, options.threads, has_copy)
    }

    /// How much of a GPU's memory a model may take.
    pub(crate) fn memory(&self, model: &Model) -> Result<GpuMemory> {
        Ok(match self.gpu_memory {
            None => GpuMemory::Free,
            Some(Amount::Bytes(bytes)) => GpuMemory::Bytes(bytes),
            Some(share @ Amount::Percent(_)) => GpuMemory::Experts(share.of(bytes_of_experts(model)?)),
        })
    }

    /// The devices that these flags allow, the fastest first.
    pub(crate) fn candidates(
        &self,
        model: &Model,
        question: &Question<'_>,
        known: &mut Measurements,
    ) -> Result<Vec<Candidate>> {
        match self.device {
            DeviceArg::Cpu => Ok(vec![devices::on_cpu(model, question, known)?]),
            DeviceArg::Gpu(index) => Ok(vec![candidate_on_gpu(index, model, question, known)?]),
            DeviceArg::Auto => Ok(devices::candidates(model, question, known)?),
        }
    }

    /// The GPU, if it is one.
    fn index(&self, model: &Model, options: &EngineOptions, limits_memory: bool) -> Result<Option<usize>> {
        match self.device {
            DeviceArg::Cpu if self.gpu_memory.is_some() => {
                anyhow::bail!("--gpu-memory has no effect with --device cpu: remove one of them")
            }
            DeviceArg::Cpu => Ok(None),
            DeviceArg::Gpu(index) => Ok(Some(index)),
            DeviceArg::Auto if limits_memory && self.gpu_memory.is_none() => Ok(None),
            DeviceArg::Auto if self.gpu_memory.is_some() => Ok(devices::first_gpu()),
            DeviceArg::Auto => self.fastest(model, options),
        }
    }

    /// The GPU that is expected to be faster than the processor and other GPUs, by what was measured now or before. A
    /// process decides once for a model.
    fn fastest(&self, model: &Model, options: &EngineOptions) -> Result<Option<usize>> {
        static DECIDED: Mutex<BTreeMap<PathBuf, Option<usize>>> = Mutex::new(BTreeMap::new());
        if devices::first_gpu().is_none() {
            return Ok(None);
        }
        let mut decided = DECIDED.lock().unwrap_or_else(PoisonError::into_inner);
        let path = model.checkpoint().path();
        if let Some(known) = decided.get(path) {
            return Ok(*known);
        }
        let question = Question { options, memory: self.memory(model)?, hits: &Hits::Even, prompt: PROMPT };
        let mut known: Measurements = cache::load(SPEEDS);
        let found = match devices::fastest(model, &question, &mut known)? {
            Device::Cpu => None,
            Device::Gpu(index) => Some(index),
        };
        cache::save(SPEEDS, &known);
        decided.insert(path.to_owned(), found);
        Ok(found)
    }
}

/// Tokens of the prompt that devices are compared by.
const PROMPT: usize = 512;

/// The file of what was measured.
const SPEEDS: &str = "speeds.json";

#[cfg(feature = "gpu")]
fn bytes_of_experts(model: &Model) -> Result<u64> {
    Ok(moeflux::backend::gpu::bytes_of_experts(model)?)
}

#[cfg(not(feature = "gpu"))]
fn bytes_of_experts(_: &Model) -> Result<u64> {
    without_gpus()
}

#[cfg(feature = "gpu")]
fn candidate_on_gpu(
    index: usize,
    model: &Model,
    question: &Question<'_>,
    known: &mut Measurements,
) -> Result<Candidate> {
    Ok(devices::on_gpu(index, model, question, known)?)
}

#[cfg(not(feature = "gpu"))]
fn candidate_on_gpu(_: usize, _: &Model, _: &Question<'_>, _: &mut Measurements) -> Result<Candidate> {
    without_gpus()
}

#[cfg(not(feature = "gpu"))]
fn without_gpus<T>() -> Result<T> {
    anyhow::bail!("this program was built without GPUs; build it with `--features gpu`")
}

#[cfg(feature = "gpu")]
fn on_gpu(index: usize, model: Model, options: &EngineOptions, memory: GpuMemory) -> Result<Engine> {
    Ok(Engine::on_gpu(model, gpu::Device::open(index)?, memory, options)?)
}

#[cfg(not(feature = "gpu"))]
fn on_gpu(index: usize, _: Model, _: &EngineOptions, _: GpuMemory) -> Result<Engine> {
    anyhow::bail!("--device gpu:{index}: this program was built without GPUs; build it with `--features gpu`")
}

#[cfg(feature = "gpu")]
fn gpu_bandwidth(index: usize) -> Result<f64> {
    Ok(gpu::read_bandwidth(&gpu::Device::open(index)?)?)
}

#[cfg(not(feature = "gpu"))]
fn gpu_bandwidth(_: usize) -> Result<f64> {
    without_gpus()
}

#[cfg(feature = "gpu")]
fn host_bandwidth(index: usize, threads: usize, has_copy: bool) -> Result<f64> {
    let device = gpu::Device::open(index)?;
    if has_copy {
        return Ok(gpu::link_bandwidth(&device)?.most());
    }
    Ok(gpu::upload_bandwidth(&device, &kernels::ThreadPool::new(threads)?)?)
}

#[cfg(not(feature = "gpu"))]
fn host_bandwidth(_: usize, _: usize, _: bool) -> Result<f64> {
    without_gpus()
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
