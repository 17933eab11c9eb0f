//! Refuses adapters: weights that mean nothing without the model they were trained on.

use std::ffi::OsStr;

use crate::checkpoint::{Checkpoint, TensorEntry, is_adapter_file};
use crate::error::{Error, Kind};
use crate::merge::names::embeddings::embedding;
use crate::tensor::escape;

/// An adapter method of PEFT.
struct Method {
    /// PEFT's `peft_type`.
    peft_type: &'static str,
    /// Its name in messages, with the article.
    name: &'static str,
    /// Prefixes of name components that only this method's tensors have.
    prefixes: &'static [&'static str],
    /// Whether it changes weights, so that `merge_and_unload()` makes a model of it.
    in_weights: bool,
}

const fn weights(
    peft_type: &'static str,
    name: &'static str,
    prefixes: &'static [&'static str],
) -> Method {
    Method { peft_type, name, prefixes, in_weights: true }
}

const fn prompt(
    peft_type: &'static str,
    name: &'static str,
    prefixes: &'static [&'static str],
) -> Method {
    Method { peft_type, name, prefixes, in_weights: false }
}

/// From PEFT 0.17, `utils/save_and_load.py`. Of methods that share a prefix, the most common is first.
const METHODS: [Method; 22] = [
    weights("LORA", "a LoRA adapter", &["lora_"]),
    weights("ADALORA", "an AdaLoRA adapter", &["lora_E"]),
    weights("IA3", "an IA3 adapter", &["ia3_l"]),
    weights("VERA", "a VeRA adapter", &["vera_lambda_", "vera_A", "vera_B"]),
    weights("VBLORA", "a VB-LoRA adapter", &["vblora_"]),
    weights("RANDLORA", "a RandLoRA adapter", &["randlora_"]),
    weights("LOHA", "a LoHa adapter", &["hada_w1_", "hada_w2_"]),
    weights("LOKR", "a LoKr adapter", &["lokr_w1", "lokr_w2"]),
    weights("OFT", "an OFT adapter", &["oft_r", "oft_R"]),
    weights("BOFT", "a BOFT adapter", &["boft_"]),
    weights("HRA", "an HRA adapter", &["hra_u"]),
    weights("FOURIERFT", "a FourierFT adapter", &["fourierft_"]),
    weights("C3A", "a C3A adapter", &["c3a_kernel"]),
    weights("BONE", "a Bone adapter", &[]),
    weights("SHIRA", "a SHiRA adapter", &["shira_"]),
    weights("LN_TUNING", "an adapter of layer norms", &[]),
    prompt("PROMPT_TUNING", "a prompt-tuning adapter", &["prompt_embeddings"]),
    prompt("PREFIX_TUNING", "a prefix-tuning adapter", &[]),
    prompt("P_TUNING", "a P-tuning adapter", &[]),
    prompt("MULTITASK_PROMPT_TUNING", "a multitask prompt-tuning adapter", &["prefix_task_cols"]),
    prompt("ADAPTION_PROMPT", "an adaption-prompt adapter", &["adaption_prompt"]),
    prompt("XLORA", "an X-LoRA adapter", &["internal_xlora_"]),
];

