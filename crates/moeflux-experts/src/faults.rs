//! Reads that go wrong on purpose, for tests of whatever stands above a store.

use crate::file::ReadAt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What happens to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with the system's error of that number (5: EIO).
    Error(i32),
    /// The file seems to end here: so many bytes come, and then none.
    Short(usize),
    /// It comes so much later.
    Delay(Duration),
    /// The lowest bit of one byte is wrong: of that index, modulo what was read.
    BitFlip(usize),
}

/// Decides about each read, counted from 0 over all files: which fault it meets, if any.
pub type Decide = dyn FnMut(u64) -> Option<Fault> + Send;

/// A layer before the files of a store; see [`StoreOptions::through`](crate::StoreOptions::through).
pub struct Faults {
    decide: Mutex<Box<Decide>>,
    reads: AtomicU64,
}

impl Faults {
    /// A layer that asks `decide` about each read.
    pub fn new(decide: impl FnMut(u64) -> Option<Fault> + Send + 'static) -> Arc<Self> {
        Arc::new(Self { decide: Mutex::new(Box::new(decide)), reads: AtomicU64::new(0) })
    }

    /// Another rule from now on.
    pub fn set(&self, decide: impl FnMut(u64) -> Option<Fault> + Send + 'static) {
        *self.decide.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(decide);
    }

    /// Reads made so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// A file as it is seen through this.
    pub fn before(self: Arc<Self>, file: Arc<dyn ReadAt>) -> Arc<dyn ReadAt> {
        Arc::new(FaultyFile { faults: self, file })
    }
}

struct FaultyFile {
    faults: Arc<Faults>,
    file: Arc<dyn ReadAt>,
}

impl ReadAt for FaultyFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let number = self.faults.reads.fetch_add(1, Ordering::Relaxed);
        let fault = self.faults.decide.lock().unwrap_or_else(PoisonError::into_inner)(number);
        match fault {
            Some(Fault::Error(code)) => return Err(io::Error::from_raw_os_error(code)),
            Some(Fault::Delay(time)) => std::thread::sleep(time),
            _ => {}
        }
        let read = self.file.read_at(bytes, offset)?;
        match fault {
            Some(Fault::Short(most)) => return Ok(read.min(most)),
            Some(Fault::BitFlip(at)) if read > 0 => bytes[at % read] ^= 1,
            _ => {}
        }
        Ok(read)
    }
}
