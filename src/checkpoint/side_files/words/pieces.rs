//! Reads sentencepiece's pieces and tiktoken's ranks.

use base64::Engine;

use crate::checkpoint::side_files::protobuf::Message;
use crate::checkpoint::side_files::words::spelling::character_of;
use crate::checkpoint::side_files::words::vocabulary::Words;

/// The pieces of a sentencepiece model in order: `ModelProto.pieces` (field 1), each with its `piece`
/// (field 1). `None` where it is no such protobuf.
///
/// Source: `sentencepiece_model.proto` of sentencepiece 0.2.
pub(crate) fn sentencepieces(bytes: &[u8]) -> Option<Vec<String>> {
    let mut pieces = Vec::new();
    for field in Message(bytes) {
        let (number, content) = field?;
        if number != 1 {
            continue;
        }
        let mut piece = None;
        for field in Message(content?) {
            if let (1, Some(text)) = field? {
                piece = Some(std::str::from_utf8(text).ok()?.to_owned());
            }
        }
        pieces.push(piece?);
    }
    (!pieces.is_empty()).then_some(pieces)
}

/// tiktoken's ranks, lines of `base64 rank`, spelled as byte-level BPE; `None` where a line is another.
pub(crate) fn ranks(bytes: &[u8]) -> Option<Words> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = Words::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (token, rank) = line.split_once(' ')?;
        let token = base64::engine::general_purpose::STANDARD.decode(token).ok()?;
        let word = token.into_iter().map(character_of).collect();
        words.add(rank.parse().ok()?, word).ok()?;
    }
    (words.len() > 0).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_in_order_and_other_fields_skipped() {
        let model =
            b"\x0a\x0a\x0a\x03<s>\x15\0\0\0\0\x12\x01x\x0a\x05\x0a\x03\xe2\x96\x81\x18\x96\x01";
        assert_eq!(sentencepieces(model).unwrap(), ["<s>", "▁"]);
        for end in 0..model.len() {
            // Cut anywhere, it is nothing, or whole pieces fewer.
            let cut = sentencepieces(&model[..end]);
            assert!(cut.is_none_or(|pieces| pieces.len() < 3), "{end}");
        }
        for other in [&b"{}"[..], b"\x0a\x02\x18\x01", b"\x0a\x03\x0a\x01\xff", &[0xff; 20]] {
            assert!(sentencepieces(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn ranks_are_spelled_as_bytes() {
        let words = ranks(b"IQ== 0\nIHRoZQ== 1\nw6k= 2\n").unwrap();
        assert_eq!(words.texts().collect::<Vec<_>>(), ["!", "Ġthe", "Ã©"]);
        assert!(ranks(b"version https://git-lfs.github.com/spec/v1\n").is_none());
        assert!(ranks(b"").is_none());
    }
}
