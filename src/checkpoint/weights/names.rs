//! Names of weight files, as transformers and diffusers write and look for them.
//!
//! ```text
//! STEM.bin                       STEM.VARIANT.bin
//! STEM-00001-of-00002.bin        STEM.VARIANT-00001-of-00002.bin     STEM-00001-of-00002.VARIANT.bin (old)
//! STEM.bin.index.json            STEM.bin.index.VARIANT.json         STEM.bin.VARIANT.index.json (old)
//! ```
//!
//! and the same with `.safetensors` in place of `.bin`, whose STEM is `model` in transformers.
//!
//! Source: `_add_variant` and `save_pretrained` of transformers 4.57.3 (`modeling_utils.py`) and of
//! diffusers 0.35.2 (`utils/hub_utils.py`); the old spellings are those of diffusers before 0.32
//! (`_fetch_index_file_legacy`, `_check_legacy_sharding_variant_format`), which it still reads.

use crate::format::WeightFormat;

/// The names of one loader's weight files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeightNames {
    /// transformers: `pytorch_model.bin`, `model.safetensors`.
    #[default]
    Transformers,
    /// diffusers: `diffusion_pytorch_model`.
    Diffusers,
}

impl WeightNames {
    /// All of them.
    pub(super) const ALL: [WeightNames; 2] = [WeightNames::Transformers, WeightNames::Diffusers];

    fn stem(self, format: WeightFormat) -> &'static str {
        match (self, format) {
            (WeightNames::Transformers, WeightFormat::Bin) => "pytorch_model",
            (WeightNames::Transformers, WeightFormat::Safetensors) => "model",
            (WeightNames::Diffusers, _) => "diffusion_pytorch_model",
        }
    }

    /// Name of the only file of a model.
    pub fn single(self, format: WeightFormat) -> String {
        format!("{}.{}", self.stem(format), format.name())
    }

    /// Name of the index beside several files.
    pub fn index(self, format: WeightFormat) -> String {
        format!("{}.index.json", self.single(format))
    }

    /// Names of `count` files: one is `STEM.bin`, several are `STEM-00001-of-00002.bin` and so on
    /// (more digits from 100,000 on).
    pub fn shards(self, format: WeightFormat, count: usize) -> Vec<String> {
        if count == 1 {
            return vec![self.single(format)];
        }
        let (stem, end) = (self.stem(format), format.name());
        (1..=count).map(|number| format!("{stem}-{number:05}-of-{count:05}.{end}")).collect()
    }

    /// Whether an index by this loader's program has `total_parameters`: diffusers writes the
    /// split's `total_size` alone.
    pub fn counts_parameters(self) -> bool {
        self == WeightNames::Transformers
    }
}

/// What a weight file is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WeightRole {
    /// All weights.
    Single,
    /// The index of shards.
    Index,
    /// One of several files.
    Shard,
}

/// The parsed name of a weight file or index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WeightName<'n> {
    /// The loader that looks for it.
    pub(crate) names: WeightNames,
    /// Its format.
    pub(super) format: WeightFormat,
    /// `fp16`, `ema` and so on.
    pub(crate) variant: Option<&'n str>,
    /// Single file, index or shard.
    pub(super) role: WeightRole,
}

