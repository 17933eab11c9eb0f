//! Chooses a model's weights among the file names in a directory, both to open it and to find
//! models below another.

use crate::checkpoint::weights::kinds::is_weight_file;
use crate::checkpoint::weights::names::{WeightName, WeightNames, WeightRole, shard_of};
use crate::checkpoint::weights::parts::Parts;

/// What the names in a directory amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice<'n> {
    /// A model.
    Taken(Taken<'n>),
    /// Several models of equal rank, and the number of shards without an index.
    Several(Vec<&'n str>, usize),
    /// Parts of one model.
    Parts(Parts),
    /// Shards whose index is missing.
    Shards(Vec<&'n str>),
    /// No weights.
    Nothing,
}

/// The weights of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken<'n> {
    /// The only file, or the index.
    pub(crate) file: &'n str,
    /// Whether it is an index.
    pub(crate) is_index: bool,
    /// How the weight files of a child are named.
    pub(crate) names: WeightNames,
    /// Whether a loader looks for a file of this name.
    pub(crate) is_known: bool,
}

/// Chooses as `from_pretrained` of transformers and diffusers does, but `.bin` before safetensors, which
/// have no checksums: a plain name before variants and other names, a single file before an index.
pub(crate) fn choose<'n>(names: &[&'n str]) -> Choice<'n> {
    let known: Vec<(WeightName<'n>, &'n str)> = names
        .iter()
        .filter_map(|name| Some((WeightName::parse(name)?, *name)))
        .filter(|(name, _)| name.role != WeightRole::Shard)
        .collect();
    let has_shards = |index: &WeightName<'_>| {
        let same = |name: WeightName<'_>| {
            name.role == WeightRole::Shard
                && (name.names, name.format, name.variant)
                    == (index.names, index.format, index.variant)
        };
        names.iter().filter_map(|name| WeightName::parse(name)).any(same)
    };
    // A download of one format often leaves the index of the other without its shards.
    let (mut known, bare): (Vec<_>, Vec<_>) =
        known.into_iter().partition(|(name, _)| name.role != WeightRole::Index || has_shards(name));
    let stand_in = |bare: &WeightName<'_>| {
        known.iter().any(|(name, _)| (name.names, name.variant) == (bare.names, bare.variant))
    };
    let bare: Vec<_> = bare.into_iter().filter(|(name, _)| !stand_in(name)).collect();
    known.extend(bare);
    known.sort_by_key(|(name, file)| {
        (name.variant, name.names, name.format, name.role == WeightRole::Index, *file)
    });
    // A single file wins over the index of the same weights.
    known.dedup_by_key(|(name, _)| (name.variant, name.names));
    let (plain, variants): (Vec<_>, Vec<_>) =
        known.into_iter().partition(|(name, _)| name.variant.is_none());
    let several = |files: &[(WeightName<'n>, &'n str)]| files.iter().map(|file| file.1).collect();
    match plain.as_slice() {
        [] => {}
        [only] => return Choice::Taken(Taken::known(*only)),
        plain => return Choice::Several(several(plain), 0),
    }
    let mut weights: Vec<&str> =
        names.iter().copied().filter(|name| is_weight_file(name.as_ref())).collect();
    weights.sort_unstable();
    // Of one name in both formats, `.bin`.
    let bin = |name: &str| Some(format!("{}.bin", name.strip_suffix(".safetensors")?));
    weights.retain(|name| bin(name).is_none_or(|bin| !names.contains(&bin.as_str())));
    let (shards, loose): (Vec<_>, Vec<_>) =
        weights.into_iter().partition(|name| shard_of(name).is_some());
    let parts = Parts::among(loose.iter().copied());
    let is_part = |name: &str| parts.as_ref().is_some_and(|parts| parts.holds(name));
    let others: Vec<&str> = loose
        .iter()
        .copied()
        .filter(|name| WeightName::parse(name).is_none() && !is_part(name))
        .collect();
    if let ([only], []) = (variants.as_slice(), others.as_slice()) {
        return Choice::Taken(Taken::known(*only));
    }
    if !variants.is_empty() {
        let mut files: Vec<&str> = several(&variants);
        files.extend(others);
        return Choice::Several(files, 0);
    }
    if let Some(parts) = parts {
        return Choice::Parts(parts);
    }
    match (loose.as_slice(), shards.as_slice()) {
        ([], []) => Choice::Nothing,
        ([only], []) => Choice::Taken(Taken::other(only)),
        // Shard 1 of 1 is the whole model.
        ([], [only]) if shard_of(only).is_some_and(|(_, of)| of == 1) => {
            Choice::Taken(Taken::other(only))
        }
        ([], _) => Choice::Shards(shards),
        _ => Choice::Several(loose, shards.len()),
    }
}

