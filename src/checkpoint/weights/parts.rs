//! Recognises files that hold only part of a model (tensor-parallel, pipeline and sharded saves) by
//! their names and those of their siblings.

use std::path::{Path, PathBuf};

use crate::checkpoint::files::paths::parent_of;
use crate::checkpoint::weights::names::{WeightName, shard_of};
use crate::error::{Error, Kind};
use crate::tensor::{counted, escape, listed};

/// Files that a message names.
const SHOWN: usize = 3;

/// When a file of a scheme is a part.
#[derive(Clone, Copy)]
enum When {
    /// Where its number at `place` is above `from`, or it has siblings.
    Counts { place: usize, from: u64 },
    /// Always.
    Always,
    /// Where its number at this place, the count of parts, is above 1.
    Of(usize),
}

/// How a program names the parts that it saves.
struct Scheme {
    /// `#` is a number, `*` any text.
    pattern: &'static str,
    when: When,
    what: &'static str,
    joined: &'static str,
}

const SHARD: &str = "shard";

const PYTHON: &str = "each holds some of the tensors; put those of all of them into one dict with \
                      torch.load, save that with torch.save, and name the file";

/// Llama's own code and metaseq; DeepSpeed and Megatron; metaseq and fairseq; DeepSpeed's
/// pipelines; torchtune; verl.
const SCHEMES: [Scheme; 10] = [
    Scheme {
        pattern: "consolidated.#.pth",
        when: When::Counts { place: 0, from: 0 },
        what: "tensor-parallel part",
        joined: "each holds a slice of every matrix; join them first, for Llama with transformers' \
                 convert_llama_weights_to_hf.py, else with a tool of the program that saved them",
    },
    Scheme {
        pattern: "mp_rank_#_model_states.pt",
        when: When::Counts { place: 0, from: 0 },
        what: "tensor-parallel part",
        joined: "each holds a slice of every matrix; join them first, with Megatron-DeepSpeed's \
                 deepspeed_to_transformers.py or GPT-NeoX's convert_neox_to_hf.py",
    },
    Scheme {
        pattern: "*layer_#-model_#-model_states.pt",
        when: When::Always,
        what: "pipeline part",
        joined: "each holds one layer; join them first, with GPT-NeoX's convert_neox_to_hf.py or \
                 Megatron-DeepSpeed's deepspeed_to_transformers.py",
    },
    Scheme {
        pattern: "*layer_#-model_states.pt",
        when: When::Always,
        what: "pipeline part",
        joined: "each holds one layer; join them first, with a tool of the program that saved them",
    },
    Scheme {
        pattern: "*model_part-#.pt",
        when: When::Counts { place: 0, from: 0 },
        what: "tensor-parallel part",
        joined: "each holds a slice of every matrix; join them first, with metaseq's \
                 convert_to_singleton.py",
    },
    Scheme {
        pattern: "*-shard#.pt",
        when: When::Counts { place: 0, from: 0 },
        what: "FSDP part",
        joined: "each holds a slice of the parameters; join them first, with metaseq's \
                 consolidate_fsdp_shards.py or a tool of the program that saved them",
    },
    Scheme {
        pattern: "*rank-#-of-#*",
        when: When::Of(1),
        what: "part",
        joined: "join them first, with a tool of the program that saved them",
    },
    Scheme {
        pattern: "*rank_#_of_#*",
        when: When::Of(1),
        what: "part",
        joined: "join them first, with a tool of the program that saved them",
    },
    Scheme {
        pattern: "model_world_size_#_rank_#.pt",
        when: When::Of(0),
        what: "FSDP part",
        joined: "join them first, with verl's `python -m verl.model_merger merge`",
    },
    Scheme {
        pattern: "hf_model_#_#.pt",
        when: When::Counts { place: 0, from: 1 },
        what: "part",
        joined: PYTHON,
    },
];

/// Megatron's directories, one for each part: by tensor rank, then by pipeline rank.
const DIRECTORIES: [Scheme; 3] = [
    Scheme {
        pattern: "mp_rank_#",
        when: When::Counts { place: 0, from: 0 },
        what: "tensor-parallel part",
        joined: "each holds a slice of every matrix; join them first, with Megatron-LM's \
                 tools/checkpoint",
    },
    Scheme {
        pattern: "mp_rank_#_#",
        when: When::Counts { place: 0, from: 0 },
        what: "tensor-parallel part",
        joined: "each holds a slice of some matrices; join them first, with Megatron-LM's \
                 tools/checkpoint",
    },
    Scheme {
        pattern: "mp_rank_#_#",
        when: When::Counts { place: 1, from: 0 },
        what: "pipeline part",
        joined: "each holds some of the layers; join them first, with Megatron-LM's \
                 tools/checkpoint",
    },
];

