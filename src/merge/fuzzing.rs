//! The body of the fuzz target for plans, which the tests run too: makes two parents of any bytes,
//! and checks the plans of their merges.

use std::collections::HashSet;

use crate::checkpoint::{
    Checkpoint, Inventory, SpecialTokens, StorageEntry, TensorEntry, Vocabulary, WeightNames,
};
use crate::format::{ByteOrder, EmitTensor, Encoding, ReadOptions, WeightFormat, fuzzing};
use crate::merge::options::{Extend, MergeOptions, Method, Missing};
use crate::merge::plan::merge_plan::{MergePlan, plan as make};
use crate::merge::plan::planned::Action;
use crate::merge::recipe::schedule::{Child, Filter};
use crate::tensor::{DType, Layout};

/// Names that pairing and vocabulary treat differently, and two that they don't know.
const NAMES: [&str; 24] = [
    "model.embed_tokens.weight",
    "lm_head.weight",
    "lm_head.bias",
    "transformer.wte.weight",
    "model.layers.0.mlp.weight",
    "model.layers.1.mlp.weight",
    "model.layers.2.mlp.weight",
    "model.norm.weight",
    "h.0.attn.bias",
    "h.1.attn.bias",
    "rotary.inv_freq",
    "position_ids",
    "decoder.bias",
    "output.weight",
    "x",
    "",
    "_orig_mod.model.norm.weight",
    "module.model.norm.weight",
    "model.model.norm.weight",
    "layers.1._checkpoint_wrapped_module.mlp.weight",
    "model.layers.1.module.mlp.weight",
    "transformer.h.0.attn.bias",
    "a.LayerNorm.gamma",
    "a.LayerNorm.weight",
];

/// dtypes of every kind: floating, narrow, integer, boolean, complex, packed.
const DTYPES: [DType; 8] = [
    DType::Float16,
    DType::Float32,
    DType::BFloat16,
    DType::Float8E4M3Fn,
    DType::Int64,
    DType::Bool,
    DType::Complex64,
    DType::Float4E2M1FnX2,
];

/// Sizes of dimensions: small ones, and those whose products overflow.
const SIZES: [u64; 8] = [0, 1, 2, 3, 7, 8, 1 << 20, 1 << 40];

/// Reads numbers from bytes, and zeros past their end.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        self.0.next().copied().map_or(0, usize::from)
    }

    fn pick<T: Copy>(&mut self, from: &[T], otherwise: T) -> T {
        let place = self.next().checked_rem(from.len()).unwrap_or(0);
        from.get(place).copied().unwrap_or(otherwise)
    }
}

/// Makes two parents of the bytes and checks the plans of their merges; says whether there is one.
pub fn plan(bytes: &[u8]) -> bool {
    let mut bytes = Bytes(bytes.iter());
    let options = options(&mut bytes);
    let (primary, secondary) = (parent(&mut bytes), parent(&mut bytes));
    let mut accepted = false;
    for (a, b) in [(&primary, &secondary), (&secondary, &primary), (&primary, &primary)] {
        match make(a, b, &options) {
            Ok(plan) => {
                check(&plan, a, b);
                accepted = true;
            }
            Err(error) => assert!(matches!(error.kind().exit_code(), 2 | 65), "{error}"),
        }
    }
    accepted
}

fn options(bytes: &mut Bytes<'_>) -> MergeOptions {
    let extends = [Extend::Gradient, Extend::Bridge, Extend::Inherit, Extend::Error];
    let missing = [None, Some(Missing::Primary), Some(Missing::Union), Some(Missing::Error)];
    MergeOptions {
        method: bytes.pick(&[Method::Slerp, Method::Linear], Method::Slerp),
        dtype: bytes.pick(&[None, Some(DType::Float32), Some(DType::Float16)], None),
        max_shard_bytes: bytes.pick(&[5_000_000_000, 0, 1, 64, 1 << 21], 0),
        extend: bytes.pick(&extends, Extend::Zero),
        missing: bytes.pick(&missing, None),
        children: children(bytes),
        format: bytes.pick(&[None, Some(WeightFormat::Safetensors)], None),
        ..MergeOptions::default()
    }
}

fn children(bytes: &mut Bytes<'_>) -> Vec<Child> {
    let texts = ["*=0,1", "w=0.5", "0=0.1,1,0", "absent=1", ""];
    let filters = (0..bytes.next() % 3).map(|_| bytes.pick(&texts, ""));
    let filters: Vec<Filter> = filters.filter_map(|text| Filter::parse(text).ok()).collect();
    Child::each(bytes.pick(&[&[0.5][..], &[0.0, 1.0]], &[0.25]), &filters)
}

