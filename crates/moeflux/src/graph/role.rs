//! What a tensor is for, as a type: an operation takes the roles it is meant for and nothing else.

/// The part a tensor plays. Sealed: roles are listed in this file only.
pub trait Role: sealed::Sealed + Copy + 'static {
    /// The role's name in labels and dumps.
    const NAME: &'static str;
    /// The element type of every tensor in this role.
    const ELEMENT: Element;
}

/// Element type of a transient tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 32-bit unsigned index.
    U32,
}

/// A sum that makes sense: `Self + Other = Sum`.
pub trait Plus<Other: Role>: Role {
    /// What the sum is.
    type Sum: Role;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! roles {
    ($($(#[$doc:meta])* $role:ident = $name:literal: $element:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $role {}
        impl sealed::Sealed for $role {}
        impl Role for $role {
            const NAME: &'static str = $name;
            const ELEMENT: Element = Element::$element;
        }
    )*};
}

roles! {
    /// The residual stream between layers, `[n_tokens, hidden_size]`.
    Hidden = "hidden": F32;
    /// The residual stream between a layer's mixer and its MLP, `[n_tokens, hidden_size]`.
    Mid = "mid": F32;
    /// What a mixer (attention or gated delta net) reads: the normed residual stream.
    MixerIn = "mixer_in": F32;
    /// What a mixer adds to the residual stream.
    MixerOut = "mixer_out": F32;
    /// What an MLP or a router reads: the normed residual stream after the mixer.
    MlpIn = "mlp_in": F32;
    /// What an MLP adds to the residual stream.
    MlpOut = "mlp_out": F32;
    /// What the output head reads: the normed residual stream after the last layer.
    HeadIn = "final_norm": F32;
    /// The embedding of a token as a layer for further tokens reads it: normed.
    MtpEmbedding = "mtp_embedding": F32;
    /// The [`HeadIn`] of the token before it as such a layer reads it: normed once more.
    MtpHidden = "mtp_hidden": F32;
    /// Both side by side, `[n_tokens, 2 · hidden_size]`.
    MtpIn = "mtp_in": F32;
    /// Scores over the vocabulary, `[n_outputs, vocab_size]`.
    Logits = "logits": F32;

    /// Query and gate of each head side by side, `[n_tokens, heads · 2 · head_dim]`.
    QueryGate = "query_gate": F32;
    /// Queries before RoPE, `[n_tokens, heads · head_dim]`.
    Query = "query": F32;
    /// Keys before RoPE, `[n_tokens, kv_heads · head_dim]`.
    Key = "key": F32;
    /// Values, `[n_tokens, kv_heads · head_dim]`.
    Value = "value": F32;
    /// Queries after RoPE.
    RopedQuery = "roped_query": F32;
    /// Keys after RoPE: what the KV cache keeps.
    RopedKey = "roped_key": F32;
    /// Gate of the attention output, `[n_tokens, heads · head_dim]`.
    AttentionGate = "attention_gate": F32;
    /// Weighted sums of values, `[n_tokens, heads · head_dim]`.
    Attended = "attended": F32;
    /// Attention output after its gate: what the output projection reads.
    GatedAttended = "gated_attended": F32;

    /// `q`, `k`, `v`, `z` of each key head side by side, `[n_tokens, key_heads · (2 · key_dim + 2 · r · value_dim)]`, `r`
    /// value heads to a key head.
    FusedQkvz = "fused_qkvz": F32;
    /// `b`, `a` of each key head side by side, `[n_tokens, key_heads · 2 · r]`.
    FusedBa = "fused_ba": F32;
    /// Queries squeezed through a low rank (`c_Q` of MLA) before their norm, `[n_tokens, q_lora_rank]`.
    QueryLatent = "query_latent": F32;
    /// The same after it.
    NormedQueryLatent = "normed_query_latent": F32;
    /// MLA's queries, of each head a part without a position and a rotary part,
    /// `[n_tokens, heads · (nope_dim + rope_dim)]`.
    MlaQuery = "mla_query": F32;
    /// The parts without a position, `[n_tokens, heads · nope_dim]`.
    NopeQuery = "nope_query": F32;
    /// The same folded into the space of latents, `[n_tokens, heads · kv_lora_rank]`.
    FoldedQuery = "folded_query": F32;
    /// What MLA keeps of a token, before norm and RoPE: latent and rotary key side by side,
    /// `[n_tokens, kv_lora_rank + rope_dim]`.
    LatentKey = "latent_key": F32;
    /// The latent (`c_KV`) before its norm, `[n_tokens, kv_lora_rank]`.
    LatentIn = "latent_in": F32;
    /// The same after it: what the cache keeps.
    Latent = "latent": F32;
    /// Weighted sums of latents, `[n_tokens, heads · kv_lora_rank]`.
    LatentSum = "latent_sum": F32;

    /// Query, key and value channels before the convolution, `[n_tokens, channels]`.
    ConvIn = "conv_in": F32;
    /// The same after convolution and SiLU.
    ConvOut = "conv_out": F32;
    /// Delta-rule queries before their norm, `[n_tokens, key_heads · key_dim]`.
    DeltaQuery = "delta_query": F32;
    /// Delta-rule keys before their norm, `[n_tokens, key_heads · key_dim]`.
    DeltaKey = "delta_key": F32;
    /// Delta-rule values, `[n_tokens, value_heads · value_dim]`.
    DeltaValue = "delta_value": F32;
    /// Queries of unit length, scaled.
    UnitQuery = "unit_query": F32;
    /// Keys of unit length.
    UnitKey = "unit_key": F32;
    /// The projection that the decay is computed from (`a`), `[n_tokens, value_heads]`.
    DecayIn = "decay_in": F32;
    /// The projection that the write strength is computed from (`b`), `[n_tokens, value_heads]`.
    BetaIn = "beta_in": F32;
    /// Factor that the state keeps, `[n_tokens, value_heads]`.
    Decay = "decay": F32;
    /// Write strength, `[n_tokens, value_heads]`.
    Beta = "beta": F32;
    /// Delta-rule output, `[n_tokens, value_heads · value_dim]`.
    DeltaOut = "delta_out": F32;
    /// Gate of the delta-rule output (`z`), same shape.
    DeltaGate = "delta_gate": F32;
    /// Delta-rule output after its norm and gate.
    GatedDeltaOut = "gated_delta_out": F32;

    /// Router scores, `[n_tokens, num_experts]`.
    RouterLogits = "router_logits": F32;
    /// Chosen experts by falling score, `[n_tokens, num_experts_per_tok]`.
    ExpertIds = "router_indices": U32;
    /// Their weights, same shape.
    ExpertWeights = "router_weights": F32;
    /// Weighted sum over the chosen experts where a shared expert is to be added, `[n_tokens, hidden_size]`.
    ExpertSum = "expert_sum": F32;
    /// Gate half of a SwiGLU, `[n_tokens, intermediate_size]`.
    FfnGate = "ffn_gate": F32;
    /// Up half of a SwiGLU, same shape.
    FfnUp = "ffn_up": F32;
    /// `silu(gate) · up`.
    FfnAct = "ffn_act": F32;
    /// Output of a shared expert that is to be scaled, `[n_tokens, hidden_size]`.
    SharedOut = "shared_out": F32;
    /// Output of a shared expert that has no gate, `[n_tokens, hidden_size]`.
    UngatedSharedOut = "shared_out": F32;
    /// The score that scales the shared expert, `[n_tokens, 1]`.
    SharedGate = "shared_gate": F32;
    /// Output of the shared expert, scaled.
    GatedSharedOut = "gated_shared_out": F32;
}

impl Plus<MixerOut> for Hidden {
    type Sum = Mid;
}
impl Plus<MlpOut> for Mid {
    type Sum = Hidden;
}
impl Plus<GatedSharedOut> for ExpertSum {
    type Sum = MlpOut;
}
impl Plus<UngatedSharedOut> for ExpertSum {
    type Sum = MlpOut;
}
