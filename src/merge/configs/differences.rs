//! Compares two configs: refuses differences that give equal shapes another meaning, and notes
//! other differences.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Kind, Result};
use crate::merge::configs::families::{Family, alias, family};
use crate::merge::configs::keys::{EXPERTS, HEADS, KEYS, Key, Otherwise, WIDTH, Weight};
use crate::merge::configs::rope::Rope;
use crate::merge::warning::Warning;

/// How deep objects are compared.
const DEEPEST: usize = 8;

/// Most characters of a value that are shown.
const SHOWN: usize = 60;

/// Parts of a config that older versions wrote at the top level.
const LANGUAGE_MODELS: [&str; 3] = ["text_config", "llm_config", "language_config"];

/// Parts of a config by names that do not end in `_config`.
const PARTS: [&str; 5] = ["encoder", "decoder", "generator", "question_encoder", "text_model"];

/// Parts that say nothing of what the weights mean.
const OTHER_PARTS: [&str; 2] = ["quantization_config", "generation_config"];

/// One thing that the configs say differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The key with the objects around it: `text_config.rope_theta`.
    pub(crate) key: String,
    /// The primary's value in words.
    pub(crate) primary: String,
    /// The secondary's.
    pub(crate) secondary: String,
    /// Whether the same shapes then mean different things.
    pub(crate) weight: Weight,
}

/// Refuses parents whose configs give the same shapes another meaning, and warns of other figures
/// that differ; with `force` it warns of the former too.
///
/// # Errors
/// [`Kind::Data`] with every key and both values.
pub(crate) fn check_configs(
    primary: &Checkpoint,
    secondary: &Checkpoint,
    force: bool,
    warnings: &mut Vec<Warning>,
) -> Result<()> {
    let (Some(a), Some(b)) = (&primary.config, &secondary.config) else { return Ok(()) };
    let (refused, noted): (Vec<Difference>, Vec<Difference>) =
        differences(a.values(), b.values()).into_iter().partition(|d| d.weight == Weight::Refused);
    if !refused.is_empty() && !force {
        let line = |d: &Difference| format!("\n  {}: {} and {}", d.key, d.primary, d.secondary);
        let lines: String = refused.iter().map(line).collect();
        let keys = if refused.len() == 1 { "key that differs" } else { "keys that differ" };
        return Err(Error::new(Kind::Data, "the configs give the same shapes another meaning")
            .file(&secondary.path)
            .expected(
                format!("what config.json of `{}` says", primary.path.display()),
                format!("{} {keys} (primary and secondary):{lines}", refused.len()),
            )
            .with_hint(
                "merge only models of one architecture; --force-config goes on where you know that \
                 the weights belong together",
            ));
    }
    warnings.extend(refused.into_iter().chain(noted).map(|difference| {
        let Difference { key, primary, secondary, weight } = difference;
        Warning::Configs { key, primary, secondary, forced: weight == Weight::Refused }
    }));
    Ok(())
}

/// Everything that the configs say differently, in the order of the keys of [`KEYS`], outer objects
/// first.
pub(crate) fn differences(
    primary: &Map<String, Value>,
    secondary: &Map<String, Value>,
) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(Scope::top(primary), Scope::top(secondary), "", DEEPEST, &mut found);
    found
}

/// One object of a config and the family whose defaults hold in it.
#[derive(Clone, Copy)]
struct Scope<'a> {
    values: &'a Map<String, Value>,
    model_type: Option<&'a str>,
}

/// A value and the name that it has in the config; no name where it is the family's default.
struct Said<'a> {
    value: Cow<'a, Value>,
    name: Option<&'static str>,
}

