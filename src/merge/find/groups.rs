//! Groups checkpoints that fit each other: a plan can be made of any two, whichever is the primary.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::checkpoint::Checkpoint;
use crate::merge::find::sizes::Size;
use crate::merge::names::buffers::is_buffer;
use crate::merge::options::MergeOptions;
use crate::merge::plan::merge_plan::plan;

/// Keys of config.json that decide nothing and differ from save to save.
const IDLE_KEYS: [&str; 5] =
    ["_name_or_path", "transformers_version", "use_cache", "torch_dtype", "dtype"];

/// Fewest pairs that are worth a thread.
const LEAST_SHARE: usize = 32;

/// Which checkpoints merge with the default options, by their places in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fits {
    /// Groups any two of which merge, each as the primary of the other.
    pub groups: Vec<Vec<usize>>,
    /// Pairs that merge with the first as the primary, and are refused the other way round.
    pub one_way: Vec<(usize, usize)>,
}

/// Whether two checkpoints merge with the default options, each as the primary of the other.
pub fn fits(a: &Checkpoint, b: &Checkpoint) -> bool {
    fit(a, b) == (true, true)
}

/// Whether `a` merges as the primary of `b`, and `b` as the primary of `a`.
fn fit(a: &Checkpoint, b: &Checkpoint) -> (bool, bool) {
    let options = MergeOptions::default();
    (plan(a, b, &options).is_ok(), plan(b, a, &options).is_ok())
}

/// The groups of checkpoints any two of which fit each other, by their places in `models`: each of two
/// or more and none part of another, in the order of their first members. Two that fit are together
/// in one group at least; a checkpoint that fits two which don't fit each other is in several. And the
/// pairs that merge in one order only.
///
/// Only headers are asked for: `files` may be empty.
pub fn groups(models: &[&Checkpoint]) -> Fits {
    let kinds = kinds(models);
    let (fitting, one_way) = fitting(models, &kinds);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut covered: HashSet<(usize, usize)> = HashSet::new();
    for kind in 0..kinds.len() {
        let mut partners: Vec<usize> = fitting[kind].iter().copied().collect();
        partners.sort_unstable();
        for partner in partners.into_iter().filter(|partner| *partner >= kind) {
            if covered.contains(&(kind, partner)) {
                continue;
            }
            let mut members = vec![kind, partner];
            members.dedup();
            for other in 0..kinds.len() {
                let fits_all = members.iter().all(|member| fitting[*member].contains(&other));
                if fits_all && !members.contains(&other) {
                    members.push(other);
                }
            }
            for member in &members {
                covered.extend(members.iter().map(|other| (*member, *other)));
            }
            let mut places: Vec<usize> =
                members.iter().flat_map(|member| kinds[*member].iter().copied()).collect();
            places.sort_unstable();
            groups.push(places);
        }
    }
    groups.sort();
    let pairs = one_way.into_iter().flat_map(|(primary, secondary)| {
        let kinds = &kinds;
        kinds[primary].iter().flat_map(move |a| kinds[secondary].iter().map(move |b| (*a, *b)))
    });
    let mut one_way: Vec<(usize, usize)> = pairs.collect();
    one_way.sort_unstable();
    Fits { groups, one_way }
}

/// Places of the models, grouped by all that a plan is made from: those of one kind give equal plans.
fn kinds(models: &[&Checkpoint]) -> Vec<Vec<usize>> {
    let mut known: HashMap<u64, usize> = HashMap::new();
    let mut kinds: Vec<Vec<usize>> = Vec::new();
    for (place, model) in models.iter().enumerate() {
        let kind = *known.entry(signature(model)).or_insert(kinds.len());
        match kinds.get_mut(kind) {
            Some(places) => places.push(place),
            None => kinds.push(vec![place]),
        }
    }
    kinds
}

/// Kinds that merge with the first as the primary, and not the other way round.
type OneWay = Vec<(usize, usize)>;

/// The kinds that each kind fits, itself included where two models of it fit each other.
fn fitting(models: &[&Checkpoint], kinds: &[Vec<usize>]) -> (Vec<HashSet<usize>>, OneWay) {
    let mut one_way = Vec::new();
    let mut fitting = vec![HashSet::new(); kinds.len()];
    let first: Vec<&Checkpoint> =
        kinds.iter().filter_map(|places| models.get(*places.first()?).copied()).collect();
    let mut sizes: Vec<(Size, usize)> = Vec::new();
    for (kind, model) in first.iter().enumerate() {
        if kinds[kind].len() > 1 {
            // Two of a kind that don't fit each other can't be in one group with a third.
            if !fits(model, model) {
                continue;
            }
            fitting[kind].insert(kind);
        }
        sizes.push((Size::of(model), kind));
    }
    sizes.sort_unstable();
    let pairs = sizes.iter().enumerate().flat_map(|(at, (size, a))| {
        // All that follow are larger still.
        let behind = sizes[at + 1..].iter().take_while(|(other, _)| size.may_fit(*other));
        behind.map(|(_, b)| (*a, *b))
    });
    for (a, b, fit) in fitting_pairs(&first, &pairs.collect::<Vec<_>>()) {
        match fit {
            (true, true) => {
                fitting[a].insert(b);
                fitting[b].insert(a);
            }
            (true, false) => one_way.push((a, b)),
            (false, _) => one_way.push((b, a)),
        }
    }
    (fitting, one_way)
}

