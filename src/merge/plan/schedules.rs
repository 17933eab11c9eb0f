//! Computes t of each tensor of the plan, in each child.

use std::collections::BTreeSet;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Kind, Result};
use crate::merge::names::heads::is_head;
use crate::merge::options::MergeOptions;
use crate::merge::plan::planned::{Action, PlannedStorage, PlannedTensor};
use crate::merge::recipe::layers::{Layers, layer};
use crate::merge::recipe::schedule::{Child, Filter};
use crate::merge::recipe::slices::{Slice, place};
use crate::merge::warning::Warning;
use crate::tensor::escape;

/// Sets t of every storage that both parents go into, one for each child.
///
/// # Errors
/// [`Kind::Usage`] where a filter fits no tensor, or no filter fits a tensor and nothing is said of the
/// rest; [`Kind::Data`] where a list is to be spread over layers that are not as many as config.json
/// says.
pub(crate) fn set_t(
    primary: &Checkpoint,
    options: &MergeOptions,
    tensors: &[PlannedTensor],
    storages: &mut [PlannedStorage],
    warnings: &mut Vec<Warning>,
) -> Result<()> {
    let filters = || options.children.iter().flat_map(|child| &child.schedule.filters);
    check_children(&options.children)?;
    let config = primary.config.as_ref().map(|config| config.values());
    let by_layer = filters().any(|filter| !filter.t.is_flat()) || !options.slices.is_empty();
    let places = Places {
        layers: if by_layer { layers(primary, tensors, config)? } else { Layers::default() },
        slices: &options.slices,
    };
    let mut outside = BTreeSet::new();
    for (place, storage) in storages.iter_mut().enumerate() {
        if !matches!(storage.action, Action::Slerp | Action::Linear) {
            continue;
        }
        let at = places.of(&storage.name);
        let mut t = Vec::with_capacity(options.children.len());
        for child in &options.children {
            t.push(t_of(child, &storage.name, at)?);
            let filter = filter_of(child, &storage.name, at);
            if at.x.is_none() && filter.is_some_and(|filter| !filter.t.is_flat()) {
                outside.insert(place);
            }
        }
        storage.t = t;
    }
    check_filters(options, tensors, warnings)?;
    if !outside.is_empty() {
        let name = |place: &usize| storages.get(*place).map(|storage| storage.name.clone());
        let names = outside.iter().filter_map(name).collect();
        warnings.push(Warning::OutsideLayers { names });
    }
    let differs = |tensor: &&PlannedTensor| {
        let storage = &storages[tensor.storage];
        let at = places.of(&tensor.name);
        let children = options.children.iter().zip(&storage.t);
        tensor.name != storage.name
            && children.into_iter().any(|(child, t)| {
                t_of(child, &tensor.name, at).is_ok_and(|own| own.to_bits() != t.to_bits())
            })
    };
    for tensor in tensors.iter().filter(differs) {
        let first = storages[tensor.storage].name.clone();
        warnings.push(Warning::TiedT { name: tensor.name.clone(), first });
    }
    Ok(())
}

fn layers(
    primary: &Checkpoint,
    tensors: &[PlannedTensor],
    config: Option<&serde_json::Map<String, serde_json::Value>>,
) -> Result<Layers> {
    let layers = Layers::of(tensors.iter().map(|tensor| tensor.name.as_str()), config);
    match layers.disagreement() {
        None => Ok(layers),
        Some((expected, found)) => {
            let expected = format!("as many layers as config.json says, {expected}");
            Err(Error::new(Kind::Data, "values of t can't be spread over the layers")
                .file(&primary.path)
                .expected(expected, escape(&found)))
        }
    }
}

/// Where the tensors of a child stand.
struct Places<'p> {
    layers: Layers,
    slices: &'p [Slice],
}

/// Where a tensor stands.
#[derive(Clone, Copy)]
struct Place<'p> {
    slice: Option<&'p Slice>,
    /// 0..=1 along the layers; `None` outside.
    x: Option<f64>,
}

