//! What bringing experts to a GPU took: for people and for programs.

use std::fmt;
use std::time::Duration;

use moeflux::experts::DeviceCounters;
use serde::Serialize;

use crate::stats::Bytes;

/// What became of a GPU's experts in some time.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct GpuStats {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// Of what was wanted, the share that was in the GPU's memory; 1 if nothing was wanted.
    pub(crate) hit_rate: f64,
    /// Of the misses, those that took a place in the GPU's memory.
    pub(crate) placed: u64,
    pub(crate) bytes_uploaded: u64,
    /// While experts were packed for it.
    pub(crate) upload_bytes_per_second: Option<f64>,
    pub(crate) upload_seconds: f64,
    pub(crate) stall_seconds: f64,
    /// Of the time, what was spent waiting for the host's experts or for copies.
    pub(crate) stall_share: f64,
    /// Experts that the GPU has room for.
    pub(crate) places: u64,
    pub(crate) place_bytes: u64,
    /// Of the copy of all experts in the host's memory that the GPU reads by itself; 0 if the host sends them.
    pub(crate) host_copy_bytes: u64,
}

impl GpuStats {
    /// What was done from `before` to `after`, in `time`.
    pub(crate) fn between(before: &DeviceCounters, after: &DeviceCounters, time: Duration) -> Self {
        let (hits, misses) = (after.hits - before.hits, after.misses - before.misses);
        let bytes_uploaded = after.bytes_uploaded - before.bytes_uploaded;
        let upload = after.upload_time.saturating_sub(before.upload_time).as_secs_f64();
        let stall = after.stall_time.saturating_sub(before.stall_time).as_secs_f64();
        let wanted = hits + misses;
        Self {
            hits,
            misses,
            hit_rate: if wanted == 0 { 1.0 } else { hits as f64 / wanted as f64 },
            placed: after.placed - before.placed,
            bytes_uploaded,
            upload_bytes_per_second: (upload > 0.0).then(|| bytes_uploaded as f64 / upload),
            upload_seconds: upload,
            stall_seconds: stall,
            stall_share: if time.is_zero() { 0.0 } else { stall / time.as_secs_f64() },
            places: after.places,
            place_bytes: after.bytes,
            host_copy_bytes: after.host_copy,
        }
    }
}

impl fmt::Display for GpuStats {
    /// One line: `hits 87 %, brought 1.20 GB at 9.00 GB/s, stalls 31 %, places for 640 experts in 1.13 GB`, or where the GPU
    /// reads the host's copy, `hits 87 %, read 1.20 GB of the host's 18.12 GB, 640 took places, places for …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hits {:.1} %, ", 100.0 * self.hit_rate)?;
        if self.host_copy_bytes > 0 {
            let (read, of) = (Bytes(self.bytes_uploaded), Bytes(self.host_copy_bytes));
            write!(f, "read {read} of the host's {of}, {} took places", self.placed)?;
        } else {
            write!(f, "brought {}", Bytes(self.bytes_uploaded))?;
            if let Some(rate) = self.upload_bytes_per_second {
                write!(f, " at {}/s", Bytes(rate as u64))?;
            }
            write!(f, ", stalls {:.0} %", 100.0 * self.stall_share)?;
        }
        write!(f, ", places for {} experts in {}", self.places, Bytes(self.place_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares() {
        let before =
            DeviceCounters { hits: 10, misses: 10, places: 64, bytes: 1 << 20, ..Default::default() };
        let after = DeviceCounters {
            hits: 40,
            misses: 20,
            bytes_uploaded: 3_000_000_000,
            upload_time: Duration::from_millis(500),
            stall_time: Duration::from_secs(1),
            ..before
        };
        let stats = GpuStats::between(&before, &after, Duration::from_secs(4));
        assert_eq!((stats.hits, stats.misses, stats.hit_rate, stats.stall_share), (30, 10, 0.75, 0.25));
        assert_eq!(
            stats.to_string(),
            "hits 75.0 %, brought 3.00 GB at 6.00 GB/s, stalls 25 %, places for 64 experts in 1.05 MB"
        );
        let copy = DeviceCounters { host_copy: 4_000_000_000, placed: 7, ..after };
        assert_eq!(
            GpuStats::between(&before, &copy, Duration::from_secs(4)).to_string(),
            "hits 75.0 %, read 3.00 GB of the host's 4.00 GB, 7 took places, places for 64 experts in 1.05 MB"
        );
        let idle = GpuStats::between(&after, &after, Duration::ZERO);
        assert_eq!((idle.hit_rate, idle.stall_share, idle.upload_bytes_per_second), (1.0, 0.0, None));
    }
}
