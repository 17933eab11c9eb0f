//! Finds the prefix that one parent's names have before its body and the other's lack: a model
//! saved with and without its head, or by a program that keeps the model as one of its own parts.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::checkpoint::Side;
use crate::merge::names::heads::is_head;
use crate::merge::names::numbers::is_number;

/// Components that name no family of models: what training programs call the model they hold.
const GENERIC: [&str; 4] = ["model", "net", "network", "base_model"];

/// A prefix that is ignored where names are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// The parent that has it.
    pub side: Side,
    /// With the dot behind it.
    pub text: String,
}

impl Prefix {
    /// A name of the parent that has the prefix, without it.
    pub(crate) fn strip<'n>(&self, name: &'n str) -> &'n str {
        name.strip_prefix(self.text.as_str()).unwrap_or(name)
    }

    /// Whether the prefix is a program's rather than the architecture's, so that a loader expects the
    /// model without it: a head stands behind it, or every name has it, and another prefix follows or
    /// its word names no family.
    pub(crate) fn is_foreign(&self, names: &[Cow<'_, str>]) -> bool {
        let inside = || names.iter().filter_map(|name| name.strip_prefix(self.text.as_str()));
        if inside().count() < names.len() {
            return inside().any(is_head);
        }
        let word = self.text.trim_end_matches('.');
        if inside().any(is_head) || word.contains('.') {
            return true;
        }
        // A module that holds all the rest is the model itself, unless it is its only stack.
        let inner = shared(inside());
        if inner.first().is_some_and(|part| !["encoder", "decoder"].contains(part)) {
            return true;
        }
        // Families whose body is called `model` keep their blocks as `layers` in it.
        let layers = |name: &str| name.split('.').take(2).any(|part| part == "layers");
        GENERIC.contains(&word) && !(word == "model" && inside().any(layers))
    }
}