impl<'p> Places<'p> {
    fn of(&self, name: &str) -> Place<'p> {
        let x = self.layers.place(name);
        let number = layer(name).filter(|_| x.is_some()).map(|layer| layer.number);
        match number.and_then(|number| place(self.slices, number)) {
            Some((slice, x)) => Place { slice: Some(slice), x: Some(x) },
            // As in mergekit: what comes before the layers is of the first slice, the rest of the last.
            None if is_before_layers(name) => Place { slice: self.slices.first(), x },
            None => Place { slice: self.slices.last(), x },
        }
    }
}

/// Whether a tensor outside the layers is one of the embeddings, which come first.
fn is_before_layers(name: &str) -> bool {
    !is_head(name) && ["emb", "wte", "wpe"].iter().any(|piece| name.contains(piece))
}

fn filter_of<'f>(child: &'f Child, name: &str, at: Place<'f>) -> Option<&'f Filter> {
    let own = at.slice.and_then(|slice| slice.filters.iter().find(|filter| filter.fits(name)));
    own.or_else(|| child.schedule.filter_of(name))
}

fn t_of(child: &Child, name: &str, at: Place<'_>) -> Result<f64> {
    // As in mergekit, what is outside the layers stands where they begin.
    let of = |filter: &Filter| filter.t.at(at.x.unwrap_or(0.0));
    let t = filter_of(child, name, at).map_or(child.schedule.rest, of);
    t.ok_or_else(|| {
        Error::new(Kind::Usage, "nothing says what t of a tensor is")
            .tensor(name)
            .expected("a filter that fits it, or a value without a filter", "neither")
            .with_hint("add a last entry without a filter: `- value: 0.5`")
    })
}

/// Children that differ in what is left to no tensor would be one child twice.
fn check_children(children: &[Child]) -> Result<()> {
    let same = |(place, child): (usize, &Child)| {
        let filters = &child.schedule.filters;
        let mut before = children.iter().take(place);
        filters.iter().any(Filter::fits_all)
            && before.any(|other| other.schedule.filters == *filters)
    };
    if !children.iter().enumerate().any(same) {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, "several values of t, and a filter that fits all tensors")
        .expected("tensors that no filter fits", "none, so all children would be the same"))
}

