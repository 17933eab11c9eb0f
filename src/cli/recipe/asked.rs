//! What a merge's arguments ask for, with what a recipe says in place of some of them.

use std::path::PathBuf;

use crate::cli::args::MergeArgs;
use crate::error::{Error, Kind, Result};
use crate::merge::{Child, Extend, MergeOptions, VocabMode};
use crate::recipe::Recipe;

/// Both parents and everything that decides what the children are.
pub(crate) struct Asked {
    pub(crate) primary: PathBuf,
    pub(crate) secondary: PathBuf,
    pub(crate) options: MergeOptions,
}

/// What the arguments ask for; reads the recipe that they name.
///
/// # Errors
/// As [`Recipe::read`]; [`Kind::Usage`] where an option says what the recipe says.
pub(crate) fn asked(args: &MergeArgs) -> Result<Asked> {
    let options = MergeOptions {
        children: Child::each(&args.t, &args.t_for),
        slices: Vec::new(),
        foreign_filters: false,
        method: args.method,
        dtype: args.dtype,
        format: args.format,
        max_shard_bytes: args.max_shard_size,
        extend: args.extend,
        vocab: args.vocab,
        missing: args.missing,
        tokenizer: args.tokenizer,
        allow_nonfinite: args.allow_nonfinite,
        force_config: args.force_config,
        copy_code: args.copy_code,
    };
    let Some(path) = &args.recipe else {
        let named = |parent: &Option<PathBuf>| {
            parent.clone().ok_or_else(|| Error::new(Kind::Usage, "a merge has two parents"))
        };
        let (primary, secondary) = (named(&args.primary)?, named(&args.secondary)?);
        return Ok(Asked { primary, secondary, options });
    };
    let recipe = Recipe::read(path)?;
    for note in &recipe.notes {
        log::warn!("{}: {note}", crate::tensor::escape(&path.to_string_lossy()));
    }
    let said_twice = |option: &str| {
        Err(Error::new(Kind::Usage, format!("--{option} stands beside a recipe that says it, too"))
            .file(path)
            .with_hint("take it out of one of them"))
    };
    let mut options = MergeOptions {
        children: vec![recipe.child],
        slices: recipe.slices,
        foreign_filters: true,
        method: recipe.method,
        ..options
    };
    match (recipe.dtype, options.dtype) {
        (Some(_), Some(_)) => return said_twice("dtype"),
        (recipes, given) => options.dtype = recipes.or(given),
    }
    if let Some(vocab) = recipe.vocab {
        if options.vocab != VocabMode::Check {
            return said_twice("vocab");
        }
        options.vocab = vocab;
        // As in mergekit, a word that one model lacks has the other's row.
        options.extend = Extend::Inherit;
    }
    Ok(Asked { primary: recipe.primary, secondary: recipe.secondary, options })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    #[test]
    fn the_command_line_has_the_defaults_of_the_options() {
        let cli = Cli::try_parse_from(["llm-slerp-merge", "merge", "a", "b"]).unwrap();
        let Command::Merge(args) = cli.command else { panic!("another command") };
        let asked = asked(&args).unwrap();
        assert_eq!(asked.options, MergeOptions::default());
        assert_eq!((asked.primary, asked.secondary), ("a".into(), "b".into()));
    }

    #[test]
    fn what_a_recipe_says_is_not_said_twice() {
        for word in ["a", "--t=0.5", "--t-for=mlp=1", "--method=linear"] {
            let words = ["llm-slerp-merge", "merge", "--recipe", "x.yml", word];
            assert!(Cli::try_parse_from(words).is_err(), "{word}");
        }
        for words in [&["llm-slerp-merge", "plan", "a"][..], &["llm-slerp-merge", "plan"]] {
            assert!(Cli::try_parse_from(words).is_err(), "{words:?}");
        }
    }
}