/// The prefix without which most names of both parents are equal, and how many then are. No prefix
/// where none makes at least half of the smaller parent's names equal, and more than are so already.
pub(crate) fn find(
    primary: &[Cow<'_, str>],
    secondary: &[Cow<'_, str>],
) -> (Option<Prefix>, usize) {
    let ours: HashSet<&str> = primary.iter().map(Cow::as_ref).collect();
    let theirs: HashSet<&str> = secondary.iter().map(Cow::as_ref).collect();
    let mut best = (None, primary.iter().filter(|name| theirs.contains(name.as_ref())).count());
    let least = primary.len().min(secondary.len());
    if best.1 == least {
        return best;
    }
    for (side, names, others) in
        [(Side::Primary, primary, &theirs), (Side::Secondary, secondary, &ours)]
    {
        let body = names.iter().map(Cow::as_ref);
        let body = body.filter(|name| !is_head(name) && !others.contains(*name));
        let shared = shared(body);
        for length in 1..=shared.len() {
            let text = format!("{}.", shared[..length].join("."));
            let prefix = Prefix { side, text };
            let equal = names.iter().filter(|name| others.contains(prefix.strip(name))).count();
            if equal > best.1 && equal.saturating_mul(2) >= least {
                best = (Some(prefix), equal);
            }
        }
    }
    best
}

/// The components that all names begin with, up to a number or the last one.
fn shared<'n>(mut names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let modules = |name: &'n str| name.rsplit_once('.').map_or("", |(module, _)| module).split('.');
    let Some(first) = names.next() else { return Vec::new() };
    let is_word = |part: &&str| !part.is_empty() && !is_number(part);
    let mut shared: Vec<&str> = modules(first).take_while(is_word).collect();
    for name in names {
        let equal = shared.iter().zip(modules(name)).take_while(|(a, b)| *a == b).count();
        shared.truncate(equal);
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&'static str]) -> Vec<Cow<'static, str>> {
        names.iter().map(|name| Cow::Borrowed(*name)).collect()
    }

    fn prefix(side: Side, text: &str) -> Option<Prefix> {
        Some(Prefix { side, text: text.to_owned() })
    }

    const GPT2: [&str; 4] = ["wte.weight", "h.0.attn.weight", "h.1.attn.weight", "ln_f.weight"];
    const HEADED: [&str; 5] = [
        "transformer.wte.weight",
        "transformer.h.0.attn.weight",
        "transformer.h.1.attn.weight",
        "transformer.ln_f.weight",
        "lm_head.weight",
    ];
    const LLAMA: [&str; 3] =
        ["model.embed_tokens.weight", "model.layers.0.mlp.weight", "lm_head.weight"];
    const LIGHTNING: [&str; 3] = [
        "model.model.embed_tokens.weight",
        "model.model.layers.0.mlp.weight",
        "model.lm_head.weight",
    ];

    #[test]
    fn the_prefix_of_a_body_is_found_on_either_side() {
        let (bare, headed) = (names(&GPT2), names(&HEADED));
        assert_eq!(find(&headed, &bare), (prefix(Side::Primary, "transformer."), 4));
        assert_eq!(find(&bare, &headed), (prefix(Side::Secondary, "transformer."), 4));
        assert_eq!(find(&bare, &bare), (None, 4));
    }

    #[test]
    fn a_prefix_before_the_same_word_is_found_too() {
        let (plain, wrapped) = (names(&LLAMA), names(&LIGHTNING));
        assert_eq!(find(&wrapped, &plain), (prefix(Side::Primary, "model."), 3));
        let peft = names(&[
            "base_model.model.model.embed_tokens.weight",
            "base_model.model.model.layers.0.mlp.weight",
            "base_model.model.lm_head.weight",
        ]);
        assert_eq!(find(&plain, &peft), (prefix(Side::Secondary, "base_model.model."), 3));
    }

    #[test]
    fn half_of_a_model_is_no_body() {
        let encoder = names(&["layers.0.w", "layers.1.w", "norm.w"]);
        let both = names(&[
            "encoder.layers.0.w",
            "encoder.layers.1.w",
            "encoder.norm.w",
            "decoder.layers.0.w",
            "decoder.layers.1.w",
        ]);
        assert_eq!(find(&both, &encoder), (None, 0));
        // One name in four is chance.
        let other = names(&["model.norm.w", "model.a.x", "model.b.x", "model.c.x"]);
        assert_eq!(find(&other, &names(&["norm.w", "d.x", "e.x", "f.x"])), (None, 0));
    }

    #[test]
    fn a_prefix_must_make_more_names_equal_than_none_does() {
        let (a, b) = (names(&["net.a.w", "net.b.w"]), names(&["net.a.w", "b.w"]));
        assert_eq!(find(&a, &b), (None, 1));
        assert_eq!(find(&b, &a), (None, 1));
    }

    #[test]
    fn a_tensor_that_both_have_outside_is_no_part_of_the_body() {
        let a = names(&["net.a.w", "net.b.w", "odd.w"]);
        let b = names(&["a.w", "b.w", "odd.w"]);
        assert_eq!(find(&a, &b), (prefix(Side::Primary, "net."), 3));
    }

    #[test]
    fn numbers_and_last_components_are_no_prefix() {
        assert_eq!(shared(["a.0.w", "a.0.v"].into_iter()), ["a"]);
        assert_eq!(shared(["w", "w"].into_iter()), [] as [&str; 0]);
        assert_eq!(shared(["a.b.c.w", "a.b.c", "a.b.d.w"].into_iter()), ["a", "b"]);
    }

    #[test]
    fn a_prefix_is_foreign_where_no_architecture_has_it() {
        let foreign = |text: &str, own: &[&'static str]| {
            Prefix { side: Side::Primary, text: text.to_owned() }.is_foreign(&names(own))
        };
        assert!(!foreign("transformer.", &HEADED));
        assert!(!foreign("transformer.", &HEADED[..4]));
        assert!(foreign("model.", &LIGHTNING));
        // A tied head was left out.
        assert!(foreign("model.", &LIGHTNING[..2]));
        assert!(!foreign("model.", &LLAMA[..2]));
        assert!(!foreign("model.", &LLAMA));
        assert!(!foreign("model.", &["model.decoder.embed.w", "model.decoder.layers.0.w"]));
        assert!(foreign("model.", &["model.embeddings.w", "model.encoder.layer.0.w"]));
        assert!(!foreign("bert.", &["bert.embeddings.w", "bert.encoder.layer.0.w"]));
        assert!(foreign("base_model.model.", &["base_model.model.a.w", "base_model.model.b.w"]));
        // The classifier of a fine-tuned model beside the wrapped one: it is no part of it.
        assert!(foreign("net.", &["net.lm_head.weight", "net.wte.weight", "score.weight"]));
        // The same beside a body without a head inside, and a head beside layers of a family.
        let bert = ["model.embeddings.w", "model.encoder.layer.0.w", "score.weight"];
        assert!(foreign("model.", &bert[..2]) && !foreign("model.", &bert));
        let headed = ["transformer.lm_head.weight", "transformer.wte.weight", "transformer.h.0.w"];
        assert!(foreign("transformer.", &headed) && !foreign("transformer.", &headed[1..]));
        // Layers are a sign of a family's own `model` alone.
        assert!(foreign("net.", &["net.embed.w", "net.layers.0.w"]));
    }
}
