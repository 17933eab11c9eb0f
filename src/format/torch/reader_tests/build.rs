//! Builds files for tests, byte by byte: pickles of any content, and zip archives of any shape.

/// An opcode with nothing.
pub(super) const NONE: &[u8] = b"N";

/// A unicode string.
pub(super) fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [b"X".as_slice(), &length.to_le_bytes(), text.as_bytes()].concat()
}

/// An integer, as LONG1 of eight bytes.
pub(super) fn int(value: i64) -> Vec<u8> {
    [b"\x8a\x08".as_slice(), &value.to_le_bytes()].concat()
}

/// A global.
pub(super) fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

/// A tuple.
pub(super) fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(".as_slice(), &items.concat(), b"t"].concat()
}

/// A tuple of integers.
pub(super) fn ints(values: &[i64]) -> Vec<u8> {
    tuple(&values.iter().map(|value| int(*value)).collect::<Vec<_>>())
}

/// A call.
pub(super) fn call(module: &str, name: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    [global(module, name), tuple(arguments), b"R".to_vec()].concat()
}

/// A storage of float32.
pub(super) fn storage(key: &str, numel: i64) -> Vec<u8> {
    storage_of("FloatStorage", text(key), numel, None)
}

/// A storage of any class, with the view of legacy files where there is one.
pub(super) fn storage_of(class: &str, key: Vec<u8>, numel: i64, view: Option<Vec<u8>>) -> Vec<u8> {
    let class = match class {
        "UntypedStorage" | "TypedStorage" => global("torch.storage", class),
        _ => global("torch", class),
    };
    let mut items = vec![text("storage"), class, key, text("cpu"), int(numel)];
    items.extend(view);
    [tuple(&items), b"Q".to_vec()].concat()
}

/// `_rebuild_tensor_v2` over a storage.
pub(super) fn tensor(storage: Vec<u8>, offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
    let hooks = call("collections", "OrderedDict", &[]);
    let arguments =
        [storage, int(offset), ints(size), ints(stride), b"\x89".to_vec(), hooks].to_vec();
    call("torch._utils", "_rebuild_tensor_v2", &arguments)
}

/// `_rebuild_tensor_v3`: a tensor of a dtype without a storage class, one-dimensional.
pub(super) fn tensor_v3(key: &str, bytes: i64, dtype: &str, numel: i64) -> Vec<u8> {
    let storage = storage_of("UntypedStorage", text(key), bytes, None);
    let hooks = call("collections", "OrderedDict", &[]);
    let dtype = global("torch", dtype);
    let arguments =
        [storage, int(0), ints(&[numel]), ints(&[1]), b"\x89".to_vec(), hooks, dtype].to_vec();
    call("torch._utils", "_rebuild_tensor_v3", &arguments)
}

/// The usual tensor: float32 [2, 3] over storage `0`.
pub(super) fn usual() -> Vec<u8> {
    tensor(storage("0", 6), 0, &[2, 3], &[3, 1])
}

/// A dict.
pub(super) fn dict(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> =
        pairs.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [b"}(".as_slice(), &items, b"u"].concat()
}

/// A whole pickle of one value.
pub(super) fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02".as_slice(), value, b"."].concat()
}

/// One entry of an archive; the fields default to a stored entry that is right.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) data: Vec<u8>,
    /// Uncompressed size where the data are deflated.
    pub(super) deflated: Option<u32>,
    pub(super) crc32: u32,
    /// Bytes between the data and what follows.
    pub(super) behind: Vec<u8>,
    pub(super) local: Header,
    pub(super) central: Header,
    /// Added to the header offset in the directory.
    pub(super) shift: u32,
}

/// What a header adds to or changes of the truth: flags and extra field are as given, the numbers
/// are xored.
#[derive(Clone, Default)]
pub(super) struct Header {
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) crc32: u32,
    pub(super) compressed: u32,
    pub(super) size: u32,
    pub(super) extra: Vec<u8>,
    /// Another name, in the local header only.
    pub(super) name: Option<Vec<u8>>,
}

/// A stored entry.
pub(super) fn entry(name: &str, data: &[u8]) -> Entry {
    let crc32 = crate::tensor::crc32(data);
    Entry {
        name: name.as_bytes().to_vec(),
        data: data.to_vec(),
        deflated: None,
        crc32,
        behind: Vec::new(),
        local: Header::default(),
        central: Header::default(),
        shift: 0,
    }
}

/// An archive of entries with their directory and a plain end record.
pub(super) fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut out, directory, count) = parts(entries);
    let offset = out.len();
    out.extend(&directory);
    out.extend(end(count, directory.len(), offset));
    out
}

/// The end record of an archive.
pub(super) fn end(count: usize, size: usize, offset: usize) -> Vec<u8> {
    let count = u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes();
    let long = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    [b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &long(size), &long(offset), b"\0\0"].concat()
}

/// The entries, their directory, and how many there are.
pub(super) fn parts(entries: &[Entry]) -> (Vec<u8>, Vec<u8>, usize) {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = u32::try_from(out.len()).unwrap_or(u32::MAX);
        let local_name = entry.local.name.as_ref().unwrap_or(&entry.name);
        out.extend(b"PK\x03\x04\0\0");
        out.extend(numbers(entry, &entry.local, local_name));
        out.extend(local_name);
        out.extend(&entry.local.extra);
        out.extend(&entry.data);
        out.extend(&entry.behind);
        directory.extend(b"PK\x01\x02\0\0\0\0");
        directory.extend(numbers(entry, &entry.central, &entry.name));
        directory.extend([0; 10]);
        directory.extend(u32::to_le_bytes(offset.wrapping_add(entry.shift)));
        directory.extend(&entry.name);
        directory.extend(&entry.central.extra);
    }
    (out, directory, entries.len())
}

/// The fields that both headers have, from flags to extra length.
fn numbers(entry: &Entry, header: &Header, name: &[u8]) -> Vec<u8> {
    let compressed = u32::try_from(entry.data.len()).unwrap_or(u32::MAX);
    let method = if entry.deflated.is_some() { 8u16 } else { 0 };
    let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
    [
        header.flags.to_le_bytes().as_slice(),
        &(method ^ header.method).to_le_bytes(),
        &[0; 4],
        &(entry.crc32 ^ header.crc32).to_le_bytes(),
        &(compressed ^ header.compressed).to_le_bytes(),
        &(entry.deflated.unwrap_or(compressed) ^ header.size).to_le_bytes(),
        &short(name.len()),
        &short(header.extra.len()),
    ]
    .concat()
}

/// Six float32: the usual tensor's storage.
pub(super) fn six_floats() -> Vec<u8> {
    (0..6u8).flat_map(|value| f32::from(value).to_le_bytes()).collect()
}

/// The entries of a checkpoint with one pickle and the usual storage.
pub(super) fn entries(pickle: &[u8]) -> Vec<Entry> {
    vec![entry("x/data.pkl", pickle), entry("x/data/0", &six_floats()), entry("x/version", b"3\n")]
}

/// A checkpoint of one pickle and the usual storage.
pub(super) fn checkpoint(value: &[u8]) -> Vec<u8> {
    zip(&entries(&pickle(value)))
}
