//! The buffers behind a plan, on a device.

use std::ops::Range;

use moeflux_wgpu::{Device, GpuError, View};

use crate::graph::{Element, Graph, Plan, TensorId};

/// Buffers that grow to fit each plan and are kept between runs. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Arena {
    f32: Vec<View>,
    u32: Vec<View>,
    /// Beside the plan's.
    spares: Vec<View>,
}

impl Arena {
    /// Makes every buffer of the plan, and those beside it, at least as long as they must be.
    pub(super) fn fit(&mut self, device: &Device, plan: &Plan, spares: &[usize]) -> Result<(), GpuError> {
        let all = [
            (&mut self.f32, plan.lens(Element::F32)),
            (&mut self.u32, plan.lens(Element::U32)),
            (&mut self.spares, spares),
        ];
        for (buffers, lens) in all {
            for (index, &len) in lens.iter().enumerate() {
                match buffers.get_mut(index) {
                    Some(buffer) if buffer.len() >= len => {}
                    Some(buffer) => *buffer = device.alloc("activations", len)?,
                    None => buffers.push(device.alloc("activations", len)?),
                }
            }
        }
        Ok(())
    }

    /// A tensor of a graph under a plan that the buffers fit.
    pub(super) fn view(&self, graph: &Graph, plan: &Plan, id: TensorId) -> View {
        let slot = plan.slot(id);
        let buffers = match slot.element {
            Element::F32 => &self.f32,
            Element::U32 => &self.u32,
        };
        buffers[slot.index].slice(0..graph.tensor(id).len())
    }

    /// A part of a buffer beside the plan's.
    pub(super) fn spare(&self, index: usize, range: Range<usize>) -> View {
        self.spares[index].slice(range)
    }

    /// Memory held on the device, in bytes.
    pub(super) fn bytes(&self) -> usize {
        4 * self.f32.iter().chain(&self.u32).chain(&self.spares).map(View::len).sum::<usize>()
    }
}
