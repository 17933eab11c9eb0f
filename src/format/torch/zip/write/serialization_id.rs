//! Computes the record `.data/serialization_id`: a hash of the record names and a hash of their
//! checksums.
//!
//! torch combines the hashes of the names in the iteration order of a C++ `unordered_set`, so both
//! libstdc++'s string hash and its order of iteration are part of the bytes. (A torch built against
//! another C++ library writes other digits; nothing ever reads them.)
//!
//! Sources: torch 2.11 `caffe2/serialize/inline_container.cc` (`writeSerializationId`,
//! `ostream_write_func`), `c10/util/hash.h` (`hash_combine`); GCC libstdc++
//! `libsupc++/hash_bytes.cc` (Murmur, 64-bit) and `bits/hashtable.h` (`_M_insert_bucket_begin`,
//! `_M_rehash_aux`).

/// Bucket counts of a libstdc++ hash table that grows by one element at a time.
const GROWTH: [usize; 19] = [
    13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273, 20753, 42043, 85229, 172_933, 351_061,
    712_697, 1_447_153, 2_938_679, 5_967_347,
];

/// The most records that one archive can have: the last bucket count that we know.
pub(crate) const MAX_RECORDS: usize = 5_967_347;

/// `boost::hash_combine` as c10 has it.
pub(super) fn combine(seed: u64, value: u64) -> u64 {
    seed ^ value.wrapping_add(0x9e37_79b9).wrapping_add(seed << 6).wrapping_add(seed >> 2)
}

/// The running hash of an archive's checksums, records in file order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChecksumHash(u64);

impl ChecksumHash {
    /// Takes a record's payload: its CRC-32, size in bytes and first eight bytes.
    ///
    /// The writer looks for data descriptors in what it writes, so a payload that begins like one
    /// (`PK\x07\x08`) counts too, before its own descriptor. Records of 0 bytes have none.
    pub(super) fn record(&mut self, crc32: u32, size_bytes: u64, first_bytes: [u8; 8]) {
        let [b'P', b'K', 7, 8, rest @ ..] = first_bytes else {
            return self.checksum(crc32, size_bytes);
        };
        if size_bytes >= 8 {
            self.0 = combine(self.0, u64::from(u32::from_le_bytes(rest)));
        }
        self.checksum(crc32, size_bytes);
    }

    fn checksum(&mut self, crc32: u32, size_bytes: u64) {
        if size_bytes > 0 {
            self.0 = combine(self.0, u64::from(crc32));
        }
    }
}

/// The 40 digits: `names` are those of all earlier records, without the top folder, in file order.
pub(super) fn serialization_id<'a>(
    names: impl Iterator<Item = &'a str>,
    checksums: ChecksumHash,
) -> String {
    let mut set = NameSet::default();
    for name in names {
        set.insert(hash_bytes(name.as_bytes()));
    }
    let names_hash = set.iter().fold(0, combine);
    format!("{names_hash:020}{:020}", checksums.0)
}

/// `std::hash<std::string>` of libstdc++ on 64-bit machines.
fn hash_bytes(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xc70f_6907;
    const MUL: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |value: u64| value ^ (value >> 47);
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MUL);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let word = mix(u64::from_le_bytes(*word).wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = (hash ^ word).wrapping_mul(MUL);
    }
    if !tail.is_empty() {
        let tail = tail.iter().rev().fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
        hash = (hash ^ tail).wrapping_mul(MUL);
    }
    mix(mix(hash).wrapping_mul(MUL))
}

/// A libstdc++ `unordered_set` of hashes that are distinct elements: one singly linked list of all
/// nodes, and buckets that hold the node BEFORE their first one.
///
/// Node 0 stands for "before begin"; element i is node i + 1.
struct NameSet {
    hashes: Vec<u64>,
    next: Vec<usize>,
    buckets: Vec<usize>,
    n_growths: usize,
}

const BEFORE_BEGIN: usize = 0;
const NONE: usize = usize::MAX;

impl Default for NameSet {
    fn default() -> NameSet {
        NameSet { hashes: vec![0], next: vec![NONE], buckets: Vec::new(), n_growths: 0 }
    }
}