/// Parts of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What they are, in the singular.
    what: &'static str,
    /// Names of those that are there.
    names: Vec<String>,
    /// How to make a whole model of them.
    hint: String,
}

impl Parts {
    /// The parts among the files of one directory; `None` where each file may be a whole model.
    pub(crate) fn among<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Option<Parts> {
        SCHEMES.iter().find_map(|scheme| scheme.parts(names.clone()))
    }

    /// The parts that a file is one of, by its name, its directory's name and their siblings.
    /// Includes shards of transformers and diffusers, which only their index joins.
    pub(crate) fn at(file: &Path) -> Option<Parts> {
        let dir = parent_of(file);
        if let Some(name) = file.file_name().and_then(|name| name.to_str()) {
            if let Some(shard) = Parts::shard(&dir, name) {
                return Some(shard);
            }
            let own = SCHEMES.iter().find_map(|scheme| scheme.at(&dir, name));
            if own.is_some() {
                return own;
            }
        }
        // The directory's real name, also where it was given as `.`.
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        let name = dir.file_name()?.to_str()?;
        DIRECTORIES.iter().find_map(|scheme| scheme.at(&parent_of(&dir), name))
    }

    fn shard(dir: &Path, name: &str) -> Option<Parts> {
        let (_, of) = shard_of(name).filter(|numbers| numbers.1 > 1)?;
        let index = WeightName::parse(name).map(WeightName::index);
        let index: Option<PathBuf> =
            index.map(|index| dir.join(index)).filter(|path| path.exists());
        let hint = match index {
            Some(index) => format!("name the index, which knows all shards: {}", index.display()),
            None => "download the other shards and their index, and name the directory".to_owned(),
        };
        let names = vec![format!("{name} (one of {of})")];
        Some(Parts { what: SHARD, names, hint })
    }

    /// Whether a file of this name is one of them.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// Whether it is one shard of transformers or diffusers.
    pub(crate) fn is_shard(&self) -> bool {
        self.what == SHARD
    }

    /// Refuses `path`, which is or holds only these.
    pub fn refusal(&self, path: &Path) -> Error {
        let names = listed(self.names.iter().map(|name| escape(name)), SHOWN);
        let found = counted(self.names.len() as u64, self.what);
        let what = match self.names.len() {
            1 => "this is a part of a model, not a model",
            _ => "these are parts of a model, not a model",
        };
        Error::new(Kind::Data, what)
            .file(path)
            .expected("a whole model", format!("{found}: {names}"))
            .with_hint(&self.hint)
    }
}

impl Scheme {
    /// The parts among some names.
    fn parts<'n>(&self, names: impl Iterator<Item = &'n str> + Clone) -> Option<Parts> {
        let mut known: Vec<(String, u64, &str)> = names
            .filter_map(|name| {
                let (key, number) = self.key(name)?;
                Some((key, number, name))
            })
            .collect();
        known.sort();
        let first = (0..known.len()).find(|at| {
            let key = |at: usize| known.get(at).map(|entry| &entry.0);
            let beside = [at.wrapping_sub(1), at + 1];
            self.is_part(known[*at].1, beside.iter().any(|other| key(*other) == key(*at)))
        })?;
        let key = known.get(first).map(|entry| entry.0.clone())?;
        let own = known.into_iter().filter(|entry| entry.0 == key);
        let names = own.map(|entry| entry.2.to_owned()).collect();
        Some(Parts { what: self.what, names, hint: self.joined.to_owned() })
    }

    /// The parts that `name` in `dir` belongs to.
    fn at(&self, dir: &Path, name: &str) -> Option<Parts> {
        let (key, _) = self.key(name)?;
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|other| self.key(other).is_some_and(|other| other.0 == key))
            .collect();
        if names.is_empty() {
            names.push(name.to_owned());
        }
        self.parts(names.iter().map(String::as_str))
    }

    /// What the names of siblings have in common, and the number in which they differ; `None` for a
    /// name of another scheme, and for part 1 of 1.
    fn key(&self, name: &str) -> Option<(String, u64)> {
        let mut numbers = Vec::new();
        if !fits(self.pattern.as_bytes(), name.as_bytes(), 0, &mut numbers) {
            return None;
        }
        let number = |place: usize| {
            let (start, end) = *numbers.get(place)?;
            let number: u64 = name.get(start..end)?.parse().ok()?;
            Some((number, start, end))
        };
        let counted = match self.when {
            When::Of(place) if number(place)?.0 <= 1 => return None,
            When::Of(place) => number(1 - place.min(1))?,
            When::Counts { place, .. } => number(place)?,
            When::Always => number(0)?,
        };
        let (number, start, end) = counted;
        Some((format!("{}#{}", name.get(..start)?, name.get(end..)?), number))
    }

    fn is_part(&self, number: u64, has_siblings: bool) -> bool {
        match self.when {
            When::Counts { from, .. } => number > from || has_siblings,
            When::Always | When::Of(_) => true,
        }
    }
}

