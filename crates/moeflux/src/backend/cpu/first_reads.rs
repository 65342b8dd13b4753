//! Experts in mapped files that nobody has read yet.

use moeflux_checkpoint::Checkpoint;

use crate::graph::NamedExperts;

/// Which experts the system was told of: `[layer][expert]`.
///
/// A page of a mapped file that is not in memory is read when it is touched, a little at a time, one such read a thread.
/// Told of whole experts, the system reads them at the speed of its disk, while the first of them compute.
#[derive(Debug, Default)]
pub(super) struct FirstReads(Vec<Vec<bool>>);

impl FirstReads {
    /// Has the system begin to read those of layer `layer` that were not wanted before, in the order of files.
    pub(super) fn begin(&mut self, checkpoint: &Checkpoint, layer: usize, named: &NamedExperts, ids: &[u32]) {
        if self.0.len() <= layer {
            self.0.resize(layer + 1, Vec::new());
        }
        let told = &mut self.0[layer];
        told.resize(named.experts.len(), false);
        let mut first: Vec<usize> = Vec::new();
        for id in ids.iter().map(|&id| id as usize) {
            if !std::mem::replace(&mut told[id], true) {
                first.push(id);
            }
        }
        first.sort_unstable();
        for (_, matrix) in first.iter().flat_map(|&id| named.experts[id].matrices()) {
            checkpoint.will_need(matrix);
        }
    }
}
