//! `find`: lists the models below directories, and which of them fit each other.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::checkpoint::{
    Candidate, Checkpoint, HubEntry, Opening, Vocabulary, cache_dir, discover,
};
use crate::cli::args::{FindArgs, OutputArgs};
use crate::cli::print;
use crate::error::{Error, Result};
use crate::merge::{ModelFacts, check_parent, clashes, groups, unsure};
use crate::tensor::{JsonPath, counted, escape, human_count, listed};

/// Unreadable directories that are named in the warning.
const SHOWN: usize = 3;

/// Pairs that are shown of those that merge in one order only.
const PAIRS_SHOWN: usize = 20;

/// A checkpoint that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its name in a Hub cache, where it is in one.
    pub(crate) hub: Option<HubEntry>,
    /// What it is, or why it can't be merged.
    pub(crate) facts: std::result::Result<ModelFacts, Error>,
}

impl Found {
    /// `ORG/NAME@COMMIT`, or the path without a leading `./`.
    pub(crate) fn name(&self) -> String {
        let path = self.path.strip_prefix(".").ok().filter(|path| !path.as_os_str().is_empty());
        match &self.hub {
            Some(hub) => escape(&hub.short()),
            None => escape(&path.unwrap_or(&self.path).to_string_lossy()),
        }
    }
}

/// What was found below some directories.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Checkpoints, in the order of their paths.
    pub(crate) found: Vec<Found>,
    /// Indices into `found` of the models of each group, all of which fit each other.
    pub(crate) groups: Vec<Vec<usize>>,
    /// Indices into `found` of pairs that can be merged with the first as the primary only.
    pub(crate) one_way: Vec<(usize, usize)>,
    /// Places in `found` of pairs of a group that give one row to different words.
    pub(crate) clashes: Vec<(usize, usize)>,
    /// Directories that could not be read.
    pub(crate) unreadable: Vec<PathBuf>,
}

/// Searches below `dirs`; reads headers only.
pub(crate) fn survey(dirs: &[PathBuf], opening: &Opening) -> Result<Survey> {
    let discovery = discover(dirs)?;
    let look = |candidate| look_at(candidate, opening);
    let seen = discovery.candidates.into_iter().filter_map(look);
    let (found, headers): (Vec<Found>, Vec<Option<Checkpoint>>) = seen.unzip();
    let whole = || headers.iter().enumerate().filter_map(|(at, model)| Some((at, model.as_ref()?)));
    let (indices, models): (Vec<usize>, Vec<&Checkpoint>) = whole().unzip();
    let group =
        |members: Vec<usize>| members.iter().filter_map(|m| indices.get(*m).copied()).collect();
    let fits = groups(&models);
    let clashing = clashes(&models, &fits.groups, &words_of);
    let groups = fits.groups.into_iter().map(group).collect();
    let pair = |(a, b): (usize, usize)| Some((*indices.get(a)?, *indices.get(b)?));
    let one_way = fits.one_way.into_iter().filter_map(pair).collect();
    let clashes = clashing.into_iter().filter_map(pair).collect();
    Ok(Survey { found, groups, one_way, clashes, unreadable: discovery.unreadable })
}

/// The words of a model's rows; none where its tokenizer can't be read, which merge tells.
fn words_of(model: &Checkpoint) -> Vocabulary {
    model.dir.as_deref().and_then(|dir| Vocabulary::read(dir).ok()).unwrap_or_default()
}

/// What a candidate is, and the headers of one that can be merged.
fn look_at(candidate: Candidate, opening: &Opening) -> Option<(Found, Option<Checkpoint>)> {
    let mut headers = None;
    let facts = match candidate.open(opening) {
        Ok(checkpoint) => {
            let mut checkpoint = checkpoint?;
            let compared = checkpoint.compare(&unsure(&checkpoint));
            let usable = compared.and_then(|()| check_parent(&checkpoint));
            let facts = usable.map(|()| ModelFacts::of(&checkpoint));
            // Thousands of models are more files than a process may hold open.
            checkpoint.files.clear();
            headers = facts.is_ok().then_some(checkpoint);
            facts
        }
        Err(error) => Err(error),
    };
    Some((Found { path: candidate.path, hub: candidate.hub, facts }, headers))
}

