//! Reads a manifest: `{"defaults": {…}, "merges": [{…}, …]}`, with the options of `merge` under
//! their names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::batch::manifest::fields::Fields;
use crate::batch::manifest::options::OptionSpec;
use crate::batch::manifest::template::{expand, last_component};
use crate::checkpoint::locate;
use crate::error::{Error, Kind, Result};
use crate::merge::Child;
use crate::recipe::Recipe;
use crate::tensor::escape;

/// Largest manifest that is read, in bytes.
const LIMIT_BYTES: u64 = 64 << 20;

/// Keys of a merge that are not options, and whether `defaults` may hold them.
pub(crate) const OWN_KEYS: [(&str, bool); 4] =
    [("name", false), ("primary", true), ("secondary", true), ("output", true)];

/// Keys of what a recipe says.
const BY_RECIPE: [&str; 5] = ["primary", "secondary", "t", "t-for", "method"];

/// A manifest as read: each merge in order, or what is wrong with it.
#[derive(Debug)]
pub struct Manifest {
    /// One per merge, in the manifest's order.
    pub entries: Vec<std::result::Result<Entry, Vec<Error>>>,
    /// The name of each merge, where it has one.
    pub names: Vec<Option<String>>,
}

/// One merge of a manifest, defaults filled in, paths made relative to the current directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Position in the manifest, from 0.
    pub index: usize,
    /// The name that the manifest gives it.
    pub name: Option<String>,
    /// Model at t = 0.
    pub primary: PathBuf,
    /// Model at t = 1.
    pub secondary: PathBuf,
    /// Directory of each child; every word in braces but `{t}` is filled in.
    output: String,
    dir: PathBuf,
    /// Its options and both parents, as arguments of the command line.
    pub arguments: Vec<OsString>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, rename = "$schema")]
    _schema: Option<String>,
    #[serde(default)]
    defaults: Fields,
    merges: Vec<Fields>,
}

impl Manifest {
    /// Reads a manifest; `specs` are the options that its merges may set.
    ///
    /// # Errors
    /// [`Kind::NoInput`] where it can't be read, [`Kind::Usage`] where it is not a manifest or its
    /// defaults are wrong. The errors of one merge are in its entry.
    pub fn read(path: &Path, specs: &[OptionSpec]) -> Result<Manifest> {
        let failed = |error| Error::from_io(Kind::NoInput, "cannot read manifest", path, error);
        let size_bytes = std::fs::metadata(path).map_err(failed)?.len();
        if size_bytes > LIMIT_BYTES {
            return Err(Error::new(Kind::Usage, "manifest is too large")
                .file(path)
                .expected(format!("at most {LIMIT_BYTES} bytes"), format!("{size_bytes}")));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let dir = path.parent().unwrap_or(Path::new(""));
        Manifest::parse(&text, dir, specs).map_err(|error| error.file(path))
    }

    /// Reads a manifest's text; paths in it are relative to `dir`.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn parse(text: &str, dir: &Path, specs: &[OptionSpec]) -> Result<Manifest> {
        let document: Document = serde_json::from_str(text).map_err(|error| {
            Error::new(Kind::Usage, "cannot read manifest")
                .expected("", error.to_string())
                .with_hint("`batch --schema` prints what a manifest may hold")
        })?;
        let mut wrong = check(&document.defaults, "defaults", true, dir, specs);
        if !wrong.is_empty() {
            return Err(wrong.swap_remove(0));
        }
        let entry = |(index, fields): (usize, &Fields)| {
            let place = format!("merges[{index}]");
            let mut wrong = check(fields, &place, false, dir, specs);
            let entry = Entry::new(index, fields, &document.defaults, dir, specs);
            match entry {
                Ok(entry) if wrong.is_empty() => Ok(entry),
                Ok(_) => Err(wrong),
                Err(errors) => {
                    wrong.extend(errors);
                    Err(wrong)
                }
            }
        };
        Ok(Manifest {
            names: document
                .merges
                .iter()
                .map(|fields| name_of(fields, &document.defaults))
                .collect(),
            entries: document.merges.iter().enumerate().map(entry).collect(),
        })
    }
}

