//! The linear maps of a checkpoint by their names in the files, whether or not a model asks for them.

use super::Weights;
use crate::error::Error;
use crate::matrix::{Expert, Matrix};
use crate::quantization::ModuleQuantization;
use crate::tensor::{Dtype, Tensor};
use std::collections::BTreeSet;

/// A linear map, or a stack of them.
#[derive(Clone, Debug)]
pub(crate) struct LinearMap {
    /// Its name in the files, without `.weight`.
    pub(crate) module: String,
    /// `[outputs, inputs]`, of a stack with its size in front.
    pub(crate) shape: Vec<usize>,
    /// How its codes and scales are to be read, if it has any.
    pub(crate) quantization: Option<ModuleQuantization>,
    pub(crate) matrix: Matrix,
}

impl Weights<'_> {
    /// Those of the tensors that are the weights of linear maps: `….weight` of two dimensions or more, convolutions
    /// apart. Tensors of a type that no matrix is read from are passed over.
    pub(crate) fn linear_maps(&self, tensors: &[&Tensor]) -> Result<Vec<LinearMap>, Error> {
        let mut maps = Vec::new();
        for tensor in tensors {
            let codes = super::packed::CODES.iter().find_map(|codes| tensor.name.strip_suffix(codes));
            let Some(module) = codes else { continue };
            if tensor.shape.len() < 2 || module.ends_with("conv1d") {
                continue;
            }
            let scales = self.checkpoint.tensor(&format!("{module}.scales"));
            let how = self.checkpoint.quantization().map(|quantization| {
                quantization.modules.get(module).copied().unwrap_or(Some(quantization.default))
            });
            if let Some(how) = how.flatten().filter(|how| how.is_packed())
                && tensor.dtype.encoding().is_none()
            {
                let Some(shape) = self.packed_shape(module, tensor, how) else { continue };
                let matrix = self.module(module, &shape)?;
                maps.push(LinearMap { module: module.to_owned(), shape, quantization: Some(how), matrix });
                continue;
            }
            let quantization = match how.flatten() {
                fp8 @ Some(ModuleQuantization::Fp8 { .. }) => fp8.filter(|_| tensor.dtype == Dtype::F8E4M3),
                how => scales.and(how),
            };
            let mut shape = tensor.shape.clone();
            match (quantization, scales) {
                (Some(ModuleQuantization::Fp8 { .. }), _) => {}
                (Some(quantization), Some(scales)) => {
                    let group =
                        quantization.encoding(scales.dtype).map_or(1, moeflux_kernels::Encoding::group);
                    if let (Some(cols), Some(groups)) = (shape.last_mut(), scales.shape.last()) {
                        *cols = groups.saturating_mul(group);
                    }
                }
                _ if tensor.dtype.encoding().is_none() => continue,
                _ => {}
            }
            let matrix = self.module(module, &shape)?;
            maps.push(LinearMap { module: module.to_owned(), shape, quantization, matrix });
        }
        Ok(maps)
    }

    /// What the files call the experts of the mixture `name`.
    pub(crate) fn experts_module(&self, name: &str) -> String {
        self.conventions.module(&format!("{name}.experts"))
    }

    /// The mixtures of a multi-token-prediction head, by canonical name. A head is made of the model's own layers, so
    /// they have as many experts as the model's, and of the shape that `like` has.
    pub fn mtp_experts(&self, count: usize, like: &Expert) -> Result<Vec<(String, Vec<Expert>)>, Error> {
        let mut names = BTreeSet::new();
        for tensor in self.checkpoint.mtp_tensors() {
            let module = [".experts", ".switch_mlp"].iter().find_map(|part| {
                let (mlp, rest) = tensor.name.split_once(part)?;
                (rest.is_empty() || rest.starts_with('.')).then_some(mlp)
            });
            let Some(module) = module else { continue };
            let name = module.strip_prefix(self.conventions.prefix).unwrap_or(module);
            // What these conventions would not find under the name stays as it is.
            if self.conventions.module(name) == module {
                names.insert(name.to_owned());
            }
        }
        let experts = |name: String| {
            let experts = self.experts(&name, count, like.gate.cols, like.gate.rows)?;
            Ok((name, experts))
        };
        names.into_iter().map(experts).collect()
    }
}