/// Lists the models.
pub(crate) fn find(args: &FindArgs, output: &OutputArgs) -> Result<()> {
    let survey = survey(&args.dirs, &(&args.opaque).into())?;
    if !output.quiet && !survey.unreadable.is_empty() {
        print::line(&format!("warning: {}", unreadable(&survey.unreadable)));
    }
    if output.json {
        return print::json(&as_json(&survey));
    }
    if survey.found.is_empty() {
        let dirs: Vec<String> =
            args.dirs.iter().map(|dir| format!("`{}`", escape(&dir.to_string_lossy()))).collect();
        print::line(&format!("no checkpoint in or below {}", dirs.join(", ")));
        return Ok(());
    }
    print::result(&text(&survey))
}

fn unreadable(dirs: &[PathBuf]) -> String {
    format!(
        "{} can't be read and {} left out: {}",
        counted(dirs.len() as u64, "directory"),
        if dirs.len() == 1 { "is" } else { "are" },
        listed(dirs.iter().map(|dir| escape(&dir.to_string_lossy())), SHOWN)
    )
}

/// `A` to `Z`, `AA`, `AB`, …
fn letters(mut group: usize) -> String {
    let mut text = String::new();
    loop {
        let letter = u8::try_from(group % 26).unwrap_or(0);
        text.insert(0, char::from(b'A' + letter));
        if group < 26 {
            return text;
        }
        group = group / 26 - 1;
    }
}

/// The letters of the groups that a model is in, as in `A` or `A,C`.
fn group_of(survey: &Survey, index: usize) -> Option<String> {
    let groups = survey.groups.iter().enumerate().filter(|(_, members)| members.contains(&index));
    let letters: Vec<String> = groups.map(|(group, _)| letters(group)).collect();
    (!letters.is_empty()).then(|| letters.join(","))
}

/// The columns of one model, in words.
pub(crate) struct Columns {
    pub(crate) format: String,
    pub(crate) architecture: String,
    pub(crate) parameters: String,
    pub(crate) dtype: String,
    pub(crate) vocab: String,
    pub(crate) tied: &'static str,
}

impl Columns {
    pub(crate) fn of(facts: &ModelFacts) -> Columns {
        let dash = || "-".to_owned();
        Columns {
            format: match facts.files {
                1 => facts.container.clone(),
                shards => format!("{}, {shards} shards", facts.container),
            },
            architecture: facts.architecture.as_deref().map_or_else(dash, escape),
            parameters: human_count(facts.parameters),
            dtype: match facts.dtypes.as_slice() {
                [] => dash(),
                [only] => only.to_string(),
                [most, others @ ..] => format!("{most} +{}", others.len()),
            },
            vocab: facts.vocab.map_or_else(dash, |rows| rows.to_string()),
            tied: match facts.tied {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            },
        }
    }
}

