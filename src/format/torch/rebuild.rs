//! Makes tensors from pickle values: reads torch's rebuild functions as data (`torch/_utils.py`,
//! formats D.3).

use std::collections::HashMap;

use crate::format::error::{FormatError, Rule};
use crate::format::state_dict::{ByteOrder, Encoding, Storage, Tensor};
use crate::format::torch::pickle::names::globals::{Global, Rebuild, StorageClass};
use crate::format::torch::pickle::value::{Pickle, Ref, Value};
use crate::tensor::{DType, Layout, counted, escape};

/// Most dimensions of a tensor, as in torch.
const MAX_RANK: usize = 64;

/// Where the bytes of a storage are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) file_offset: u64,
    /// Bytes once decoded.
    pub(crate) record_bytes: u64,
    pub(crate) encoding: Encoding,
    pub(crate) crc32: Option<u32>,
}

/// A persistent id: one mention of a storage.
#[derive(Clone, Debug)]
pub(crate) struct Mention {
    pub(crate) key: String,
    pub(crate) class: StorageClass,
    /// Elements of the class.
    pub(crate) numel: u64,
    /// Bytes of the storage.
    pub(crate) size_bytes: u64,
    /// Legacy files: the part of the storage that is viewed, in elements: first, and how many.
    pub(crate) view: Option<(u64, u64)>,
}

/// Reads a persistent id: `("storage", class, key, location, numel)`, and in legacy files a sixth
/// item, the view.
///
/// # Errors
/// [`Rule::Pickle`] for another shape, [`Rule::Unsupported`] for whole modules and classes without
/// a size, [`Rule::StorageSize`] for a size that makes no sense.
pub(super) fn mention(pickle: &Pickle<'_>, id: Ref, legacy: bool) -> Result<Mention, FormatError> {
    let broken = |expected: &str, found: Ref| {
        FormatError::new(Rule::Pickle, "storage id", expected, pickle.describe(found))
    };
    let items = pickle.tuple(id).ok_or_else(|| broken("a tuple", id))?;
    let kind = items.first().and_then(|kind| pickle.text(*kind));
    match kind {
        Some("storage") => {}
        Some("module") => {
            return Err(FormatError::new(
                Rule::Unsupported,
                "pickle",
                "a state dict",
                "a whole module",
            )
            .hint("load it with torch and save its state_dict()"));
        }
        _ => return Err(broken("a tuple that starts with `storage`", id)),
    }
    let (&[_, class, key, _location, numel], view) = (match items {
        [_, _, _, _, _] if !legacy => (items, None),
        [five @ .., view] if legacy && five.len() == 5 => (five, Some(*view)),
        _ => return Err(broken(if legacy { "six items" } else { "five items" }, id)),
    }) else {
        return Err(broken("five items", id));
    };
    let Value::Global(Global::Storage(class)) = pickle.get(class) else {
        return Err(broken("a storage class", class));
    };
    let key = key_text(pickle, key).ok_or_else(|| broken("a storage key", key))?;
    let item_bytes = class.size_bytes().ok_or_else(|| {
        FormatError::new(
            Rule::Unsupported,
            format!("storage `{}`", escape(&key)),
            "a storage class with a dtype",
            format!("`{class}`"),
        )
    })?;
    let size = |reference: Ref| match pickle.get(reference) {
        Value::Int(numel) => u64::try_from(numel).ok(),
        _ => None,
    };
    let bad_size = |found: Ref| {
        FormatError::new(
            Rule::StorageSize,
            format!("storage `{}`", escape(&key)),
            "a size of 0 to 2^63 bytes",
            pickle.describe(found),
        )
    };
    let count = size(numel).ok_or_else(|| bad_size(numel))?;
    let size_bytes = count.checked_mul(item_bytes).filter(|bytes| i64::try_from(*bytes).is_ok());
    let size_bytes = size_bytes.ok_or_else(|| bad_size(numel))?;
    let view = match view.map(|view| (view, pickle.get(view))) {
        None | Some((_, Value::None)) => None,
        Some((view, _)) => {
            let Some(&[_key, offset, numel]) = pickle.tuple(view) else {
                return Err(broken("a view of three items", view));
            };
            let offset = size(offset).ok_or_else(|| bad_size(offset))?;
            let numel = size(numel).ok_or_else(|| bad_size(numel))?;
            if offset.checked_add(numel).is_none_or(|end| end > count) {
                return Err(bad_size(view));
            }
            Some((offset, numel))
        }
    };
    Ok(Mention { key, class, numel: count, size_bytes, view })
}

