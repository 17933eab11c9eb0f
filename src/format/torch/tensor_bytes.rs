//! Computes how many bytes a tensor has according to its pickle, unchecked: enough to tell weights
//! from counters.

use crate::format::torch::pickle::names::globals::{Global, Rebuild, StorageClass};
use crate::format::torch::pickle::value::{Pickle, Ref, Value};

/// Bytes of a tensor's elements; 0 for a single element, which is a counter or a loss, and for kinds
/// that are not read.
pub(super) fn tensor_bytes(pickle: &Pickle<'_>, mut value: Ref) -> u64 {
    let mut function = None;
    loop {
        let (called, arguments) = match (function.take(), pickle.get(value)) {
            (Some(called), _) => (called, value),
            (None, Value::Call { function: Global::Rebuild(called), arguments }) => {
                (called, arguments)
            }
            _ => return 0,
        };
        let items = pickle.tuple(arguments).unwrap_or_default();
        match (called, items) {
            (
                Rebuild::Parameter | Rebuild::ParameterWithState | Rebuild::DeviceFromCpu,
                [tensor, ..],
            ) => value = *tensor,
            (Rebuild::FromTypeV2, [called, _, arguments, ..]) => match pickle.get(*called) {
                Value::Global(Global::Rebuild(called)) => {
                    (function, value) = (Some(called), *arguments);
                }
                _ => return 0,
            },
            (_, [storage, _, size, ..]) => return element_bytes(pickle, *storage, *size, items),
            _ => return 0,
        }
    }
}

fn element_bytes(pickle: &Pickle<'_>, storage: Ref, size: Ref, items: &[Ref]) -> u64 {
    let number = |size: &Ref| match pickle.get(*size) {
        Value::Int(size) => u64::try_from(size).unwrap_or(0),
        _ => 0,
    };
    let sizes = pickle.sequence(pickle.get(size)).unwrap_or_default();
    let numel = sizes.iter().map(number).fold(1, u64::saturating_mul);
    let Value::Persistent(id) = pickle.get(storage) else { return 0 };
    let class = pickle.tuple(id).and_then(|id| id.get(1).copied());
    let own = match class.map(|class| pickle.get(class)) {
        Some(Value::Global(Global::Storage(StorageClass::Untyped))) => {
            let dtype = items.iter().find_map(|item| match pickle.get(*item) {
                Value::Global(Global::DType(dtype)) => Some(dtype.size_bytes()),
                _ => None,
            });
            dtype.unwrap_or(1)
        }
        Some(Value::Global(Global::Storage(class))) => class.size_bytes().unwrap_or(1),
        _ => 1,
    };
    if numel > 1 { numel.saturating_mul(own) } else { 0 }
}