/// Refuses an adapter: known by its tensor names or file names, or by an adapter_config.json beside
/// weights that are no whole model.
pub(crate) fn refusal(checkpoint: &Checkpoint) -> Option<Error> {
    let tensors = &checkpoint.inventory.tensors;
    // One pass over all names leaves the few among which the method is looked for. Empty factors are
    // placeholders of a model, or of a shell.
    let factors: Vec<&TensorEntry> = tensors
        .iter()
        .filter(|tensor| tensor.layout.numel() != Some(0) && begins(&tensor.name, prefixes))
        .collect();
    let by_name = METHODS.iter().find_map(|method| {
        let own = || method.prefixes.iter().copied();
        let first = factors.iter().find(|tensor| begins(&tensor.name, own))?;
        Some((method, *first))
    });
    let config = checkpoint.adapter.as_ref();
    let named = is_named(checkpoint);
    let described =
        config.is_some() && !tensors.is_empty() && embedding(&checkpoint.inventory).is_none();
    if by_name.is_none() && !named && !described {
        return None;
    }
    let said = config.and_then(|config| config.peft_type.as_deref());
    let method = said.and_then(|said| METHODS.iter().find(|method| method.peft_type == said));
    let method = method.or(by_name.map(|(method, _)| method));
    let name = match (method, said) {
        (Some(method), _) => method.name.to_owned(),
        (None, Some(said)) => format!("an adapter of PEFT's type `{}`", escape(said)),
        (None, None) => "an adapter".to_owned(),
    };
    let mut found = match by_name {
        Some((method, _)) => {
            let low_rank = method.peft_type.ends_with("LORA");
            let what = if low_rank { "low-rank factors" } else { "its own weights" };
            let plural = if tensors.len() == 1 { "" } else { "s" };
            format!("{what} in {} of {} tensor{plural}", factors.len(), tensors.len())
        }
        None if config.is_some() => "adapter_config.json beside the weights".to_owned(),
        None => "the name of an adapter's weights".to_owned(),
    };
    if let Some(base) = config.and_then(|config| config.base_model.as_deref()) {
        found.push_str(&format!(", trained on `{}`", escape(base)));
    }
    let mut hint = hint(method).to_owned();
    if by_name.is_none() && !named {
        hint.push_str("; if these weights are a whole model, move adapter_config.json away");
    }
    let error = Error::new(Kind::Data, format!("this is {name}, not a model"));
    let error = error.file(&checkpoint.path).expected("whole weights", found).with_hint(hint);
    Some(match by_name {
        Some((_, tensor)) => error.tensor(&tensor.name),
        None => error,
    })
}

/// The note on an adapter_config.json beside the weights of a whole model, which are merged.
pub(crate) fn left_aside(checkpoint: &Checkpoint) -> Option<String> {
    checkpoint.adapter.as_ref()?;
    Some(
        "adapter_config.json speaks of an adapter, which is not merged: the weights beside it are a \
         whole model; where PEFT is installed, transformers loads the adapter and its base model \
         instead of them"
            .to_owned(),
    )
}

/// The prefixes of all methods.
fn prefixes() -> impl Iterator<Item = &'static str> {
    METHODS.iter().flat_map(|method| method.prefixes.iter().copied())
}

/// Whether a component of a name begins with one of these prefixes.
fn begins<P: Iterator<Item = &'static str>>(name: &str, prefixes: impl Fn() -> P) -> bool {
    let mut components = name.split('.').filter(|component| component.contains('_'));
    components.any(|component| prefixes().any(|prefix| component.starts_with(prefix)))
}

fn hint(method: Option<&Method>) -> &'static str {
    match method {
        Some(method) if !method.in_weights => {
            "it changes no weights of its base model: merge the base models, and load the adapter \
             beside the child"
        }
        _ => {
            "merge it into its base model first (PEFT: `merge_and_unload()`, then \
             `save_pretrained(DIR, safe_serialization=False)`)"
        }
    }
}

