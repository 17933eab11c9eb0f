//! Reads a pickle by a stack machine with a memo and an arena. It builds data and calls nothing.
//!
//! Iterative, and bounded by what it is given: at most one value per opcode, memory that grows with
//! the file, nesting of at most `MAX_DEPTH`, lengths checked against the bytes left before they
//! are used. Opcodes and their arguments are pickletools'.

use crate::format::error::FormatError;
use crate::format::torch::pickle::budget::budget;
use crate::format::torch::pickle::opcode::Opcode;
use crate::format::torch::pickle::stack::{
    EMPTY_TUPLE, FALSE, MAX_DEPTH, MAX_PICKLE_BYTES, Machine, NONE, Source, TRUE, small,
};
use crate::format::torch::pickle::text;
use crate::format::torch::pickle::value::{Atom, Dict, Pickle, Ref, Span, Value};
use crate::tensor::escape;

/// Reads the pickle at the start of `source.bytes`. Bytes after its `STOP` are not looked at.
///
/// # Errors
/// `Rule::Truncated` where the bytes end first, `Rule::Pickle` for a broken pickle,
/// `Rule::PickleLimit` for one above the bounds, `Rule::ForbiddenGlobal` for a name that is not
/// known to be data, `Rule::Unsupported` for objects with a state of their own. All carry the byte
/// position of the opcode.
pub(crate) fn read_pickle(source: Source<'_>) -> Result<Pickle<'_>, Refusal> {
    let mut machine = Machine::new(source);
    match machine.run() {
        Ok(root) => {
            let length = machine.cursor.position();
            let budget = budget(length as u64, source.file_bytes);
            let (bytes, opaque) = (source.bytes, source.opaque);
            let Machine { arena, foreign, .. } = machine;
            Ok(Pickle { bytes, arena, root, length, budget, opaque, foreign })
        }
        Err(error) => Err(Refusal { error, more_would_help: machine.starved }),
    }
}

/// Why a pickle was not read.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The error.
    pub(crate) error: FormatError,
    /// Whether the pickle only needs more of the file than was at hand.
    pub(crate) more_would_help: bool,
}

