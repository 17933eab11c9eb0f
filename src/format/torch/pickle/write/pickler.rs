//! Writes `data.pkl` for a plain dict of tensors: the bytes that `torch.save` 2.11 on CPython 3.11
//! writes (protocol 2, C pickler).
//!
//! ```text
//! 80 02            protocol 2
//! 7d 71 00         empty dict, memo 0
//! 28 K V K V .. 75 a batch of up to 1000 items; a full batch is followed by another, maybe empty
//! 2e               stop
//! ```
//!
//! A dict of one item is `K V 73`, without the mark. Strings, globals, non-empty tuples and results
//! of calls take the next memo slot when written; what is written again as the same Python object
//! (globals, `"storage"`, `"cpu"`, the key of a shared storage) is a memo reference instead.
//!
//! Sources: CPython `Modules/_pickle.c` (`save`, `batch_dict_exact`, `save_long`), torch 2.11
//! `torch/serialization.py` (`persistent_id`) and `torch/_tensor.py` (`_reduce_ex_internal`). Held
//! to golden files of torch 2.11 by the tests of [`crate::format::ShardLayout`].

use std::collections::{HashMap, HashSet};

use crate::format::emit_error::EmitError;
use crate::format::torch::pickle::write::storages::{EmitTensor, Storages};

/// Items of one `SETITEMS`, as in CPython's `BATCHSIZE`.
const BATCH: usize = 1000;

/// The pickle, and the order of the records beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataPkl {
    /// The bytes of `data.pkl`.
    pub(crate) bytes: Vec<u8>,
    /// Storages in order of first use: record `data/k` holds storage `storage_order[k]`.
    pub(crate) storage_order: Vec<usize>,
}

/// Pickles `tensors`, in order, over storages of `storage_bytes` bytes each. The caller bounds their
/// number: memo slots (at most 16 for each) have 32 bits.
///
/// # Errors
/// Names that repeat or are too long, tensors outside their storage, storages without a tensor or
/// with two storage classes.
pub(crate) fn data_pkl(
    tensors: &[EmitTensor],
    storage_bytes: &[u64],
) -> Result<DataPkl, EmitError> {
    let mut storages = Storages::new(storage_bytes);
    let mut names = HashSet::with_capacity(tensors.len());
    let mut pickle = Pickle::new(tensors.len());
    pickle.op(b"}");
    pickle.put();
    if let [tensor] = tensors {
        pickle.item(tensor, &mut storages)?;
        pickle.op(b"s");
    } else {
        for batch in tensors.chunks(BATCH) {
            pickle.op(b"(");
            for tensor in batch {
                if !names.insert(tensor.name.as_str()) {
                    return Err(EmitError::DuplicateName { name: tensor.name.clone() });
                }
                pickle.item(tensor, &mut storages)?;
            }
            pickle.op(b"u");
        }
        // CPython stops only after a batch that was not full.
        if !tensors.is_empty() && tensors.len().is_multiple_of(BATCH) {
            pickle.op(b"(u");
        }
    }
    pickle.op(b".");
    Ok(DataPkl { bytes: pickle.out, storage_order: storages.finish()? })
}

/// Python objects that are written once and referred to afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Shared {
    Global(&'static str, &'static str),
    Word(&'static str),
    StorageKey(usize),
}

/// The pickler: bytes so far, and which memo slot holds which shared object.
struct Pickle {
    out: Vec<u8>,
    memo: HashMap<Shared, u32>,
    next_slot: u32,
}

impl Pickle {
    fn new(n_tensors: usize) -> Pickle {
        let mut out = Vec::with_capacity(n_tensors.saturating_mul(160));
        out.extend_from_slice(b"\x80\x02");
        Pickle { out, memo: HashMap::new(), next_slot: 0 }
    }

