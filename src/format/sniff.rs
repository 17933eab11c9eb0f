//! Recognises a file by its bytes, never by its name (`docs/formats.md` D.1).

use super::error::{FormatError, Rule};
use super::read_at::ReadAt;
use crate::tensor::counted;

/// A kind of file that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A zip archive.
    Zip,
    /// Something that starts with a pickle: the legacy format, or a bare pickle.
    Pickle,
    /// safetensors.
    Safetensors,
}

/// Bytes read: enough for tar's signature, a magic number and the first words of a text.
const HEAD_BYTES: u64 = 1024;

const DOWNLOAD: &str = "download the file again";

/// Signatures at byte 0, what they are, and advice.
const SIGNATURES: &[(&[u8], &str, &str)] = &[
    (b"version https://git-lfs", "a git-LFS pointer", "run `git lfs pull`"),
    (b"version https://hawser", "a git-LFS pointer", "run `git lfs pull`"),
    (b"# xet version", "a git-Xet pointer", "download the file with huggingface_hub"),
    (b"PK\x05\x06", "an empty zip archive", DOWNLOAD),
    (b"PK\x07\x08", "a part of a split zip archive", "join its parts"),
    (b"\x1f\x8b", "gzip data", "decompress it with gunzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\xfd7zXZ", "xz data", "decompress it with unxz"),
    (b"\x28\xb5\x2f\xfd", "zstd data", "decompress it with unzstd"),
    (b"\x04\x22\x4d\x18", "lz4 data", "decompress it with unlz4"),
    (b"BZh", "bzip2 data", "decompress it with bunzip2"),
    (b"\x93NUMPY", "a numpy array", "it is no torch checkpoint"),
    (b"\x89PNG", "a PNG picture", DOWNLOAD),
    (b"\xff\xd8\xff", "a JPEG picture", DOWNLOAD),
    (b"GIF8", "a GIF picture", DOWNLOAD),
    (b"%PDF", "a PDF document", DOWNLOAD),
    (b"GGUF", "a GGUF model", "convert it to a checkpoint of torch or safetensors"),
    (b"lmgg", "a GGML model", "convert it to a checkpoint of torch or safetensors"),
    (b"fmgg", "a GGML model", "convert it to a checkpoint of torch or safetensors"),
    (b"tjgg", "a GGML model", "convert it to a checkpoint of torch or safetensors"),
    (
        b"\x89HDF",
        "an HDF5 file (Keras, TensorFlow)",
        "convert it to a checkpoint of torch or safetensors",
    ),
    (b"PYTORCH1", "a torch file of an unreleased format", "save it with a released torch"),
    (b"\x7fELF", "a program", DOWNLOAD),
    (b"MZ", "a program", DOWNLOAD),
    (b"\xff\xfe", "a text file in UTF-16", DOWNLOAD),
    (b"\xfe\xff", "a text file in UTF-16", DOWNLOAD),
];

/// The legacy format's magic number as a pickle has it, behind PROTO or without it.
const MAGIC: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19";

/// Names of the members of torch's tar format.
const TAR_MEMBERS: [&[u8]; 4] = [b"sys_info\0", b"pickle\0", b"tensors\0", b"storages\0"];

/// The kind of a file.
///
/// # Errors
/// [`Rule::Empty`], [`Rule::WrongKind`] for a known kind of another program, else [`Rule::UnknownKind`].
pub(super) fn sniff(source: &dyn ReadAt) -> Result<Kind, FormatError> {
    let length = source.len();
    let mut head = vec![0; usize::try_from(length.min(HEAD_BYTES)).unwrap_or(0)];
    source.read_exact_at(0, &mut head).map_err(|error| FormatError::read("file", 0, error))?;
    if head.len() < 4 {
        let found = counted(length, "byte");
        return Err(FormatError::new(Rule::Empty, "file", "a checkpoint", found).hint(DOWNLOAD));
    }
    // Before pickles: a header of 640 bytes begins as one of protocol 2.
    if is_safetensors(&head) {
        return Ok(Kind::Safetensors);
    }
    if head.starts_with(b"PK\x03\x04") {
        return Ok(Kind::Zip);
    }
    // PROTO, or the magic number without one: as LONG1, or as a line of text.
    let proto = head.first() == Some(&0x80) && head.get(1).is_some_and(|byte| *byte <= 5);
    let magic = head.starts_with(MAGIC) || head.starts_with(b"L119547037146038801333356L\n");
    if proto || magic {
        return Ok(Kind::Pickle);
    }
    Err(refusal(source, &head))
}