/// Whether a weight file has an adapter's file name.
fn is_named(checkpoint: &Checkpoint) -> bool {
    let names = checkpoint.files.iter().filter_map(|file| file.path().file_name());
    names.filter_map(OsStr::to_str).any(is_adapter_file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{AdapterConfig, FileSource};
    use crate::merge::headers::{Headers, llama};

    fn said(headers: Headers) -> Option<String> {
        refusal(&headers.open()).map(|error| error.to_string())
    }

    #[test]
    fn every_method_is_known_by_its_names_and_by_its_type() {
        for method in &METHODS {
            let words = format!("this is {}, not a model", method.name);
            let plain = Headers::new().f16("base_model.model.layers.0.norm.weight", &[4]);
            let by_type = said(plain.adapter(method.peft_type)).expect(method.peft_type);
            assert!(by_type.starts_with(&words), "{by_type}");
            for part in method.prefixes {
                let name = format!("base_model.model.layers.0.mlp.{part}x");
                let by_name = said(llama(8).f16(&name, &[4, 2])).expect(part);
                // AdaLoRA's names are LoRA's, and one more.
                let words =
                    if method.peft_type == "ADALORA" { "this is a LoRA adapter" } else { &words };
                assert!(by_name.starts_with(words), "{by_name}");
            }
        }
    }

    #[test]
    fn what_is_said_goes_before_what_is_guessed() {
        let lora = || Headers::new().f16("base_model.model.h.0.attn.lora_A.weight", &[2, 4]);
        let words = said(lora().adapter("ADALORA")).expect("refused");
        assert!(words.starts_with("this is an AdaLoRA adapter, not a model"), "{words}");
        let words = said(lora().adapter("NEW\u{1b}")).expect("refused");
        assert!(words.starts_with("this is a LoRA adapter"), "{words}");
        let plain = Headers::new().f16("w", &[2]);
        let words = said(plain.adapter("NEW\u{1b}")).expect("refused");
        assert!(words.starts_with("this is an adapter of PEFT's type `NEW\\u{1b}`"), "{words}");
    }

    #[test]
    fn a_prompt_is_not_to_be_merged_into_weights() {
        let hint = |peft_type: &str| {
            let parent = Headers::new().f16("prompt_embeddings", &[2, 4]).adapter(peft_type).open();
            refusal(&parent).and_then(|error| error.hint().map(str::to_owned)).expect("a hint")
        };
        assert!(hint("PREFIX_TUNING").starts_with("it changes no weights of its base model"));
        assert!(hint("IA3").starts_with("merge it into its base model first"));
    }

    #[test]
    fn a_whole_model_beside_an_adapter_config_is_a_model_and_told_of() {
        let whole = llama(8).adapter("LORA").open();
        assert!(refusal(&whole).is_none());
        assert!(left_aside(&whole).is_some_and(|note| note.contains("which is not merged")));
        assert!(left_aside(&llama(8).open()).is_none());
        // No embedding is known by name: nobody can say that it is whole.
        let vision = Headers::new().f16("patch.weight", &[4, 4]).adapter("LORA").open();
        let hint = refusal(&vision).and_then(|error| error.hint().map(str::to_owned));
        assert!(hint.is_some_and(|hint| hint.ends_with("move adapter_config.json away")));
        assert!(refusal(&Headers::new().adapter("LORA").open()).is_none());
    }

    #[test]
    fn the_refusal_says_what_was_seen_and_of_which_base() {
        let base =
            AdapterConfig { base_model: Some("org/base".into()), ..AdapterConfig::default() };
        let factors = || Headers::new().f16("h.0.lora_A.weight", &[2, 4]);
        let learned = || Headers::new().f16("prompt_embeddings", &[2, 4]);
        let plain = Headers::new().f16("w", &[2]);
        for (headers, config, words) in [
            (factors(), None, "low-rank factors in 1 of 1 tensor"),
            (factors().f16("h.0.o_proj.w", &[2]), None, "low-rank factors in 1 of 2 tensors"),
            (learned(), None, "its own weights in 1 of 1 tensor"),
            (plain, Some(base), "adapter_config.json beside the weights, trained on `org/base`"),
        ] {
            let mut parent = headers.open();
            parent.adapter = config;
            let text = refusal(&parent).expect(words).to_string();
            assert!(text.ends_with(words), "{text}");
        }
    }

    #[test]
    fn weights_under_an_adapters_name_are_refused_whatever_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let saved_as = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            let mut parent = llama(8).open();
            parent.files = vec![FileSource::open(&path).unwrap()];
            refusal(&parent)
        };
        assert!(saved_as("pytorch_model.bin").is_none());
        let error = saved_as("adapter_model.bin").expect("refused");
        let text = error.to_string();
        assert!(text.starts_with("this is an adapter, not a model"), "{text}");
        assert!(text.ends_with("found the name of an adapter's weights"), "{text}");
        let hint = error.hint().unwrap();
        assert!(hint.starts_with("merge it into its base model first"), "{hint}");
        assert!(!hint.contains("adapter_config.json"), "{hint}");
    }

    #[test]
    fn factors_of_rank_zero_change_nothing() {
        assert!(refusal(&llama(8).f16("layers.0.mlp.lora_A", &[0, 32]).open()).is_none());
    }

    #[test]
    fn names_of_whole_models_that_look_like_those_of_adapters_are_let_through() {
        for name in ["layers.0.attn.w_lora.lora.0.weight", "model.adapter.weight", "xlora_head"] {
            assert!(refusal(&llama(8).f16(name, &[4, 2]).open()).is_none(), "{name}");
        }
    }
}
