//! Makes parents of headers alone, for tests of the decisions.

use crate::checkpoint::{
    AdapterConfig, Checkpoint, Config, Inventory, SpecialTokens, StorageEntry, TensorEntry,
    Vocabulary, WeightNames,
};
use crate::format::{ByteOrder, Container, Encoding, ReadOptions};
use crate::tensor::{DType, Layout};

/// A parent under construction; see [`Headers::open`].
#[derive(Clone, Default)]
pub(crate) struct Headers {
    inventory: Inventory,
    config: Option<String>,
    adapter: Option<AdapterConfig>,
    vocabulary: Vocabulary,
}

impl Headers {
    /// No tensors, no config.
    pub(crate) fn new() -> Headers {
        Headers::default()
    }

    /// One more tensor, contiguous and alone in its storage.
    pub(crate) fn tensor(mut self, name: &str, dtype: DType, shape: &[u64]) -> Headers {
        let numel = crate::tensor::numel(shape).expect("a small shape");
        let storage = self.inventory.storages.len();
        self.inventory.storages.push(StorageEntry {
            file: 0,
            key: storage.to_string(),
            size_bytes: numel * dtype.size_bytes(),
            file_offset: 0,
            encoding: Encoding::Stored,
            byte_order: ByteOrder::Little,
            crc32: None,
            record_bytes: numel * dtype.size_bytes(),
        });
        let layout = Layout::contiguous(shape);
        self.inventory.tensors.push(TensorEntry { name: name.to_owned(), dtype, layout, storage });
        self
    }

    /// The same in float16.
    pub(crate) fn f16(self, name: &str, shape: &[u64]) -> Headers {
        self.tensor(name, DType::Float16, shape)
    }

    /// One more name of a tensor that is there.
    pub(crate) fn tied(mut self, name: &str, to: &str) -> Headers {
        let mut tensor = self.inventory.find(to).expect("a tensor of that name").clone();
        tensor.name = name.to_owned();
        self.inventory.tensors.push(tensor);
        self
    }

    /// The same with this CRC-32 kept for the bytes of a tensor that is there.
    pub(crate) fn crc(mut self, name: &str, crc32: u32) -> Headers {
        let storage = self.inventory.find(name).expect("a tensor of that name").storage;
        self.inventory.storages[storage].crc32 = Some(crc32);
        self
    }

    /// The same without a tensor.
    pub(crate) fn without(mut self, name: &str) -> Headers {
        self.inventory.tensors.retain(|tensor| tensor.name != name);
        self
    }

    /// The same with this config.json.
    pub(crate) fn config(mut self, text: &str) -> Headers {
        self.config = Some(text.to_owned());
        self
    }

    /// The tensors so far, none of them tied, as read from files that have so many each.
    pub(crate) fn files(mut self, counts: &[usize]) -> Headers {
        let files = counts.iter().enumerate().flat_map(|(file, count)| vec![file; *count]);
        for (storage, file) in self.inventory.storages.iter_mut().zip(files) {
            storage.file = file;
        }
        self.inventory.restore_model_order();
        self
    }

    /// The same with an adapter_config.json of this `peft_type` beside it.
    pub(crate) fn adapter(mut self, peft_type: &str) -> Headers {
        let peft_type = Some(peft_type.to_owned());
        self.adapter = Some(AdapterConfig { peft_type, ..AdapterConfig::default() });
        self
    }

    /// The same with these words.
    pub(crate) fn words(mut self, words: &[(u64, &str)]) -> Headers {
        self.vocabulary = Vocabulary::of_words(words);
        self
    }

    /// The parent.
    pub(crate) fn open(self) -> Checkpoint {
        let mut special_tokens = SpecialTokens::default();
        if let Some(text) = &self.config {
            special_tokens.add(text).expect("a config");
        }
        Checkpoint {
            path: "parent".into(),
            dir: None,
            files: Vec::new(),
            containers: vec![Container::Zip],
            inventory: self.inventory,
            config: self.config.map(|text| Config::parse(text).expect("a config")),
            special_tokens,
            vocabulary: self.vocabulary,
            adapter: self.adapter,
            total_parameters: None,
            notes: Vec::new(),
            reading: ReadOptions::default(),
            names: WeightNames::default(),
            part: None,
        }
    }
}

/// A Llama of two layers in float16, without config: `rows` of vocabulary, width 32, two key/value
/// heads of four.
pub(crate) fn llama(rows: u64) -> Headers {
    let mut headers = Headers::new().f16("model.embed_tokens.weight", &[rows, 32]);
    for layer in 0..2 {
        let shapes: [(&str, &[u64]); 9] = [
            ("self_attn.q_proj", &[32, 32]),
            ("self_attn.k_proj", &[16, 32]),
            ("self_attn.v_proj", &[16, 32]),
            ("self_attn.o_proj", &[32, 32]),
            ("mlp.gate_proj", &[64, 32]),
            ("mlp.up_proj", &[64, 32]),
            ("mlp.down_proj", &[32, 64]),
            ("input_layernorm", &[32]),
            ("post_attention_layernorm", &[32]),
        ];
        for (name, shape) in shapes {
            headers = headers.f16(&format!("model.layers.{layer}.{name}.weight"), shape);
        }
    }
    headers.f16("model.norm.weight", &[32]).f16("lm_head.weight", &[rows, 32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::{Action, MergeOptions, plan};

    #[test]
    fn two_llamas_merge_tensor_by_tensor() {
        let (a, b) = (llama(64).open(), llama(64).open());
        let plan = plan(&a, &b, &MergeOptions::default()).unwrap();
        assert_eq!(plan.storages.len(), 21);
        assert!(plan.storages.iter().all(|storage| storage.action == Action::Slerp));
    }

    #[test]
    fn the_childs_files_are_called_as_the_primarys() {
        let (mut a, b) = (llama(64).open(), llama(64).open());
        a.names = WeightNames::Diffusers;
        let names = |a: &Checkpoint, b: &Checkpoint, max_shard_bytes| {
            let options = MergeOptions { max_shard_bytes, ..MergeOptions::default() };
            plan(a, b, &options).unwrap().shards.into_iter().map(|shard| shard.file_name)
        };
        assert_eq!(names(&a, &b, 1 << 30).next(), Some("diffusion_pytorch_model.bin".into()));
        assert_eq!(names(&b, &a, 1 << 30).next(), Some("pytorch_model.bin".into()));
        let last = names(&a, &b, 20_000).next_back().unwrap();
        let count = names(&a, &b, 20_000).len();
        assert_eq!(last, format!("diffusion_pytorch_model-{count:05}-of-{count:05}.bin"));
    }
}
