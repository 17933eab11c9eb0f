//! The options that a manifest may set: `OptionSpec`, filled in from the command line, so that both
//! have the same names and meanings.

use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;

/// One option of the merge command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// Its long name without dashes in front, e.g. `max-shard-size`; the key in a manifest.
    pub name: String,
    /// What it means, for the schema.
    pub help: String,
    /// The kind of its value.
    pub kind: OptionKind,
    /// Whether several values may be given, as an array.
    pub many: bool,
    /// Its default in words, where it has one.
    pub default: Option<String>,
}

/// The kind of an option's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// `true` sets it, `false` leaves it out.
    Flag,
    /// A number.
    Number,
    /// A whole number, 1 or more.
    Whole,
    /// One of these words.
    Words(Vec<String>),
    /// A path, relative to the manifest.
    Path,
    /// Text, or a whole number (sizes in bytes).
    Text,
    /// An object: filters in their order, each with its t or an array of them.
    Filters,
}

impl OptionSpec {
    /// The command line's arguments for a manifest's value: `--name=value`, one for each filter. None
    /// where the option is left out.
    ///
    /// # Errors
    /// What was expected, in words, where the value is of another kind.
    pub fn arguments(&self, value: &Value, dir: &Path) -> Result<Vec<OsString>, String> {
        if self.kind == OptionKind::Flag {
            return match value {
                Value::Bool(true) => Ok(vec![OsString::from(format!("--{}", self.name))]),
                Value::Bool(false) => Ok(Vec::new()),
                _ => Err("true or false".to_owned()),
            };
        }
        if let (OptionKind::Filters, Value::Object(filters)) = (&self.kind, value) {
            let argument = |(filter, t): (&String, &Value)| {
                let t = values_of_t(t).ok_or_else(|| self.expected())?;
                Ok(OsString::from(format!("--{}={filter}={t}", self.name)))
            };
            return filters.iter().map(argument).collect();
        }
        let mut argument = OsString::from(format!("--{}=", self.name));
        match value {
            Value::Array(values) if self.many && !values.is_empty() => {
                for (position, value) in values.iter().enumerate() {
                    if position > 0 {
                        argument.push(",");
                    }
                    argument.push(self.text(value, dir)?);
                }
            }
            value => argument.push(self.text(value, dir)?),
        }
        Ok(vec![argument])
    }

    fn text(&self, value: &Value, dir: &Path) -> Result<OsString, String> {
        let text = match (&self.kind, value) {
            (OptionKind::Number, Value::Number(number)) => {
                // 0.50 and 0.5 become one text.
                number.as_f64().map(|number| number.to_string())
            }
            (OptionKind::Whole, Value::Number(number)) if number.is_u64() => {
                Some(number.to_string())
            }
            (OptionKind::Text, Value::Number(number)) if number.is_i64() || number.is_u64() => {
                Some(number.to_string())
            }
            (OptionKind::Words(words), Value::String(word)) if words.contains(word) => {
                Some(word.clone())
            }
            (OptionKind::Text, Value::String(text)) if !(self.many && text.contains(',')) => {
                Some(text.clone())
            }
            (OptionKind::Path, Value::String(path)) => return Ok(dir.join(path).into_os_string()),
            _ => None,
        };
        text.map(OsString::from).ok_or_else(|| self.expected())
    }

    fn expected(&self) -> String {
        let one = match &self.kind {
            OptionKind::Flag => "true or false".to_owned(),
            OptionKind::Number => "a number".to_owned(),
            OptionKind::Whole => "a whole number".to_owned(),
            OptionKind::Words(words) => format!("one of {}", words.join(", ")),
            OptionKind::Path => "a path".to_owned(),
            OptionKind::Text => "text or a whole number".to_owned(),
            OptionKind::Filters => {
                "an object of filters, each with a number or an array of them".to_owned()
            }
        };
        if self.many { format!("{one}, or an array of them") } else { one }
    }
}

/// A number, or several with commas between, as the command line takes them.
fn values_of_t(value: &Value) -> Option<String> {
    let number = |value: &Value| value.as_f64().map(|number| number.to_string());
    match value {
        Value::Array(values) if !values.is_empty() => {
            let numbers: Option<Vec<String>> = values.iter().map(number).collect();
            Some(numbers?.join(","))
        }
        value => number(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments(kind: OptionKind, many: bool, value: &Value) -> Result<Vec<String>, String> {
        let spec =
            OptionSpec { name: "x".to_owned(), help: String::new(), kind, many, default: None };
        let arguments = spec.arguments(value, Path::new("dir"))?.into_iter();
        Ok(arguments.map(|argument| argument.into_string().unwrap()).collect())
    }

    #[test]
    fn values_become_arguments_of_the_command_line() {
        let of = |kind, many, value: Value| arguments(kind, many, &value).unwrap();
        assert_eq!(of(OptionKind::Flag, false, json!(true)), ["--x"]);
        assert_eq!(of(OptionKind::Flag, false, json!(false)), [""; 0]);
        assert_eq!(of(OptionKind::Number, true, json!([0.50, 1])), ["--x=0.5,1"]);
        assert_eq!(of(OptionKind::Text, false, json!(-1)), ["--x=-1"]);
        assert_eq!(of(OptionKind::Path, false, json!("a")), ["--x=dir/a"]);
        let words = OptionKind::Words(vec!["a".to_owned()]);
        assert_eq!(of(words, false, json!("a")), ["--x=a"]);
        let filters = json!({"self_attn": [0, 0.50, 1], "a=b": 0.3, "*": 1});
        let expected = ["--x=self_attn=0,0.5,1", "--x=a=b=0.3", "--x=*=1"];
        assert_eq!(of(OptionKind::Filters, false, filters), expected);
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        let words = || OptionKind::Words(vec!["a".to_owned()]);
        for (kind, value) in [
            (OptionKind::Flag, json!("true")),
            (OptionKind::Number, json!("0.5")),
            (OptionKind::Number, json!(null)),
            (OptionKind::Whole, json!(1.5)),
            (OptionKind::Text, json!(["5GB"])),
            (words(), json!("b")),
            (OptionKind::Filters, json!({"mlp": []})),
            (OptionKind::Filters, json!({"mlp": "0.5"})),
            (OptionKind::Filters, json!({"mlp": {"*": 1}})),
            (OptionKind::Filters, json!("mlp=1")),
        ] {
            assert!(arguments(kind, false, &value).is_err(), "{value}");
        }
        assert!(arguments(OptionKind::Number, true, &json!([])).is_err());
        assert!(arguments(OptionKind::Text, true, &json!("a,b")).is_err());
    }
}