/// Two kinds, and in which orders they merge.
type Fitting = (usize, usize, (bool, bool));

/// Those of `pairs` that merge in one order at least, planned on all cores: a plan of a large model
/// takes a millisecond.
fn fitting_pairs(models: &[&Checkpoint], pairs: &[(usize, usize)]) -> Vec<Fitting> {
    let fit = |part: &[(usize, usize)]| {
        let fit = part.iter().map(|(a, b)| (*a, *b, fit(models[*a], models[*b])));
        fit.filter(|(_, _, fit)| *fit != (false, false)).collect::<Vec<_>>()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = pairs.len().div_ceil(cores).max(LEAST_SHARE);
    if pairs.len() <= share {
        return fit(pairs);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = pairs.chunks(share).map(|part| scope.spawn(|| fit(part))).collect();
        // A panic goes on, as it would without threads.
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(fit) => fit,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    })
}

/// Equal for models that give equal plans. 64 bits are enough to tell thousands of models apart.
fn signature(model: &Checkpoint) -> u64 {
    let mut hasher = DefaultHasher::new();
    for tensor in &model.inventory.tensors {
        (&tensor.name, tensor.dtype, &tensor.layout, tensor.storage).hash(&mut hasher);
    }
    // Equal bytes decide what is tied, and the bytes of integers whether enough is merged.
    let mut first: HashMap<(u32, u64), usize> = HashMap::new();
    for (place, storage) in model.inventory.storages.iter().enumerate() {
        storage.size_bytes.hash(&mut hasher);
        let sum = storage.crc32.map(|sum| (sum, storage.size_bytes));
        sum.map(|sum| *first.entry(sum).or_insert(place)).hash(&mut hasher);
    }
    for tensor in model.inventory.tensors.iter().filter(|tensor| !tensor.dtype.is_floating()) {
        let storage = model.inventory.storages.get(tensor.storage);
        let is_buffer = is_buffer(&tensor.name, tensor.dtype, &tensor.layout.shape);
        storage.filter(|_| !is_buffer).map(|storage| storage.crc32).hash(&mut hasher);
    }
    model.inventory.twins.hash(&mut hasher);
    model.adapter.is_some().hash(&mut hasher);
    if let Some(config) = &model.config {
        match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(config.text()) {
            Ok(mut values) => {
                IDLE_KEYS.iter().for_each(|key| drop(values.remove(*key)));
                serde_json::Value::Object(values).to_string().hash(&mut hasher);
            }
            Err(_) => config.text().hash(&mut hasher),
        }
    }
    model.config.is_some().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::merge::headers::{Headers, llama};

    fn of(models: &[Checkpoint]) -> Vec<Vec<usize>> {
        groups(&models.iter().collect::<Vec<_>>()).groups
    }

    #[test]
    fn the_fixtures_are_grouped_as_plans_can_be_made() {
        let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"));
        let names = ["llama", "gpt2", "neox"];
        let names =
            names.iter().flat_map(|name| ["primary", "secondary"].map(|p| format!("{name}/{p}")));
        let models: Vec<Checkpoint> =
            names.map(|name| Checkpoint::open(&data.join(name)).unwrap()).collect();
        assert_eq!(of(&models), [[0, 1], [2, 3], [4, 5]]);
    }

    #[test]
    fn models_of_other_names_fit_where_the_names_are_matched() {
        let wrapped = |word: &str| {
            let plain = llama(64).open();
            let shape = |tensor: &crate::checkpoint::TensorEntry| tensor.layout.shape.clone();
            let tensors = plain.inventory.tensors.iter();
            let headers = tensors.fold(Headers::new(), |headers, tensor| {
                headers.f16(&format!("{word}{}", tensor.name), &shape(tensor))
            });
            headers.open()
        };
        let models = [llama(64).open(), wrapped("_orig_mod."), llama(72).open(), wrapped("model.")];
        assert_eq!(of(&models), [[0, 1, 2, 3]]);
    }

    #[test]
    fn groups_overlap_where_one_fits_two_that_do_not_fit() {
        // A twelfth of the body more on either side.
        let body = || Headers::new().f16("a.w", &[10, 12]);
        let more = |name: &str| body().f16(name, &[8]).open();
        let models = [more("b.w"), body().open(), more("c.w"), more("b.w")];
        assert_eq!(of(&models), [vec![0, 1, 3], vec![1, 2]]);
        for group in of(&models) {
            for a in &group {
                assert!(group.iter().all(|b| a == b || fits(&models[*a], &models[*b])));
            }
        }
    }

    #[test]
    fn alone_or_with_what_it_does_not_fit_a_model_is_in_no_group() {
        assert_eq!(of(&[llama(64).open()]), [[0; 0]; 0]);
        let other = Headers::new().f16("model.norm.weight", &[33]).open();
        assert_eq!(of(&[llama(64).open(), other]), [[0; 0]; 0]);
        let complex = || Headers::new().tensor("w", crate::tensor::DType::Complex64, &[2]).open();
        assert_eq!(of(&[complex(), complex()]), [[0; 0]; 0]);
    }

    #[test]
    fn embeddings_of_any_size_do_not_hide_that_bodies_fit() {
        let model = |rows: u64| {
            Headers::new().f16("embed_tokens.weight", &[rows, 4]).f16("a.w", &[4, 4]).open()
        };
        assert_eq!(of(&[model(10_000), model(6)]), [[0, 1]]);
    }

    #[test]
    fn layers_that_are_one_tensor_fit_their_like_and_no_layers_of_their_own() {
        let names = ["b.w", "c.w", "d.w"];
        let shared = || {
            names.iter().fold(Headers::new().f16("a.w", &[9]), |h, name| h.tied(name, "a.w")).open()
        };
        let own = names.iter().fold(Headers::new().f16("a.w", &[9]), |h, name| h.f16(name, &[9]));
        assert_eq!(of(&[shared(), own.open(), shared()]), [[0, 2]]);
    }

    #[test]
    fn many_kinds_are_one_group_however_the_plans_are_shared_out() {
        let model =
            |at: u64| Headers::new().f16("a.w", &[99]).f16(&format!("b{at}.w"), &[1]).open();
        let models: Vec<Checkpoint> = (0..12).map(model).collect();
        assert_eq!(of(&models), [(0..12).collect::<Vec<_>>()]);
    }

    #[test]
    fn models_that_merge_in_one_order_only_are_told() {
        let tied = || {
            let headers = Headers::new().f16("embed_tokens.weight", &[9, 4]).f16("a.w", &[4, 4]);
            headers.tied("lm_head.weight", "embed_tokens.weight").open()
        };
        let own = || {
            let headers = Headers::new().f16("embed_tokens.weight", &[9, 4]).f16("a.w", &[4, 4]);
            headers.f16("lm_head.weight", &[9, 4]).open()
        };
        let models = [tied(), own(), tied()];
        let found = groups(&models.iter().collect::<Vec<_>>());
        assert_eq!(found, Fits { groups: vec![vec![0, 2]], one_way: vec![(1, 0), (1, 2)] });
    }

    #[test]
    fn of_bytes_only_what_decides_a_merge_makes_another_kind() {
        use crate::tensor::DType::{Int64, UInt8};
        let parent = |sums: [u32; 3]| {
            let headers = Headers::new().f16("a.w", &[3]).tensor("table", Int64, &[5]);
            let headers = headers.tensor("h.0.attn.bias", UInt8, &[1, 1, 7, 7]);
            let names = ["a.w", "table", "h.0.attn.bias"];
            names.iter().zip(sums).fold(headers, |headers, (name, sum)| headers.crc(name, sum))
        };
        // Integers are merged where they are equal; weights and buffers whatever they hold.
        for (sums, same) in [([9, 2, 3], true), ([1, 9, 3], false), ([1, 2, 9], true)] {
            let models = [parent([1, 2, 3]).open(), parent(sums).open()];
            assert_eq!(kinds(&models.each_ref()).len() == 1, same, "{sums:?}");
        }
    }

    #[test]
    fn what_differs_from_save_to_save_makes_no_other_kind() {
        let model = |text: &str| llama(64).config(text).open();
        let models = [
            model(r#"{"model_type": "llama", "_name_or_path": "a", "use_cache": true}"#),
            model(r#"{"model_type": "llama", "transformers_version": "4.57.3"}"#),
            model(r#"{"model_type": "llama", "rope_theta": 1}"#),
            llama(64).open(),
        ];
        let models: Vec<&Checkpoint> = models.iter().collect();
        assert_eq!(kinds(&models), [vec![0, 1], vec![2], vec![3]]);
    }
}
