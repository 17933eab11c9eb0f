//! Expands `--output` to the directory of each child.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// The children's directories, one per value of t, for which `{t}` stands in `template`.
///
/// # Errors
/// [`Kind::Usage`] where several values of t would go to one directory.
pub fn expand_outputs(template: &Path, t: &[f64]) -> Result<Vec<PathBuf>> {
    let text = template.as_os_str().as_encoded_bytes();
    let has_t = text.windows(3).any(|window| window == b"{t}");
    if !has_t && t.len() == 1 {
        return Ok(vec![template.to_path_buf()]);
    }
    let Some(text) = template.to_str().filter(|_| has_t) else {
        return Err(Error::new(Kind::Usage, "several values of t need an output each")
            .file(template)
            .expected("`{t}` in --output", "none")
            .with_hint("for example `-o child-{t}`"));
    };
    let mut outputs: Vec<PathBuf> = Vec::with_capacity(t.len());
    for value in t {
        let output = PathBuf::from(text.replace("{t}", &value.to_string()));
        if outputs.contains(&output) {
            return Err(Error::new(Kind::Usage, "the same t is given twice")
                .file(template)
                .expected("different values of --t", value.to_string()));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_t_gets_its_directory() {
        let outputs = expand_outputs(Path::new("a-{t}/b"), &[0.25, 1.0]).unwrap();
        assert_eq!(outputs, [Path::new("a-0.25/b"), Path::new("a-1/b")]);
        assert_eq!(expand_outputs(Path::new("child"), &[0.5]).unwrap(), [Path::new("child")]);
    }

    #[test]
    fn several_t_to_one_directory_are_refused() {
        for (template, t) in [("child", [0.1, 0.2]), ("child-{t}", [0.1, 0.1])] {
            let error = expand_outputs(Path::new(template), &t).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
        }
    }
}
