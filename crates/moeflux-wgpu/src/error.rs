//! What can go wrong on a device.

use std::time::Duration;

/// A device that did not do as asked. The CPU stays usable after any of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// There are not so many devices.
    #[error(
        "no GPU {index}: {found} found (`moeflux devices` lists them; Vulkan, Metal or DirectX 12 is needed)"
    )]
    NoDevice {
        /// Asked for.
        index: usize,
        /// How many there are.
        found: usize,
    },
    /// The device cannot run the shaders.
    #[error("GPU {name} lacks {what}; run on the CPU or another GPU")]
    Unsupported {
        /// The device.
        name: String,
        /// What is missing.
        what: String,
    },
    /// The driver gave no device.
    #[error("GPU {name} cannot be opened: {cause}")]
    Open {
        /// The device.
        name: String,
        /// What the driver says.
        cause: String,
    },
    /// A shader that the device's compiler refuses.
    #[error("GPU operation {op} does not compile: {cause}")]
    Compile {
        /// The operation.
        op: String,
        /// What the compiler says.
        cause: String,
    },
    /// No memory for a buffer.
    #[error(
        "GPU memory is full: no {bytes} bytes for {what}; allow more if there is more, or shorten the context or the \
         prefill chunk"
    )]
    OutOfMemory {
        /// What the memory was for.
        what: String,
        /// How much.
        bytes: u64,
    },
    /// No memory of the host for a buffer that the device reads.
    #[error(
        "the driver has no {bytes} bytes of host memory for {what}; have experts sent instead (`--gpu-host-copy never`)"
    )]
    OutOfHostMemory {
        /// What the memory was for.
        what: String,
        /// How much.
        bytes: u64,
    },
    /// One buffer larger than the device can bind.
    #[error("{what} needs a buffer of {bytes} bytes, but the GPU binds {limit} at most")]
    BufferTooLarge {
        /// What the memory was for.
        what: String,
        /// How much.
        bytes: u64,
        /// The device's limit.
        limit: u64,
    },
    /// A matrix in an encoding that shaders do not read.
    #[error("a matrix in {encoding} cannot be read on the GPU; run on the CPU or convert the model")]
    Encoding {
        /// The encoding.
        encoding: String,
    },
    /// The device is gone: unplugged, reset, or its driver gave up.
    #[error("GPU lost: {cause}")]
    Lost {
        /// What the driver says.
        cause: String,
    },
    /// The device did not answer.
    #[error("the GPU did not finish {op} in {} s", after.as_secs())]
    Timeout {
        /// What it was asked to do.
        op: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The device refused a command.
    #[error("GPU operation {op} failed: {cause}")]
    Failed {
        /// What was asked.
        op: String,
        /// What it says.
        cause: String,
    },
}
