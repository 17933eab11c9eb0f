//! Which names of a tied tensor `save_pretrained` leaves out of safetensors, which have no ties: those that
//! the model's class declares as copies, since loading makes them again.
//!
//! ```text
//! in alphabetical order, of all names of one tensor:
//!   declared, and not the last name that is left    left out
//! ```
//!
//! Source: transformers 4.57.3 `modeling_utils.py` (`save_pretrained`, `_tied_weights_keys`).

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::checkpoint::config::ConfigFacts;
use crate::merge::names::embeddings::{is_embedding_name, is_vocab_name};

/// Names, a bar, and the classes that declare them. Written by `scripts/tied_keys.py`.
const LISTS: &str = include_str!("tied_keys.txt");

/// Types of models without a tied head unless config.json says that it is one. Written by
/// `scripts/tied_keys.py --untied`.
const UNTIED: &str = include_str!("untied_types.txt");

/// What each class declares.
static DECLARED: LazyLock<HashMap<&str, Vec<&str>>> = LazyLock::new(|| {
    let lists = LISTS.lines().filter_map(|line| line.split_once(" | "));
    lists
        .flat_map(|(keys, classes)| {
            let keys: Vec<&str> = keys.split(' ').collect();
            classes.split(' ').map(move |class| (class, keys.clone()))
        })
        .collect()
});

/// Those of the names of one tensor that a model with this config.json is saved without; at least one
/// name stays. A head that loading would not tie again stays, too: it would be filled with noise.
pub(crate) fn left_out<'n>(config: &ConfigFacts, names: &[&'n str]) -> Vec<&'n str> {
    // Most tensors have one name, which always stays.
    if names.len() < 2 {
        return Vec::new();
    }
    let declared = config.architectures.iter().find_map(|class| DECLARED.get(class.as_str()));
    let untied_type =
        config.model_type.as_deref().is_some_and(|own| UNTIED.lines().any(|t| t == own));
    let ties_heads = config.tie_word_embeddings.unwrap_or(!untied_type);
    let is_head =
        |name: &str| name.ends_with(".weight") && is_vocab_name(name) && !is_embedding_name(name);
    let Some(declared) = declared else { return Vec::new() };
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let is_declared =
        |name: &&str| declared.iter().any(|key| holds(name, key)) && (ties_heads || !is_head(name));
    let most = names.len().saturating_sub(1);
    sorted.into_iter().filter(is_declared).take(most).collect()
}

/// Whether a name holds a key somewhere, in which a dot stands for any character (they are searched for
/// as regular expressions).
fn holds(name: &str, key: &str) -> bool {
    let fits = |part: &[u8]| part.iter().zip(key.as_bytes()).all(|(a, b)| a == b || *b == b'.');
    name.as_bytes().windows(key.len().max(1)).any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Config;

    /// What `save_pretrained` of transformers 4.57.3 leaves out of tiny models of these classes.
    #[test]
    fn names_are_those_that_transformers_leaves_out() {
        let t5 = ["decoder.embed_tokens.weight", "encoder.embed_tokens.weight", "lm_head.weight"];
        for (class, names, expected) in [
            (
                "Qwen2ForCausalLM",
                &["model.embed_tokens.weight", "lm_head.weight"][..],
                &["lm_head.weight"][..],
            ),
            ("GPT2LMHeadModel", &["transformer.wte.weight", "lm_head.weight"], &["lm_head.weight"]),
            ("T5ForConditionalGeneration", &["shared.weight", t5[1], t5[0], t5[2]], &t5),
            // Without `shared` one of three that are declared stays.
            ("T5ForConditionalGeneration", &[t5[1], t5[0], t5[2]], &t5[..2]),
            (
                "BertForMaskedLM",
                &["bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"],
                &["cls.predictions.decoder.weight"],
            ),
            (
                "BertForMaskedLM",
                &["cls.predictions.bias", "cls.predictions.decoder.bias"],
                &["cls.predictions.decoder.bias"],
            ),
            (
                "GPTNeoXForCausalLM",
                &["gpt_neox.embed_in.weight", "embed_out.weight"],
                &["embed_out.weight"],
            ),
            ("LlamaForSequenceClassification", &["a", "b"], &[]),
            ("OwnModel", &["model.embed_tokens.weight", "lm_head.weight"], &[]),
            ("Qwen2ForCausalLM", &["a.weight", "b.weight"], &[]),
        ] {
            let config = format!(r#"{{"architectures": ["{class}"]}}"#);
            assert_eq!(left_out(&facts(&config), names), expected, "{class} {names:?}");
        }
        assert!(left_out(&facts("{}"), &["lm_head.weight", "w"]).is_empty());
    }

    fn facts(config: &str) -> ConfigFacts {
        Config::parse(config.to_owned()).unwrap().facts().clone()
    }

    #[test]
    fn a_head_stays_where_loading_does_not_tie_it() {
        let names = ["model.embed_tokens.weight", "lm_head.weight"];
        let llama = r#""architectures": ["LlamaForCausalLM"], "model_type": "llama""#;
        let t5 = r#""architectures": ["T5ForConditionalGeneration"], "model_type": "t5""#;
        for (config, expected) in [
            (format!("{{{llama}}}"), &[][..]),
            (format!(r#"{{{llama}, "tie_word_embeddings": false}}"#), &[]),
            (format!(r#"{{{llama}, "tie_word_embeddings": true}}"#), &names[1..]),
            (format!(r#"{{{t5}}}"#), &names[1..]),
            (format!(r#"{{{t5}, "tie_word_embeddings": false}}"#), &[]),
        ] {
            assert_eq!(left_out(&facts(&config), &names), expected, "{config}");
        }
        // Embeddings of one model are tied whatever is said of heads.
        let both = ["shared.weight", "encoder.embed_tokens.weight", "lm_head.weight"];
        let config = format!(r#"{{{t5}, "tie_word_embeddings": false}}"#);
        assert_eq!(left_out(&facts(&config), &both), [both[1]]);
    }
}