/// A filter that fits no tensor is most likely a slip of the pen.
fn check_filters(
    options: &MergeOptions,
    tensors: &[PlannedTensor],
    warnings: &mut Vec<Warning>,
) -> Result<()> {
    let mut told = BTreeSet::new();
    let of_slices = options.slices.iter().flat_map(|slice| &slice.filters);
    let of_children = options.children.iter().flat_map(|child| &child.schedule.filters);
    for filter in of_slices.chain(of_children) {
        let fits = tensors.iter().any(|tensor| filter.fits(&tensor.name));
        if fits || !told.insert(&filter.filter) {
            continue;
        }
        if !options.foreign_filters {
            return Err(Error::new(Kind::Usage, "a filter of t fits no tensor")
                .expected("a piece of a tensor's name", format!("`{}`", escape(&filter.filter)))
                .with_hint("`plan` without it lists the names"));
        }
        warnings.push(Warning::FilterFitsNone { filter: filter.filter.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::error::Kind;
    use crate::merge::headers::{Headers, llama};
    use crate::merge::{Child, Filter, MergeOptions, MergePlan, Schedule, Warning, plan};
    use crate::tensor::DType;

    fn filters(texts: &[&str]) -> Vec<Filter> {
        texts.iter().map(|text| Filter::parse(text).unwrap()).collect()
    }

    fn options(texts: &[&str], rest: Option<f64>) -> MergeOptions {
        let schedule = Schedule { filters: filters(texts), rest };
        let children = vec![Child { name: "x".to_owned(), schedule }];
        MergeOptions { children, ..MergeOptions::default() }
    }

    fn t_of<'p>(plan: &'p MergePlan, piece: &str) -> &'p [f64] {
        &plan.storages.iter().find(|storage| storage.name.contains(piece)).unwrap().t
    }

    #[test]
    fn each_tensor_has_its_t_in_each_child() {
        let parent = llama(8).tensor("ids", DType::Int64, &[4]).open();
        let children = Child::each(&[0.1, 0.2], &filters(&["self_attn=0,1", "mlp.up=0.3"]));
        let options = MergeOptions { children, ..MergeOptions::default() };
        let plan = plan(&parent, &parent, &options).unwrap();
        for (piece, expected) in [
            ("layers.0.self_attn.q", &[0.0, 0.0][..]),
            ("layers.1.self_attn.q", &[1.0, 1.0]),
            ("layers.1.mlp.up", &[0.3, 0.3]),
            ("layers.1.mlp.down", &[0.1, 0.2]),
            ("lm_head", &[0.1, 0.2]),
            ("ids", &[]),
        ] {
            assert_eq!(t_of(&plan, piece), expected, "{piece}");
        }
    }

    #[test]
    fn a_list_gives_what_is_outside_the_layers_its_first_value_and_says_so() {
        let parent = llama(8).config(r#"{"vocab_size": 8, "num_hidden_layers": 2}"#).open();
        let made = plan(&parent, &parent, &options(&["*=0.25,1"], None)).unwrap();
        assert_eq!((t_of(&made, "embed")[0], t_of(&made, "lm_head")[0]), (0.25, 0.25));
        let names = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"];
        let names = names.map(str::to_owned).to_vec();
        assert_eq!(made.warnings, [Warning::OutsideLayers { names }]);
        let flat = plan(&parent, &parent, &options(&["*=0.25,0.25"], None)).unwrap();
        assert_eq!(flat.warnings, []);
    }

    #[test]
    fn filters_that_fit_nothing_and_tensors_without_t_are_refused() {
        let parent = llama(8).open();
        let slip = options(&["self_atn=0"], Some(0.5));
        let error = plan(&parent, &parent, &slip).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("`self_atn`"), "{error}");
        let foreign = MergeOptions { foreign_filters: true, ..slip };
        let told = plan(&parent, &parent, &foreign).unwrap().warnings;
        assert!(told.contains(&Warning::FilterFitsNone { filter: "self_atn".to_owned() }));
        let error = plan(&parent, &parent, &options(&["mlp=0"], None)).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert_eq!(error.tensor_name(), Some("model.embed_tokens.weight"));
    }

    #[test]
    fn several_t_that_no_tensor_is_left_for_are_refused() {
        let parent = llama(8).open();
        let options = |texts: &[&str]| {
            let children = Child::each(&[0.1, 0.2], &filters(texts));
            MergeOptions { children, ..MergeOptions::default() }
        };
        let error = plan(&parent, &parent, &options(&["mlp=0", "*=0.3"])).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(plan(&parent, &parent, &options(&["mlp=0"])).is_ok());
    }

    #[test]
    fn layers_that_are_not_those_of_the_config_are_refused_where_it_matters() {
        let parent = llama(8).config(r#"{"vocab_size": 8, "num_hidden_layers": 3}"#).open();
        let error = plan(&parent, &parent, &options(&["mlp=0,1"], Some(0.5))).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("model.layers.N: 2"), "{error}");
        assert!(plan(&parent, &parent, &options(&["mlp=0.3"], Some(0.5))).is_ok());
    }

    #[test]
    fn a_filter_for_a_second_name_of_a_tensor_is_told_to_be_of_no_use() {
        let parent = Headers::new().f16("wte.weight", &[8, 4]).tied("lm_head.weight", "wte.weight");
        let parent = parent.f16("h.0.w", &[9]).open();
        let made = plan(&parent, &parent, &options(&["lm_head=0"], Some(0.5))).unwrap();
        assert_eq!(t_of(&made, "wte"), [0.5]);
        let (name, first) = ("lm_head.weight".to_owned(), "wte.weight".to_owned());
        assert!(made.warnings.contains(&Warning::TiedT { name, first }));
    }
}