    fn op(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// `BINPUT` / `LONG_BINPUT` of the next slot.
    fn put(&mut self) -> u32 {
        let slot = self.next_slot;
        self.next_slot += 1;
        self.slot_op(b'q', b'r', slot);
        slot
    }

    fn slot_op(&mut self, short: u8, long: u8, slot: u32) {
        match u8::try_from(slot) {
            Ok(slot) => self.op(&[short, slot]),
            Err(_) => {
                self.op(&[long]);
                self.op(&slot.to_le_bytes());
            }
        }
    }

    /// Writes a reference to `object` (`BINGET`, `LONG_BINGET`) if it is in the memo.
    fn get(&mut self, object: Shared) -> bool {
        let Some(&slot) = self.memo.get(&object) else { return false };
        self.slot_op(b'h', b'j', slot);
        true
    }

    fn put_shared(&mut self, object: Shared) {
        let slot = self.put();
        self.memo.insert(object, slot);
    }

    fn global(&mut self, module: &'static str, name: &'static str) {
        let object = Shared::Global(module, name);
        if !self.get(object) {
            self.op(b"c");
            self.op(module.as_bytes());
            self.op(b"\n");
            self.op(name.as_bytes());
            self.op(b"\n");
            self.put_shared(object);
        }
    }

    /// `BINUNICODE`, without its memo slot.
    fn text(&mut self, text: &str) -> Result<(), EmitError> {
        let length = u32::try_from(text.len())
            .map_err(|_| EmitError::NameTooLong { bytes: text.len() as u64 })?;
        self.op(b"X");
        self.op(&length.to_le_bytes());
        self.op(text.as_bytes());
        Ok(())
    }

    fn shared_text(&mut self, object: Shared, text: &str) -> Result<(), EmitError> {
        if !self.get(object) {
            self.text(text)?;
            self.put_shared(object);
        }
        Ok(())
    }

    fn word(&mut self, word: &'static str) -> Result<(), EmitError> {
        self.shared_text(Shared::Word(word), word)
    }

    /// `BININT1`, `BININT2`, `BININT` or `LONG1` (shortest two's complement), by size.
    fn int(&mut self, value: u64) {
        if let Ok(value) = u8::try_from(value) {
            self.op(&[b'K', value]);
        } else if let Ok(value) = u16::try_from(value) {
            self.op(b"M");
            self.op(&value.to_le_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.op(b"J");
            self.op(&value.to_le_bytes());
        } else {
            // One more bit than the value has, for the sign, in whole bytes: 5 to 9.
            let bits = u64::BITS - value.leading_zeros();
            let length = bits / 8 + 1;
            let bytes = u128::from(value).to_le_bytes();
            self.op(&[0x8a, length.to_le_bytes()[0]]);
            self.out.extend(bytes.iter().take(length as usize));
        }
    }

    fn tuple(&mut self, values: &[u64]) {
        if values.is_empty() {
            // The empty tuple is one object that never enters the memo.
            self.op(b")");
            return;
        }
        if values.len() > 3 {
            self.op(b"(");
        }
        for value in values {
            self.int(*value);
        }
        self.op(match values.len() {
            1 => b"\x85",
            2 => b"\x86",
            3 => b"\x87",
            _ => b"t",
        });
        self.put();
    }

    /// One name and its tensor.
    fn item(&mut self, tensor: &EmitTensor, storages: &mut Storages) -> Result<(), EmitError> {
        let (key, storage_bytes) = storages.enter(tensor)?;
        self.text(&tensor.name)?;
        self.put();
        // dtypes without a storage class of their own go through an untyped storage, whose length
        // is in bytes, and name their dtype in a last argument.
        let class = tensor.dtype.storage_class();
        self.global(
            "torch._utils",
            if class.is_some() { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" },
        );
        self.op(b"((");
        self.word("storage")?;
        let storage_numel = match class {
            Some(class) => {
                self.global("torch", class);
                storage_bytes / tensor.dtype.size_bytes()
            }
            None => {
                self.global("torch.storage", "UntypedStorage");
                storage_bytes
            }
        };
        self.shared_text(Shared::StorageKey(key), &key.to_string())?;
        self.word("cpu")?;
        self.int(storage_numel);
        self.op(b"t");
        self.put();
        self.op(b"Q");
        self.int(tensor.layout.storage_offset);
        self.tuple(&tensor.layout.shape);
        self.tuple(&tensor.layout.stride);
        // requires_grad: a state dict's tensors are detached.
        self.op(b"\x89");
        self.global("collections", "OrderedDict");
        self.op(b")R");
        self.put();
        if class.is_none() {
            self.global("torch", tensor.dtype.name());
        }
        self.op(b"t");
        self.put();
        self.op(b"R");
        self.put();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn int(value: u64) -> Vec<u8> {
        let mut pickle = Pickle::new(0);
        pickle.int(value);
        pickle.out.split_off(2)
    }

    #[test]
    fn integers_take_the_shortest_opcode_that_cpython_takes() {
        assert_eq!(int(255), [b'K', 255]);
        assert_eq!(int(256), [b'M', 0, 1]);
        assert_eq!(int(65536), [b'J', 0, 0, 1, 0]);
        assert_eq!(int((1 << 31) - 1), [b'J', 255, 255, 255, 127]);
        assert_eq!(int(1 << 31), [0x8a, 5, 0, 0, 0, 128, 0]);
        assert_eq!(int((1 << 39) - 1), [0x8a, 5, 255, 255, 255, 255, 127]);
        assert_eq!(int(1 << 39), [0x8a, 6, 0, 0, 0, 0, 128, 0]);
        assert_eq!(int(u64::MAX), [0x8a, 9, 255, 255, 255, 255, 255, 255, 255, 255, 0]);
    }

    #[test]
    fn a_repeated_name_is_refused() {
        let tensor = EmitTensor::contiguous("a", DType::Float32, &[1], 0);
        assert_eq!(
            data_pkl(&[tensor.clone(), tensor], &[4]).err(),
            Some(EmitError::DuplicateName { name: "a".into() })
        );
    }
}