/// All errors in the keys at `place` and in the kinds of their values.
fn check(
    fields: &Fields,
    place: &str,
    defaults: bool,
    dir: &Path,
    specs: &[OptionSpec],
) -> Vec<Error> {
    let own = || OWN_KEYS.iter().filter(|key| !defaults || key.1).map(|key| key.0);
    let mut wrong = Vec::new();
    for (key, value) in &fields.0 {
        let at = format!("{place}.{}", escape(key));
        let refused = |expected: String| {
            Error::new(Kind::Usage, format!("{at} is wrong")).expected(expected, value.to_string())
        };
        if own().any(|own| own == key) {
            if value.as_str().is_none_or(str::is_empty) {
                wrong.push(refused("text".to_owned()));
            }
        } else if let Some(spec) = specs.iter().find(|spec| spec.name == *key) {
            wrong.extend(spec.arguments(value, dir).err().map(refused));
        } else {
            let names = own().chain(specs.iter().map(|spec| spec.name.as_str()));
            let names: Vec<&str> = names.collect();
            wrong.push(
                Error::new(Kind::Usage, format!("{at} is no key of a merge"))
                    .with_hint(format!("known keys: {}", names.join(", "))),
            );
        }
    }
    wrong
}

/// The name of a merge: its own, or that of its recipe's file.
fn name_of(fields: &Fields, defaults: &Fields) -> Option<String> {
    let text =
        |fields: &Fields, key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
    text(fields, "name").or_else(|| {
        let path = text(fields, "recipe").or_else(|| text(defaults, "recipe"))?;
        Some(Path::new(&path).file_stem()?.to_string_lossy().into_owned())
    })
}

/// The recipe of a merge, where it has one.
fn recipe(fields: &Fields, defaults: &Fields, dir: &Path) -> Result<Option<Recipe>> {
    let path = fields.get("recipe").or_else(|| defaults.get("recipe")).and_then(Value::as_str);
    path.map(|path| Recipe::read(&dir.join(path))).transpose()
}

/// The path of a model: relative to the manifest, or of that name in the local Hub cache.
fn model(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    let of_cache = || locate(Path::new(name)).ok().filter(|found| found != Path::new(name));
    if path.exists() { path } else { of_cache().unwrap_or(path) }
}

impl Entry {
    fn new(
        index: usize,
        fields: &Fields,
        defaults: &Fields,
        dir: &Path,
        specs: &[OptionSpec],
    ) -> std::result::Result<Entry, Vec<Error>> {
        let mut wrong = Vec::new();
        let recipe = match recipe(fields, defaults, dir) {
            Ok(recipe) => recipe,
            Err(error) => return Err(vec![error]),
        };
        // What a recipe says, the defaults of other merges do not.
        let value = |key: &str| {
            let ours = fields.get(key);
            let of_recipe = recipe.is_some() && BY_RECIPE.contains(&key);
            if of_recipe { ours } else { ours.or_else(|| defaults.get(key)) }
        };
        if let Some(key) = BY_RECIPE.iter().find(|key| recipe.is_some() && value(key).is_some()) {
            let words = format!("merges[{index}].{key} stands beside `recipe`, which says it");
            wrong.push(Error::new(Kind::Usage, words));
        }
        let text = |key: &str| value(key).and_then(Value::as_str).map(str::to_owned);
        let mut needed = |key: &str| {
            if value(key).is_none() && (recipe.is_none() || !BY_RECIPE.contains(&key)) {
                wrong.push(Error::new(Kind::Usage, format!("merges[{index}] has no `{key}`")));
            }
            text(key).unwrap_or_default()
        };
        let [primary, secondary, output] = ["primary", "secondary", "output"].map(&mut needed);
        let name = name_of(fields, defaults);
        let [primary, secondary] = match &recipe {
            Some(recipe) => [&recipe.primary, &recipe.secondary]
                .map(|model| model.to_string_lossy().into_owned()),
            None => [primary, secondary],
        };
        let filled = expand(&output, |word| match word {
            "t" => Some("{t}".to_owned()),
            "name" => name.clone(),
            "primary" => last_component(&primary),
            "secondary" => last_component(&secondary),
            _ => None,
        });
        let output = filled.unwrap_or_else(|word| {
            let error = Error::new(Kind::Usage, format!("merges[{index}].output is wrong"));
            let error = error.expected(
                "{t}, {name}, {primary} or {secondary} in braces",
                format!("{{{}}}", escape(&word)),
            );
            wrong.push(match word.as_str() {
                "name" => error.with_hint("give the merge a `name`"),
                _ => error,
            });
            String::new()
        });
        let arguments_of = |spec: &OptionSpec| -> Option<Vec<OsString>> {
            spec.arguments(value(&spec.name)?, dir).ok()
        };
        if !wrong.is_empty() {
            return Err(wrong);
        }
        // A recipe's models are relative to the working directory, as mergekit has it.
        let base = if recipe.is_some() { Path::new("") } else { dir };
        let [primary, secondary] = [primary, secondary].map(|name| model(base, &name));
        let parents = [&primary, &secondary].map(|path| path.clone().into_os_string());
        let mut arguments: Vec<OsString> =
            specs.iter().filter_map(arguments_of).flatten().collect();
        if recipe.is_none() {
            arguments.extend(std::iter::once("--".into()).chain(parents));
        }
        Ok(Entry { index, name, primary, secondary, output, dir: dir.to_path_buf(), arguments })
    }

