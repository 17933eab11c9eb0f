//! `recipe`: what a recipe is understood to say.

use std::path::Path;

use serde_json::json;

use crate::checkpoint::{Checkpoint, Side, locate};
use crate::cli::args::{OutputArgs, RecipeArgs, RecipeCommand};
use crate::cli::print;
use crate::error::Result;
use crate::merge::is_whole;
use crate::recipe::Recipe;
use crate::tensor::escape;

/// Shows what a recipe is understood to say.
pub(crate) fn recipe(args: &RecipeArgs, output: &OutputArgs) -> Result<()> {
    let RecipeCommand::Show { recipe: path } = &args.command;
    let mut recipe = Recipe::read(path)?;
    if !recipe.slices.is_empty() && all_layers(&recipe) {
        recipe.slices.clear();
    }
    if output.json {
        let entry = recipe.entry().unwrap_or_else(
            || json!({ "name": recipe.child.name, "recipe": path.to_string_lossy() }),
        );
        return print::json(&json!({ "merges": [entry] }));
    }
    print::result(&shown(&recipe, path))?;
    for note in &recipe.notes {
        print::line(&format!("note: {note}"));
    }
    Ok(())
}

/// Whether its one slice is all layers of both models, as far as these are here.
fn all_layers(recipe: &Recipe) -> bool {
    let whole = |side: Side, path: &Path| {
        let parent = locate(path).and_then(|path| Checkpoint::open(&path));
        parent.is_ok_and(|parent| is_whole(&parent, side, &recipe.slices))
    };
    whole(Side::Primary, &recipe.primary) && whole(Side::Secondary, &recipe.secondary)
}

fn shown(recipe: &Recipe, path: &Path) -> String {
    let text = |path: &Path| escape(&path.to_string_lossy());
    let row = |key: &str, value: String| [key.to_owned(), value];
    let mut rows =
        vec![row("primary", text(&recipe.primary)), row("secondary", text(&recipe.secondary))];
    let method = match recipe.method {
        crate::merge::Method::Slerp => "slerp",
        crate::merge::Method::Linear => "linear",
    };
    rows.push(row("method", method.to_owned()));
    for filter in &recipe.child.schedule.filters {
        rows.push(row("t", escape(&filter.to_string())));
    }
    let mut from = 0;
    for slice in &recipe.slices {
        let to = from + (slice.primary.1 - slice.primary.0);
        let range = |range: (u64, u64)| format!("{}..{}", range.0, range.1);
        let (ours, theirs) = (range(slice.primary), range(slice.secondary));
        let mut words =
            format!("{from}..{to} of {ours} of the primary and {theirs} of the secondary");
        for filter in &slice.filters {
            words.push_str(&format!(", {}", escape(&filter.to_string())));
        }
        rows.push(row("layers", words));
        from = to;
    }
    if let Some(dtype) = recipe.dtype {
        rows.push(row("dtype", dtype.to_string()));
    }
    let mut text = print::table(&rows);
    let mut words = vec![env!("CARGO_PKG_NAME").to_owned(), "merge".to_owned()];
    match recipe.flags() {
        Some(flags) => {
            words.extend(flags);
            text.push_str("\n\nThe same without the recipe:\n  ");
        }
        None => {
            words.extend(["--recipe".to_owned(), path.to_string_lossy().into_owned()]);
            text.push_str("\n\nSlices have no flags of their own:\n  ");
        }
    }
    words.extend(["-o".to_owned(), "OUT".to_owned()]);
    let words: Vec<String> = words.iter().map(|word| print::quoted(word.as_ref())).collect();
    text.push_str(&words.join(" "));
    text
}
