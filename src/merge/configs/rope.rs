//! Reads the figures of a rotary embedding from a config, in the spelling of transformers 4 and of
//! 5.

use serde_json::{Map, Value};

/// Names of the base that turns all layers, or those with full attention.
const BASES: [&str; 4] =
    ["rope_theta", "rotary_emb_base", "rotary_embedding_base", "global_rope_theta"];

/// Names of the base that turns layers with a sliding window.
const LOCAL_BASES: [&str; 2] = ["rope_local_base_freq", "local_rope_theta"];

/// The figures of a rotary embedding, as far as they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rope {
    /// The base, and the key that has it.
    pub(crate) base: Option<(&'static str, Value)>,
    /// The base of layers with a sliding window, and its key.
    pub(crate) local_base: Option<(&'static str, Value)>,
    /// How positions are scaled: an object with `rope_type` and its figures; null where they are not.
    pub(crate) scaling: Value,
    /// The share of a head that turns, where it stands among these figures (transformers 5).
    pub(crate) partial: Option<Value>,
}

impl Rope {
    /// What one object of a config says.
    pub(crate) fn of(values: &Map<String, Value>) -> Rope {
        let figures = values.get("rope_parameters").and_then(Value::as_object);
        // Transformers 5 writes one object per kind of layer where the kinds differ.
        let by_kind = |kind: &str| figures.and_then(|all| all.get(kind)).and_then(Value::as_object);
        let own = by_kind("full_attention").or(figures);
        let inside = |name: &str| own.and_then(|own| own.get(name)).cloned();
        let first = |names: &'static [&'static str]| {
            names.iter().find_map(|name| Some((*name, written(values, name)?)))
        };
        let local = || Some((LOCAL_BASES[0], by_kind("sliding_attention")?.get(BASES[0])?.clone()));
        let scaling = own.or_else(|| values.get("rope_scaling").and_then(Value::as_object));
        Rope {
            base: inside(BASES[0]).map(|base| (BASES[0], base)).or_else(|| first(&BASES)),
            local_base: local().or_else(|| first(&LOCAL_BASES)),
            scaling: scaling.map_or(Value::Null, |object| scaling_of(object, values)),
            partial: inside("partial_rotary_factor"),
        }
    }
}

fn written(values: &Map<String, Value>, name: &str) -> Option<Value> {
    values.get(name).filter(|value| !value.is_null()).cloned()
}

/// One spelling for what is the same: `type` is `rope_type`, `su` is `longrope`, sections of
/// `mrope` need no type, and no scaling at all is null.
fn scaling_of(object: &Map<String, Value>, config: &Map<String, Value>) -> Value {
    let mut figures = object.clone();
    let old = figures.shift_remove("type");
    let kind = figures.shift_remove("rope_type").or(old);
    for name in ["rope_theta", "partial_rotary_factor", "full_attention", "sliding_attention"] {
        figures.shift_remove(name);
    }
    figures.retain(|_, value| !value.is_null());
    match kind.as_ref().and_then(Value::as_str) {
        None | Some("default" | "mrope") => {}
        Some("su") => drop(figures.insert("rope_type".to_owned(), "longrope".into())),
        Some(kind) => drop(figures.insert("rope_type".to_owned(), kind.into())),
    }
    if figures.is_empty() {
        return Value::Null;
    }
    // Transformers 5 moves this figure in.
    const TRAINED: &str = "original_max_position_embeddings";
    if let (None, Some(trained)) = (figures.get(TRAINED), written(config, TRAINED)) {
        figures.insert(TRAINED.to_owned(), trained);
    }
    Value::Object(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(text: &str) -> Rope {
        Rope::of(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn the_spellings_of_two_versions_are_one() {
        let four = rope(r#"{"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2}}"#);
        let five =
            rope(r#"{"rope_parameters": {"rope_theta": 1e6, "rope_type": "linear", "factor": 2}}"#);
        assert_eq!(four, five);
        let four = rope(r#"{"rope_theta": 10000.0, "rope_scaling": null}"#);
        let five = rope(r#"{"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}"#);
        assert_eq!(four, five);
    }

    #[test]
    fn figures_by_kind_of_layer_are_the_old_keys() {
        let four = rope(
            r#"{"rope_theta": 1e6, "rope_local_base_freq": 1e4,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0}}"#,
        );
        let five = rope(
            r#"{"rope_parameters": {
                "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}}"#,
        );
        assert_eq!(four, five);
    }

    #[test]
    fn sections_and_the_trained_length_are_found_in_both_places() {
        let old = rope(r#"{"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}"#);
        let new = rope(
            r#"{"rope_scaling": {"type": "default", "rope_type": "default",
                "mrope_section": [16, 24, 24]}}"#,
        );
        assert_eq!(old, new);
        assert!(!old.scaling.is_null());
        let old = rope(
            r#"{"original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "su", "factor": 2}}"#,
        );
        let new = rope(
            r#"{"rope_parameters": {"rope_type": "longrope", "factor": 2,
                "original_max_position_embeddings": 4096, "partial_rotary_factor": 0.5}}"#,
        );
        assert_eq!(old.scaling["rope_type"], new.scaling["rope_type"]);
        assert_eq!(
            old.scaling["original_max_position_embeddings"],
            new.scaling["original_max_position_embeddings"]
        );
        assert_eq!(new.partial, Some(0.5.into()));
    }
}
