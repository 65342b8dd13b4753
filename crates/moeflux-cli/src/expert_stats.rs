//! What streaming experts took: for people and for programs.

use std::fmt;
use std::time::Duration;

use moeflux::experts::Counters;
use serde::Serialize;

use crate::stats::Bytes;

/// What a store of experts did in some time.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ExpertStats {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// Of what was wanted, the share that was in memory; 1 if nothing was wanted.
    pub(crate) hit_rate: f64,
    pub(crate) bytes_read: u64,
    /// While anything was read.
    pub(crate) read_bytes_per_second: Option<f64>,
    pub(crate) busy_seconds: f64,
    pub(crate) stall_seconds: f64,
    /// Of the time, what was spent waiting for experts.
    pub(crate) stall_share: f64,
    pub(crate) evictions: u64,
    pub(crate) hints_issued: u64,
    pub(crate) hints_used: u64,
    pub(crate) hints_wasted: u64,
    pub(crate) budget_bytes: u64,
    pub(crate) used_bytes: u64,
}

impl ExpertStats {
    /// What was done from `before` to `after`, in `time`.
    pub(crate) fn between(before: &Counters, after: &Counters, time: Duration) -> Self {
        let count = |of: fn(&Counters) -> u64| of(after).saturating_sub(of(before));
        let duration = |of: fn(&Counters) -> Duration| of(after).saturating_sub(of(before)).as_secs_f64();
        let (hits, misses, bytes_read) = (count(|c| c.hits), count(|c| c.misses), count(|c| c.bytes_read));
        let (busy, stall) = (duration(|c| c.busy_time), duration(|c| c.stall_time));
        let wanted = hits + misses;
        Self {
            hits,
            misses,
            hit_rate: if wanted == 0 { 1.0 } else { hits as f64 / wanted as f64 },
            bytes_read,
            read_bytes_per_second: (busy > 0.0).then(|| bytes_read as f64 / busy),
            busy_seconds: busy,
            stall_seconds: stall,
            stall_share: if time.is_zero() { 0.0 } else { stall / time.as_secs_f64() },
            evictions: count(|c| c.evictions),
            hints_issued: count(|c| c.hints_issued),
            hints_used: count(|c| c.hints_used),
            hints_wasted: count(|c| c.hints_wasted),
            budget_bytes: after.budget,
            used_bytes: after.bytes_used,
        }
    }
}

impl fmt::Display for ExpertStats {
    /// One line: `hits 87 %, read 1.20 GB at 1.70 GB/s, stalls 31 %, budget 3.90 of 4.00 GB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hits {:.1} %, read {}", 100.0 * self.hit_rate, Bytes(self.bytes_read))?;
        if let Some(rate) = self.read_bytes_per_second {
            write!(f, " at {}/s", Bytes(rate as u64))?;
        }
        write!(f, ", stalls {:.0} %", 100.0 * self.stall_share)?;
        write!(f, ", budget {} of {} in use", Bytes(self.used_bytes), Bytes(self.budget_bytes))?;
        if self.hints_issued > 0 {
            let Self { hints_issued, hints_used, hints_wasted, .. } = self;
            write!(f, ", hints {hints_issued} ({hints_used} used, {hints_wasted} wasted)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares() {
        let before = Counters { hits: 10, misses: 10, ..Counters::default() };
        let after = Counters {
            hits: 40,
            misses: 20,
            bytes_read: 3_000_000_000,
            busy_time: Duration::from_secs(2),
            stall_time: Duration::from_secs(1),
            budget: 4_000_000_000,
            bytes_used: 3_900_000_000,
            ..Counters::default()
        };
        let stats = ExpertStats::between(&before, &after, Duration::from_secs(4));
        assert_eq!((stats.hits, stats.misses, stats.hit_rate, stats.stall_share), (30, 10, 0.75, 0.25));
        assert_eq!(
            stats.to_string(),
            "hits 75.0 %, read 3.00 GB at 1.50 GB/s, stalls 25 %, budget 3.90 GB of 4.00 GB in use"
        );
        let idle = ExpertStats::between(&after, &after, Duration::ZERO);
        assert_eq!((idle.hit_rate, idle.stall_share, idle.read_bytes_per_second), (1.0, 0.0, None));
    }
}
