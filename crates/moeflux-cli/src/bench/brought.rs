//! What a GPU that has experts brought could reach.

use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;

use super::workload::median;
use crate::gpu_stats::GpuStats;
use crate::stats::Bytes;

/// Experts that were brought to a GPU, and how far the tokens are from what their way allows.
#[derive(Serialize)]
pub(super) struct Brought {
    prefill: Bringing,
    decode: Bringing,
    /// To the GPU, measured alone: sent by the host's threads, or read and copied by the GPU itself, whichever is more.
    upload_bytes_per_second: f64,
}

/// One phase of a measurement.
#[derive(Serialize)]
struct Bringing {
    /// Of the last measurement.
    gpu_experts: GpuStats,
    /// With all experts in the GPU's memory; `null` if they don't fit.
    resident_seconds: Option<f64>,
    /// The longer of what bringing and computing take alone.
    limit_seconds: f64,
    /// Of the limit.
    share: f64,
}

/// Seconds of a phase in each measurement, and what was brought in the last.
pub(super) struct Measured {
    pub(super) seconds: Vec<f64>,
    pub(super) gpu: GpuStats,
}

impl Brought {
    /// `resident` has the seconds of the same phases with all experts in the GPU's memory.
    pub(super) fn new(
        prefill: &Measured,
        decode: &Measured,
        resident: Option<[f64; 2]>,
        upload: f64,
    ) -> Self {
        let [of_prefill, of_decode] = resident.map_or([None, None], |both| both.map(Some));
        Brought {
            prefill: Bringing::new(prefill, of_prefill, upload),
            decode: Bringing::new(decode, of_decode, upload),
            upload_bytes_per_second: upload,
        }
    }

    pub(super) fn table(&self) -> Result<String> {
        let mut table = String::new();
        for (name, Bringing { gpu_experts, resident_seconds, limit_seconds, share }) in
            [("prefill", &self.prefill), ("decode", &self.decode)]
        {
            writeln!(table, "{name:<8} {gpu_experts}")?;
            write!(table, "{:<8} {limit_seconds:.3} s", "limit")?;
            if let Some(seconds) = resident_seconds {
                write!(table, " ({seconds:.3} s with all experts there)")?;
            }
            writeln!(table, "; {name} is at {:.0} %", 100.0 * share)?;
        }
        let way = if self.decode.gpu_experts.host_copy_bytes > 0 { "link" } else { "upload" };
        writeln!(table, "{way:<8} {}/s alone", Bytes(self.upload_bytes_per_second as u64))?;
        Ok(table)
    }
}

impl Bringing {
    fn new(measured: &Measured, resident_seconds: Option<f64>, upload: f64) -> Self {
        let bringing = measured.gpu.bytes_uploaded as f64 / upload;
        let limit_seconds = bringing.max(resident_seconds.unwrap_or(0.0));
        let share = limit_seconds / median(measured.seconds.iter().copied());
        Bringing { gpu_experts: measured.gpu, resident_seconds, limit_seconds, share }
    }
}
