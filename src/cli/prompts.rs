//! Asks on a terminal for what a merge needs, where the tool is run without arguments: finds
//! models, asks, shows the plan, and merges. Everything that is shown goes to stderr.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use inquire::validator::Validation;
use inquire::{Confirm, InquireError, Select, Text};

use crate::checkpoint::{Checkpoint, Opening, Vocabulary, check_output};
use crate::cli::args::{Cli, Command, MergeArgs, OutputArgs};
use crate::cli::find::{Columns, Found, Survey, survey};
use crate::cli::interrupt::Interrupt;
use crate::cli::{by_layer, merge, print};
use crate::engine::{expand_outputs, prepare};
use crate::error::{Error, Kind, Result};
use crate::merge::{Child, Comparison, Filter, ModelFacts, Vocab, VocabMode, parse_t};

/// Help on the keys, below a list.
const KEYS: &str = "↑↓ move, type to search, enter takes, esc leaves";

/// Columns of a line that the prompt takes itself.
const MARGIN: usize = 4;

/// Names are not cut below this many characters.
const SHORTEST_NAME: usize = 20;

/// Whether there is a terminal to ask on.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for a merge and makes it. `program` is the tool's name as it was typed.
pub(crate) fn merge(program: &OsStr) -> Result<()> {
    print::line("Looking for models below the current directory ...");
    let survey = survey(&[PathBuf::from(".")], &Opening::default())?;
    check(&survey)?;
    print::line(&greeting(&survey));
    match ask(&survey, program)? {
        Some(answers) => confirm_and_merge(&answers),
        None => {
            print::line("Nothing was made.");
            Ok(())
        }
    }
}

/// Refuses a survey in which no two models fit each other.
fn check(survey: &Survey) -> Result<()> {
    if !survey.groups.is_empty() || !survey.one_way.is_empty() {
        return Ok(());
    }
    let models = survey.found.iter().filter(|found| found.facts.is_ok()).count();
    let (what, hint) = match (models, survey.found.len()) {
        (0, 0) => (
            "no models below the current directory",
            "go where your models are, or name them: llm-slerp-merge merge PRIMARY SECONDARY -o OUT",
        ),
        (0, _) => (
            "no model below the current directory can be merged",
            "`llm-slerp-merge find` lists what is there, and why not",
        ),
        _ => (
            "no two models below the current directory fit each other",
            "`llm-slerp-merge find` lists them; name others with \
             llm-slerp-merge merge PRIMARY SECONDARY -o OUT",
        ),
    };
    Err(Error::new(Kind::NoInput, what).with_hint(hint))
}

/// The models of the groups that are `wanted`, each once, in their order.
fn members(survey: &Survey, wanted: impl Fn(&[usize]) -> bool) -> Vec<usize> {
    let groups = survey.groups.iter().filter(|group| wanted(group));
    let members: BTreeSet<usize> = groups.flatten().copied().collect();
    members.into_iter().collect()
}

/// The models that can be the primary of another.
fn primaries(survey: &Survey) -> Vec<usize> {
    let one_way = survey.one_way.iter().map(|pair| pair.0);
    let all: BTreeSet<usize> = members(survey, |_| true).into_iter().chain(one_way).collect();
    all.into_iter().collect()
}

/// The models that can be the secondary of `primary`.
fn secondaries(survey: &Survey, primary: usize) -> Vec<usize> {
    let one_way = survey.one_way.iter().filter(|pair| pair.0 == primary).map(|pair| pair.1);
    let group = members(survey, |group| group.contains(&primary));
    let all: BTreeSet<usize> = group.into_iter().chain(one_way).collect();
    all.into_iter().filter(|index| *index != primary).collect()
}

