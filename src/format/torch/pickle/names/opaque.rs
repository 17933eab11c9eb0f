//! Parses the names that the user allows beside the weights: `--opaque MODULE.NAME`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::format::torch::pickle::names::denylist::runs_code;
use crate::tensor::escape;

/// Most names that are kept.
const MOST_NAMES: usize = 1 << 10;

/// Longest name, in bytes.
const MOST_BYTES: usize = 256;

/// A class or function of another program, by its full name. Values of it are kept as data and left
/// out; it is never imported or called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct OpaqueName(String);

impl OpaqueName {
    /// Reads `MODULE.NAME` (`__main__.Config`, `mylib.args.Args`, `mylib.args.Outer.Inner`).
    ///
    /// # Errors
    /// A message, where it is no such name or is known to run code when called.
    pub fn parse(text: &str) -> Result<OpaqueName, String> {
        let word = |word: &str| {
            let first = word.chars().next();
            first.is_some_and(|first| first.is_alphabetic() || first == '_')
                && word.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
        };
        let own = |word: &str| word.starts_with("__") && word.ends_with("__") && word != "__main__";
        let words: Vec<&str> = text.split('.').collect();
        let shown = escape(text);
        if words.len() < 2 || text.len() > MOST_BYTES || !words.iter().all(|part| word(part)) {
            return Err(format!("expected MODULE.NAME, as in `__main__.Config`, got `{shown}`"));
        }
        if runs_code(text) || words.iter().any(|part| own(part)) {
            return Err(format!(
                "`{shown}` is known to run code when a pickle calls it, so a file that names it is \
                 not read"
            ));
        }
        Ok(OpaqueName(text.to_owned()))
    }
}

impl TryFrom<String> for OpaqueName {
    type Error = String;

    fn try_from(text: String) -> Result<OpaqueName, String> {
        OpaqueName::parse(&text)
    }
}

impl fmt::Display for OpaqueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All names that the user gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpaqueNames(Vec<OpaqueName>);

impl OpaqueNames {
    /// The names, each once; those beyond a thousand are ignored.
    pub fn new(names: impl IntoIterator<Item = OpaqueName>) -> OpaqueNames {
        let mut known = Vec::new();
        for name in names.into_iter().take(MOST_NAMES) {
            if !known.contains(&name) {
                known.push(name);
            }
        }
        OpaqueNames(known)
    }

    /// The place of `module.name` among the names.
    pub(crate) fn find(&self, module: &str, name: &str) -> Option<u16> {
        let same = |known: &OpaqueName| {
            let rest = known.0.strip_prefix(module).and_then(|rest| rest.strip_prefix('.'));
            rest == Some(name)
        };
        self.0.iter().position(same).and_then(|at| u16::try_from(at).ok())
    }

    /// The name at a place.
    pub(crate) fn get(&self, at: u16) -> &str {
        self.0.get(usize::from(at)).map_or("?", |name| name.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dotted_words_that_run_no_code() {
        for text in ["__main__.Config", "a.B", "mylib.args.Outer.Inner", "fairseq.dataclass.C1"] {
            assert_eq!(OpaqueName::parse(text).map(|name| name.to_string()).as_deref(), Ok(text));
        }
        for text in ["Config", "", ".", "a.", ".b", "a..b", "a b.c", "a.1b", "a.b\n", "a-b.c"] {
            let error = OpaqueName::parse(text).expect_err(text);
            assert!(error.starts_with("expected MODULE.NAME"), "{error}");
        }
        for text in
            ["os.system", "builtins.getattr", "subprocess.Popen", "a.B.__init__", "torch.load"]
        {
            let error = OpaqueName::parse(text).expect_err(text);
            assert!(error.contains("is known to run code"), "{error}");
        }
    }

    #[test]
    fn a_name_is_found_however_it_is_split() {
        let parsed = ["a.b.C", "x.Y", "a.b.C"].map(|text| OpaqueName::parse(text).expect(text));
        let names = OpaqueNames::new(parsed);
        assert_eq!(names.0.len(), 2);
        let found = [("a.b", "C"), ("a", "b.C"), ("x", "Y"), ("a.b.C", ""), ("a.b", "D"), ("", "")]
            .map(|(module, name)| names.find(module, name));
        assert_eq!(found, [Some(0), Some(0), Some(1), None, None, None]);
        assert_eq!(names.get(1), "x.Y");
    }
}