/// Whether a file, whole or cut, begins like one that torch.save wrote: a zip whose first entry is the
/// pickle, or the legacy format's magic number.
pub fn looks_like_torch(source: &dyn ReadAt) -> bool {
    let mut head = vec![0; usize::try_from(source.len().min(HEAD_BYTES)).unwrap_or(0)];
    if source.read_exact_at(0, &mut head).is_err() {
        return false;
    }
    // A local file header: 26 bytes, the lengths of name and extra field, the name (APPNOTE 4.3.7).
    let name_bytes = match head.get(26..28) {
        Some(&[low, high]) => usize::from(u16::from_le_bytes([low, high])),
        _ => 0,
    };
    let name = head.get(30..).and_then(|rest| rest.get(..name_bytes)).unwrap_or_default();
    let zip = head.starts_with(b"PK\x03\x04") && name.ends_with(b"/data.pkl");
    zip || head.starts_with(MAGIC) || head.get(2..).is_some_and(|rest| rest.starts_with(MAGIC))
}

/// The refusal of a file that is neither, by the name of its kind.
fn refusal(source: &dyn ReadAt, head: &[u8]) -> FormatError {
    let length = source.len();
    if let Some((_, kind, advice)) = SIGNATURES.iter().find(|row| head.starts_with(row.0)) {
        return wrong(kind, advice);
    }
    let tar = head.get(257..262) == Some(b"ustar")
        || (length.is_multiple_of(512) && TAR_MEMBERS.iter().any(|name| head.starts_with(name)));
    if tar {
        let advice = "if torch older than 0.1.10 wrote it, load it with torch and save it again";
        return wrong("a tar archive", advice);
    }
    if head.iter().all(|byte| *byte == 0) {
        return wrong("zeros", "the download was interrupted; download the file again");
    }
    if ends_as_zip(source) {
        return wrong("a zip archive behind other bytes", "remove what is in front of it");
    }
    if is_markup(head) {
        return markup(head);
    }
    if names_global(head) {
        return wrong("a bare pickle", "loading it in Python could run code; nothing was run here");
    }
    if let Some(text) = text(head) {
        let start = text.trim_start_matches('\u{feff}').trim_start();
        if start.starts_with('{') || start.starts_with('[') {
            return wrong("a JSON file", "give the tool the .bin file or its directory");
        }
        return wrong("a text file", DOWNLOAD);
    }
    FormatError::new(Rule::UnknownKind, "file", "a checkpoint", "an unknown kind of file")
        .hint(DOWNLOAD)
}

fn wrong(kind: &str, advice: &str) -> FormatError {
    FormatError::new(Rule::WrongKind, "file", "a checkpoint", kind).hint(advice)
}

/// Whether the last bytes hold a zip archive's end record.
fn ends_as_zip(source: &dyn ReadAt) -> bool {
    let start = source.len().saturating_sub(HEAD_BYTES);
    let mut tail = vec![0; usize::try_from(source.len().min(HEAD_BYTES)).unwrap_or(0)];
    let read = source.read_exact_at(start, &mut tail);
    read.is_ok() && tail.windows(4).any(|four| four == b"PK\x05\x06")
}

/// Whether these are eight bytes of length, then a JSON object. The length may be any, but for those
/// that are the start of another file: a text's first characters, a zip's signature and version.
fn is_safetensors(head: &[u8]) -> bool {
    let Some((length, rest)) = head.split_first_chunk::<8>() else { return false };
    let small = u64::from_le_bytes(*length) < 1 << 32;
    let text = length.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    rest.first() == Some(&b'{') && (small || (!text && !head.starts_with(b"PK")))
}

/// The text behind a byte order mark and white space.
fn start_of_text(head: &[u8]) -> &[u8] {
    head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start()
}

/// HTML or XML, in whatever encoding its later bytes are.
fn is_markup(head: &[u8]) -> bool {
    matches!(start_of_text(head), [b'<', b'!' | b'?' | b'a'..=b'z' | b'A'..=b'Z', ..])
}

fn markup(head: &[u8]) -> FormatError {
    let start = start_of_text(head);
    let xml = start.starts_with(b"<?xml") && !start.windows(5).any(|five| five == b"<html");
    let kind = if xml { "an XML message" } else { "an HTML page" };
    wrong(kind, "this is a web server's answer; download the file again")
}

/// Whether it starts as a pickle of protocol 0 that names something: `c`, module, name.
fn names_global(head: &[u8]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n');
    let plain = |line: Option<&[u8]>| {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        line.is_some_and(|line| !line.is_empty() && line.iter().all(word))
    };
    let module = lines.next().and_then(|line| line.strip_prefix(b"c"));
    plain(module)
        && plain(lines.next())
        && lines
            .next()
            .is_some_and(|rest| rest.first().is_some_and(|byte| b"(])}tRq.".contains(byte)))
}

/// The head as text, if it is text; its last character may be cut.
fn text(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t' | '\u{c}');
    text.chars().all(printable).then_some(text)
}