fn greeting(survey: &Survey) -> String {
    let one_way = survey.one_way.iter().flat_map(|pair| [pair.0, pair.1]);
    let fitting = members(survey, |_| true).into_iter().chain(one_way);
    let fitting = fitting.collect::<BTreeSet<usize>>().len();
    match survey.found.len().saturating_sub(fitting) {
        0 => format!("{fitting} models found."),
        others => format!(
            "{fitting} models found, and {others} that fit no other (`llm-slerp-merge find` lists all)."
        ),
    }
}

/// The answers, as a command line and parsed.
struct Answers {
    command_line: Vec<OsString>,
    merge: Box<MergeArgs>,
    output: OutputArgs,
}

/// A model in a list.
struct Choice<'s> {
    index: usize,
    found: &'s Found,
    line: String,
}

impl fmt::Display for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// All questions; `None` where the user left.
fn ask(survey: &Survey, program: &OsStr) -> Result<Option<Answers>> {
    let indices = primaries(survey);
    let Some(primary) = choose("Primary (t = 0):", choices(survey, &indices))? else {
        return Ok(None);
    };
    let indices = secondaries(survey, primary.index);
    let Some(secondary) = choose("Secondary (t = 1):", choices(survey, &indices))? else {
        return Ok(None);
    };
    let parents = [primary.found, secondary.found];
    let pair = (primary.index, secondary.index);
    let clash = survey.clashes.iter().any(|clash| *clash == pair || *clash == (pair.1, pair.0));
    let vocab = if clash { ask_vocab(parents)? } else { Some(VocabMode::Check) };
    let Some(vocab) = vocab else { return Ok(None) };
    let Some(places) = ask_t(primary.found)? else { return Ok(None) };
    let Some(out) = ask_output(&parents, &places)? else { return Ok(None) };
    let mut command_line: Vec<OsString> = vec![program.to_owned(), "merge".into()];
    command_line.extend(parents.map(|parent| argument(&parent.path)));
    command_line.extend(["-o".into(), argument(&out)]);
    command_line.extend(places.arguments());
    if vocab != VocabMode::Check {
        command_line.extend(["--vocab".into(), vocab.name().into()]);
    }
    let cli = Cli::try_parse_from(&command_line).map_err(|error| {
        Error::new(Kind::Internal, "the answers make no command line").caused_by(error)
    })?;
    match cli.command {
        Command::Merge(merge) => Ok(Some(Answers { command_line, merge, output: cli.output })),
        _ => Err(Error::new(Kind::Internal, "the answers make another command")),
    }
}

/// An answer, nothing where the user pressed escape, an error where they pressed Ctrl-C.
fn answered<T>(answer: std::result::Result<T, InquireError>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(InquireError::OperationCanceled) => Ok(None),
        Err(InquireError::OperationInterrupted) => {
            Err(Error::new(Kind::Interrupted, "interrupted, nothing was made"))
        }
        Err(error) => Err(Error::new(Kind::Io, "cannot ask").expected("", error.to_string())),
    }
}

fn choose<'s>(question: &str, choices: Vec<Choice<'s>>) -> Result<Option<Choice<'s>>> {
    let name = |choice: inquire::list_option::ListOption<&Choice<'s>>| choice.value.found.name();
    let select = Select::new(question, choices).with_help_message(KEYS).with_page_size(12);
    answered(select.with_formatter(&name).prompt())
}

/// The models at `indices` as lines of one table.
fn choices<'s>(survey: &'s Survey, indices: &[usize]) -> Vec<Choice<'s>> {
    let models: Vec<(usize, &Found, &ModelFacts)> = indices
        .iter()
        .filter_map(|index| {
            let found = survey.found.get(*index)?;
            Some((*index, found, found.facts.as_ref().ok()?))
        })
        .collect();
    let rows: Vec<[String; 3]> = models
        .iter()
        .map(|(_, _, facts)| {
            let columns = Columns::of(facts);
            [columns.parameters, columns.dtype, format!("vocabulary {}", columns.vocab)]
        })
        .collect();
    let figures = print::table(&rows);
    let widest = figures.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let room = print::width().saturating_sub(widest + MARGIN).max(SHORTEST_NAME);
    let names: Vec<String> = models.iter().map(|model| fitted(&model.1.name(), room)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let lines = names.iter().zip(figures.lines());
    let lines = lines.map(|(name, figures)| format!("{name:<longest$}  {figures}"));
    let choice = |((index, found, _), line)| Choice { index, found, line };
    models.into_iter().zip(lines).map(choice).collect()
}

