//! Commands, recorded one after the other and run together.

use crate::buffer::View;
use crate::device::Device;
use crate::error::GpuError;
use crate::pipeline::{Constants, IMMEDIATE_SIZE, Program};

/// A submission.
#[derive(Clone, Debug)]
pub struct Mark(pub(crate) wgpu::SubmissionIndex);

/// Records what a step does on a device. What is recorded later sees what was recorded before.
#[derive(Debug)]
pub struct Encoder<'d> {
    device: &'d Device,
    commands: wgpu::CommandEncoder,
    /// Dispatches go to one pass until a copy comes between.
    pass: Option<wgpu::ComputePass<'static>>,
    /// The first thing that went wrong.
    failed: Option<GpuError>,
    dispatches: usize,
}

impl<'d> Encoder<'d> {
    pub(crate) fn new(device: &'d Device) -> Self {
        let commands = device.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        Encoder { device, commands, pass: None, failed: None, dispatches: 0 }
    }

    /// The device.
    pub fn device(&self) -> &'d Device {
        self.device
    }

    /// A view for a binding that a program does not use with its constants.
    pub fn no_view(&self) -> View {
        self.device.none().clone()
    }

    /// Records a program over a grid of workgroups. `params` follow the views' offsets in its immediates. What goes wrong
    /// is said by [`submit`](Self::submit).
    pub fn dispatch(
        &mut self,
        program: &'static Program,
        constants: Constants<'_>,
        views: &[&View],
        params: &[u32],
        groups: [u32; 3],
    ) {
        if self.failed.is_some() || groups.contains(&0) {
            return;
        }
        let mut words = [0; IMMEDIATE_SIZE as usize / 4];
        let count = views.len() + params.len();
        for (word, view) in words.iter_mut().zip(views) {
            *word = view.offset() as u32;
        }
        words[views.len()..count].copy_from_slice(params);
        let mut pipelines = self.device.pipelines();
        match pipelines.get(&self.device.raw, program, constants, views) {
            Ok((pipeline, group)) => {
                let pass = self.pass.get_or_insert_with(|| {
                    self.commands
                        .begin_compute_pass(&wgpu::ComputePassDescriptor::default())
                        .forget_lifetime()
                });
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, group, &[]);
                pass.set_immediates(0, bytemuck::cast_slice(&words));
                pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
                self.dispatches += 1;
            }
            Err(error) => self.failed = Some(error),
        }
    }

    /// Records a copy of elements between views of one length in different buffers.
    pub fn copy(&mut self, from: &View, to: &View) {
        assert_eq!(from.len(), to.len());
        self.pass = None;
        if !from.is_empty() {
            let (from_bytes, to_bytes) = (from.bytes(), to.bytes());
            let size = from_bytes.end - from_bytes.start;
            let (source, target) = (&from.buffer().raw, &to.buffer().raw);
            self.commands.copy_buffer_to_buffer(source, from_bytes.start, target, to_bytes.start, size);
        }
    }

    /// Dispatches recorded so far.
    pub fn dispatches(&self) -> usize {
        self.dispatches
    }

    /// Hands what was recorded to the device, which runs it after what it was handed before. Does not wait.
    pub fn submit(self) -> Result<(), GpuError> {
        self.submit_marked().map(drop)
    }

    /// The same, with a mark to [wait for](Device::wait_for).
    pub fn submit_marked(mut self) -> Result<Mark, GpuError> {
        self.pass = None;
        if let Some(error) = self.failed {
            return Err(error);
        }
        let index = self.device.queue.submit([self.commands.finish()]);
        self.device.usable().map(|()| Mark(index))
    }

    /// What copies are recorded in.
    pub(crate) fn commands(&mut self) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        &mut self.commands
    }
}