fn compare<'a>(a: Scope<'a>, b: Scope<'a>, path: &str, depth: usize, found: &mut Vec<Difference>) {
    if let (Some(ours), Some(theirs)) = (a.model_type, b.model_type)
        && alias(ours) != alias(theirs)
    {
        found.push(Difference {
            key: format!("{path}model_type"),
            primary: shown(&ours.into()),
            secondary: shown(&theirs.into()),
            weight: Weight::Refused,
        });
    }
    for key in KEYS {
        differs(key.spellings[0], a.value(key), b.value(key), path, key.weight, found);
    }
    let (ours, theirs) = (Rope::of(a.values), Rope::of(b.values));
    let base = |scope: Scope<'_>, rope: &Rope| match &rope.base {
        Some((name, value)) => Some(Said { value: Cow::Owned(value.clone()), name: Some(name) }),
        None => scope.family().and_then(|family| family.rope_theta).map(by_default),
    };
    differs("rope_theta", base(a, &ours), base(b, &theirs), path, Weight::Noted, found);
    let local = |rope: &Rope| {
        let (name, value) = rope.local_base.clone()?;
        Some(Said { value: Cow::Owned(value), name: Some(name) })
    };
    differs("rope_local_base_freq", local(&ours), local(&theirs), path, Weight::Noted, found);
    let scaling = |rope: &Rope| {
        Some(Said { value: Cow::Owned(rope.scaling.clone()), name: Some("rope_scaling") })
    };
    differs("rope_scaling", scaling(&ours), scaling(&theirs), path, Weight::Noted, found);
    let Some(depth) = depth.checked_sub(1) else { return };
    for name in parts(a.values, b.values) {
        let (ours, theirs) = (a.part(name), b.part(name));
        // What older versions wrote at the top level, where one config has the part and one has not.
        let flat = |whole: Scope<'a>, other: Option<Scope<'a>>| whole.flat(name, other?);
        if let (Some(ours), Some(theirs)) = (ours.or(flat(a, theirs)), theirs.or(flat(b, ours))) {
            compare(ours, theirs, &format!("{path}{name}."), depth, found);
        }
    }
}

/// Names of the parts that one of the configs has, the primary's first.
fn parts<'a>(a: &'a Map<String, Value>, b: &'a Map<String, Value>) -> Vec<&'a str> {
    let known = |name: &str| {
        (name.ends_with("_config") || PARTS.contains(&name)) && !OTHER_PARTS.contains(&name)
    };
    let of = |map: &'a Map<String, Value>| {
        map.iter().filter(|(_, value)| value.is_object()).map(|(name, _)| name.as_str())
    };
    let theirs = of(b).filter(|name| !a.get(*name).is_some_and(Value::is_object));
    of(a).chain(theirs).filter(|name| known(name)).collect()
}

fn differs(
    name: &'static str,
    a: Option<Said<'_>>,
    b: Option<Said<'_>>,
    path: &str,
    weight: Weight,
    found: &mut Vec<Difference>,
) {
    let (Some(a), Some(b)) = (a, b) else { return };
    // Defaults differ only where something written does, which is told already.
    if (a.name.is_none() && b.name.is_none()) || same(&a.value, &b.value) {
        return;
    }
    let words = |said: &Said<'_>| match said.name {
        Some(_) => shown(&said.value),
        None => format!("{} by default", shown(&said.value)),
    };
    found.push(Difference {
        key: format!("{path}{}", a.name.or(b.name).unwrap_or(name)),
        primary: words(&a),
        secondary: words(&b),
        weight,
    });
}

impl<'a> Scope<'a> {
    fn top(values: &'a Map<String, Value>) -> Scope<'a> {
        Scope { values, model_type: values.get("model_type").and_then(Value::as_str) }
    }

    fn part(self, name: &str) -> Option<Scope<'a>> {
        let part = Scope::top(self.values.get(name)?.as_object()?);
        // Versions before a part had a name of its own wrote the whole's, or none.
        let own = part.model_type.filter(|own| !own.is_empty() && self.model_type != Some(*own));
        Some(Scope { model_type: own, ..part })
    }

    /// This object as the part `name` of the other config, where it has a language model's figures;
    /// its model type is then that of the whole, and not compared.
    fn flat(self, name: &str, other: Scope<'a>) -> Option<Scope<'a>> {
        let text = LANGUAGE_MODELS.contains(&name)
            && self.written(HEADS).is_some()
            && other.written(HEADS).is_some();
        text.then_some(Scope { values: self.values, model_type: other.model_type })
    }

    fn family(self) -> Option<&'static Family> {
        family(self.model_type?)
    }

