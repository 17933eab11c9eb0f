//! Lists the keys of config.json that give equal shapes another meaning, and whether a difference
//! is refused or noted.

/// What a difference does to a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// The same element of a tensor means another thing in each parent: refused.
    Refused,
    /// The tensors still pair element by element, but one parent's were trained under another figure:
    /// a warning with both values.
    Noted,
}

/// What a key that is not written means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Otherwise {
    /// Not known: nothing is compared.
    Unknown,
    /// This JSON value in every family.
    Is(&'static str),
    /// This JSON value in these families; not known in others.
    In(&'static [(&'static str, &'static str)]),
    /// The key/value heads of the family, most often as many as heads.
    KvHeads,
    /// The size of a head of the family, most often hidden size by heads.
    HeadDim,
    /// `top_k`, where it stands beside a number of experts and can't mean the sampler's.
    TopK,
}

/// One thing that configs say, under all the names that families have for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Its names, the one that counts first.
    pub(crate) spellings: &'static [&'static str],
    /// What a difference does.
    pub(crate) weight: Weight,
    /// What it means where it is missing.
    pub(crate) otherwise: Otherwise,
}

/// Keys of the number of attention heads.
pub(crate) const HEADS: &[&str] = &[
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "attention_heads",
    "num_query_heads",
];

/// Keys of the width of the model.
pub(crate) const WIDTH: &[&str] = &["hidden_size", "n_embd", "d_model", "dim", "emb_dim"];

/// Keys of the number of experts.
pub(crate) const EXPERTS: &[&str] =
    &["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"];

const fn refused(spellings: &'static [&'static str], otherwise: Otherwise) -> Key {
    Key { spellings, weight: Weight::Refused, otherwise }
}

const fn noted(spellings: &'static [&'static str], otherwise: Otherwise) -> Key {
    Key { spellings, weight: Weight::Noted, otherwise }
}