/// A name that is too long is cut at its front: its end tells most.
fn fitted(name: &str, room: usize) -> String {
    let length = name.chars().count();
    if length <= room {
        return name.to_owned();
    }
    std::iter::once('…').chain(name.chars().skip(length + 1 - room)).collect()
}

/// What becomes of rows that stand for different words, shown with the first of them.
fn ask_vocab(parents: [&Found; 2]) -> Result<Option<VocabMode>> {
    let [ours, theirs] = parents.map(|parent| Vocabulary::read(&parent.path).unwrap_or_default());
    let every = Vocab { primary: u64::MAX, secondary: u64::MAX };
    let found = Comparison::of(&ours, &theirs, every).sentence();
    print::line(&format!("Their vocabularies give one row to different words: {found}"));
    let choices: Vec<&str> = VocabMode::WAYS_ON.iter().map(|way| way.1).collect();
    let answer =
        answered(Select::new("Merge their rows:", choices).with_help_message(KEYS).raw_prompt())?;
    Ok(answer.and_then(|answer| Some(VocabMode::WAYS_ON.get(answer.index)?.0)))
}

/// Where the children lie between the parents.
struct Places {
    /// Values for `-t`.
    t: Vec<f64>,
    /// Filters for `--t-for`.
    filters: Vec<Filter>,
}

impl Places {
    /// The arguments that say so.
    fn arguments(&self) -> Vec<OsString> {
        let t: Vec<String> = self.t.iter().map(f64::to_string).collect();
        let filters = self.filters.iter().flat_map(|f| ["--t-for".to_owned(), f.to_string()]);
        let all = self.filters.iter().any(Filter::fits_all);
        let t = ["-t".to_owned(), t.join(",")].into_iter().filter(|_| !all);
        t.chain(filters).map(OsString::from).collect()
    }

    /// What the child's name ends with.
    fn ending(&self) -> String {
        match (self.filters.as_slice(), self.t.as_slice()) {
            ([], [t]) => format!("t{t}"),
            ([], _) => "t{t}".to_owned(),
            _ => "by-layer".to_owned(),
        }
    }
}

fn ask_t(primary: &Found) -> Result<Option<Places>> {
    let check = |text: &str| {
        let numbers = || text.split(',').try_for_each(|t| parse_t(t).map(drop));
        Ok(match text.trim() == by_layer::WORDS {
            true => Validation::Valid,
            false => {
                numbers().map_or_else(|why| Validation::Invalid(why.into()), |()| Validation::Valid)
            }
        })
    };
    let text = Text::new("Place between them (t):")
        .with_default("0.5")
        .with_validator(check)
        .with_help_message(
            "0 is the primary, 1 the secondary; 0.3,0.5,0.7 makes three children; or `by layer`",
        );
    let Some(text) = answered(text.prompt())? else { return Ok(None) };
    if text.trim() == by_layer::WORDS {
        return ask_schedule(primary);
    }
    let t = text.split(',').filter_map(|t| parse_t(t).ok()).collect();
    Ok(Some(Places { t, filters: Vec::new() }))
}

/// Lets one of the well-known schedules be chosen, and shows its curves.
fn ask_schedule(primary: &Found) -> Result<Option<Places>> {
    let offers = by_layer::offers(&Checkpoint::open(&primary.path)?);
    if offers.is_empty() {
        return Err(Error::new(Kind::Data, "t can't go by layer")
            .file(&primary.path)
            .expected("a model of numbered layers, as many as its config says", "another"));
    }
    let select = Select::new("t by layer:", offers).with_help_message(KEYS);
    let Some(offer) = answered(select.prompt())? else { return Ok(None) };
    print::line(&print::table(&offer.curves()));
    Ok(Some(Places { t: vec![offer.rest], filters: offer.filters }))
}