    /// Directory of each child.
    ///
    /// # Errors
    /// [`Kind::Usage`] where several children would go to one directory.
    pub fn outputs(&self, children: &[Child]) -> Result<Vec<PathBuf>> {
        // `dir` is joined afterwards: it may hold braces of its own.
        let outputs = crate::engine::expand_outputs(Path::new(&self.output), children)?;
        Ok(outputs.into_iter().map(|output| self.dir.join(output)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::manifest::options::OptionKind;

    fn specs() -> Vec<OptionSpec> {
        let spec = |name: &str, kind, many| OptionSpec {
            name: name.to_owned(),
            help: String::new(),
            kind,
            many,
            default: None,
        };
        vec![
            spec("t", OptionKind::Number, true),
            spec("overwrite", OptionKind::Flag, false),
            spec("threads", OptionKind::Whole, false),
        ]
    }

    fn parse(text: &str) -> Result<Manifest> {
        Manifest::parse(text, Path::new("models"), &specs())
    }

    #[test]
    fn defaults_hold_where_a_merge_says_nothing_else() {
        let manifest = parse(
            r#"{"defaults": {"primary": "a", "threads": 2, "output": "out/{name}-{t}"},
                "merges": [{"name": "x", "secondary": "/b/c", "t": [0.25, 1], "threads": 3}]}"#,
        );
        let manifest = manifest.unwrap();
        let entry = manifest.entries[0].as_ref().unwrap();
        assert_eq!(entry.primary, Path::new("models/a"));
        assert_eq!(entry.secondary, Path::new("/b/c"));
        assert_eq!(entry.arguments, ["--t=0.25,1", "--threads=3", "--", "models/a", "/b/c"]);
        let outputs = entry.outputs(&Child::each(&[0.25, 1.0], &[])).unwrap();
        assert_eq!(outputs, ["models/out/x-0.25", "models/out/x-1"].map(Path::new));
    }

    #[test]
    fn everything_wrong_with_a_merge_is_said_at_once_with_its_place() {
        let manifest = parse(
            r#"{"merges": [{"primary": "a", "outptu": "c", "threads": 0.5, "overwrite": "yes"}]}"#,
        );
        let manifest = manifest.unwrap();
        let wrong = manifest.entries[0].as_ref().unwrap_err();
        let said: Vec<String> = wrong.iter().map(Error::to_string).collect();
        for words in [
            "merges[0].outptu is no key",
            "merges[0].threads is wrong",
            "merges[0].overwrite is wrong",
            "merges[0] has no `secondary`",
            "merges[0] has no `output`",
        ] {
            assert!(said.iter().any(|said| said.starts_with(words)), "{words}: {said:?}");
        }
        assert_eq!(said.len(), 5);
    }

    #[test]
    fn unknown_words_in_braces_keys_that_come_twice_and_wrong_defaults_are_refused() {
        let merge = |output: &str| {
            format!(r#"{{"merges": [{{"primary": "a", "secondary": "b", "output": "{output}"}}]}}"#)
        };
        for output in ["{x}", "{name}", "{}"] {
            assert!(parse(&merge(output)).unwrap().entries[0].is_err(), "{output}");
        }
        assert!(parse(&merge("{primary}-{secondary}")).unwrap().entries[0].is_ok());
        for text in [
            r#"{"merges": [{"t": 0.1, "t": 0.2}]}"#,
            r#"{"merges": [{"t-for": {"mlp": 0.1, "mlp": 0.2}}]}"#,
            r#"{"merges": [], "default": {}}"#,
            r#"{"defaults": {"name": "x"}, "merges": []}"#,
            r#"{"defaults": {"threads": "x"}, "merges": []}"#,
            r#"{"merges": {}}"#,
            "[]",
        ] {
            assert_eq!(parse(text).unwrap_err().kind(), Kind::Usage, "{text}");
        }
    }
}