/// Everything that is compared besides `model_type` and the rotary embedding's figures. Spellings and
/// defaults are those of the config classes of transformers 4.57.3, of ChatGLM's and of OpenELM's.
pub(crate) const KEYS: &[Key] = &[
    // How rows are grouped into heads.
    refused(HEADS, Otherwise::Unknown),
    refused(
        &["encoder_attention_heads", "encoder_num_attention_heads", "num_encoder_attention_heads"],
        Otherwise::Unknown,
    ),
    refused(
        &["decoder_attention_heads", "decoder_num_attention_heads", "num_decoder_attention_heads"],
        Otherwise::Unknown,
    ),
    refused(
        &[
            "num_key_value_heads",
            "num_kv_heads",
            "n_head_kv",
            "kv_n_heads",
            "n_kv_heads",
            "multi_query_group_num",
            "num_query_groups",
        ],
        Otherwise::KvHeads,
    ),
    refused(&["encoder_num_key_value_heads"], Otherwise::Unknown),
    refused(&["decoder_num_key_value_heads"], Otherwise::Unknown),
    refused(&["cross_num_attention_heads"], Otherwise::Unknown),
    refused(&["cross_num_key_value_heads"], Otherwise::Unknown),
    refused(&["linear_num_key_heads"], Otherwise::Unknown),
    refused(&["linear_num_value_heads"], Otherwise::Unknown),
    refused(&["mamba_n_heads", "n_mamba_heads"], Otherwise::Unknown),
    refused(&["head_dim", "kv_channels", "d_kv", "d_head", "dim_head"], Otherwise::HeadDim),
    refused(&["attention_head_dim", "attention_head_size"], Otherwise::Unknown),
    refused(&["qk_nope_head_dim"], Otherwise::Unknown),
    refused(&["qk_rope_head_dim"], Otherwise::Unknown),
    refused(&["v_head_dim"], Otherwise::Unknown),
    refused(&["linear_key_head_dim"], Otherwise::Unknown),
    refused(&["linear_value_head_dim"], Otherwise::Unknown),
    refused(&["mamba_d_head", "mamba_headdim"], Otherwise::Unknown),
    refused(&["mamba_n_groups", "mamba_ngroups"], Otherwise::Unknown),
    refused(&["multi_query"], Otherwise::In(&[("falcon", "true"), ("gpt_bigcode", "true")])),
    refused(&["multi_query_attention"], Otherwise::Is("false")),
    refused(&["new_decoder_architecture"], Otherwise::Is("false")),
    // Which experts see a token.
    refused(
        &[
            "num_experts_per_tok",
            "num_experts_per_token",
            "num_selected_experts",
            "moe_k",
            "moe_top_k",
            "moe_topk",
        ],
        Otherwise::TopK,
    ),
    // Where positions enter: the rows of query and key that turn, and in which pairs.
    refused(
        &["partial_rotary_factor", "rotary_pct", "rope_pct"],
        Otherwise::In(&[
            ("fuyu", "0.5"),
            ("glm", "0.5"),
            ("glm4", "0.5"),
            ("glm4_moe", "0.5"),
            ("gpt_neox", "0.25"),
            ("llama", "1.0"),
            ("nemotron", "0.5"),
            ("persimmon", "0.5"),
            ("phi", "0.5"),
            ("phi3", "1.0"),
            ("qwen3_next", "0.25"),
            ("recurrent_gemma", "0.5"),
            ("stablelm", "0.25"),
        ]),
    ),
    refused(&["rotary_dim"], Otherwise::In(&[("codegen", "64"), ("gptj", "64")])),
    refused(
        &["rope_interleave", "rope_interleaved", "rotary_interleaved"],
        Otherwise::In(&[("deepseek_v3", "true")]),
    ),
    refused(&["alibi"], Otherwise::In(&[("falcon", "false")])),
    refused(&["position_embedding_type"], Otherwise::Unknown),
    refused(&["no_rope_layers"], Otherwise::Unknown),
    refused(&["no_rope_layer_interval"], Otherwise::Unknown),
    // Where a layer adds and normalises.
    refused(&["parallel_attn"], Otherwise::In(&[("falcon", "true")])),
    refused(
        &["use_parallel_residual"],
        Otherwise::In(&[("gpt_neox", "true"), ("stablelm", "false")]),
    ),
    refused(&["do_layer_norm_before"], Otherwise::In(&[("opt", "true")])),
    refused(&["apply_residual_connection_post_layernorm"], Otherwise::Is("false")),
    refused(&["use_qk_norm", "qk_layernorm"], Otherwise::Is("false")),
    // Figures of functions without weights of their own.
    noted(
        &[
            "rms_norm_eps",
            "layer_norm_eps",
            "layer_norm_epsilon",
            "norm_epsilon",
            "norm_eps",
            "layernorm_epsilon",
        ],
        Otherwise::Unknown,
    ),
    noted(
        &[
            "hidden_activation",
            "hidden_act",
            "activation_function",
            "activation",
            "ffn_act_fn",
            "act_fn",
        ],
        Otherwise::Unknown,
    ),
    noted(&["feed_forward_proj"], Otherwise::Unknown),
    noted(&["sliding_window", "attention_window", "attention_window_size"], Otherwise::Unknown),
    noted(&["use_sliding_window"], Otherwise::Is("false")),
    noted(&["max_window_layers"], Otherwise::Unknown),
    noted(&["sliding_window_pattern", "_sliding_window_pattern"], Otherwise::Unknown),
    noted(&["window_size"], Otherwise::Unknown),
    noted(&["attention_chunk_size"], Otherwise::Unknown),
    noted(&["local_attention"], Otherwise::Unknown),
    noted(&["global_attn_every_n_layers"], Otherwise::Unknown),
    noted(&["layer_types"], Otherwise::Unknown),
    noted(&["attention_layers"], Otherwise::Unknown),
    noted(
        &[
            "max_position_embeddings",
            "n_positions",
            "n_ctx",
            "max_seq_len",
            "seq_length",
            "max_sequence_length",
        ],
        Otherwise::Unknown,
    ),
    noted(&["rope_ratio"], Otherwise::Unknown),
    noted(&["relative_attention_max_distance"], Otherwise::Unknown),
    noted(&["query_pre_attn_scalar"], Otherwise::Unknown),
    noted(&["attn_logit_softcapping"], Otherwise::Unknown),
    noted(&["final_logit_softcapping", "logits_soft_cap"], Otherwise::Unknown),
    noted(&["attention_multiplier"], Otherwise::Unknown),
    noted(&["embedding_multiplier"], Otherwise::Unknown),
    noted(&["residual_multiplier"], Otherwise::Unknown),
    noted(&["logits_scaling"], Otherwise::Unknown),
    noted(&["logit_scale"], Otherwise::Unknown),
    noted(&["scale_embedding"], Otherwise::Unknown),
    noted(&["scale_attn_weights"], Otherwise::Is("true")),
    noted(&["scale_attn_by_inverse_layer_idx"], Otherwise::Is("false")),
    noted(&["clip_qkv"], Otherwise::Is("null")),
    noted(&["softmax_scale"], Otherwise::Is("null")),
    noted(&["norm_topk_prob"], Otherwise::Unknown),
    noted(&["routed_scaling_factor"], Otherwise::Unknown),
    noted(&["scoring_func"], Otherwise::Unknown),
    noted(&["topk_method"], Otherwise::Unknown),
    noted(&["n_group"], Otherwise::Unknown),
    noted(&["topk_group"], Otherwise::Unknown),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_stands_for_two_things() {
        let all: Vec<&str> = KEYS.iter().flat_map(|key| key.spellings).copied().collect();
        let distinct: std::collections::BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(all.len(), distinct.len());
    }

    #[test]
    fn every_default_is_json() {
        for key in KEYS {
            let defaults = match key.otherwise {
                Otherwise::Is(text) => vec![text],
                Otherwise::In(families) => families.iter().map(|family| family.1).collect(),
                _ => Vec::new(),
            };
            for text in defaults {
                assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
            }
        }
    }
}
