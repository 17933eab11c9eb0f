//! Generates the JSON Schema of a manifest from the options of the command line.

use serde_json::{Map, Value, json};

use crate::batch::manifest::document::OWN_KEYS;
use crate::batch::manifest::options::{OptionKind, OptionSpec};

/// The schema (draft 2020-12), for editors and other checkers.
pub fn schema(specs: &[OptionSpec]) -> Value {
    let properties = |defaults: bool| -> Map<String, Value> {
        let own = OWN_KEYS.iter().filter(|key| !defaults || key.1);
        let own = own.map(|(key, _)| {
            let text = match *key {
                "name" => "Name of the merge, for `{name}` and the results",
                "primary" => "Model directory or checkpoint file at t = 0",
                "secondary" => "Model directory or checkpoint file at t = 1",
                _ => {
                    "Directory to be made; holds {t} where there are several values of t, and may \
                     hold {name}, {primary} and {secondary}"
                }
            };
            let value = json!({ "type": "string", "minLength": 1, "description": text });
            ((*key).to_owned(), value)
        });
        own.chain(specs.iter().map(|spec| (spec.name.clone(), option(spec)))).collect()
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Manifest of llm-slerp-merge batch",
        "description": "Merges to be made. Paths are relative to the manifest.",
        "type": "object",
        "additionalProperties": false,
        "required": ["merges"],
        "properties": {
            "$schema": { "type": "string" },
            "defaults": {
                "description": "What holds for each merge that says nothing else",
                "type": "object",
                "additionalProperties": false,
                "properties": properties(true),
            },
            "merges": {
                "description": "One entry per merge",
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": properties(false),
                },
            },
        },
    })
}

fn option(spec: &OptionSpec) -> Value {
    let mut one = match &spec.kind {
        OptionKind::Flag => json!({ "type": "boolean" }),
        // The one option of that kind is t.
        OptionKind::Number => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        OptionKind::Whole => json!({ "type": "integer", "minimum": 1 }),
        OptionKind::Words(words) => json!({ "enum": words }),
        OptionKind::Path => json!({ "type": "string" }),
        OptionKind::Text => json!({ "type": ["string", "integer"] }),
        OptionKind::Filters => {
            let t = json!({ "type": "number", "minimum": 0, "maximum": 1 });
            let several = json!({ "type": "array", "items": t, "minItems": 1 });
            json!({ "type": "object", "additionalProperties": { "anyOf": [t, several] } })
        }
    };
    if spec.many {
        one = json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] });
    }
    if let Value::Object(object) = &mut one {
        let default = spec.default.as_ref().map(|default| format!(" [default: {default}]"));
        let text = format!("{}{}", spec.help, default.unwrap_or_default());
        object.insert("description".to_owned(), Value::String(text));
    }
    one
}
