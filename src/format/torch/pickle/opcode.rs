//! The pickle opcodes by name (Python's `pickletools`): those that are run and those that are
//! refused.

macro_rules! opcodes {
    ($($name:ident = $byte:literal, $what:literal;)*) => {
        /// A pickle opcode, by pickletools' name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(clippy::upper_case_acronyms, reason = "pickletools' names, with its spelling")]
        pub(crate) enum Opcode {
            $(#[doc = $what] $name,)*
        }

        impl Opcode {
            /// All opcodes.
            #[cfg(test)]
            const ALL: &'static [Opcode] = &[$(Opcode::$name,)*];

            /// The opcode of a byte, or `None` where no protocol up to 5 has one.
            pub(crate) fn from_byte(byte: u8) -> Option<Opcode> {
                match byte {
                    $($byte => Some(Opcode::$name),)*
                    _ => None,
                }
            }

            /// The byte in the stream.
            #[cfg(test)]
            fn byte(self) -> u8 {
                match self {
                    $(Opcode::$name => $byte,)*
                }
            }
        }
    };
}

opcodes! {
    // Protocol 0, text arguments.
    Mark = b'(', "push a mark";
    Stop = b'.', "end: the top of the stack is the value";
    Pop = b'0', "drop the top";
    PopMark = b'1', "drop everything above the mark";
    Dup = b'2', "push the top again";
    Float = b'F', "float as a line of text";
    Int = b'I', "integer or bool as a line of text";
    Long = b'L', "integer as a line of text that ends in L";
    None = b'N', "None";
    String = b'S', "quoted string with escapes, one line";
    Unicode = b'V', "raw-unicode-escaped string, one line";
    Append = b'a', "append the top to the list below";
    Build = b'b', "set the state of the object below";
    Global = b'c', "module and name, a line each";
    Dict = b'd', "dict from the pairs above the mark";
    Get = b'g', "memo slot as a line of text";
    List = b'l', "list from the items above the mark";
    Put = b'p', "memo slot as a line of text";
    Reduce = b'R', "call: function and argument tuple";
    SetItem = b's', "one pair into the dict below";
    Tuple = b't', "tuple from the items above the mark";
    // Protocol 1.
    BinFloat = b'G', "float, 8 bytes big-endian";
    BinInt = b'J', "i32";
    BinInt1 = b'K', "u8";
    BinInt2 = b'M', "u16";
    BinString = b'T', "Python 2 string, i32 length";
    ShortBinString = b'U', "Python 2 string, u8 length";
    BinUnicode = b'X', "UTF-8 string, u32 length";
    EmptyList = b']', "new list";
    Appends = b'e', "items above the mark to the list below";
    BinGet = b'h', "memo slot, u8";
    LongBinGet = b'j', "memo slot, u32";
    BinPut = b'q', "memo slot, u8";
    LongBinPut = b'r', "memo slot, u32";
    EmptyTuple = b')', "the empty tuple";
    SetItems = b'u', "pairs above the mark into the dict below";
    EmptyDict = b'}', "new dict";
    BinPersId = b'Q', "persistent id: the value below names a storage";
    // Protocol 2.
    Proto = 0x80, "protocol, u8";
    NewObj = 0x81, "object from class and argument tuple";
    Tuple1 = 0x85, "tuple of the top";
    Tuple2 = 0x86, "tuple of the top two";
    Tuple3 = 0x87, "tuple of the top three";
    NewTrue = 0x88, "True";
    NewFalse = 0x89, "False";
    Long1 = 0x8a, "integer, u8 length, two's complement";
    Long4 = 0x8b, "integer, i32 length, two's complement";
    // Protocols 3 to 5.
    BinBytes = b'B', "bytes, u32 length";
    ShortBinBytes = b'C', "bytes, u8 length";
    ShortBinUnicode = 0x8c, "UTF-8 string, u8 length";
    BinUnicode8 = 0x8d, "UTF-8 string, u64 length";
    BinBytes8 = 0x8e, "bytes, u64 length";
    EmptySet = 0x8f, "new set";
    AddItems = 0x90, "items above the mark into the set below";
    NewObjEx = 0x92, "object from class, argument tuple and keyword dict";
    StackGlobal = 0x93, "module and name from the stack";
    Memoize = 0x94, "top into the next memo slot";
    Frame = 0x95, "length of a frame, u64; ignored";
    ByteArray8 = 0x96, "bytearray, u64 length";
    // Known, and refused: no state dict needs them and each of them can reach code.
    Inst = b'i', "object of a class named in the stream";
    Obj = b'o', "object of a class on the stack";
    PersId = b'P', "persistent id as text";
    Ext1 = 0x82, "object of the extension registry";
    Ext2 = 0x83, "object of the extension registry";
    Ext4 = 0x84, "object of the extension registry";
    FrozenSet = 0x91, "frozen set from the items above the mark";
    NextBuffer = 0x97, "out-of-band buffer";
    ReadOnlyBuffer = 0x98, "read-only view of a buffer";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_round_trips_through_its_byte() {
        for opcode in Opcode::ALL {
            assert_eq!(Opcode::from_byte(opcode.byte()), Some(*opcode));
        }
        // As many as pickletools lists for protocols 0 to 5.
        assert_eq!(Opcode::ALL.len(), 68);
        assert_eq!(Opcode::from_byte(0xee), None);
    }
}
