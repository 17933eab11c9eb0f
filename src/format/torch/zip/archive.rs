//! Opens a torch archive: one folder with `data.pkl`, `data/<key>` and perhaps `byteorder`.

use crate::format::error::{FormatError, Rule};
use crate::format::inflate::inflate_exact;
use crate::format::read_at::ReadAt;
use crate::format::state_dict::{ByteOrder, Encoding};
use crate::format::torch::pickle::stack::MAX_PICKLE_BYTES;
use crate::format::torch::zip::directory;
use crate::format::torch::zip::entry::Entry;
use crate::tensor::{crc32, escape};

/// Longest deflated pickle in an archive that is itself shorter, in bytes.
const FREE_PICKLE_BYTES: u64 = 8 << 20;

/// The entries of a torch archive, found by name.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Sorted by name.
    entries: Vec<Entry>,
    /// The folder of all records.
    root: String,
}

impl Archive {
    /// Reads the directory and finds the folder. No payload is read.
    ///
    /// # Errors
    /// What [`directory::read`] refuses; [`Rule::WrongKind`] for TorchScript;
    /// [`Rule::MissingRecord`] without `data.pkl`; [`Rule::ZipStructure`] for more than one folder
    /// or pickle.
    pub(crate) fn open(source: &dyn ReadAt) -> Result<Archive, FormatError> {
        let mut entries = directory::read(source)?;
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        let root = find_root(&entries)?;
        Ok(Archive { entries, root })
    }

    /// The entry of `name` below the folder, by exact name.
    pub(crate) fn record(&self, name: &str) -> Option<&Entry> {
        let full = format!("{}/{name}", self.root);
        let position =
            self.entries.binary_search_by(|entry| entry.name.as_str().cmp(&full)).ok()?;
        self.entries.get(position).filter(|entry| !entry.is_directory())
    }

    /// The bytes of `data.pkl`.
    ///
    /// # Errors
    /// [`Rule::PickleLimit`] above 48 MiB or, from 8 MiB on, above the file's size; and what
    /// [`read_entry`] refuses.
    pub(crate) fn pickle(&self, source: &dyn ReadAt) -> Result<Vec<u8>, FormatError> {
        let entry = self.record("data.pkl").ok_or_else(|| missing("data.pkl"))?;
        // A stored pickle is no larger than the file; a deflated one may claim a thousand times that.
        let most = source.len().clamp(FREE_PICKLE_BYTES, MAX_PICKLE_BYTES);
        if entry.size_bytes > most {
            let found = format!("{} bytes", entry.size_bytes);
            let expected = format!("at most {most} bytes");
            return Err(FormatError::new(Rule::PickleLimit, "data.pkl", expected, found));
        }
        read_entry(source, entry)
    }

    /// The byte order of the storages; little where the archive does not say.
    ///
    /// # Errors
    /// [`Rule::ByteOrder`] where it is neither `little` nor `big`.
    pub(crate) fn byte_order(&self, source: &dyn ReadAt) -> Result<ByteOrder, FormatError> {
        let Some(entry) = self.record("byteorder") else { return Ok(ByteOrder::Little) };
        let refuse = |found: String| {
            FormatError::new(Rule::ByteOrder, "record `byteorder`", "`little` or `big`", found)
        };
        if entry.size_bytes > 16 {
            return Err(refuse(format!("{} bytes", entry.size_bytes)));
        }
        match read_entry(source, entry)?.as_slice() {
            b"little" => Ok(ByteOrder::Little),
            b"big" => Ok(ByteOrder::Big),
            other => Err(refuse(format!("`{}`", escape(&String::from_utf8_lossy(other))))),
        }
    }
}

/// The error for a record that is not there.
pub(crate) fn missing(name: &str) -> FormatError {
    FormatError::new(
        Rule::MissingRecord,
        "zip archive",
        format!("a record `{}`", escape(name)),
        "none",
    )
}

/// All bytes of an entry, decoded and checked against its CRC-32. The caller has bounded the size.
fn read_entry(source: &dyn ReadAt, entry: &Entry) -> Result<Vec<u8>, FormatError> {
    let bytes = match entry.encoding() {
        Encoding::Stored => {
            let mut bytes = vec![0; usize::try_from(entry.size_bytes).unwrap_or(0)];
            source.read_exact_at(entry.data_offset, &mut bytes).map_err(|error| {
                FormatError::read(escape(&entry.name), entry.data_offset, error)
            })?;
            bytes
        }
        Encoding::Deflated { compressed_bytes } => {
            inflate_exact(source, entry.data_offset, compressed_bytes, entry.size_bytes)?
        }
    };
    let found = crc32(&bytes);
    match entry.known_crc32() {
        Some(expected) if expected != found => Err(FormatError::new(
            Rule::Checksum,
            format!("zip entry `{}`", escape(&entry.name)),
            format!("CRC-32 {expected:08x}"),
            format!("{found:08x}"),
        )
        .hint("the file was damaged; download or copy it again")),
        _ => Ok(bytes),
    }
}

/// The folder that all records are in.
///
/// macOS puts `__MACOSX/` beside what it zips; nothing there is looked at. Any other second folder
/// or second pickle is refused: readers differ in which one they take.
fn find_root(entries: &[Entry]) -> Result<String, FormatError> {
    let refuse = |expected: &str, found: String| {
        Err(FormatError::new(Rule::ZipStructure, "zip archive", expected, found))
    };
    let own = || entries.iter().filter(|entry| !entry.name.starts_with("__MACOSX/"));
    let below = |entry: &'_ Entry| entry.name.split_once('/').map(|(_, rest)| rest.to_owned());
    for entry in own() {
        let rest = below(entry).unwrap_or_default();
        if rest == "constants.pkl" || rest.starts_with("code/") {
            let expected = "a state dict written by torch.save";
            return Err(FormatError::new(
                Rule::WrongKind,
                "file",
                expected,
                "a TorchScript archive",
            )
            .hint("load it with torch.jit.load and save its state_dict() with torch.save"));
        }
    }
    let mut pickles = own().filter(|entry| entry.name.to_lowercase().ends_with(".pkl"));
    let Some(pickle) = pickles.next() else {
        let ends = |end: &str| own().any(|entry| entry.name.ends_with(end));
        return Err(if ends(".npy") {
            FormatError::new(
                Rule::WrongKind,
                "file",
                "a torch checkpoint",
                "a numpy archive (.npz)",
            )
            .hint("load it with numpy.load and save a dict of tensors with torch.save")
        } else if ends("model.json") {
            FormatError::new(
                Rule::WrongKind,
                "file",
                "a torch checkpoint",
                "an old TorchScript archive",
            )
            .hint("load it with torch.jit.load and save its state_dict() with torch.save")
        } else {
            missing("data.pkl").hint("this zip archive was not written by torch.save")
        });
    };
    if let Some(second) = pickles.next() {
        return refuse("one pickle", format!("`{}` too", escape(&second.name)));
    }
    match pickle.name.split_once('/') {
        Some((root, "data.pkl")) => {
            for entry in own() {
                if entry.name.split_once('/').is_none_or(|(folder, _)| folder != root) {
                    let found = format!("`{}`", escape(&entry.name));
                    return refuse(&format!("all entries in `{}/`", escape(root)), found);
                }
            }
            Ok(root.to_owned())
        }
        _ => refuse("`data.pkl` in one folder", format!("`{}`", escape(&pickle.name))),
    }
}
