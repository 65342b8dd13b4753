//! Experts in mapped files that nobody has read yet.

use moeflux_checkpoint::{Checkpoint, Matrix};
use moeflux_experts::is_prompt_sized;

use super::loading::Loading;
use crate::graph::NamedExperts;

/// Which experts the system was told of, or are being read.
///
/// A page of a mapped file that is not in memory is read when it is touched, a little at a time, one such read a thread.
/// Whole experts are read at the speed of the disk, while the first of them compute.
#[derive(Debug, Default)]
pub(super) struct FirstReads {
    /// `[layer][expert]`
    requested: Vec<Vec<bool>>,
    /// Reads large ranges; without it the system is told of all.
    pub(super) loading: Option<Loading>,
}

impl FirstReads {
    /// Begins to read those of layer `layer` that were not wanted before, in the order of files.
    pub(super) fn begin(&mut self, checkpoint: &Checkpoint, layer: usize, named: &NamedExperts, ids: &[u32]) {
        if self.requested.len() <= layer {
            self.requested.resize(layer + 1, Vec::new());
        }
        let requested = &mut self.requested[layer];
        requested.resize(named.experts.len(), false);
        let mut first: Vec<usize> = Vec::new();
        for id in ids.iter().map(|&id| id as usize) {
            if !std::mem::replace(&mut requested[id], true) {
                first.push(id);
            }
        }
        first.sort_unstable();
        let matrices = first.iter().flat_map(|&id| named.experts[id].matrices()).map(|(_, matrix)| matrix);
        if let Some(loading) = &self.loading {
            if is_prompt_sized(first.len(), requested.len()) {
                return loading.want(matrices.flat_map(Matrix::spans));
            }
            // Its large ranges would be mostly of others, and these few are all that the step waits for.
            if !first.is_empty() {
                loading.rest();
            }
        }
        matrices.for_each(|matrix| checkpoint.will_need(matrix));
    }
}