#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "indices are our own node and bucket numbers; a bucket is below a usize"
)]
impl NameSet {
    fn insert(&mut self, hash: u64) {
        let node = self.hashes.len();
        self.hashes.push(hash);
        self.next.push(NONE);
        if node > self.buckets.len() {
            self.grow();
        }
        self.link(node);
    }

    /// Takes the next bucket count and links every node again, in list order.
    fn grow(&mut self) {
        // Beyond the table (archives that large are refused) the order would only be another one.
        let Some(&count) = GROWTH.get(self.n_growths) else { return };
        self.n_growths += 1;
        self.buckets = vec![NONE; count];
        let mut node = std::mem::replace(&mut self.next[BEFORE_BEGIN], NONE);
        while node != NONE {
            let following = self.next[node];
            self.link(node);
            node = following;
        }
    }

    /// First of its bucket, and first of all where the bucket is empty.
    fn link(&mut self, node: usize) {
        let bucket = self.bucket(node);
        let before = self.buckets[bucket];
        if before != NONE {
            self.next[node] = self.next[before];
            self.next[before] = node;
            return;
        }
        let head = std::mem::replace(&mut self.next[BEFORE_BEGIN], node);
        self.next[node] = head;
        self.buckets[bucket] = BEFORE_BEGIN;
        if head != NONE {
            let head_bucket = self.bucket(head);
            self.buckets[head_bucket] = node;
        }
    }

    fn bucket(&self, node: usize) -> usize {
        (self.hashes[node] % self.buckets.len() as u64) as usize
    }

    /// The hashes in the order of iteration.
    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let follow = |node: usize| Some(self.next[node]).filter(|next| *next != NONE);
        std::iter::successors(follow(BEFORE_BEGIN), move |node| follow(*node))
            .map(|node| self.hashes[node])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_hashes_are_those_of_libstdcpp() {
        for (text, hash) in [
            ("", 6_142_509_188_972_423_790),
            ("a", 4_993_892_634_952_068_459),
            ("data.pkl", 4_941_642_132_189_851_806),
            (".format_version", 17_551_914_330_364_864_604),
            (".storage_alignment", 6_538_796_466_453_296_957),
            ("byteorder", 17_475_754_552_457_364_548),
            ("data/0", 476_597_642_816_643_211),
            ("version", 1_565_691_551_459_181_974),
            ("data/12345", 3_075_860_550_784_072_147),
        ] {
            assert_eq!(hash_bytes(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn names_come_out_in_the_order_of_libstdcpps_set() {
        let mut names: Vec<String> =
            ["data.pkl", ".format_version", ".storage_alignment", "byteorder"]
                .map(String::from)
                .to_vec();
        names.extend((0..10).map(|key| format!("data/{key}")));
        names.push("version".into());
        let mut set = NameSet::default();
        for name in &names {
            set.insert(hash_bytes(name.as_bytes()));
        }
        let order: Vec<&str> = set
            .iter()
            .filter_map(|hash| names.iter().find(|name| hash_bytes(name.as_bytes()) == hash))
            .map(String::as_str)
            .collect();
        assert_eq!(
            order,
            [
                "data.pkl",
                "data/9",
                "data/3",
                ".format_version",
                ".storage_alignment",
                "data/6",
                "version",
                "byteorder",
                "data/0",
                "data/1",
                "data/2",
                "data/4",
                "data/5",
                "data/7",
                "data/8",
            ]
        );
    }

    #[test]
    fn a_payload_that_begins_like_a_descriptor_counts_from_eight_bytes_on() {
        let hash = |size_bytes, first_bytes: &[u8; 8]| {
            let mut hash = ChecksumHash::default();
            hash.record(7, size_bytes, *first_bytes);
            hash.0
        };
        let plain = combine(0, 7);
        assert_eq!(hash(9, b"12345678"), plain);
        assert_eq!(hash(7, b"PK\x07\x08abc\0"), plain);
        assert_eq!(hash(8, b"PK\x07\x08\x01\0\0\0"), combine(combine(0, 1), 7));
        assert_eq!(hash(0, &[0; 8]), 0);
    }
}
