//! Which two models a recipe merges, and of which layers.

use std::path::PathBuf;

use crate::error::Error;
use crate::merge::Method;
use crate::recipe::fields::{At, Fields, wrong};
use crate::recipe::parameters::{Setting, setting};

/// One of the models in a place of the recipe.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) model: String,
    pub(crate) line: usize,
    /// Its layers, from the first to the one behind the last; `None` is all.
    pub(crate) layers: Option<(u64, u64)>,
    /// Its weight, where the method has weights.
    pub(crate) weight: Setting,
}

/// The two models, the primary first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pair {
    pub(crate) primary: String,
    pub(crate) secondary: String,
}

impl Source {
    /// An entry of `models`, or of a slice's `sources`.
    pub(crate) fn read(at: &At<'_>, method: Method, of_slice: bool) -> Result<Source, Error> {
        let known: &[&str] = match of_slice {
            true => &["model", "layer_range", "parameters"],
            false => &["model", "parameters"],
        };
        let fields = at.fields(known)?;
        let layers = match of_slice {
            true => Some(range(&fields.needed("layer_range")?)?),
            false => None,
        };
        let weight = match (fields.get("parameters"), method) {
            (None, _) => Setting::new(),
            (Some(at), Method::Linear) => weight(&at.fields(&["weight"])?)?,
            (Some(at), Method::Slerp) => {
                return Err(at
                    .refused("is not read by mergekit's slerp")
                    .with_hint("t belongs under `parameters` at the top, or of a slice"));
            }
        };
        let model = fields.needed("model")?;
        Ok(Source { model: name(&model)?, line: model.line, layers, weight })
    }
}

/// `weight` of a mapping of parameters.
pub(crate) fn weight(parameters: &Fields<'_>) -> Result<Setting, Error> {
    parameters.get("weight").map_or(Ok(Setting::new()), |at| setting(&at, f64::MAX))
}

/// A model: a path, or a name in the Hub's cache.
pub(crate) fn name(at: &At<'_>) -> Result<String, Error> {
    let name = at.text()?;
    if name.contains('+') {
        return Err(at.wrong("a model without an adapter").with_hint(
            "`MODEL+ADAPTER` applies an adapter first: merge it into its model with peft, and name that",
        ));
    }
    Ok(name.to_owned())
}

fn range(at: &At<'_>) -> Result<(u64, u64), Error> {
    let entries = at.list()?;
    let [from, to] = entries.as_slice() else {
        return Err(at.wrong("two numbers, the first layer and the one behind the last"));
    };
    match (from.whole()?, to.whole()?) {
        (from, to) if from < to => Ok((from, to)),
        (from, to) => Err(at
            .refused("has no layers")
            .expected("[from, to), from below to", format!("[{from}, {to}]"))),
    }
}

impl Pair {
    /// The two models of all places; the primary is the base, or the first where there is none.
    pub(crate) fn of(base: Option<&str>, sources: &[Source], line: usize) -> Result<Pair, Error> {
        let mut models: Vec<&str> = base.into_iter().collect();
        for source in sources {
            if models.contains(&source.model.as_str()) {
                continue;
            }
            if models.len() == 2 {
                let found = format!("`{}` and `{}` before it", models[0], models[1]);
                return Err(wrong(source.line, "a third model").expected("two models", found));
            }
            models.push(&source.model);
        }
        match models.as_slice() {
            [primary, secondary] => {
                Ok(Pair { primary: (*primary).to_owned(), secondary: (*secondary).to_owned() })
            }
            [one] => Err(wrong(line, "only one model").expected("two models", format!("`{one}`"))),
            _ => Err(wrong(line, "no models").expected("two models", "none")),
        }
    }

    /// The sources of a place, the primary's first.
    pub(crate) fn sorted<'s>(
        &self,
        sources: &'s [Source],
        line: usize,
    ) -> Result<[&'s Source; 2], Error> {
        let of = |model: &str| sources.iter().find(|source| source.model == model);
        match (sources.len(), of(&self.primary), of(&self.secondary)) {
            (2, Some(primary), Some(secondary)) => Ok([primary, secondary]),
            (count, ..) => Err(wrong(line, "a slice needs both models, each once")
                .expected("two sources", count.to_string())),
        }
    }

    /// As paths.
    pub(crate) fn paths(&self) -> [PathBuf; 2] {
        [&self.primary, &self.secondary].map(PathBuf::from)
    }
}
