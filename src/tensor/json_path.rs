//! `JsonPath`: a path in JSON, which holds text only.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// A path as every JSON of the tool gives it: a string; where it isn't UTF-8 the object
/// `{"text": .., "hex": ..}`, the path in readable words and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(pub PathBuf);

impl JsonPath {
    /// All paths of a list.
    pub fn list(paths: &[PathBuf]) -> Vec<JsonPath> {
        paths.iter().map(JsonPath::from).collect()
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for JsonPath {
    fn from(path: &P) -> JsonPath {
        JsonPath(path.as_ref().to_path_buf())
    }
}

impl Serialize for JsonPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(text) = self.0.to_str() {
            return serializer.serialize_str(text);
        }
        let bytes = self.0.as_os_str().as_bytes();
        let mut object = serializer.serialize_struct("path", 2)?;
        object.serialize_field("text", &self.0.to_string_lossy())?;
        object.serialize_field(
            "hex",
            &bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        )?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_path_is_a_string_and_its_bytes_where_it_is_none() {
        let json =
            |bytes| serde_json::to_string(&JsonPath::from(Path::new(OsStr::from_bytes(bytes))));
        assert_eq!(json(b"a/\"b\"\n").unwrap(), r#""a/\"b\"\n""#);
        assert_eq!(json(b"n\xffo").unwrap(), "{\"text\":\"n\u{fffd}o\",\"hex\":\"6eff6f\"}");
    }
}
