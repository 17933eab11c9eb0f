//! A recipe as this program's own flags, and as an entry of a manifest.

use serde_json::{Map, Value, json};

use crate::merge::{Filter, Method, Schedule};
use crate::recipe::read::Recipe;

impl Recipe {
    /// The arguments of `merge` that say the same, without an output; `None` where it has slices, which
    /// only a recipe can say.
    pub fn flags(&self) -> Option<Vec<String>> {
        if !self.slices.is_empty() {
            return None;
        }
        let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let mut words = vec![path(&self.primary), path(&self.secondary)];
        let Schedule { filters, rest: t } = self.child.schedule.normal();
        words.extend(t.into_iter().flat_map(|t| ["-t".to_owned(), t.to_string()]));
        let filter = |filter: &Filter| ["--t-for".to_owned(), filter.to_string()];
        words.extend(filters.iter().flat_map(filter));
        for (option, value) in self.options() {
            words.extend([format!("--{option}"), value.to_owned()]);
        }
        Some(words)
    }

    /// The entry of a manifest that says the same, without an output; `None` as for the flags.
    pub fn entry(&self) -> Option<Value> {
        if !self.slices.is_empty() {
            return None;
        }
        let mut entry = Map::new();
        entry.insert("name".to_owned(), json!(self.child.name));
        for (key, path) in [("primary", &self.primary), ("secondary", &self.secondary)] {
            entry.insert(key.to_owned(), json!(path.to_string_lossy()));
        }
        let Schedule { filters, rest: t } = self.child.schedule.normal();
        if let Some(t) = t {
            entry.insert("t".to_owned(), json!(t));
        }
        if !filters.is_empty() {
            let values = |filter: &Filter| match filter.t.0.as_slice() {
                [one] => json!(one),
                several => json!(several),
            };
            let mut object = Map::new();
            // A filter that comes again never decides.
            for filter in filters {
                object.entry(filter.filter.clone()).or_insert_with(|| values(&filter));
            }
            entry.insert("t-for".to_owned(), Value::Object(object));
        }
        for (option, value) in self.options() {
            entry.insert(option.to_owned(), json!(value));
        }
        Some(Value::Object(entry))
    }

    fn options(&self) -> Vec<(&'static str, &'static str)> {
        let mut options = Vec::new();
        if self.method == Method::Linear {
            options.push(("method", "linear"));
        }
        options.extend(self.dtype.map(|dtype| ("dtype", dtype.name())));
        if let Some(vocab) = self.vocab {
            options.extend([("vocab", vocab.name()), ("extend", "inherit")]);
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(text: &str) -> Recipe {
        Recipe::parse(text, "x").unwrap()
    }

    const HEAD: &str = "models: [{model: a}, {model: b/c}]\nbase_model: b/c\nmerge_method: slerp\n";

    #[test]
    fn a_number_for_the_rest_is_minus_t() {
        let text =
            "parameters: {t: [{filter: mlp, value: [0, 0.5]}, {value: 0.3}]}\ndtype: bfloat16\n";
        let made = recipe(&format!("{HEAD}{text}tokenizer_source: base\n"));
        let words = made.flags().unwrap().join(" ");
        let expected =
            "b/c a -t 0.3 --t-for mlp=0,0.5 --dtype bfloat16 --vocab primary --extend inherit";
        assert_eq!(words, expected);
        let expected = json!({"name": "x", "primary": "b/c", "secondary": "a", "t": 0.3,
            "t-for": {"mlp": [0.0, 0.5]}, "dtype": "bfloat16", "vocab": "primary", "extend": "inherit"});
        assert_eq!(made.entry().unwrap(), expected);
    }

    #[test]
    fn a_list_for_the_rest_is_a_filter_that_fits_all() {
        let made = recipe(&format!("{HEAD}parameters: {{t: [0, 1]}}\n"));
        assert_eq!(made.flags().unwrap().join(" "), "b/c a --t-for *=0,1");
        assert_eq!(made.entry().unwrap()["t-for"], json!({"*": [0.0, 1.0]}));
    }

    #[test]
    fn weights_are_a_linear_merge() {
        let text = "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n\
            - {model: b, parameters: {weight: 3}}\n";
        assert_eq!(recipe(text).flags().unwrap().join(" "), "a b -t 0.75 --method linear");
    }
}
