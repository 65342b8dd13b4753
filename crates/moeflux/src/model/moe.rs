//! The sparse MLP: a router, the experts that it chooses, and perhaps one that every token visits.

use moeflux_checkpoint::{Error, GroupedRouterConfig, MlpType, MoeConfig};
use moeflux_kernels::{ExpertGroups, GroupScore, Routing, Scores, Weighting};

use super::decoder::Mlp;
use super::ffn::SwigluFfn;
use crate::graph::{
    Experts, GraphBuilder, Linear, Loader, Tensor, Vector,
    role::{ExpertSum, MlpIn, MlpOut, RouterLogits, SharedGate, SharedOut, UngatedSharedOut},
};

/// What a family's sparse MLPs are.
#[derive(Clone, Copy, Debug)]
pub(super) struct SparseMlpSpec<'a> {
    pub(super) hidden_size: usize,
    pub(super) moe: &'a MoeConfig,
    pub(super) routing: Routing,
    /// Whether the router has `e_score_correction_bias`.
    pub(super) correction_bias: bool,
    pub(super) shared: SharedExpertSpec,
}

/// The expert that every token visits.
#[derive(Clone, Copy, Debug)]
pub(super) enum SharedExpertSpec {
    /// There is none.
    None,
    /// `shared_expert`, scaled by the sigmoid of `shared_expert_gate`.
    Gated { intermediate_size: usize },
    /// `shared_experts`, several as one, added as they are.
    Ungated { intermediate_size: usize },
}

/// Softmax over all experts, then the best; their weights divided by their sum if `normalized`.
pub(super) fn softmax_routing(moe: &MoeConfig, normalized: bool) -> Routing {
    Routing {
        scores: Scores::Softmax,
        groups: None,
        num_experts_per_tok: moe.num_experts_per_tok,
        weighting: if normalized { Weighting::SumToOne } else { Weighting::AsScored },
        scaling_factor: 1.0,
    }
}

/// Sigmoids, the best of the groups whose two best experts have the largest sum (DeepSeek-V3 2024, section 2.1.2).
pub(super) fn grouped_sigmoid_routing(moe: &MoeConfig, router: &GroupedRouterConfig) -> Routing {
    let GroupedRouterConfig { n_group, topk_group, norm_topk_prob, routed_scaling_factor } = *router;
    Routing {
        scores: Scores::Sigmoid,
        groups: Some(ExpertGroups { n_group, topk_group, score: GroupScore::TopTwo }),
        scaling_factor: routed_scaling_factor as f32,
        ..softmax_routing(moe, norm_topk_prob)
    }
}

/// The MLP called `name` of a layer that may be dense.
pub(super) fn load_mlp(
    kind: MlpType,
    spec: &SparseMlpSpec<'_>,
    loader: &mut Loader<'_>,
    name: &str,
) -> Result<Box<dyn Mlp>, Error> {
    Ok(match kind {
        MlpType::Dense { intermediate_size } => {
            Box::new(SwigluFfn::<MlpOut>::load(loader, name, spec.hidden_size, intermediate_size)?)
        }
        MlpType::Sparse => Box::new(SparseMlp::load(spec, loader, name)?),
    })
}

#[derive(Debug)]
struct SparseMlp {
    gate: Linear<MlpIn, RouterLogits>,
    correction_bias: Option<Vector>,
    routing: Routing,
    experts: RoutedExperts,
}

#[derive(Debug)]
enum RoutedExperts {
    Alone(Experts<MlpOut>),
    BesideGated { experts: Experts<ExpertSum>, shared: SwigluFfn<SharedOut>, gate: Linear<MlpIn, SharedGate> },
    BesideUngated { experts: Experts<ExpertSum>, shared: SwigluFfn<UngatedSharedOut> },
}

impl Mlp for SparseMlp {
    fn forward(&self, b: &mut GraphBuilder, x: Tensor<MlpIn>) -> Tensor<MlpOut> {
        let logits = b.linear(x, &self.gate);
        let choice = b.route(logits, self.correction_bias.as_ref(), self.routing);
        match &self.experts {
            RoutedExperts::Alone(experts) => b.experts(x, choice, experts),
            RoutedExperts::BesideGated { experts, shared, gate } => {
                let shared = shared.forward(b, x);
                let score = b.linear(x, gate);
                let shared = b.scale_by_sigmoid(shared, score);
                let routed = b.experts(x, choice, experts);
                b.add(routed, shared)
            }
            RoutedExperts::BesideUngated { experts, shared } => {
                let shared = shared.forward(b, x);
                let routed = b.experts(x, choice, experts);
                b.add(routed, shared)
            }
        }
    }
}

impl SparseMlp {
    fn load(spec: &SparseMlpSpec<'_>, loader: &mut Loader<'_>, name: &str) -> Result<Self, Error> {
        let hidden_size = spec.hidden_size;
        let MoeConfig { num_experts, moe_intermediate_size, .. } = *spec.moe;
        let gate = format!("{name}.gate");
        Ok(SparseMlp {
            gate: loader.linear(&gate, num_experts, hidden_size)?,
            correction_bias: spec
                .correction_bias
                .then(|| loader.vector(&format!("{gate}.e_score_correction_bias"), num_experts))
                .transpose()?,
            routing: spec.routing,
            experts: match spec.shared {
                SharedExpertSpec::None => RoutedExperts::Alone(loader.experts(
                    name,
                    num_experts,
                    hidden_size,
                    moe_intermediate_size,
                )?),
                SharedExpertSpec::Gated { intermediate_size } => RoutedExperts::BesideGated {
                    experts: loader.experts(name, num_experts, hidden_size, moe_intermediate_size)?,
                    shared: SwigluFfn::load(
                        loader,
                        &format!("{name}.shared_expert"),
                        hidden_size,
                        intermediate_size,
                    )?,
                    gate: loader.linear(&format!("{name}.shared_expert_gate"), 1, hidden_size)?,
                },
                SharedExpertSpec::Ungated { intermediate_size } => RoutedExperts::BesideUngated {
                    experts: loader.experts(name, num_experts, hidden_size, moe_intermediate_size)?,
                    shared: SwigluFfn::load(
                        loader,
                        &format!("{name}.shared_experts"),
                        hidden_size,
                        intermediate_size,
                    )?,
                },
            },
        })
    }
}