/// Whether `text` from `at` on matches the pattern; `numbers` gets the ranges of its digits.
fn fits(pattern: &[u8], text: &[u8], at: usize, numbers: &mut Vec<(usize, usize)>) -> bool {
    let rest = text.get(at..).unwrap_or_default();
    match pattern.split_first() {
        None => rest.is_empty(),
        Some((b'*', pattern)) => (at..=text.len()).any(|at| fits(pattern, text, at, numbers)),
        Some((b'#', pattern)) => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let begun = numbers.len();
            numbers.push((at, at + digits));
            let fits = digits > 0 && fits(pattern, text, at + digits, numbers);
            if !fits {
                numbers.truncate(begun);
            }
            fits
        }
        Some((byte, pattern)) => rest.first() == Some(byte) && fits(pattern, text, at + 1, numbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(names: &[&str]) -> Option<Vec<String>> {
        Parts::among(names.iter().copied()).map(|parts| parts.names)
    }

    #[test]
    fn numbered_siblings_are_parts_and_a_first_file_alone_is_whole() {
        for names in [
            ["consolidated.00.pth", "consolidated.01.pth"],
            ["mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt"],
            ["model_part-0.pt", "model_part-1.pt"],
            ["reshard-model_part-0.pt", "reshard-model_part-1.pt"],
            ["checkpoint_best-shard0.pt", "checkpoint_best-shard1.pt"],
            ["hf_model_0001_0.pt", "hf_model_0002_0.pt"],
        ] {
            assert_eq!(among(&names).unwrap(), names);
            assert_eq!(among(&names[..1]), None, "{names:?}");
            assert_eq!(among(&names[1..]).unwrap(), names[1..], "the second without the first");
        }
    }

    #[test]
    fn names_that_say_how_many_there_are_need_no_siblings() {
        for name in [
            "layer_00-model_00-model_states.pt",
            "model-rank-0-of-2.pt",
            "ckpt_rank_0_of_4.bin",
            "model_world_size_4_rank_0.pt",
        ] {
            assert_eq!(among(&[name]).unwrap(), [name]);
        }
        for name in ["model-rank-0-of-1.pt", "model_world_size_1_rank_0.pt"] {
            assert_eq!(among(&[name]), None, "{name}");
        }
        let ranks = ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"];
        assert_eq!(among(&ranks).unwrap(), ranks);
    }

    #[test]
    fn epochs_and_other_models_are_no_parts_of_each_other() {
        assert_eq!(among(&["hf_model_0001_0.pt", "hf_model_0001_1.pt"]), None);
        assert_eq!(among(&["consolidated.00.pth", "other.01.pth"]), None);
        assert_eq!(among(&["epoch=1.ckpt", "epoch=2.ckpt", "model_1.pt", "lora_rank_8.pt"]), None);
    }

    #[test]
    fn the_refusal_names_the_parts_and_the_tool() {
        let names = ["consolidated.00.pth", "consolidated.01.pth", "params.json"];
        let error = Parts::among(names.into_iter()).unwrap().refusal(Path::new("llama"));
        let words = "these are parts of a model, not a model: llama: expected a whole model, found 2 \
                     tensor-parallel parts: consolidated.00.pth, consolidated.01.pth";
        assert_eq!(error.to_string(), words);
        assert!(error.hint().unwrap().contains("convert_llama_weights_to_hf.py"));
    }

    #[test]
    fn a_file_alone_is_known_by_its_siblings_and_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, b"").unwrap();
            path
        };
        let first = file("consolidated.00.pth");
        assert_eq!(Parts::at(&first), None);
        file("consolidated.01.pth");
        assert_eq!(Parts::at(&first).unwrap().names.len(), 2);
        let megatron = file("iter_0000010/mp_rank_00/model_optim_rng.pt");
        assert_eq!(Parts::at(&megatron), None);
        file("iter_0000010/mp_rank_01/model_optim_rng.pt");
        assert_eq!(Parts::at(&megatron).unwrap().names, ["mp_rank_00", "mp_rank_01"]);
        assert_eq!(Parts::at(&file("whole/pytorch_model.bin")), None);
    }

    #[test]
    fn a_shard_alone_is_told_of_its_index_where_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pytorch_model.fp16-00001-of-00002.bin");
        let hint = || Parts::at(&path).unwrap().hint;
        assert!(hint().starts_with("download the other shards"), "{}", hint());
        std::fs::write(dir.path().join("pytorch_model.bin.index.fp16.json"), "{}").unwrap();
        assert!(hint().ends_with("pytorch_model.bin.index.fp16.json"), "{}", hint());
        assert_eq!(Parts::at(&dir.path().join("pytorch_model-00001-of-00001.bin")), None);
    }
}
