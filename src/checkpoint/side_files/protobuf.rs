//! Walks the fields of protobuf messages, as sentencepiece writes its models.

/// The fields of a message: number and, of those with a length, the content. `None` at the first byte that is
/// no field, after which nothing follows.
pub(crate) struct Message<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Message<'a> {
    type Item = Option<(u64, Option<&'a [u8]>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Message<'a> {
    fn field(&mut self) -> Option<(u64, Option<&'a [u8]>)> {
        let (tag, after) = varint(self.0)?;
        let skip = match tag & 7 {
            0 => {
                self.0 = varint(after)?.1;
                return Some((tag >> 3, None));
            }
            1 => 8,
            5 => 4,
            2 => {
                let (length, content) = varint(after)?;
                let (content, rest) = content.split_at_checked(usize::try_from(length).ok()?)?;
                self.0 = rest;
                return Some((tag >> 3, Some(content)));
            }
            _ => return None,
        };
        self.0 = after.get(skip..)?;
        Some((tag >> 3, None))
    }
}

/// A varint of at most ten bytes and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (position, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(position + 1..)?));
        }
    }
    None
}
