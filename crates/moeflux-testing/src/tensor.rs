//! Numbers with a shape, and how they are moved about.

use crate::Result;

/// Numbers in float32, or bytes that are stored as they are.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Floats(Vec<f32>),
    Bytes(Vec<u8>),
}

/// An array.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

impl Tensor {
    pub(crate) fn floats(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Tensor { shape, data: Data::Floats(values) }
    }

    /// The numbers; an error for bytes.
    pub(crate) fn values(&self) -> Result<&[f32]> {
        match &self.data {
            Data::Floats(values) => Ok(values),
            Data::Bytes(_) => Err("bytes where numbers are expected".to_owned()),
        }
    }

    /// Length of the last axis.
    pub(crate) fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1).max(1)
    }

    /// Each number changed.
    pub(crate) fn map(self, change: impl Fn(f32) -> f32) -> Result<Self> {
        let values = self.values()?.iter().map(|&value| change(value)).collect();
        Ok(Tensor::floats(self.shape, values))
    }

    /// What stands at these places of an axis, one after another.
    pub(crate) fn take(self, axis: usize, places: &[usize]) -> Result<Self> {
        let len =
            *self.shape.get(axis).ok_or_else(|| format!("shape {:?} has no axis {axis}", self.shape))?;
        if let Some(place) = places.iter().find(|&&place| place >= len) {
            return Err(format!("place {place} on an axis of {len}"));
        }
        let width: usize = self.shape[axis + 1..].iter().product();
        let mut taken = Vec::new();
        for outer in self.values()?.chunks_exact(len * width) {
            for place in places {
                taken.extend_from_slice(&outer[place * width..][..width]);
            }
        }
        let mut shape = self.shape;
        shape[axis] = places.len();
        Ok(Tensor::floats(shape, taken))
    }

    /// One entry of the first axis, which is dropped.
    pub(crate) fn at(self, index: usize) -> Result<Self> {
        let mut tensor = self.take(0, &[index])?;
        tensor.shape.remove(0);
        Ok(tensor)
    }

    /// Another shape of as many numbers.
    pub(crate) fn reshape(mut self, shape: Vec<usize>) -> Result<Self> {
        let (now, then): (usize, usize) = (self.shape.iter().product(), shape.iter().product());
        if now != then {
            return Err(format!("shape {:?} cannot become {shape:?}", self.shape));
        }
        self.shape = shape;
        Ok(self)
    }

    /// The last two axes swapped.
    pub(crate) fn transpose(self) -> Result<Self> {
        let axes = self.shape.len();
        if axes < 2 {
            return Err(format!("shape {:?} has no two axes to swap", self.shape));
        }
        let (rows, columns) = (self.shape[axes - 2], self.shape[axes - 1]);
        let mut shape = self.shape.clone();
        shape.swap(axes - 2, axes - 1);
        let mut swapped = Vec::new();
        for matrix in self.values()?.chunks_exact(rows * columns) {
            for column in 0..columns {
                swapped.extend((0..rows).map(|row| matrix[row * columns + column]));
            }
        }
        Ok(Tensor::floats(shape, swapped))
    }

    /// The two halves of each head's rows interleaved, as llama.cpp stores what is rotated in neighbouring pairs.
    pub(crate) fn interleave(self, heads: usize) -> Result<Self> {
        let rows = self.shape[0];
        let half = rows / heads / 2;
        let place = |row: usize| row / (2 * half) * 2 * half + row % 2 * half + row % (2 * half) / 2;
        self.take(0, &(0..rows).map(place).collect::<Vec<_>>())
    }

    /// Tensors of one shape along a new first axis.
    pub(crate) fn stack(tensors: &[Tensor]) -> Result<Self> {
        let first = tensors.first().ok_or("nothing to stack")?;
        let mut values = Vec::new();
        for tensor in tensors {
            if tensor.shape != first.shape {
                return Err(format!("shapes {:?} and {:?} cannot be stacked", first.shape, tensor.shape));
            }
            values.extend_from_slice(tensor.values()?);
        }
        Ok(Tensor::floats([&[tensors.len()], &first.shape[..]].concat(), values))
    }
}
