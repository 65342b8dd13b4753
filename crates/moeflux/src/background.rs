//! Threads for work that must not delay the engine.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

/// Starts a thread with so large a stack, in bytes, which yields the processor to those that compute steps.
pub fn spawn(name: &str, stack: usize, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).stack_size(stack).spawn(move || {
        yield_to_others();
        work();
    })
}

/// On Linux a thread has a priority of its own; elsewhere it keeps that of the process.
#[cfg(target_os = "linux")]
fn yield_to_others() {
    /// A tenth of the share of a thread that computes.
    const NICE: i32 = 10;
    // A system that refuses leaves things as they were.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
}

#[cfg(not(target_os = "linux"))]
fn yield_to_others() {}

type Work = Box<dyn FnOnce() + Send>;

/// Has one of a few threads do something short. Where there are none, it is done at once.
#[cfg_attr(not(feature = "grammar"), expect(dead_code, reason = "only grammars hand work over"))]
pub(crate) fn hand_over(work: Work) {
    const THREADS: usize = 2;
    const STACK: usize = 16 << 20;
    static POOL: OnceLock<Option<mpsc::Sender<Work>>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Work>();
        let receiver = Arc::new(Mutex::new(receiver));
        let mut started = 0;
        for _ in 0..THREADS {
            let receiver = Arc::clone(&receiver);
            let run = move || {
                loop {
                    let work = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(work) = work else { return };
                    // Who waits for it finds the channel closed.
                    drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)));
                }
            };
            started += usize::from(spawn("moeflux-mask", STACK, run).is_ok());
        }
        (started > 0).then_some(sender)
    });
    match pool {
        Some(pool) => {
            if let Err(mpsc::SendError(work)) = pool.send(work) {
                work();
            }
        }
        None => work(),
    }
}
