//! Devices that a model can run on, what to expect of each, and which is the fastest.
//!
//! A second kind of GPU backend is added here and nowhere above: its devices are listed by [`candidates`] beside the others.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

use crate::backend::cpu::CpuBackend;
#[cfg(feature = "gpu")]
use crate::backend::gpu::GpuBackend;
use crate::error::Error;
use crate::experts::{self, DiskSpeed, Io};
use crate::model::Model;
use crate::options::EngineOptions;
#[cfg(feature = "gpu")]
use crate::placement::{DevicePlacement, HostTier};
use crate::placement::{ExpertShare, Forecast, GpuMemory, Hits, Needs, Placement, Residence, Speeds, needs};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Device {
    /// The processor.
    Cpu,
    /// A GPU, by its place in the list of devices.
    Gpu(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Gpu(index) => write!(f, "gpu:{index}"),
        }
    }
}

/// Numbers that were measured, by what they are of: to be kept between runs of a program, since each takes a moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measurements(BTreeMap<String, f64>);

impl Measurements {
    /// The number that is known, or else what a measurement gives.
    fn get<E>(&mut self, key: String, measure: impl FnOnce() -> Result<f64, E>) -> Result<f64, E> {
        if let Some(known) = self.0.get(&key) {
            return Ok(*known);
        }
        let found = measure()?;
        self.0.insert(key, found);
        Ok(found)
    }
}

/// What is to be expected of a model.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// How the engine would run.
    pub options: &'a EngineOptions,
    /// How much of a GPU's memory it may take.
    pub memory: GpuMemory,
    /// How experts are used.
    pub hits: &'a Hits,
    /// Tokens of the prompt.
    pub prompt: usize,
}

/// A device with a model on it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Which device.
    pub device: Device,
    /// Its name; empty for the processor.
    pub name: String,
    /// What the model needs there.
    pub needs: Needs,
    /// Bytes that the process holds there already.
    pub resident: u64,
    /// Tokens of a prompt in one step.
    pub prefill_chunk: usize,
    /// Where the experts would be.
    pub share: ExpertShare,
    /// What was measured.
    pub speeds: Speeds,
    /// What is expected.
    pub forecast: Forecast,
}

/// How long the speed of a disk is measured.
const DISK_TIME: Duration = Duration::from_millis(700);

/// Positions before the token whose decoding is measured.
const AFTER: usize = 256;

/// What to expect of a model on the processor.
pub fn on_cpu(model: &Model, question: &Question<'_>, known: &mut Measurements) -> Result<Candidate, Error> {
    let placement = Placement::decide(model, question.options)?;
    let tokens = placement.prefill_chunk.min(question.prompt);
    let mut speeds = cpu_speeds(model, question.options, tokens, known)?;
    if placement.residence != Residence::Mapped {
        speeds.link = disk(model, question.options, known)?;
    }
    let share = placement.share();
    let forecast = Forecast::new(model, share, &speeds, question.hits, question.prompt)?;
    let Placement { needs, machine, prefill_chunk, .. } = placement;
    let (device, name, resident) = (Device::Cpu, String::new(), machine.resident);
    Ok(Candidate { device, name, needs, resident, prefill_chunk, share, speeds, forecast })
}

/// Measures what a model computes on the processor where all of it is in memory, in steps of `tokens` tokens of a prompt.
pub fn cpu_speeds(
    model: &Model,
    options: &EngineOptions,
    tokens: usize,
    known: &mut Measurements,
) -> Result<Speeds, Error> {
    let prefill_tokens = tokens.min(model.context_length()).max(1);
    let after = AFTER.min(model.context_length().saturating_sub(1));
    let (threads, precision) = (options.threads, options.precision);
    let key = |what: String| format!("cpu, {threads} threads, {precision:?}, {}: {what}", name(model));
    let step = |n: usize, after: usize| {
        let mut backend =
            CpuBackend::new(threads, precision).map_err(|source| Error::Threads { threads, source })?;
        Ok::<f64, Error>(backend.measure(model, n, after)?)
    };
    let decode_seconds = known.get(key(format!("a token after {after}")), || step(1, after))?;
    let prefill_seconds = known.get(key(format!("{prefill_tokens} tokens")), || step(prefill_tokens, 0))?;
    Ok(Speeds { decode_seconds, prefill_seconds, prefill_tokens, link: f64::INFINITY })
}

