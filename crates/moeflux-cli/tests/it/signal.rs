//! Signals as a shell sends them; the command `kill` is not on every machine.

use std::process::Child;

pub(crate) use rustix::process::Signal;

pub(crate) fn send(signal: Signal, child: &Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}
