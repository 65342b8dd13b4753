//! What a store has done.

use std::time::Duration;

/// What a store has done since it was opened, or since its counters were reset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Experts that fetches wanted and that were in memory.
    pub hits: u64,
    /// Experts that fetches wanted and that were not.
    pub misses: u64,
    /// Of `misses`, those whose read a hint had begun.
    pub late_hints: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Reads made.
    pub reads: u64,
    /// Reads that failed.
    pub failed_reads: u64,
    /// Time in reads, added over readers.
    pub read_time: Duration,
    /// Time in which at least one read was in flight.
    pub busy_time: Duration,
    /// Time that consumers waited in [`Fetch::next`](crate::Fetch::next), added over consumers.
    pub stall_time: Duration,
    /// Experts whose slot was taken for another.
    pub evictions: u64,
    /// Experts asked for by hints that were neither in memory nor under way.
    pub hints_issued: u64,
    /// Of those, the ones that a fetch wanted then.
    pub hints_used: u64,
    /// Of those, the ones that were evicted, or given up, before any fetch wanted them.
    pub hints_wasted: u64,
    /// Slots that hold an expert or are being filled, now.
    pub slots_used: u64,
    /// Bytes of slots that the store holds, now.
    pub bytes_used: u64,
    /// The budget in bytes, now.
    pub budget: u64,
}
