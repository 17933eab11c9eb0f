//! A recipe of mergekit's, read as what this program makes of it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::merge::{Child, Filter, Method, Schedule, Slice, VocabMode};
use crate::recipe::fields::{At, Fields, wrong};
use crate::recipe::models::{Pair, Source, name, weight};
use crate::recipe::parameters::{Setting, filters, filters_of_weights, setting};
use crate::recipe::yaml::{MOST_BYTES, Node, parse};
use crate::tensor::{DType, escape};

/// Keys at the top.
const KEYS: [&str; 11] = [
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "modules",
];

/// What a recipe asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The model at t = 0, relative to the working directory or by its name in the Hub's cache.
    pub primary: PathBuf,
    /// The model at t = 1.
    pub secondary: PathBuf,
    /// slerp or linear.
    pub method: Method,
    /// The child, named as the file.
    pub child: Child,
    /// The child's layers, where they are not all layers of both models.
    pub slices: Vec<Slice>,
    /// dtype of the child, where it is not each tensor's own.
    pub dtype: Option<DType>,
    /// Which words the child has, where rows are to be merged by their words.
    pub vocab: Option<VocabMode>,
    /// What was understood otherwise than mergekit does it, in sentences.
    pub notes: Vec<String>,
}

impl Recipe {
    /// Reads a recipe of at most 1 MiB.
    ///
    /// # Errors
    /// [`Kind::NoInput`] where it can't be read; [`Kind::Usage`] with line and key for what is no
    /// recipe, or not supported.
    pub fn read(path: &Path) -> Result<Recipe> {
        let failed = |error| Error::from_io(Kind::NoInput, "cannot read recipe", path, error);
        // Looked at before it is opened: opening a pipe would wait for its other end.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(Error::new(Kind::NoInput, "cannot read recipe")
                .file(path)
                .expected("a regular file", "something else"));
        }
        let file = File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Error::new(Kind::Usage, "a recipe that is no text")
                .file(path)
                .expected("UTF-8", "other bytes")
        })?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Recipe::parse(&text, &stem).map_err(|error| error.file(path))
    }

    /// Reads a recipe's text; the child has this name.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn parse(text: &str, name: &str) -> Result<Recipe> {
        let node = parse(text).map_err(|found| wrong(found.line, &found.what))?;
        Recipe::of(&node, name)
    }

    fn of(node: &Node, name_of_child: &str) -> Result<Recipe> {
        let top = Fields::top(node, &KEYS)?;
        if let Some(at) = top.get("modules") {
            return Err(at
                .refused("is not supported")
                .with_hint("models of several modules can't be merged by a recipe yet"));
        }
        let method = method(&top.needed("merge_method")?)?;
        let base = top.get("base_model").map(|at| name(&at)).transpose()?;
        if base.is_none() && method == Method::Slerp {
            return Err(
                wrong(top.line(), "`base_model` is missing").with_hint("it is the model at t = 0")
            );
        }
        let known: &[&str] = match method {
            Method::Slerp => &["t"],
            Method::Linear => &["weight", "normalize"],
        };
        let parameters = top.get("parameters").map(|at| at.fields(known)).transpose()?;
        let mut notes = Vec::new();
        if base.is_none() {
            notes.push("there is no base_model: the primary is the first model".to_owned());
        }
        let places = places(&top, method, known)?;
        let sources: Vec<Source> =
            places.iter().flat_map(|place| place.sources.iter().cloned()).collect();
        let pair = Pair::of(base.as_deref(), &sources, top.line())?;
        let mut slices = Vec::with_capacity(places.len());
        let mut rest = Vec::new();
        for place in &places {
            let filters = match method {
                Method::Slerp => place.slice.as_ref().map_or(Ok(Vec::new()), t_of)?,
                Method::Linear => weights(place, &pair, parameters.as_ref())?,
            };
            if place.slice.is_none() {
                rest.extend(filters);
                continue;
            }
            let [primary, secondary] = pair.sorted(&place.sources, place.line)?;
            let (Some(ours), Some(theirs)) = (primary.layers, secondary.layers) else { continue };
            if ours.1 - ours.0 != theirs.1 - theirs.0 {
                let found = format!("{} and {}", ours.1 - ours.0, theirs.1 - theirs.0);
                return Err(wrong(place.line, "the sources of a slice have not as many layers")
                    .expected("ranges of one length", found));
            }
            slices.push(Slice { primary: ours, secondary: theirs, filters });
        }
        if let (Some(parameters), Method::Slerp) = (&parameters, method) {
            rest.extend(t_of(parameters)?);
        }
        if let [only] = slices.as_mut_slice() {
            // Of one slice alone they are the child's.
            rest.splice(0..0, only.filters.drain(..));
        }
        let by_slices = slices.iter().filter(|slice| !slice.filters.is_empty()).count();
        if rest.is_empty() && (slices.is_empty() || by_slices < slices.len()) {
            return Err(wrong(top.line(), "nothing says what t is")
                .with_hint("give `parameters: {t: 0.5}`, at the top or of each slice"));
        }
        if let Some(parameters) = &parameters
            && let Some(at) = parameters.get("normalize")
            && !at.word(&[("true", true), ("false", false)])?
        {
            return Err(at
                .refused("is not supported")
                .with_hint("the weights are always divided by their sum"));
        }
        let [primary, secondary] = pair.paths();
        let schedule = Schedule { filters: rest, rest: None };
        Ok(Recipe {
            primary,
            secondary,
            method,
            child: Child { name: name_of_child.to_owned(), schedule },
            slices,
            dtype: dtype(&top)?,
            vocab: vocab(&top, &mut notes)?,
            notes,
        })
    }
}