/// A storage key, text or an integer, as text.
pub(super) fn key_text(pickle: &Pickle<'_>, key: Ref) -> Option<String> {
    match pickle.get(key) {
        Value::Int(number) if number >= 0 => Some(number.to_string()),
        _ => pickle.text(key).map(str::to_owned),
    }
}

/// Makes tensors, and their storages in order of first use.
pub(super) struct Rebuilder<'p> {
    pub(super) pickle: &'p Pickle<'p>,
    pub(super) legacy: bool,
    pub(super) byte_order: ByteOrder,
    /// Finds the bytes of a storage.
    pub(super) locate: &'p dyn Fn(&Mention) -> Result<Record, FormatError>,
    pub(super) storages: Vec<Storage>,
    pub(super) by_key: HashMap<String, usize>,
}

impl Rebuilder<'_> {
    /// The tensor of a value that [`Global::makes_tensor`] or is a storage.
    ///
    /// # Errors
    /// [`Rule::Unsupported`] for kinds we do not merge, by name; [`Rule::TensorBounds`] for numbers
    /// that leave the storage; [`Rule::StorageSize`], [`Rule::MissingRecord`], [`Rule::ByteOrder`].
    pub(super) fn tensor(&mut self, name: &str, value: Ref) -> Result<Tensor, FormatError> {
        self.strided(name, value).map_err(|error| error.tensor(name))
    }

    fn strided(&mut self, name: &str, value: Ref) -> Result<Tensor, FormatError> {
        let mut call = match self.pickle.get(value) {
            Value::Call { function, arguments } => (function, arguments),
            _ => return Err(self.unsupported(value)),
        };
        // Parameters wrap tensors, and the pickle's depth bounds how often.
        let wanted = loop {
            let (function, arguments) = call;
            let items = self.pickle.tuple(arguments).unwrap_or_default();
            let inner = match (function, items) {
                (Global::Rebuild(Rebuild::Tensor), &[storage, offset, size, stride]) => {
                    break (storage, offset, size, stride, None);
                }
                (
                    Global::Rebuild(Rebuild::TensorV2),
                    [storage, offset, size, stride, _requires_grad, _hooks, metadata @ ..],
                ) if metadata.len() <= 1 => {
                    self.no_metadata(metadata.first().copied())?;
                    break (*storage, *offset, *size, *stride, None);
                }
                (
                    Global::Rebuild(Rebuild::TensorV3),
                    [storage, offset, size, stride, _requires_grad, _hooks, dtype, metadata @ ..],
                ) if metadata.len() <= 1 => {
                    self.no_metadata(metadata.first().copied())?;
                    break (*storage, *offset, *size, *stride, Some(*dtype));
                }
                (Global::Rebuild(Rebuild::Parameter), &[tensor, _, _])
                | (Global::Rebuild(Rebuild::ParameterWithState), &[tensor, _, _, _]) => tensor,
                (Global::Rebuild(Rebuild::FromTypeV2), &[function, class, arguments, _state]) => {
                    call = self.typed_call(function, class, arguments)?;
                    continue;
                }
                (Global::Rebuild(Rebuild::DeviceFromCpu), &[tensor, dtype, _device, _grad]) => {
                    return self.same_dtype(name, tensor, dtype);
                }
                (Global::Rebuild(function), items) => {
                    let found = counted(items.len() as u64, "argument");
                    let what = format!("call of `{}`", function.name());
                    return Err(FormatError::new(Rule::Pickle, what, "torch's arguments", found));
                }
                _ => return Err(self.unsupported(value)),
            };
            call = match self.pickle.get(inner) {
                Value::Call { function, arguments } => (function, arguments),
                _ => return Err(self.unsupported(inner)),
            };
        };
        let (storage, offset, size, stride, dtype) = wanted;
        self.over_storage(name, storage, (offset, size, stride), dtype)
    }

    fn over_storage(
        &mut self,
        name: &str,
        storage: Ref,
        (offset, size, stride): (Ref, Ref, Ref),
        dtype: Option<Ref>,
    ) -> Result<Tensor, FormatError> {
        let Value::Persistent(id) = self.pickle.get(storage) else {
            let found = self.pickle.describe(storage);
            return Err(FormatError::new(Rule::Pickle, "tensor", "a storage", found));
        };
        let mention = mention(self.pickle, id, self.legacy)?;
        let dtype = self.dtype(&mention, dtype)?;
        let mut layout = Layout {
            shape: self.numbers("size", size)?,
            stride: self.numbers("stride", stride)?,
            storage_offset: self.number("storage offset", offset)?,
        };
        if layout.shape.len() != layout.stride.len() {
            let found = format!(
                "{}, {}",
                counted(layout.shape.len() as u64, "size"),
                counted(layout.stride.len() as u64, "stride")
            );
            return Err(bounds("a stride for each size", found));
        }
        // The tensor lies inside the storage that the pickle mentions, and that inside the record.
        let (first, room_bytes) = match mention.view {
            None => (0, mention.size_bytes),
            Some((first, numel)) => {
                (first, numel.saturating_mul(mention.class.size_bytes().unwrap_or(1)))
            }
        };
        check_bounds(&layout, dtype, room_bytes)?;
        layout.storage_offset = layout
            .storage_offset
            .checked_add(first)
            .ok_or_else(|| bounds("an offset inside the storage", "one past it"))?;
        let storage = self.storage(&mention)?;
        Ok(Tensor { name: name.to_owned(), dtype, layout, storage })
    }

    /// The storage of a mention: the first mention makes it, later ones may extend it.
    fn storage(&mut self, mention: &Mention) -> Result<usize, FormatError> {
        let record = (self.locate)(mention)?;
        if record.record_bytes < mention.size_bytes {
            let bytes = counted(mention.size_bytes, "byte");
            return Err(FormatError::new(
                Rule::StorageSize,
                format!("storage `{}`", escape(&mention.key)),
                format!("{bytes} ({} of `{}`)", mention.numel, mention.class),
                format!("{}", record.record_bytes),
            )
            .at(record.file_offset));
        }
        if let Some(index) = self.by_key.get(&mention.key).copied() {
            if let Some(storage) = self.storages.get_mut(index) {
                storage.size_bytes = storage.size_bytes.max(mention.size_bytes);
            }
            return Ok(index);
        }
        let index = self.storages.len();
        self.storages.push(Storage {
            key: mention.key.clone(),
            size_bytes: mention.size_bytes,
            file_offset: record.file_offset,
            encoding: record.encoding,
            byte_order: self.byte_order,
            crc32: record.crc32,
            record_bytes: record.record_bytes,
        });
        self.by_key.insert(mention.key.clone(), index);
        Ok(index)
    }

    fn dtype(&self, mention: &Mention, argument: Option<Ref>) -> Result<DType, FormatError> {
        let own = match mention.class {
            StorageClass::Typed(dtype) => dtype,
            // torch takes untyped storages as bytes.
            StorageClass::Untyped => DType::UInt8,
            StorageClass::Quantised(..) | StorageClass::Abstract => {
                return Err(unsupported(format!("`{}`", mention.class)));
            }
        };
        let Some(argument) = argument else { return Ok(own) };
        let Value::Global(Global::DType(dtype)) = self.pickle.get(argument) else {
            return Err(unsupported(self.pickle.describe(argument).into_owned()));
        };
        // torch swaps nothing in untyped storages, so what it reads here is not what was written.
        if self.byte_order == ByteOrder::Big && dtype.swap_bytes() > 1 {
            let found = format!("`{dtype}` in a big-endian file");
            let expected = "a dtype whose byte order is known";
            return Err(FormatError::new(Rule::ByteOrder, "tensor", expected, found));
        }
        Ok(dtype)
    }

    /// `_rebuild_from_type_v2(function, type, arguments, state)`: for tensors and parameters only.
    fn typed_call(
        &self,
        function: Ref,
        class: Ref,
        arguments: Ref,
    ) -> Result<(Global, Ref), FormatError> {
        if !matches!(self.pickle.get(class), Value::Global(Global::Tensor | Global::Parameter)) {
            return Err(self.unsupported(class));
        }
        match self.pickle.get(function) {
            Value::Global(function @ (Global::Rebuild(_) | Global::OtherTensor(_))) => {
                Ok((function, arguments))
            }
            _ => Err(self.unsupported(function)),
        }
    }

    /// `_rebuild_device_tensor_from_cpu_tensor(tensor, dtype, ...)`: no conversion is made.
    fn same_dtype(&mut self, name: &str, tensor: Ref, dtype: Ref) -> Result<Tensor, FormatError> {
        let tensor = self.strided(name, tensor)?;
        match self.pickle.get(dtype) {
            Value::Global(Global::DType(dtype)) if dtype == tensor.dtype => Ok(tensor),
            _ => Err(unsupported("a device tensor of another dtype")),
        }
    }

    /// Conjugate and negative views store other values than they show.
    fn no_metadata(&self, metadata: Option<Ref>) -> Result<(), FormatError> {
        let Some(metadata) = metadata else { return Ok(()) };
        let plain = match self.pickle.get(metadata) {
            Value::None => true,
            _ => self.pickle.dict(metadata).is_some_and(|pairs| {
                let off = |pair: &(Ref, Ref)| self.pickle.get(pair.1) == Value::Bool(false);
                pairs.iter().all(off)
            }),
        };
        if plain { Ok(()) } else { Err(unsupported("a conjugate or negative view")) }
    }

    fn numbers(&self, what: &str, sequence: Ref) -> Result<Vec<u64>, FormatError> {
        let value = self.pickle.get(sequence);
        let Some(items) = self.pickle.sequence(value) else {
            let found = self.pickle.describe(sequence);
            return Err(bounds(&format!("{what} as a tuple"), found));
        };
        if items.len() > MAX_RANK {
            return Err(bounds("at most 64 dimensions", format!("{}", items.len())));
        }
        items.iter().map(|item| self.number(what, *item)).collect()
    }

    fn number(&self, what: &str, reference: Ref) -> Result<u64, FormatError> {
        match self.pickle.get(reference) {
            Value::Int(number) if number >= 0 => Ok(number.unsigned_abs()),
            _ => {
                let found = self.pickle.describe(reference);
                Err(bounds(&format!("{what} of 0 or more"), found))
            }
        }
    }

    fn unsupported(&self, reference: Ref) -> FormatError {
        unsupported(self.pickle.describe(reference).into_owned())
    }
}