/// A parent as the reader leaves it: unique names, tensors inside their storages.
fn parent(bytes: &mut Bytes<'_>) -> Checkpoint {
    let mut inventory = Inventory::default();
    for key in 0..bytes.next() % 4 {
        inventory.storages.push(StorageEntry {
            file: bytes.next() % 2,
            key: key.to_string(),
            size_bytes: bytes.pick(&[8, 0, 64, 1 << 20, 1 << 43, 1 << 62], 8),
            file_offset: 0,
            encoding: Encoding::Stored,
            byte_order: ByteOrder::Little,
            crc32: None,
            record_bytes: 1 << 62,
        });
    }
    for _ in 0..bytes.next() % 12 {
        let name = bytes.pick(&NAMES, "");
        let dtype = bytes.pick(&DTYPES, DType::Float32);
        let shape: Vec<u64> = (0..bytes.next() % 4).map(|_| bytes.pick(&SIZES, 1)).collect();
        let mut layout = Layout::contiguous(&shape);
        if bytes.next().is_multiple_of(4) {
            layout.stride.iter_mut().for_each(|stride| *stride = bytes.pick(&SIZES, 1));
            layout.storage_offset = bytes.pick(&SIZES, 0);
        }
        let storage = bytes.next().checked_rem(inventory.storages.len()).unwrap_or(0);
        let room = inventory.storages.get(storage).map_or(0, |storage| storage.size_bytes);
        let fits = |elements: Option<u64>| elements.and_then(|n| n.checked_mul(dtype.size_bytes()));
        let inside = fits(layout.end()).is_some_and(|end| end <= room);
        let counted = fits(layout.numel()).is_some_and(|bytes| i64::try_from(bytes).is_ok());
        if inside && counted && room > 0 && inventory.find(name).is_none() {
            let name = name.to_owned();
            inventory.tensors.push(TensorEntry { name, dtype, layout, storage });
        }
    }
    let before = inventory.tensors.len();
    inventory.restore_model_order();
    assert_eq!(inventory.tensors.len(), before, "a tensor was lost");
    Checkpoint {
        path: "parent".into(),
        dir: None,
        files: Vec::new(),
        containers: Vec::new(),
        inventory,
        config: None,
        special_tokens: SpecialTokens::default(),
        vocabulary: Vocabulary::default(),
        adapter: None,
        total_parameters: [None, Some(0), Some(u64::MAX)].get(bytes.next() % 3).copied().flatten(),
        notes: Vec::new(),
        reading: ReadOptions::default(),
        names: WeightNames::default(),
        part: None,
    }
}

/// What the engine relies on in every plan.
fn check(plan: &MergePlan, primary: &Checkpoint, secondary: &Checkpoint) {
    let mut names = HashSet::new();
    let mut shown = HashSet::new();
    for tensor in &plan.tensors {
        assert!(names.insert(tensor.name.as_str()), "a name twice");
        assert!(!tensor.name.contains("_orig_mod."), "a wrapper's word");
        shown.insert(tensor.storage);
    }
    assert_eq!(shown, (0..plan.storages.len()).collect::<HashSet<_>>(), "a storage without a name");
    let mut total = 0u64;
    for storage in &plan.storages {
        assert_eq!(Some(storage.numel), crate::tensor::numel(&storage.shape));
        total = total.saturating_add(storage.size_bytes());
        let parents = [(storage.primary, primary), (storage.secondary, secondary)];
        let tensors = parents.map(|(position, parent)| {
            position.map(|position| parent.inventory.tensors.get(position).expect("a tensor"))
        });
        match (storage.action, tensors) {
            (Action::Slerp | Action::Linear, [Some(a), Some(b)]) => {
                assert!(a.dtype.is_floating() && b.dtype.is_floating());
            }
            (Action::CopyPrimary, [Some(a), Some(b)]) => {
                assert!(a.dtype == b.dtype && (storage.buffer.is_some() || !a.dtype.is_floating()));
            }
            (Action::CopyPrimary, [Some(_), None]) | (Action::CopySecondary, [None, Some(_)]) => {}
            other => panic!("an action without its parents: {other:?}"),
        }
        for (side, tensor) in ["primary", "secondary"].into_iter().zip(tensors) {
            let Some(tensor) = tensor else { continue };
            match storage.extension.filter(|extension| extension.side.name() == side) {
                Some(extension) => {
                    assert!(extension.from_rows < extension.to_rows);
                    assert!(extension.edges.last.max(extension.edges.first) <= extension.from_rows);
                    assert!(extension.edges.longer_last < extension.to_rows);
                    let mut extended = tensor.layout.shape.clone();
                    let rows = extended.get_mut(extension.axis).expect("a dimension");
                    assert_eq!(*rows, extension.from_rows);
                    *rows = extension.to_rows;
                    assert_eq!(extended, storage.shape);
                }
                None => assert_eq!(tensor.layout.shape, storage.shape),
            }
        }
    }
    assert_eq!(total, plan.total_size);
    let mut members: Vec<usize> = plan.shards.iter().flat_map(|s| s.tensors.clone()).collect();
    members.sort_unstable();
    assert_eq!(members, (0..plan.tensors.len()).collect::<Vec<_>>(), "each name in one shard");
    for shard in &plan.shards {
        check_shard(plan, &shard.tensors);
    }
    assert!(serde_json::to_string(plan).is_ok());
}

/// The layout of a shard, unless it is too large, has room for all its storages.
fn check_shard(plan: &MergePlan, tensors: &[usize]) {
    let mut storages: Vec<usize> = Vec::new();
    let mut emitted = Vec::new();
    for position in tensors {
        let tensor = plan.tensors.get(*position).expect("a tensor");
        let storage = plan.storages.get(tensor.storage).expect("a storage");
        let place = storages.iter().position(|known| *known == tensor.storage);
        let place = place.unwrap_or_else(|| {
            storages.push(tensor.storage);
            storages.len().saturating_sub(1)
        });
        emitted.push(EmitTensor::contiguous(&tensor.name, storage.dtype, &storage.shape, place));
    }
    let sizes = storages.iter().filter_map(|index| plan.storages.get(*index));
    let sizes: Vec<u64> = sizes.map(|storage| storage.size_bytes()).collect();
    fuzzing::layout(&emitted, &sizes);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_plan_of_any_parents_keeps_its_promises_or_is_refused() {
        crate::format::fuzzing::replay(include_str!("../../fuzz/corpus/plan.hex"), super::plan);
    }
}