/// A slice, or all that `models` says.
struct Place<'n> {
    line: usize,
    sources: Vec<Source>,
    /// A slice's own parameters; `None` where it is no slice.
    slice: Option<Fields<'n>>,
}

fn places<'n>(top: &Fields<'n>, method: Method, known: &[&str]) -> Result<Vec<Place<'n>>> {
    let sources = |at: &At<'n>, of_slice: bool| -> Result<Vec<Source>> {
        at.list()?.iter().map(|at| Source::read(at, method, of_slice)).collect()
    };
    match (top.get("models"), top.get("slices")) {
        (Some(models), None) => {
            let line = models.line;
            Ok(vec![Place { line, sources: sources(&models, false)?, slice: None }])
        }
        (None, Some(slices)) => {
            let slices = slices.list()?;
            if slices.is_empty() {
                return Err(wrong(top.line(), "`slices` is empty"));
            }
            let place = |at: &At<'n>| {
                let fields = at.fields(&["sources", "parameters"])?;
                let line = at.line;
                let sources = sources(&fields.needed("sources")?, true)?;
                let slice = match fields.get("parameters") {
                    Some(parameters) => parameters.fields(known)?,
                    None => Fields::empty(line),
                };
                Ok(Place { line, sources, slice: Some(slice) })
            };
            slices.iter().map(place).collect()
        }
        (Some(_), Some(slices)) => Err(slices.refused("stands beside `models`")),
        (None, None) => Err(wrong(top.line(), "neither `models` nor `slices`")),
    }
}

fn method(at: &At<'_>) -> Result<Method> {
    match at.text()? {
        "slerp" => Ok(Method::Slerp),
        "linear" => Ok(Method::Linear),
        other => Err(at
            .refused(&format!("is `{}`, which is not supported", escape(other)))
            .with_hint("supported: slerp, and linear of two models")),
    }
}

fn t_of(parameters: &Fields<'_>) -> Result<Vec<Filter>> {
    match parameters.get("t") {
        Some(at) => Ok(filters(setting(&at, 1.0)?)),
        None => Ok(Vec::new()),
    }
}

/// t by the weights of a place: a source's own first, then those of its slice, then those at the top.
fn weights(place: &Place<'_>, pair: &Pair, top: Option<&Fields<'_>>) -> Result<Vec<Filter>> {
    let levels = [place.slice.as_ref(), top];
    let mut shared = Setting::new();
    for level in levels.into_iter().flatten() {
        shared.extend(weight(level)?);
    }
    let of = |model: &str| {
        let own = place.sources.iter().find(|source| source.model == model);
        let own = own.map(|source| source.weight.clone()).unwrap_or_default();
        own.into_iter().chain(shared.iter().cloned()).collect::<Setting>()
    };
    filters_of_weights(of(&pair.primary), of(&pair.secondary), place.line)
}

fn dtype(top: &Fields<'_>) -> Result<Option<DType>> {
    let mut found = None;
    for key in ["dtype", "out_dtype"] {
        if let Some(at) = top.get(key) {
            let words = [DType::Float16, DType::BFloat16, DType::Float32].map(|d| (d.name(), d));
            found = Some(at.word(&words)?);
        }
    }
    Ok(found)
}

fn vocab(top: &Fields<'_>, notes: &mut Vec<String>) -> Result<Option<VocabMode>> {
    if let Some(at) = top.get("chat_template") {
        at.word(&[("auto", ())])?;
        notes.push("chat_template: the child has the one of its tokenizer".to_owned());
    }
    let source = match (top.get("tokenizer_source"), top.get("tokenizer")) {
        (Some(_), Some(at)) => return Err(at.refused("stands beside `tokenizer_source`")),
        (Some(at), None) => Some(at),
        (None, Some(at)) => Some(at.fields(&["source"])?.needed("source")?),
        (None, None) => None,
    };
    source
        .map(|at| at.word(&[("base", VocabMode::Primary), ("union", VocabMode::Union)]))
        .transpose()
}
