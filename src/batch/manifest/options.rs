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
}

impl OptionSpec {
    /// The command line's argument for a manifest's value: `--name=value`. `None` where the option
    /// is left out.
    ///
    /// # Errors
    /// What was expected, in words, where the value is of another kind.
    pub fn argument(&self, value: &Value, dir: &Path) -> Result<Option<OsString>, String> {
        if self.kind == OptionKind::Flag {
            return match value {
                Value::Bool(true) => Ok(Some(OsString::from(format!("--{}", self.name)))),
                Value::Bool(false) => Ok(None),
                _ => Err("true or false".to_owned()),
            };
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
        Ok(Some(argument))
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
        };
        if self.many { format!("{one}, or an array of them") } else { one }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn argument(kind: OptionKind, many: bool, value: &Value) -> Result<Option<String>, String> {
        let spec =
            OptionSpec { name: "x".to_owned(), help: String::new(), kind, many, default: None };
        let argument = spec.argument(value, Path::new("dir"))?;
        Ok(argument.map(|argument| argument.into_string().unwrap()))
    }

    #[test]
    fn values_become_arguments_of_the_command_line() {
        let of = |kind, many, value: Value| argument(kind, many, &value).unwrap();
        assert_eq!(of(OptionKind::Flag, false, json!(true)).unwrap(), "--x");
        assert_eq!(of(OptionKind::Flag, false, json!(false)), None);
        assert_eq!(of(OptionKind::Number, true, json!([0.50, 1])).unwrap(), "--x=0.5,1");
        assert_eq!(of(OptionKind::Text, false, json!(-1)).unwrap(), "--x=-1");
        assert_eq!(of(OptionKind::Path, false, json!("a")).unwrap(), "--x=dir/a");
        let words = OptionKind::Words(vec!["a".to_owned()]);
        assert_eq!(of(words, false, json!("a")).unwrap(), "--x=a");
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
        ] {
            assert!(argument(kind, false, &value).is_err(), "{value}");
        }
        assert!(argument(OptionKind::Number, true, &json!([])).is_err());
        assert!(argument(OptionKind::Text, true, &json!("a,b")).is_err());
    }
}