impl<'n> WeightName<'n> {
    /// Parses a name; `None` where no loader looks for it.
    pub(crate) fn parse(name: &'n str) -> Option<WeightName<'n>> {
        let kinds = WeightNames::ALL
            .into_iter()
            .flat_map(|names| WeightFormat::ALL.into_iter().map(move |format| (names, format)));
        kinds.into_iter().find_map(|(names, format)| {
            let rest = name.strip_prefix(names.stem(format))?;
            let (variant, role) = role_of(rest, format.name())?;
            Some(WeightName { names, format, variant, role })
        })
    }

    /// Name of the index that names this shard.
    pub(crate) fn index(self) -> String {
        match self.variant {
            Some(variant) => format!("{}.index.{variant}.json", self.names.single(self.format)),
            None => self.names.index(self.format),
        }
    }
}

/// Whether this is the name of an index.
pub(crate) fn is_index(name: &str) -> bool {
    WeightName::parse(name).is_some_and(|name| name.role == WeightRole::Index)
}

/// Variant and role, from what follows the stem; `end` is the format's extension.
fn role_of<'n>(rest: &'n str, end: &str) -> Option<(Option<&'n str>, WeightRole)> {
    let behind = rest.strip_prefix('.').and_then(|rest| rest.strip_prefix(end)?.strip_prefix('.'));
    if let Some(middle) = behind.and_then(|rest| rest.strip_suffix(".json")) {
        let variant = match middle {
            "index" => None,
            _ => Some(middle.strip_prefix("index.").or_else(|| middle.strip_suffix(".index"))?),
        };
        return is_variant(variant, end).then_some((variant, WeightRole::Index));
    }
    let middle = rest.strip_suffix(end)?.strip_suffix('.')?;
    if middle.is_empty() {
        return Some((None, WeightRole::Single));
    }
    if let Some(numbers) = middle.strip_prefix('-') {
        let (numbers, variant) = match numbers.split_once('.') {
            Some((numbers, variant)) => (numbers, Some(variant)),
            None => (numbers, None),
        };
        let known = shard_numbers(numbers).is_some() && is_variant(variant, end);
        return known.then_some((variant, WeightRole::Shard));
    }
    let variant = middle.strip_prefix('.')?;
    let (variant, role) = match numbers_at_end(variant) {
        Some((variant, _)) => (variant, WeightRole::Shard),
        None => (variant, WeightRole::Single),
    };
    is_variant(Some(variant), end).then_some((Some(variant), role))
}

fn is_variant(variant: Option<&str>, end: &str) -> bool {
    variant.is_none_or(|variant| !variant.is_empty() && !variant.starts_with(end))
}

/// `00002-of-00005` → (2, 5).
fn shard_numbers(text: &str) -> Option<(u64, u64)> {
    let number = |part: &str| {
        let digits = part.len() >= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    };
    let (this, of) = text.split_once("-of-")?;
    Some((number(this)?, number(of)?))
}

/// `NAME-00002-of-00005` → `NAME` and (2, 5).
fn numbers_at_end(text: &str) -> Option<(&str, (u64, u64))> {
    let (rest, _) = text.rsplit_once("-of-")?;
    let (name, _) = rest.rsplit_once('-')?;
    Some((name, shard_numbers(text.get(name.len() + 1..)?)?))
}

