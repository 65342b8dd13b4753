//! `moeflux devices`: the GPUs there are.

use anyhow::Result;
use clap::Args;
#[cfg(feature = "gpu")]
use moeflux::gpu;
#[cfg(feature = "gpu")]
use serde::Serialize;

#[cfg(feature = "gpu")]
use crate::stats::Bytes;
use crate::terminal;

/// Arguments of `devices`.
#[derive(Args)]
pub(crate) struct DevicesArgs {
    /// Print JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Runs the command.
#[cfg(not(feature = "gpu"))]
pub(crate) fn run(args: &DevicesArgs) -> Result<()> {
    terminal::note("this program was built without GPUs; build it with `--features gpu`");
    if args.json {
        terminal::show(&terminal::json(&[0; 0])?)?;
    }
    Ok(())
}

/// A device, as `--json` prints it.
#[cfg(feature = "gpu")]
#[derive(Serialize)]
struct JsonDevice {
    /// What `--device` calls it.
    device: String,
    name: String,
    api: String,
    driver: String,
    is_cpu: bool,
    is_integrated: bool,
    memory_bytes: Option<u64>,
    /// Of it, what this process may take.
    free_bytes: Option<u64>,
    binding_limit_bytes: u64,
    subgroup: (u32, u32),
    /// Of reading, measured; `null` if the device did not do it.
    bandwidth_bytes_per_second: Option<f64>,
    /// Of the host's memory: what shaders read and what copies bring; `null` if shaders may not read it.
    host_read_bytes_per_second: Option<f64>,
    host_copy_bytes_per_second: Option<f64>,
}

/// Runs the command.
#[cfg(feature = "gpu")]
pub(crate) fn run(args: &DevicesArgs) -> Result<()> {
    let mut devices = Vec::new();
    for (index, info) in gpu::devices().into_iter().enumerate() {
        let device = known(index, gpu::Device::open(index));
        let device = device.as_ref();
        let bandwidth = device.and_then(|device| known(index, gpu::read_bandwidth(device)));
        let link = device.filter(|_| info.reads_host);
        let link = link.and_then(|device| known(index, gpu::link_bandwidth(device)));
        devices.push(JsonDevice {
            device: format!("gpu:{index}"),
            name: info.name,
            api: info.api,
            driver: info.driver,
            is_cpu: info.is_cpu,
            is_integrated: info.is_integrated,
            memory_bytes: info.memory,
            free_bytes: info.free,
            binding_limit_bytes: info.binding_limit,
            subgroup: info.subgroup,
            bandwidth_bytes_per_second: bandwidth,
            host_read_bytes_per_second: link.map(|link| link.read),
            host_copy_bytes_per_second: link.map(|link| link.copied),
        });
    }
    if args.json {
        return Ok(terminal::show(&terminal::json(&devices)?)?);
    }
    if devices.is_empty() {
        terminal::note("no GPU found: moeflux needs a driver for Vulkan, Metal or DirectX 12");
    }
    Ok(terminal::show(&devices.iter().map(JsonDevice::lines).collect::<String>())?)
}

/// What a device gave; otherwise why it did not is said.
#[cfg(feature = "gpu")]
fn known<T>(index: usize, found: Result<T, gpu::GpuError>) -> Option<T> {
    found.inspect_err(|error| terminal::note(format_args!("gpu:{index}: {error}"))).ok()
}

#[cfg(feature = "gpu")]
impl JsonDevice {
    fn lines(&self) -> String {
        let what = match (self.is_cpu, self.is_integrated) {
            (true, _) => ", the processor itself",
            (_, true) => ", shares the host's memory",
            _ => "",
        };
        let unknown = || "unknown".to_owned();
        let memory = self.memory_bytes.map_or_else(unknown, |bytes| Bytes(bytes).to_string());
        let free = self.free_bytes.map_or_else(String::new, |bytes| format!(" ({} free)", Bytes(bytes)));
        let subgroup = match self.subgroup {
            (least, most) if least == most => most.to_string(),
            (least, most) => format!("{least} to {most}"),
        };
        let rate = |rate: f64| format!("{}/s", Bytes(rate as u64));
        let bandwidth = self.bandwidth_bytes_per_second.map_or_else(unknown, rate);
        let link = self.host_read_bytes_per_second.zip(self.host_copy_bytes_per_second);
        let link = link.map_or_else(String::new, |(read, copied)| {
            format!("\n       the host's memory read at {}, copied at {}", rate(read), rate(copied))
        });
        format!(
            "{}  {} ({}, {}{what})\n       memory {memory}{free}, read at {bandwidth}, largest buffer binding {}, subgroup size {}{link}\n",
            self.device,
            self.name,
            self.api,
            self.driver,
            Bytes(self.binding_limit_bytes),
            subgroup
        )
    }
}
