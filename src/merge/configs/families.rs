//! Lists what a key that config.json lacks means in each family of models.

/// A family's defaults for keys that its configs leave out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Family {
    /// `model_type`.
    name: &'static str,
    /// Key/value heads; `None`: as many as heads.
    pub(crate) kv_heads: Option<u64>,
    /// Size of a head; `None`: hidden size by heads.
    pub(crate) head_dim: Option<u64>,
    /// Base of the rotary embedding; `None` where there is none, or it is not called `rope_theta`.
    pub(crate) rope_theta: Option<f64>,
}

/// The family of a `model_type`.
pub(crate) fn family(model_type: &str) -> Option<&'static Family> {
    let name = alias(model_type);
    FAMILIES.iter().find(|family| family.name == name)
}

/// One name for a family that has had several: Falcon's first configs.
pub(crate) fn alias(model_type: &str) -> &str {
    match model_type {
        "RefinedWeb" | "RefinedWebModel" => "falcon",
        other => other,
    }
}

const fn of(
    name: &'static str,
    kv_heads: Option<u64>,
    head_dim: Option<u64>,
    rope_theta: f64,
) -> Family {
    let rope_theta = if rope_theta > 0.0 { Some(rope_theta) } else { None };
    Family { name, kv_heads, head_dim, rope_theta }
}

/// Defaults of the config classes of transformers 4.57.3 (`configuration_*.py`), of the families whose
/// shapes do not tell these figures.
const FAMILIES: &[Family] = &[
    of("apertus", None, None, 12_000_000.0),
    of("arcee", None, None, 10_000.0),
    of("aria_text", None, None, 10_000.0),
    of("bamba", Some(8), None, 0.0),
    of("bitnet", Some(5), None, 500_000.0),
    of("blt", None, None, 500_000.0),
    of("chameleon", Some(32), None, 10_000.0),
    of("code_llama", None, None, 10_000.0),
    of("cohere", None, None, 10_000.0),
    of("cohere2", None, None, 10_000.0),
    of("csm", Some(8), None, 500_000.0),
    of("deepseek_v2", None, None, 10_000.0),
    of("deepseek_v3", Some(128), None, 10_000.0),
    of("diffllama", None, None, 10_000.0),
    of("doge", None, None, 10_000.0),
    of("dots1", Some(32), None, 10_000.0),
    of("ernie4_5", Some(2), Some(128), 500_000.0),
    of("ernie4_5_moe", Some(4), None, 500_000.0),
    of("evolla", Some(8), None, 500_000.0),
    of("exaone4", Some(32), None, 10_000.0),
    of("falcon", None, None, 10_000.0),
    of("falcon_h1", Some(8), None, 100_000.0),
    of("flex_olmo", None, None, 500_000.0),
    of("fuyu", None, None, 25_000.0),
    of("gemma", Some(16), Some(256), 10_000.0),
    of("gemma2", Some(4), Some(256), 10_000.0),
    of("gemma3_text", Some(4), Some(256), 1_000_000.0),
    of("gemma3n_text", Some(2), Some(256), 1_000_000.0),
    of("glm", Some(2), Some(128), 10_000.0),
    of("glm4", Some(2), Some(128), 10_000.0),
    of("glm4_moe", Some(8), None, 10_000.0),
    of("glm4v_moe_text", Some(8), None, 10_000.0),
    of("glm4v_text", Some(2), None, 10_000.0),
    of("gpt_neox", None, None, 10_000.0),
    of("gpt_neox_japanese", None, None, 10_000.0),
    of("gpt_oss", Some(8), Some(64), 150_000.0),
    of("granite", None, None, 10_000.0),
    of("granitemoe", None, None, 10_000.0),
    of("granitemoehybrid", None, None, 10_000.0),
    of("granitemoeshared", None, None, 10_000.0),
    of("helium", Some(20), Some(128), 100_000.0),
    of("hunyuan_v1_dense", None, None, 10_000.0),
    of("hunyuan_v1_moe", None, None, 10_000.0),
    of("jamba", Some(8), None, 0.0),
    of("jetmoe", Some(16), Some(128), 10_000.0),
    of("kyutai_speech_to_text", None, None, 100_000.0),
    of("lfm2", Some(8), None, 1_000_000.0),
    of("llama", None, None, 10_000.0),
    of("llama4_text", Some(8), Some(128), 500_000.0),
    of("longcat_flash", None, Some(64), 10_000_000.0),
    of("longt5", None, Some(64), 0.0),
    of("mimi", Some(8), None, 10_000.0),
    of("minimax", Some(8), None, 1_000_000.0),
    of("ministral", Some(8), None, 10_000.0),
    of("mistral", Some(8), None, 10_000.0),
    of("mixtral", Some(8), None, 1_000_000.0),
    of("moonshine", None, None, 10_000.0),
    of("moshi", None, None, 10_000.0),
    of("mt5", None, Some(64), 0.0),
    of("nemotron", None, None, 10_000.0),
    of("olmo", None, None, 10_000.0),
    of("olmo2", None, None, 10_000.0),
    of("olmo3", None, None, 10_000.0),
    of("olmoe", None, None, 10_000.0),
    of("open-llama", None, None, 10_000.0),
    of("persimmon", None, None, 25_000.0),
    of("phi", None, None, 10_000.0),
    of("phi3", None, None, 10_000.0),
    of("phi4_multimodal", Some(8), None, 10_000.0),
    of("phimoe", Some(8), None, 1_000_000.0),
    of("pop2piano", None, Some(64), 0.0),
    of("qwen2", Some(32), None, 10_000.0),
    of("qwen2_5_vl_text", Some(8), None, 1_000_000.0),
    of("qwen2_moe", Some(16), None, 10_000.0),
    of("qwen2_vl_text", Some(8), None, 1_000_000.0),
    of("qwen3", Some(32), Some(128), 10_000.0),
    of("qwen3_moe", Some(4), None, 10_000.0),
    of("qwen3_next", Some(2), Some(256), 10_000.0),
    of("qwen3_vl_moe_text", Some(16), None, 5_000_000.0),
    of("qwen3_vl_text", Some(32), Some(128), 5_000_000.0),
    of("recurrent_gemma", None, None, 10_000.0),
    of("seed_oss", Some(8), Some(128), 10_000.0),
    of("smollm3", Some(4), None, 2_000_000.0),
    of("stablelm", Some(32), None, 10_000.0),
    of("starcoder2", Some(2), None, 10_000.0),
    of("switch_transformers", None, Some(64), 0.0),
    of("t5", None, Some(64), 0.0),
    of("udop", None, Some(64), 0.0),
    of("umt5", None, Some(64), 0.0),
    of("vaultgemma", Some(4), Some(256), 10_000.0),
    of("zamba", Some(16), None, 0.0),
    of("zamba2", None, None, 10_000.0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_known_by_their_model_type() {
        // MistralConfig(), GemmaConfig() and GPTNeoXConfig() of transformers 4.57.3.
        let figures = |name: &str| family(name).map(|f| (f.kv_heads, f.head_dim, f.rope_theta));
        assert_eq!(figures("mistral"), Some((Some(8), None, Some(10_000.0))));
        assert_eq!(figures("gemma"), Some((Some(16), Some(256), Some(10_000.0))));
        assert_eq!(figures("gpt_neox"), Some((None, None, Some(10_000.0))));
        assert_eq!(figures("t5"), Some((None, Some(64), None)));
        assert_eq!(figures("RefinedWebModel"), figures("falcon"));
        assert_eq!(figures("my_model"), None);
    }
}