fn text(survey: &Survey) -> String {
    let heads = ["model", "format", "architecture", "parameters", "dtype", "vocab", "tied", "fits"];
    let mut rows = vec![heads.map(str::to_owned)];
    for (index, found) in survey.found.iter().enumerate() {
        let Ok(facts) = &found.facts else { continue };
        let columns = Columns::of(facts);
        rows.push([
            found.name(),
            columns.format,
            columns.architecture,
            columns.parameters,
            columns.dtype,
            columns.vocab,
            columns.tied.to_owned(),
            group_of(survey, index).unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    let models = rows.len() - 1;
    let mut paragraphs = Vec::new();
    if models > 0 {
        paragraphs.push(print::table(&rows));
        paragraphs.push(match survey.groups.is_empty() {
            true => format!("{}: no two fit each other", counted(models as u64, "model")),
            false => fitting(survey, models),
        });
        if !survey.clashes.is_empty() {
            paragraphs.push(clashing(survey));
        }
        if !survey.one_way.is_empty() {
            paragraphs.push(in_one_order(survey));
        }
    }
    let broken: Vec<String> = survey
        .found
        .iter()
        .filter_map(|found| Some(format!("{}: {}", found.name(), found.facts.as_ref().err()?)))
        .collect();
    if !broken.is_empty() {
        let counted = counted(broken.len() as u64, "checkpoint");
        paragraphs.push(format!("{counted} can't be merged:\n  {}", broken.join("\n  ")));
    }
    if let Some(cache) = foreign_cache(survey) {
        paragraphs.push(format!(
            "to name models of that Hub cache by ORG/NAME: export HF_HUB_CACHE={}",
            escape(&cache.to_string_lossy())
        ));
    }
    paragraphs.join("\n\n")
}

/// The pairs of a letter whose rows stand for different words.
fn clashing(survey: &Survey) -> String {
    let name = |place: usize| survey.found.get(place).map(Found::name).unwrap_or_default();
    let shown = survey.clashes.iter().take(PAIRS_SHOWN);
    let mut lines: Vec<String> =
        shown.map(|(a, b)| format!("\n  {} and {}", name(*a), name(*b))).collect();
    if let Some(more) = survey.clashes.len().checked_sub(PAIRS_SHOWN).filter(|more| *more > 0) {
        lines.push(format!("\n  and {more} more"));
    }
    let pairs = counted(survey.clashes.len() as u64, "pair");
    format!("{pairs} with one row for different words, merged with --vocab only:{}", lines.concat())
}

/// The pairs that have no letter in common and can be merged all the same.
fn in_one_order(survey: &Survey) -> String {
    let name = |index: usize| survey.found.get(index).map(Found::name).unwrap_or_default();
    let shown = survey.one_way.iter().take(PAIRS_SHOWN);
    let mut lines: Vec<String> =
        shown.map(|(a, b)| format!("\n  {} as the primary of {}", name(*a), name(*b))).collect();
    if let Some(more) = survey.one_way.len().checked_sub(PAIRS_SHOWN).filter(|more| *more > 0) {
        lines.push(format!("\n  and {more} more"));
    }
    let pairs = counted(survey.one_way.len() as u64, "pair");
    format!("{pairs} can be merged in this order only:{}", lines.concat())
}

/// One line for each group: how many, which pairs, what happens to the vocabularies.
fn fitting(survey: &Survey, models: usize) -> String {
    let mut lines = vec![format!(
        "{} in {}; any two of one letter can be merged",
        counted(models as u64, "model"),
        counted(survey.groups.len() as u64, "group"),
    )];
    for (group, members) in survey.groups.iter().enumerate() {
        let pairs = members.len() * (members.len() - 1) / 2;
        let mut line = format!(
            "{}: {}, {}",
            letters(group),
            counted(members.len() as u64, "model"),
            counted(pairs as u64, "pair")
        );
        let facts =
            || members.iter().filter_map(|member| survey.found.get(*member)?.facts.as_ref().ok());
        let vocabs = || facts().filter_map(|facts| facts.vocab);
        if let (Some(least), Some(most)) = (vocabs().min(), vocabs().max())
            && least != most
        {
            line.push_str(&format!(
                "; vocabularies of {least} to {most} rows: the shorter of a pair is extended"
            ));
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// A Hub cache that holds some of the models, where it isn't the one that parents are looked up in.
fn foreign_cache(survey: &Survey) -> Option<&Path> {
    let ours = cache_dir().and_then(|dir| dir.canonicalize().ok());
    let caches = survey.found.iter().filter_map(|found| Some(found.hub.as_ref()?.cache.as_path()));
    caches.into_iter().find(|cache| cache.canonicalize().ok() != ours)
}

fn as_json(survey: &Survey) -> Value {
    let models = survey.found.iter().enumerate().map(|(index, found)| model(survey, index, found));
    let path = |member: &usize| survey.found.get(*member).map(|found| JsonPath::from(&found.path));
    let groups = survey.groups.iter().enumerate().map(|(group, members)| {
        json!({ "group": letters(group), "models": members.iter().filter_map(path).collect::<Vec<_>>() })
    });
    let one_way = survey.one_way.iter().map(
        |(primary, secondary)| json!({ "primary": path(primary), "secondary": path(secondary) }),
    );
    let clashes = survey.clashes.iter().map(|(a, b)| json!([path(a), path(b)]));
    json!({
        "models": models.collect::<Vec<_>>(),
        "groups": groups.collect::<Vec<_>>(),
        "one_way": one_way.collect::<Vec<_>>(),
        "clashes": clashes.collect::<Vec<_>>(),
        "unreadable": JsonPath::list(&survey.unreadable),
    })
}

fn model(survey: &Survey, index: usize, found: &Found) -> Value {
    let hub = found.hub.as_ref().map(|hub| {
        json!({
            "repo": hub.repo,
            "revision": hub.revision,
            "cache": JsonPath::from(&hub.cache),
            "inside": JsonPath::from(&hub.inside),
        })
    });
    let mut object = json!({ "path": JsonPath::from(&found.path), "hub": hub });
    let own = match &found.facts {
        Ok(facts) => serde_json::to_value(facts),
        Err(error) => Ok(json!({ "error": error.to_string(), "hint": error.hint() })),
    };
    if let (Value::Object(all), Ok(Value::Object(own))) = (&mut object, own) {
        all.extend(own);
        all.insert("group".to_owned(), json!(group_of(survey, index)));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_lettered_like_columns_of_a_sheet() {
        let words = [0, 25, 26, 27, 51, 52, 701, 702].map(letters);
        assert_eq!(words, ["A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]);
    }
}