    /// The first of these keys that has a value, and it.
    fn written(self, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        let mut found = names.iter().filter_map(|name| Some((*name, self.values.get(*name)?)));
        found.find(|(_, value)| !value.is_null())
    }

    fn whole(self, names: &[&'static str]) -> Option<u64> {
        self.written(names)?.1.as_u64()
    }

    fn is_true(self, name: &'static str) -> Option<bool> {
        self.values.get(name)?.as_bool()
    }

    fn value(self, key: &Key) -> Option<Said<'a>> {
        if matches!(key.otherwise, Otherwise::KvHeads)
            && let Some(said) = self.kv_heads(key)
        {
            return Some(said);
        }
        if let Some((name, value)) = self.written(key.spellings) {
            return Some(Said { value: Cow::Borrowed(value), name: Some(name) });
        }
        if key.spellings[0] == "partial_rotary_factor"
            && let Some(value) = Rope::of(self.values).partial
        {
            return Some(Said { value: Cow::Owned(value), name: Some(key.spellings[0]) });
        }
        // Null is a value where differences are noted; where they are refused, it means the default.
        let null = key.spellings.iter().find(|name| self.values.contains_key(**name));
        if let (Some(name), Weight::Noted) = (null, key.weight) {
            return Some(Said { value: Cow::Owned(Value::Null), name: Some(name) });
        }
        self.otherwise(key.otherwise)
    }

    fn otherwise(self, otherwise: Otherwise) -> Option<Said<'a>> {
        let json = |text: &str| serde_json::from_str(text).ok().map(by_default::<Value>);
        match otherwise {
            Otherwise::Unknown => None,
            Otherwise::Is(text) => json(text),
            Otherwise::In(families) => {
                let name = alias(self.model_type?);
                json(families.iter().find(|family| family.0 == name)?.1)
            }
            Otherwise::KvHeads => {
                let own = self.family().and_then(|family| family.kv_heads);
                own.or_else(|| self.whole(HEADS)).map(by_default)
            }
            Otherwise::HeadDim => {
                // Heads of two parts have no one size.
                if self.values.contains_key("qk_rope_head_dim") {
                    return None;
                }
                let own = self.family().and_then(|family| family.head_dim);
                let quotient = || {
                    let (width, heads) = (self.whole(WIDTH)?, self.whole(HEADS)?);
                    width.is_multiple_of(heads).then(|| width.checked_div(heads))?
                };
                own.or_else(quotient).map(by_default)
            }
            Otherwise::TopK => {
                self.written(EXPERTS)?;
                let value = self.values.get("top_k").filter(|value| value.is_u64())?;
                Some(Said { value: Cow::Borrowed(value), name: Some("top_k") })
            }
        }
    }

    /// Key/value heads where other keys overrule their number: one for all heads in Falcon's first
    /// models and in StarCoder, whatever `num_kv_heads` says; ChatGLM's groups only if switched on.
    fn kv_heads(self, key: &Key) -> Option<Said<'a>> {
        let name = self.model_type.map(alias);
        let one_for_all =
            self.is_true("multi_query").unwrap_or(matches!(name, Some("falcon" | "gpt_bigcode")));
        if one_for_all && self.is_true("new_decoder_architecture") != Some(true) {
            let written = self.written(key.spellings).map(|written| written.0);
            return Some(Said { value: Cow::Owned(1.into()), name: written });
        }
        if self.is_true("multi_query_attention") == Some(false) {
            return self.whole(HEADS).map(by_default);
        }
        None
    }
}

fn by_default<'a, V: Into<Value>>(value: V) -> Said<'a> {
    Said { value: Cow::Owned(value.into()), name: None }
}

/// Whether two values are the same: numbers as numbers, and an activation under both its names.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::String(a), Value::String(b)) => a == b || (is_silu(a) && is_silu(b)),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn is_silu(name: &str) -> bool {
    matches!(name, "silu" | "swish")
}

/// A value as JSON, cut where it is long.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        value => value.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
