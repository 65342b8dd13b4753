//! Hands the operations of a step to the device in portions, so that it computes while the host records.

use moeflux_wgpu::{Device, Download, Encoder, GpuError, View};

use super::inputs::Inputs;

/// Dispatches that are handed to the device together: first few, so that it begins, then as many as are recorded while it
/// computes those before.
const PORTIONS: [usize; 4] = [12, 32, 80, 240];

/// What has been recorded of a step and not been submitted.
pub(super) struct Recorder<'d> {
    pub(super) device: &'d Device,
    pub(super) enc: Encoder<'d>,
    /// Portions that were submitted.
    submitted: usize,
}

impl<'d> Recorder<'d> {
    /// A recorder of a step.
    pub(super) fn new(device: &'d Device) -> Self {
        Recorder { device, enc: device.encoder(), submitted: 0 }
    }

    /// Submits what has been recorded, and the inputs that it reads.
    pub(super) fn submit(&mut self, inputs: &mut Inputs) -> Result<(), GpuError> {
        self.take(inputs).submit()
    }

    /// Submits what has been recorded if it is as much as the next portion.
    pub(super) fn submit_portion(&mut self, inputs: &mut Inputs) -> Result<(), GpuError> {
        if self.enc.dispatches() < PORTIONS[self.submitted.min(PORTIONS.len() - 1)] {
            return Ok(());
        }
        self.submitted += 1;
        self.submit(inputs)
    }

    /// Submits what has been recorded, and begins to read back what it writes to a view.
    pub(super) fn submit_and_download(
        &mut self,
        inputs: &mut Inputs,
        view: &View,
    ) -> Result<Download, GpuError> {
        let recorded = self.take(inputs);
        self.device.submit_and_download(recorded, view)
    }

    fn take(&mut self, inputs: &mut Inputs) -> Encoder<'d> {
        inputs.send(self.device);
        std::mem::replace(&mut self.enc, self.device.encoder())
    }
}