impl<'n> Taken<'n> {
    fn known((name, file): (WeightName<'n>, &'n str)) -> Taken<'n> {
        let is_index = name.role == WeightRole::Index;
        Taken { file, is_index, names: name.names, is_known: true }
    }

    fn other(file: &'n str) -> Taken<'n> {
        let names = WeightName::parse(file).map_or_else(WeightNames::default, |name| name.names);
        Taken { file, is_index: false, names, is_known: false }
    }
}

/// The files that loaders would take for weights and that were not taken here: single files and
/// indices first, then shards.
pub(crate) fn not_taken<'n>(names: &[&'n str], taken: &dyn Fn(&str) -> bool) -> Vec<&'n str> {
    let mut found: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| {
            WeightName::parse(name).is_some()
                || name.ends_with(".safetensors")
                || name.ends_with(".safetensors.index.json")
        })
        .filter(|name| !taken(name))
        .collect();
    found.sort_by_key(|name| (shard_of(name).is_some(), *name));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "pytorch_model.bin";
    const INDEX: &str = "pytorch_model.bin.index.json";
    const FP16: &str = "pytorch_model.fp16.bin";
    const FP16_INDEX: &str = "pytorch_model.bin.index.fp16.json";
    const DIFFUSION: &str = "diffusion_pytorch_model.bin";

    fn taken<'n>(names: &[&'n str]) -> Option<&'n str> {
        match choose(names) {
            Choice::Taken(taken) => Some(taken.file),
            _ => None,
        }
    }

    #[test]
    fn a_plain_name_goes_before_variants_and_others_and_a_file_before_an_index() {
        assert_eq!(taken(&[FP16, INDEX, PLAIN, "model.pt"]), Some(PLAIN));
        assert_eq!(taken(&[FP16, FP16_INDEX, INDEX, "model.pt"]), Some(INDEX));
        assert_eq!(taken(&["consolidated.00.pth", "consolidated.01.pth", PLAIN]), Some(PLAIN));
        assert_eq!(taken(&[DIFFUSION, "diffusion_pytorch_model.fp16.bin"]), Some(DIFFUSION));
    }

    #[test]
    fn one_variant_is_taken_as_a_file_or_by_its_index() {
        assert_eq!(taken(&[FP16]), Some(FP16));
        assert_eq!(taken(&[FP16, FP16_INDEX]), Some(FP16));
        let shards =
            ["pytorch_model.fp16-00001-of-00002.bin", "pytorch_model.fp16-00002-of-00002.bin"];
        assert_eq!(taken(&[&shards[..], &[FP16_INDEX, "config.json"]].concat()), Some(FP16_INDEX));
        assert_eq!(taken(&[FP16, "consolidated.00.pth", "consolidated.01.pth"]), Some(FP16));
    }

    #[test]
    fn of_several_none_is_taken() {
        for names in [
            &[FP16, "pytorch_model.ema.bin"][..],
            &[FP16_INDEX, "pytorch_model.bin.index.bf16.json"],
            &[FP16, "model.pt"],
            &[PLAIN, DIFFUSION],
            &["a.pt", "b.pt"],
        ] {
            let Choice::Several(mut files, 0) = choose(names) else { panic!("{names:?}") };
            files.sort_unstable();
            let mut names = names.to_vec();
            names.sort_unstable();
            assert_eq!(files, names);
        }
        let mixed = ["a.pt", "pytorch_model-00001-of-00002.bin"];
        assert_eq!(choose(&mixed), Choice::Several(vec!["a.pt"], 1));
    }

    #[test]
    fn only_files_of_no_known_name_are_taken_alone() {
        assert_eq!(taken(&["model.pt", "optimizer.pt", "config.json"]), Some("model.pt"));
        assert_eq!(taken(&["consolidated.00.pth"]), Some("consolidated.00.pth"));
        let only = "pytorch_model-00001-of-00001.bin";
        assert_eq!(taken(&[only]), Some(only));
        assert_eq!(choose(&["config.json"]), Choice::Nothing);
        let shard = "pytorch_model-00001-of-00002.bin";
        assert_eq!(choose(&[shard]), Choice::Shards(vec![shard]));
        let parts = choose(&["hf_model_0001_0.pt", "hf_model_0002_0.pt", "config.json"]);
        assert!(matches!(parts, Choice::Parts(_)));
    }

    #[test]
    fn safetensors_are_taken_where_there_is_no_bin() {
        const SAFE: &str = "model.safetensors";
        const SAFE_INDEX: &str = "model.safetensors.index.json";
        const SAFE_SHARD: &str = "model-00001-of-00002.safetensors";
        const SHARD: &str = "pytorch_model-00001-of-00002.bin";
        for (names, expected) in [
            (&[SAFE, "config.json"][..], SAFE),
            (&[SAFE, PLAIN], PLAIN),
            (&[SAFE, SAFE_INDEX, SAFE_SHARD], SAFE),
            (&[SAFE, INDEX, SHARD], INDEX),
            (&[SAFE_INDEX, SAFE_SHARD, PLAIN], PLAIN),
            (&[SAFE_INDEX, SAFE_SHARD, INDEX, SHARD], INDEX),
            // What `hf download --exclude '*.bin'` leaves.
            (&[SAFE_INDEX, SAFE_SHARD, INDEX], SAFE_INDEX),
            (&[SAFE, INDEX], SAFE),
            (&[INDEX, SAFE_INDEX], INDEX),
            (&[INDEX], INDEX),
            // A plain name before a variant, whatever its format.
            (&[SAFE, FP16], SAFE),
            (&[FP16, "model.fp16.safetensors"], FP16),
            (&["model.fp16.safetensors", "config.json"], "model.fp16.safetensors"),
            (&["unet.safetensors", "unet.bin"], "unet.bin"),
            (&["unet.safetensors", "training_args.bin"], "unet.safetensors"),
            (&[SAFE, "consolidated.safetensors"], SAFE),
        ] {
            assert_eq!(taken(names), Some(expected), "{names:?}");
        }
        assert_eq!(choose(&[SAFE_SHARD]), Choice::Shards(vec![SAFE_SHARD]));
        let several = choose(&["a.safetensors", "b.pt"]);
        assert_eq!(several, Choice::Several(vec!["a.safetensors", "b.pt"], 0));
        let both = [SAFE, "diffusion_pytorch_model.safetensors"];
        assert!(matches!(choose(&both), Choice::Several(..)));
    }

    #[test]
    fn a_child_is_called_as_its_primarys_loader_looks_for_it() {
        let names = |file| match choose(&[file]) {
            Choice::Taken(taken) => taken.names,
            other => panic!("{other:?}"),
        };
        assert_eq!(names(PLAIN), WeightNames::Transformers);
        assert_eq!(names("model.pt"), WeightNames::Transformers);
        assert_eq!(names(DIFFUSION), WeightNames::Diffusers);
        assert_eq!(names("diffusion_pytorch_model.bin.index.fp16.json"), WeightNames::Diffusers);
    }

    #[test]
    fn weights_that_other_programs_would_take_are_known_by_name() {
        let names = [
            "model.safetensors",
            "pytorch_model-00001-of-00002.bin",
            INDEX,
            FP16,
            PLAIN,
            "training_args.bin",
            "config.json",
            "tokenizer.model",
        ];
        let others = not_taken(&names, &|name| name == PLAIN);
        let expected = ["model.safetensors", INDEX, FP16, "pytorch_model-00001-of-00002.bin"];
        assert_eq!(others, expected);
    }
}
