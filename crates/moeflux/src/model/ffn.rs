//! The dense MLP.

use moeflux_checkpoint::Error;

use super::decoder::Mlp;
use crate::graph::{
    GraphBuilder, Linear, Loader, Role, Tensor,
    role::{FfnAct, FfnGate, FfnUp, MlpIn, MlpOut},
};

/// `down(silu(gate·x) ⊙ up·x)` (Shazeer 2020): a layer's MLP, or a shared expert whose output plays the role `O`.
#[derive(Debug)]
pub(super) struct SwigluFfn<O> {
    gate_proj: Linear<MlpIn, FfnGate>,
    up_proj: Linear<MlpIn, FfnUp>,
    down_proj: Linear<FfnAct, O>,
}

impl<O: Role> SwigluFfn<O> {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        hidden_size: usize,
        intermediate_size: usize,
    ) -> Result<Self, Error> {
        Ok(SwigluFfn {
            gate_proj: loader.linear(&format!("{name}.gate_proj"), intermediate_size, hidden_size)?,
            up_proj: loader.linear(&format!("{name}.up_proj"), intermediate_size, hidden_size)?,
            down_proj: loader.linear(&format!("{name}.down_proj"), hidden_size, intermediate_size)?,
        })
    }

    pub(super) fn forward(&self, b: &mut GraphBuilder, x: Tensor<MlpIn>) -> Tensor<O> {
        let gate = b.linear(x, &self.gate_proj);
        let up = b.linear(x, &self.up_proj);
        let act = b.swiglu(gate, up);
        b.linear(act, &self.down_proj)
    }
}

impl Mlp for SwigluFfn<MlpOut> {
    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MlpIn>) -> Tensor<MlpOut> {
        SwigluFfn::forward(self, b, x)
    }
}
