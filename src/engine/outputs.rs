//! Expands `--output` to the directory of each child.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::merge::Child;

/// The children's directories: in `template`, `{t}` stands for the one t of a child, or of the tensors
/// that no filter fits, and `{name}` for its name.
///
/// # Errors
/// [`Kind::Usage`] where several children would go to one directory, or `{t}` stands for a child that
/// has no such t.
pub fn expand_outputs(template: &Path, children: &[Child]) -> Result<Vec<PathBuf>> {
    let text = template.as_os_str().as_encoded_bytes();
    let holds = |word: &str| text.windows(word.len()).any(|window| window == word.as_bytes());
    let has_word = holds("{t}") || holds("{name}");
    if !has_word && children.len() == 1 {
        return Ok(vec![template.to_path_buf()]);
    }
    let Some(text) = template.to_str().filter(|_| has_word) else {
        return Err(Error::new(Kind::Usage, "several values of t need an output each")
            .file(template)
            .expected("`{t}` in --output", "none")
            .with_hint("for example `-o child-{t}`"));
    };
    let mut outputs: Vec<PathBuf> = Vec::with_capacity(children.len());
    for child in children {
        let mut filled = text.replace("{name}", &child.name);
        if holds("{t}") {
            let Some(t) = child.schedule.normal().rest else {
                return Err(Error::new(Kind::Usage, "`{t}` has no value where t goes by filters")
                    .file(template)
                    .expected("`{name}` in --output", "`{t}`"));
            };
            filled = filled.replace("{t}", &t.to_string());
        }
        let output = PathBuf::from(filled);
        if outputs.contains(&output) {
            return Err(Error::new(Kind::Usage, "two children have one output")
                .file(template)
                .expected("different values of --t, or different names", child.name.clone()));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::{Filter, Schedule};

    #[test]
    fn each_t_gets_its_directory() {
        let expand = |template: &str, t: &[f64]| {
            expand_outputs(Path::new(template), &Child::each(t, &[])).unwrap()
        };
        assert_eq!(expand("a-{t}/b", &[0.25, 1.0]), [Path::new("a-0.25/b"), Path::new("a-1/b")]);
        assert_eq!(expand("child", &[0.5]), [Path::new("child")]);
        assert_eq!(expand("{name}/{t}", &[0.5]), [Path::new("0.5/0.5")]);
    }

    #[test]
    fn a_child_of_filters_alone_goes_by_its_name() {
        let filters = vec![Filter::parse("mlp=0.5").unwrap(), Filter::parse("*=0,1").unwrap()];
        let schedule = Schedule { filters, rest: None };
        let child = [Child { name: "own".to_owned(), schedule }];
        let expand = |template: &str| expand_outputs(Path::new(template), &child);
        assert_eq!(expand("a/{name}").unwrap(), [Path::new("a/own")]);
        assert_eq!(expand("a/{t}").unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn several_t_to_one_directory_are_refused() {
        for (template, t) in [("child", [0.1, 0.2]), ("child-{t}", [0.1, 0.1])] {
            let children = Child::each(&t, &[]);
            let error = expand_outputs(Path::new(template), &children).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
        }
    }
}