fn ask_output(parents: &[&Found; 2], places: &Places) -> Result<Option<PathBuf>> {
    let children = Child::each(&places.t, &places.filters);
    let paths = parents.map(|parent| parent.path.clone());
    let check = move |out: &Path| {
        let parents = [paths[0].as_path(), paths[1].as_path()];
        let outputs = expand_outputs(out, &children)?;
        outputs.iter().try_for_each(|output| check_output(output, &parents, false))
    };
    let name = format!("{}-{}-{}", stem(parents[0]), stem(parents[1]), places.ending());
    let numbered = (2..100).map(|number| format!("{name}-{number}"));
    let mut free = std::iter::once(name.clone()).chain(numbered);
    let default = free.find(|name| check(Path::new(name)).is_ok()).unwrap_or(name.clone());
    let check = move |text: &str| {
        Ok(match check(&typed(text)) {
            Ok(()) => Validation::Valid,
            Err(error) => Validation::Invalid(error.to_string().into()),
        })
    };
    let text = Text::new("Output directory:").with_default(&default).with_validator(check);
    let text = text.with_help_message("to be made for the child");
    Ok(answered(text.prompt())?.map(|text| typed(&text)))
}

/// A path as a shell would take it: `~/` is the home directory.
fn typed(text: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    match text.trim().strip_prefix("~/").and_then(|rest| Some(home()?.join(rest))) {
        Some(path) => path,
        None => PathBuf::from(text.trim()),
    }
}

/// A short name of a model, to make the child's from.
fn stem(found: &Found) -> String {
    let name = match &found.hub {
        Some(hub) => hub.repo.rsplit('/').next().unwrap_or_default().to_owned(),
        None => {
            let path = found.path.canonicalize().unwrap_or_else(|_| found.path.clone());
            let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
            name.unwrap_or_default().to_string_lossy().into_owned()
        }
    };
    let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.trim_start_matches('-').chars().map(plain).collect()
}

/// A path without a leading `./`, unless it would then be taken for an option.
fn argument(path: &Path) -> OsString {
    let short = path.strip_prefix(".").unwrap_or(path);
    let option = short.as_os_str().as_encoded_bytes().first().is_none_or(|byte| *byte == b'-');
    if option { Path::new(".").join(short).into() } else { short.into() }
}

fn confirm_and_merge(answers: &Answers) -> Result<()> {
    let devices = answers.merge.device.resolve()?;
    let prepared = prepare(merge::job(&answers.merge)?)?;
    print::line(&format!("\n{}", print::plan_brief(&prepared, &merge::place(&prepared))));
    prepared.plan.warnings.iter().for_each(print::warning);
    let words: Vec<String> = answers.command_line.iter().map(|word| print::quoted(word)).collect();
    print::line(&format!("\nThe same without questions:\n  {}\n", words.join(" ")));
    let confirm = Confirm::new("Merge now?").with_default(true).prompt();
    if answered(confirm)? != Some(true) {
        print::line("Nothing was made.");
        return Ok(());
    }
    let interrupt = Interrupt::listen();
    let started = Instant::now();
    merge::carry_out(prepared, &devices, &answers.merge, &answers.output, &interrupt, started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_never_taken_for_options() {
        let arguments = ["./a/b", "./-o", "/x", "-x", "."].map(|path| argument(Path::new(path)));
        assert_eq!(arguments, ["a/b", "./-o", "/x", "./-x", "./"]);
    }

    #[test]
    fn long_names_keep_their_ends() {
        assert_eq!(fitted("models/short", 12), "models/short");
        assert_eq!(fitted("far/models/short", 12), "…odels/short");
    }
}