/// Bytes a second that experts are read with.
fn disk(model: &Model, options: &EngineOptions, known: &mut Measurements) -> Result<f64, Error> {
    let io = options.experts.store.io;
    let measure = || Ok(experts::measure(&experts::layout(model), io, DISK_TIME)?.bytes_per_second);
    known.get(format!("disk of {}, {io:?}", name(model)), measure)
}

/// What tells a model's measurements from another's.
fn name(model: &Model) -> String {
    format!("{} {}", model.checkpoint().path().display(), model.fingerprint())
}

/// Every device that has room for the model, the fastest first: the processor, and each GPU that is not the processor
/// itself. A GPU that cannot be measured is left out.
pub fn candidates(
    model: &Model,
    question: &Question<'_>,
    known: &mut Measurements,
) -> Result<Vec<Candidate>, Error> {
    let on_cpu = on_cpu(model, question, known);
    let mut found = gpus(model, question, known);
    match on_cpu {
        Ok(candidate) => found.push(candidate),
        // A GPU may have room where the host has not.
        Err(_) if !found.is_empty() => {}
        Err(error) => return Err(error),
    }
    found.sort_by(|a, b| a.forecast.request_seconds().total_cmp(&b.forecast.request_seconds()));
    Ok(found)
}

/// The fastest device for a model. Nothing is measured where there is no GPU.
pub fn fastest(model: &Model, question: &Question<'_>, known: &mut Measurements) -> Result<Device, Error> {
    if first_gpu().is_none() {
        return Ok(Device::Cpu);
    }
    Ok(candidates(model, question, known)?.first().map_or(Device::Cpu, |candidate| candidate.device))
}

/// The first GPU that is not the processor itself, by its place in the list of devices.
#[cfg(feature = "gpu")]
pub fn first_gpu() -> Option<usize> {
    moeflux_wgpu::devices().iter().position(|device| !device.is_cpu)
}

/// The first GPU that is not the processor itself: none that this build can use.
#[cfg(not(feature = "gpu"))]
pub fn first_gpu() -> Option<usize> {
    None
}

#[cfg(not(feature = "gpu"))]
fn gpus(_: &Model, _: &Question<'_>, _: &mut Measurements) -> Vec<Candidate> {
    Vec::new()
}

#[cfg(feature = "gpu")]
fn gpus(model: &Model, question: &Question<'_>, known: &mut Measurements) -> Vec<Candidate> {
    let infos = moeflux_wgpu::devices().into_iter().enumerate().filter(|(_, info)| !info.is_cpu);
    let mut found = Vec::new();
    for (index, _) in infos {
        match on_gpu(index, model, question, known) {
            Ok(candidate) => found.push(candidate),
            Err(error) => tracing::info!("gpu:{index} is no choice: {error}"),
        }
    }
    found
}

/// What to expect of a model on a GPU, by its place in the list of devices.
#[cfg(feature = "gpu")]
pub fn on_gpu(
    index: usize,
    model: &Model,
    question: &Question<'_>,
    known: &mut Measurements,
) -> Result<Candidate, Error> {
    let &Question { options, memory, hits, prompt } = question;
    let failed = crate::backend::BackendError::from;
    let device = moeflux_wgpu::Device::open(index).map_err(failed)?;
    let placement = GpuBackend::place(&device, model, memory, options)?;
    let share = placement.share();
    let speeds = gpu_speeds(&device, model, &placement, question, known)?;
    let forecast = Forecast::new(model, share, &speeds, hits, prompt)?;
    let (needs, prefill_chunk) = (placement.needs, placement.prefill_chunk);
    let (name, device) = (device.info().name.clone(), Device::Gpu(index));
    Ok(Candidate { device, name, needs, resident: 0, prefill_chunk, share, speeds, forecast })
}

