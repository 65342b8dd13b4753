//! A model's weights on a device, each brought there when it is first used.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use moeflux_kernels::ExpertWeights;
use moeflux_wgpu::matrix::values;
use moeflux_wgpu::{Device, GpuError, GpuExpertBiases, GpuExperts, GpuMatrix, View};

use crate::graph::{ExpertsId, MatrixId, VectorId};
use crate::model::Model;
use crate::sequence::ModelId;

/// Weights by their place in the model's table.
#[derive(Debug, Default)]
pub(super) struct DeviceWeights {
    model: Option<ModelId>,
    matrices: HashMap<MatrixId, GpuMatrix>,
    /// By the first of them, matrices that lie together.
    joined: HashMap<MatrixId, GpuMatrix>,
    vectors: HashMap<VectorId, View>,
    experts: HashMap<ExpertsId, GpuExperts>,
}

impl DeviceWeights {
    /// Lets go of another model's weights.
    pub(super) fn of(&mut self, model: &Model) {
        if self.model != Some(model.id()) {
            *self = DeviceWeights { model: Some(model.id()), ..DeviceWeights::default() };
        }
    }

    /// A matrix, or the matrices of `heads` heads.
    pub(super) fn matrix(
        &mut self,
        device: &Device,
        model: &Model,
        id: MatrixId,
        heads: usize,
    ) -> Result<&GpuMatrix, GpuError> {
        get(&mut self.matrices, id, || {
            let named = model.weights().matrix(id);
            GpuMatrix::upload_heads(device, &named.name, &model.checkpoint().view(&named.matrix), heads)
        })
    }

    /// Has matrices lie together, as one of them all, if they can; what is there already stays as it is.
    pub(super) fn join(&mut self, device: &Device, model: &Model, ids: &[MatrixId]) -> Result<(), GpuError> {
        let Some(&first) = ids.first() else { return Ok(()) };
        if ids.iter().any(|id| self.matrices.contains_key(id)) {
            return Ok(());
        }
        let table = model.weights();
        let matrices: Vec<_> =
            ids.iter().map(|&id| model.checkpoint().view(&table.matrix(id).matrix)).collect();
        if let Some((whole, each)) = GpuMatrix::joined(device, &table.matrix(first).name, &matrices)? {
            self.joined.insert(first, whole);
            self.matrices.extend(ids.iter().copied().zip(each));
        }
        Ok(())
    }

    /// The matrices that lie together from this one on, as one.
    pub(super) fn joined(&self, first: MatrixId) -> Option<&GpuMatrix> {
        self.joined.get(&first)
    }

    /// A vector.
    pub(super) fn vector(&mut self, device: &Device, model: &Model, id: VectorId) -> Result<&View, GpuError> {
        get(&mut self.vectors, id, || {
            let named = model.weights().vector(id);
            device.upload(&named.name, &named.values)
        })
    }

    /// All experts of a layer.
    pub(super) fn experts(
        &mut self,
        device: &Device,
        model: &Model,
        layer: ExpertsId,
    ) -> Result<&GpuExperts, GpuError> {
        get(&mut self.experts, layer, || {
            let (table, checkpoint) = (model.weights(), model.checkpoint());
            let named = table.experts_of(layer);
            let count = named.experts.len();
            let all: Vec<ExpertWeights<'_>> =
                (0..count).map(|expert| table.expert(checkpoint, layer, expert as u32)).collect();
            let gates_and_ups: Vec<_> = all.iter().flat_map(|expert| [expert.gate, expert.up]).collect();
            let downs: Vec<_> = all.iter().map(|expert| expert.down).collect();
            let biases: Option<Vec<_>> = all.iter().map(|expert| expert.biases).collect();
            let biases = biases.filter(|biases| !biases.is_empty()).map(|biases| {
                let gates_and_ups: Vec<_> =
                    biases.iter().flat_map(|biases| [biases.gate, biases.up]).collect();
                let downs: Vec<_> = biases.iter().map(|biases| biases.down).collect();
                Ok::<_, GpuError>(GpuExpertBiases {
                    gate_up: device.upload(&named.name, &values(&gates_and_ups))?,
                    down: device.upload(&named.name, &values(&downs))?,
                })
            });
            Ok(GpuExperts {
                count,
                gate_up: GpuMatrix::stack(device, &named.name, &gates_and_ups, 2)?,
                down: GpuMatrix::stack(device, &named.name, &downs, 1)?,
                biases: biases.transpose()?,
            })
        })
    }
}

/// What is held under `id`, or what `make` makes of it.
fn get<I: Eq + Hash, T>(
    held: &mut HashMap<I, T>,
    id: I,
    make: impl FnOnce() -> Result<T, GpuError>,
) -> Result<&T, GpuError> {
    Ok(match held.entry(id) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(make()?),
    })
}
