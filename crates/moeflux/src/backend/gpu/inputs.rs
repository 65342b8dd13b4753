//! What a step brings from the host: tokens, rotations, where blocks are. It is small, and much the same from step to step,
//! so it goes to memory that is there already, all at once.

use moeflux_wgpu::{Device, GpuError, View};

/// Memory for a step's inputs, filled from the start for each step.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    memory: Option<View>,
    words: Vec<u32>,
    /// How many of them are there already.
    sent: usize,
    /// Words of the last step that there was no room for: memory for them is made before the next.
    missed: usize,
}

/// Words that there is room for at first.
const FIRST_WORDS: usize = 1 << 14;

impl Inputs {
    /// Begins a step.
    pub(super) fn begin(&mut self, device: &Device) -> Result<(), GpuError> {
        let held = self.memory.as_ref().map_or(0, View::len);
        if held == 0 || self.missed > 0 {
            let len = (held + self.missed).next_power_of_two().max(FIRST_WORDS);
            self.memory = Some(device.alloc("a step's inputs", len)?);
        }
        (self.missed, self.sent) = (0, 0);
        self.words.clear();
        Ok(())
    }

    /// Integers, there once the step's inputs are [sent](Self::send).
    pub(super) fn add(&mut self, device: &Device, values: &[u32]) -> Result<View, GpuError> {
        let range = self.words.len()..self.words.len() + values.len();
        match &self.memory {
            Some(memory) if range.end <= memory.len() => {
                self.words.extend_from_slice(values);
                Ok(memory.slice(range))
            }
            _ => {
                self.missed += values.len();
                device.upload("a step's inputs", values)
            }
        }
    }

    /// Floats, likewise.
    pub(super) fn add_floats(&mut self, device: &Device, values: &[f32]) -> Result<View, GpuError> {
        let words: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        self.add(device, &words)
    }

    /// Brings what has been added to the device, before what is submitted next.
    pub(super) fn send(&mut self, device: &Device) {
        if let Some(memory) = &self.memory {
            device.write(&memory.slice(self.sent..self.words.len()), &self.words[self.sent..]);
            self.sent = self.words.len();
        }
    }
}
