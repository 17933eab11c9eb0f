//! Expands words in braces in an output: `{t}`, `{name}`, `{primary}`, `{secondary}`.

use std::path::Path;

/// Fills in `template`; `word` gives the text of each word in braces.
///
/// # Errors
/// The first word that has no text. A brace that is not closed stays as it is.
pub(crate) fn expand<'a>(
    template: &str,
    word: impl Fn(&str) -> Option<String> + 'a,
) -> Result<String, String> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            continue;
        };
        out.push_str(&word(name).ok_or_else(|| name.to_owned())?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The last component of a model's path, as `{primary}` stands for.
pub(crate) fn last_component(path: &str) -> Option<String> {
    Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_braces_are_filled_in_once() {
        let word = |name: &str| (name == "t").then(|| "{t}".to_owned());
        assert_eq!(expand("a-{t}/{t}", word).unwrap(), "a-{t}/{t}");
        assert_eq!(expand("a-{x}", word).unwrap_err(), "x");
        assert_eq!(expand("a-{t", word).unwrap(), "a-{t");
        assert_eq!(last_component("models/a/").unwrap(), "a");
    }
}