fn unsupported(found: impl Into<String>) -> FormatError {
    FormatError::new(Rule::Unsupported, "tensor", "a strided tensor with data of its own", found)
        .hint("sparse, quantised, nested, meta and wrapped tensors are not merged")
}

fn bounds(expected: &str, found: impl Into<String>) -> FormatError {
    FormatError::new(Rule::TensorBounds, "tensor", expected, found)
}

/// Whether a tensor lies in `room_bytes` of storage, and its size in bytes fits an i64.
fn check_bounds(layout: &Layout, dtype: DType, room_bytes: u64) -> Result<(), FormatError> {
    let in_bytes = |elements: u64| {
        elements.checked_mul(dtype.size_bytes()).filter(|bytes| i64::try_from(*bytes).is_ok())
    };
    if layout.numel().and_then(in_bytes).is_none() {
        return Err(bounds("a shape of at most 2^63 bytes", format!("{:?}", layout.shape)));
    }
    if in_bytes(layout.storage_offset).is_none() {
        return Err(bounds("an offset below 2^63 bytes", format!("{}", layout.storage_offset)));
    }
    let end = layout.end().and_then(in_bytes);
    if end.is_none_or(|end| end > room_bytes) {
        let found = format!(
            "shape {:?}, stride {:?} at element {} of {dtype}",
            layout.shape, layout.stride, layout.storage_offset
        );
        return Err(bounds(
            &format!("a tensor inside its storage of {}", counted(room_bytes, "byte")),
            found,
        ));
    }
    Ok(())
}