impl Machine<'_> {
    pub(super) fn run(&mut self) -> Result<Ref, FormatError> {
        loop {
            self.at = self.cursor.position();
            if self.at as u64 >= MAX_PICKLE_BYTES {
                return Err(self.limit("a pickle of at most 48 MiB", "more"));
            }
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            let Some(opcode) = Opcode::from_byte(byte) else {
                return Err(self.broken("an opcode", format!("byte {byte:#04x}")));
            };
            if opcode == Opcode::Stop {
                break;
            }
            self.step(opcode)?;
        }
        let root = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            let found = format!("{} more below it", self.stack.len());
            return Err(self.broken("one value at the end", found));
        }
        Ok(root)
    }

    fn step(&mut self, opcode: Opcode) -> Result<(), FormatError> {
        match opcode {
            Opcode::Stop => Ok(()),
            Opcode::Proto => match self.u8()? {
                0..=5 => Ok(()),
                other => Err(self.broken("protocol 0 to 5", format!("{other}"))),
            },
            Opcode::Frame => {
                let length = self.u64()?;
                let left = self.left();
                if length <= left { Ok(()) } else { Err(self.too_long(length, left)) }
            }
            Opcode::Mark => {
                if self.marks.len() >= usize::from(MAX_DEPTH) {
                    return Err(self.limit(format!("at most {MAX_DEPTH} open marks"), "more"));
                }
                self.marks.push(self.stack.len());
                Ok(())
            }
            Opcode::Pop => {
                // Python lets POP take a mark that has nothing above it.
                if self.stack.len() == self.fence() && !self.marks.is_empty() {
                    self.marks.pop();
                    return Ok(());
                }
                self.pop().map(drop)
            }
            Opcode::PopMark => self.pop_mark().map(drop),
            Opcode::Dup => {
                let top = self.top()?;
                self.push_ref(top)
            }
            Opcode::None => self.push_ref(NONE),
            Opcode::NewTrue => self.push_ref(TRUE),
            Opcode::NewFalse => self.push_ref(FALSE),
            Opcode::Int | Opcode::Long | Opcode::BinInt | Opcode::BinInt1 | Opcode::BinInt2 => {
                self.integer(opcode)
            }
            Opcode::Long1 => {
                let length = u64::from(self.u8()?);
                self.long(length)
            }
            Opcode::Long4 => {
                let length = self.length_i32()?;
                self.long(length)
            }
            Opcode::Float => {
                let line = self.line()?;
                let text = std::str::from_utf8(line).unwrap_or_default();
                match text.parse::<f64>() {
                    Ok(_) => self.push(Value::Atom(Atom::Float), 0),
                    Err(_) => Err(self.broken("a float", escape(&String::from_utf8_lossy(line)))),
                }
            }
            Opcode::BinFloat => {
                self.take(8)?;
                self.push(Value::Atom(Atom::Float), 0)
            }
            Opcode::String
            | Opcode::Unicode
            | Opcode::BinString
            | Opcode::ShortBinString
            | Opcode::BinUnicode
            | Opcode::ShortBinUnicode
            | Opcode::BinUnicode8 => self.string(opcode),
            Opcode::BinBytes => {
                let length = u64::from(self.u32()?);
                self.skip_bytes(length)
            }
            Opcode::ShortBinBytes => {
                let length = u64::from(self.u8()?);
                self.skip_bytes(length)
            }
            Opcode::BinBytes8 | Opcode::ByteArray8 => {
                let length = self.u64()?;
                self.skip_bytes(length)
            }
            Opcode::EmptyTuple => self.push_ref(EMPTY_TUPLE),
            Opcode::Tuple1 => self.tuple_of(1),
            Opcode::Tuple2 => self.tuple_of(2),
            Opcode::Tuple3 => self.tuple_of(3),
            Opcode::Tuple => {
                let items = self.pop_mark()?;
                self.push_tuple(&items)
            }
            Opcode::EmptyList => self.push_list(Vec::new()),
            Opcode::List => {
                let items = self.pop_mark()?;
                self.push_list(items)
            }
            Opcode::EmptyDict => self.push_dict(Dict::default()),
            Opcode::Dict => {
                let items = self.pop_mark()?;
                self.push_dict(Dict::default())?;
                self.set_items(&items)
            }
            Opcode::EmptySet => self.push(Value::Set, 0),
            Opcode::AddItems => {
                let items = self.pop_mark()?;
                let set = self.top()?;
                self.expect(set, "a set", |value| matches!(value, Value::Set))?;
                self.attach(set, &items)
            }
            Opcode::Append => {
                let item = self.pop()?;
                self.append(&[item])
            }
            Opcode::Appends => {
                let items = self.pop_mark()?;
                self.append(&items)
            }
            Opcode::SetItem => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])
            }
            Opcode::SetItems => {
                let items = self.pop_mark()?;
                self.set_items(&items)
            }
            Opcode::Put
            | Opcode::BinPut
            | Opcode::LongBinPut
            | Opcode::Memoize
            | Opcode::Get
            | Opcode::BinGet
            | Opcode::LongBinGet => self.memo(opcode),
            Opcode::Global => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)
            }
            Opcode::StackGlobal => {
                let name = self.pop()?;
                let module = self.pop()?;
                let is_text = |value| matches!(value, Value::Text(_) | Value::Decoded(_));
                self.expect(name, "a name as text", is_text)?;
                self.expect(module, "a module as text", is_text)?;
                let text = |reference| {
                    self.arena.text(self.source.bytes, self.arena.get(reference)).unwrap_or("")
                };
                let (module, name) = (text(module).to_owned(), text(name).to_owned());
                self.global(module.as_bytes(), name.as_bytes())
            }
            Opcode::Reduce => self.call(true),
            Opcode::NewObj => self.call(false),
            Opcode::NewObjEx => {
                let keywords = self.pop()?;
                self.new_with_keywords(keywords)
            }
            Opcode::Build => self.build(),
            Opcode::BinPersId => {
                let id = self.pop()?;
                let depth = self.depth_over([id])?;
                self.push(Value::Persistent(id), depth)
            }
            Opcode::Inst => {
                let module = self.line()?;
                let name = self.line()?;
                Err(self.forbidden(module, name))
            }
            Opcode::Obj
            | Opcode::PersId
            | Opcode::Ext1
            | Opcode::Ext2
            | Opcode::Ext4
            | Opcode::FrozenSet
            | Opcode::NextBuffer
            | Opcode::ReadOnlyBuffer => {
                Err(self.broken("opcodes that state dicts need", format!("`{opcode:?}`")))
            }
        }
    }

    fn integer(&mut self, opcode: Opcode) -> Result<(), FormatError> {
        let value = match opcode {
            Opcode::BinInt1 => i128::from(self.u8()?),
            Opcode::BinInt2 => i128::from(self.array().map(u16::from_le_bytes)?),
            Opcode::BinInt => i128::from(self.array().map(i32::from_le_bytes)?),
            _ => {
                let line = self.line()?;
                match (opcode, line) {
                    (Opcode::Int, b"01") => return self.push_ref(TRUE),
                    (Opcode::Int, b"00") => return self.push_ref(FALSE),
                    _ => {}
                }
                let digits = match opcode {
                    Opcode::Long => line.strip_suffix(b"L").unwrap_or(line),
                    _ => line,
                };
                match text::decimal(digits) {
                    Some(value) => value,
                    None => {
                        let found = escape(&String::from_utf8_lossy(digits));
                        return Err(self.broken("an integer of at most 128 bits", found));
                    }
                }
            }
        };
        self.push_integer(value)
    }

    fn long(&mut self, length: u64) -> Result<(), FormatError> {
        let bytes = self.take_u64(length)?;
        match text::twos_complement(bytes) {
            Some(value) => self.push_integer(value),
            None => self.push(Value::Atom(Atom::HugeInt), 0),
        }
    }

    fn push_integer(&mut self, value: i128) -> Result<(), FormatError> {
        if let Ok(byte) = u8::try_from(value) {
            return self.push_ref(small(byte));
        }
        if let Ok(number) = i64::try_from(value) {
            return self.push(Value::Int(number), 0);
        }
        let index = self.index(self.arena.long.len())?;
        self.arena.long.push(value);
        self.push(Value::Long(index), 0)
    }

    fn string(&mut self, opcode: Opcode) -> Result<(), FormatError> {
        let length = match opcode {
            Opcode::String => {
                let line = self.line()?;
                let Some(bytes) = text::quoted(line) else {
                    return Err(self.broken("a quoted string", "something else"));
                };
                return match String::from_utf8(bytes) {
                    Ok(text) => self.push_decoded(text),
                    Err(_) => self.push(Value::Atom(Atom::Bytes), 0),
                };
            }
            Opcode::Unicode => {
                let line = self.line()?;
                return match text::raw_unicode(line) {
                    Some(text) => self.push_decoded(text),
                    None => Err(self.broken("unicode text", "a broken escape")),
                };
            }
            Opcode::BinString => self.length_i32()?,
            Opcode::ShortBinString | Opcode::ShortBinUnicode => u64::from(self.u8()?),
            Opcode::BinUnicode => u64::from(self.u32()?),
            _ => self.u64()?,
        };
        let start = self.index(self.cursor.position())?;
        let bytes = self.take_u64(length)?;
        let len = self.index(bytes.len())?;
        if std::str::from_utf8(bytes).is_ok() {
            return self.push(Value::Text(Span { start, len }), 0);
        }
        // Python 2 had one type for text and bytes.
        if matches!(opcode, Opcode::BinString | Opcode::ShortBinString) {
            return self.push(Value::Atom(Atom::Bytes), 0);
        }
        Err(self.broken("UTF-8 text", "other bytes"))
    }

    fn push_decoded(&mut self, text: String) -> Result<(), FormatError> {
        let index = self.index(self.arena.decoded.len())?;
        self.hold(0, text.len(), 1)?;
        self.arena.decoded.push(text.into_boxed_str());
        self.push(Value::Decoded(index), 0)
    }

    fn skip_bytes(&mut self, length: u64) -> Result<(), FormatError> {
        self.take_u64(length)?;
        self.push(Value::Atom(Atom::Bytes), 0)
    }
}