/// The shard's number and count in a name: (2, 5) of `ANYTHING-00002-of-00005.bin`, also with a
/// variant behind the numbers.
pub(crate) fn shard_of(name: &str) -> Option<(u64, u64)> {
    let (stem, _) = name.rsplit_once('.')?;
    let numbers = numbers_at_end(stem).or_else(|| numbers_at_end(stem.rsplit_once('.')?.0));
    numbers.map(|found| found.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_those_of_transformers_and_diffusers() {
        let [ours, theirs] = WeightNames::ALL;
        let [bin, safe] = WeightFormat::ALL;
        assert_eq!(ours.shards(bin, 1), ["pytorch_model.bin"]);
        assert_eq!(
            ours.shards(bin, 2),
            ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
        );
        assert_eq!(ours.shards(bin, 100_000)[0], "pytorch_model-00001-of-100000.bin");
        assert!(ours.shards(bin, 0).is_empty());
        assert_eq!(ours.shards(safe, 1), ["model.safetensors"]);
        assert_eq!(ours.shards(safe, 2)[1], "model-00002-of-00002.safetensors");
        assert_eq!(ours.index(safe), "model.safetensors.index.json");
        assert_eq!(theirs.shards(bin, 1), ["diffusion_pytorch_model.bin"]);
        assert_eq!(theirs.shards(bin, 3)[2], "diffusion_pytorch_model-00003-of-00003.bin");
        assert_eq!(theirs.index(bin), "diffusion_pytorch_model.bin.index.json");
        assert_eq!(theirs.single(safe), "diffusion_pytorch_model.safetensors");
    }

    #[test]
    fn every_spelling_of_a_variant_is_taken_apart() {
        let (ours, theirs) = (WeightNames::Transformers, WeightNames::Diffusers);
        for (name, names, variant, role) in [
            ("pytorch_model.bin", ours, None, WeightRole::Single),
            ("pytorch_model.bin.index.json", ours, None, WeightRole::Index),
            ("pytorch_model-00001-of-00002.bin", ours, None, WeightRole::Shard),
            ("pytorch_model.fp16.bin", ours, Some("fp16"), WeightRole::Single),
            ("pytorch_model.v1.5.bin", ours, Some("v1.5"), WeightRole::Single),
            ("pytorch_model.fp16-00001-of-00002.bin", ours, Some("fp16"), WeightRole::Shard),
            ("pytorch_model.bin.index.fp16.json", ours, Some("fp16"), WeightRole::Index),
            ("diffusion_pytorch_model.bin", theirs, None, WeightRole::Single),
            ("diffusion_pytorch_model.bin.index.json", theirs, None, WeightRole::Index),
            ("diffusion_pytorch_model.non_ema.bin", theirs, Some("non_ema"), WeightRole::Single),
            (
                "diffusion_pytorch_model-00001-of-00002.fp16.bin",
                theirs,
                Some("fp16"),
                WeightRole::Shard,
            ),
            (
                "diffusion_pytorch_model.bin.fp16.index.json",
                theirs,
                Some("fp16"),
                WeightRole::Index,
            ),
        ] {
            assert_eq!(
                WeightName::parse(name),
                Some(WeightName { names, format: WeightFormat::Bin, variant, role }),
                "{name}"
            );
            // The same in safetensors.
            let name = name.replacen("bin", "safetensors", 1).replace("pytorch_model", "model");
            let name = name.replace("diffusion_model", "diffusion_pytorch_model");
            let format = WeightFormat::Safetensors;
            let expected = Some(WeightName { names, format, variant, role });
            assert_eq!(WeightName::parse(&name), expected, "{name}");
        }
    }

    #[test]
    fn other_names_are_nobodys() {
        for name in [
            "pytorch_model",
            "pytorch_model_1.bin",
            "pytorch_model..bin",
            "pytorch_model.bin.bin",
            "pytorch_model.bin.json",
            "pytorch_model.bin.index..json",
            "pytorch_model.safetensors",
            "pytorch_model-1-of-2.bin",
            "my_pytorch_model.bin",
            "model.bin",
            "model.pt",
            "model.safetensors.safetensors",
            "model_1.safetensors",
            "my_model.safetensors",
        ] {
            assert_eq!(WeightName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_shard_tells_its_number() {
        for (name, numbers) in [
            ("pytorch_model-00001-of-00002.bin", (1, 2)),
            ("model-0003-of-0010.pt", (3, 10)),
            ("pytorch_model.fp16-00002-of-00002.bin", (2, 2)),
            ("diffusion_pytorch_model-00001-of-00002.fp16.bin", (1, 2)),
        ] {
            assert_eq!(shard_of(name), Some(numbers), "{name}");
        }
        for name in ["pytorch_model.bin", "a-of-b.bin", "1-of-2.bin", "-of-.bin", "00001-of-00002"]
        {
            assert_eq!(shard_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_shard_names_its_index() {
        let index = |name| WeightName::parse(name).map(WeightName::index);
        let variant = index("pytorch_model.fp16-00001-of-00002.bin");
        assert_eq!(variant.as_deref(), Some("pytorch_model.bin.index.fp16.json"));
        let plain = index("diffusion_pytorch_model-00001-of-00002.bin");
        assert_eq!(plain.as_deref(), Some("diffusion_pytorch_model.bin.index.json"));
        let safe = index("model.fp16-00001-of-00002.safetensors");
        assert_eq!(safe.as_deref(), Some("model.safetensors.index.fp16.json"));
    }
}