#[cfg(feature = "gpu")]
fn gpu_speeds(
    device: &moeflux_wgpu::Device,
    model: &Model,
    placement: &DevicePlacement,
    question: &Question<'_>,
    known: &mut Measurements,
) -> Result<Speeds, Error> {
    let failed = crate::backend::BackendError::from;
    let &Question { options, prompt, .. } = question;
    let info = device.info();
    let of_device = format!("{} {} {}", info.name, info.api, info.driver);
    let key = |what: &str| format!("{of_device}, {}: {what}", name(model));
    let tokens = placement.prefill_chunk.min(prompt).min(model.context_length()).max(1);
    let after = AFTER.min(model.context_length().saturating_sub(1));
    let streamed = placement.share().streamed;
    let kind = if streamed { ", streamed" } else { "" };
    let mut step = |n: usize, after: usize, what: &str| {
        known.get(key(&format!("{what}{kind}")), || GpuBackend::measure(device, model, n, after, streamed))
    };
    let decode_seconds = step(1, after, &format!("a token after {after}"))?;
    let prefill_seconds = step(tokens, 0, &format!("{tokens} tokens"))?;
    let link = match placement.host {
        HostTier::Unused => f64::INFINITY,
        HostTier::Copy { .. } => known.get(format!("{of_device}: the host's memory"), || {
            moeflux_wgpu::link_bandwidth(device).map(|link| link.most()).map_err(failed)
        })?,
        HostTier::Sent(_) => {
            let threads = options.threads;
            let sent = known.get(format!("{of_device}, {threads} threads: uploads"), || {
                let pool = moeflux_kernels::ThreadPool::new(threads);
                let pool = pool.map_err(|source| Error::Threads { threads, source })?;
                Ok::<f64, Error>(moeflux_wgpu::upload_bandwidth(device, &pool).map_err(failed)?)
            })?;
            // What the host has to read first takes the time of its disk as well.
            let read = match placement.disk_share() {
                0.0 => 0.0,
                share => share / disk(model, options, known)?,
            };
            (1.0 / sent + read).recip()
        }
    };
    Ok(Speeds { decode_seconds, prefill_seconds, prefill_tokens: tokens, link })
}

/// Speeds of disks that were measured, to be kept between runs of a program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Disks(BTreeMap<String, DiskSpeed>);

/// Models whose experts have fewer bytes than this say little about a disk.
const LEAST_BYTES: u64 = 1 << 30;

impl Disks {
    /// Has a store read with as many readers, and in pieces as long, as the model's disk likes: as was measured on this disk
    /// before, or is measured now for half a second; says whether it was measured. Models that are not streamed, or are
    /// small, are left alone.
    pub fn tune(&mut self, model: &Model, options: &mut EngineOptions) -> Result<bool, Error> {
        let store = &options.experts.store;
        if store.io == Io::Mapped || needs(model, 1, 0)?.experts < LEAST_BYTES {
            return Ok(false);
        }
        // What is wrong with the options is for the engine to say.
        if !Placement::decide(model, options).is_ok_and(|found| found.residence != Residence::Mapped) {
            return Ok(false);
        }
        let key = format!("{} {:?}", disk_of(model), store.io);
        let (speed, is_new) = match self.0.get(&key) {
            Some(speed) => (*speed, false),
            None => {
                let time = Duration::from_millis(500);
                let speed = experts::measure(&experts::layout(model), store.io, time)?;
                self.0.insert(key, speed);
                (speed, true)
            }
        };
        options.experts.store = store.clone().tuned(&speed);
        Ok(is_new)
    }
}

/// What tells the disk of a model's experts from others.
fn disk_of(model: &Model) -> String {
    let path: PathBuf =
        model.checkpoint().files().last().map_or_else(PathBuf::new, |file| file.path().to_owned());
    #[cfg(unix)]
    if let Ok(metadata) = fs::metadata(&path) {
        return std::os::unix::fs::MetadataExt::dev(&metadata).to_string();
    }
    let folder = path.parent().map(fs::canonicalize).and_then(Result::ok);
    folder.unwrap_or_default().display().to_string()
}
