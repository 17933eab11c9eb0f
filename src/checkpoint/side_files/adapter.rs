//! Reads `adapter_config.json`, PEFT's description of an adapter.

use std::ffi::OsStr;
use std::path::Path;

use serde::Deserialize;

use crate::checkpoint::files::small_file::read_text_bounded;

/// Name of the file (PEFT's `CONFIG_NAME`, also used by AdapterHub).
const FILE_NAME: &str = "adapter_config.json";

/// Prefixes of the names of adapter weights: PEFT's and AdapterHub's.
const WEIGHTS: [&str; 2] = ["adapter_model", "pytorch_adapter"];

/// Largest adapter_config.json that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What an adapter_config.json says. One that can't be parsed counts as present,
/// with no fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AdapterConfig {
    /// PEFT's name of the method, `LORA` or `IA3`.
    #[serde(default)]
    pub peft_type: Option<String>,
    /// The base model that it was trained on.
    #[serde(default, rename = "base_model_name_or_path")]
    pub base_model: Option<String>,
}

impl AdapterConfig {
    /// That of a directory; `None` where there is none.
    pub(crate) fn inside(dir: &Path) -> Option<AdapterConfig> {
        let path = dir.join(FILE_NAME);
        let is_there = std::fs::symlink_metadata(&path).is_ok();
        is_there
            .then(|| read_text_bounded(&path, MAX_BYTES).map(AdapterConfig::of).unwrap_or_default())
    }

    /// That beside a weight file with a name of PEFT or transformers; `None` for others, which it
    /// has nothing to do with.
    pub(crate) fn beside(file: &Path) -> Option<AdapterConfig> {
        let name = file.file_name().and_then(OsStr::to_str)?;
        let meant = is_adapter_file(name) || name.starts_with("pytorch_model");
        meant.then(|| AdapterConfig::inside(file.parent()?)).flatten()
    }

    fn of(text: String) -> AdapterConfig {
        serde_json::from_str(&text).unwrap_or_default()
    }
}

/// Whether a weight file has a name that adapters are saved under.
pub fn is_adapter_file(name: &str) -> bool {
    WEIGHTS.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_peft_writes_is_read_and_what_is_no_json_is_there_all_the_same() {
        let text = r#"{"peft_type": "IA3", "base_model_name_or_path": "org/base", "r": 8}"#;
        let expected =
            AdapterConfig { peft_type: Some("IA3".into()), base_model: Some("org/base".into()) };
        assert_eq!(AdapterConfig::of(text.to_owned()), expected);
        for text in ["", "[]", r#"{"peft_type": null}"#, r#"{"peft_type": 3}"#] {
            assert_eq!(AdapterConfig::of(text.to_owned()), AdapterConfig::default());
        }
    }

    #[test]
    fn a_weight_file_of_another_name_has_nothing_to_do_with_it() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(AdapterConfig::inside(dir.path()), None);
        std::fs::write(dir.path().join(FILE_NAME), "{}").expect("written");
        for (name, is_meant) in
            [("adapter_model.bin", true), ("pytorch_model.bin", true), ("resnet.pt", false)]
        {
            let config = AdapterConfig::beside(&dir.path().join(name));
            assert_eq!(config.is_some(), is_meant, "{name}");
        }
    }
}
