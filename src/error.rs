//! The crate's error: its kind, which decides the exit code, the file and tensor concerned, what
//! was expected and found, and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::format::{FormatError, Rule};
use crate::tensor::{cut, escape, escape_up_to};

/// Result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Whose fault an error is. Each kind has one exit code (docs/usage.md has the table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The command line or manifest is wrong: 2.
    Usage,
    /// A parent's data is bad, or the parents do not fit each other: 65.
    Data,
    /// An input is not there or can't be read: 66.
    NoInput,
    /// The device that was asked for is not there: 69.
    Device,
    /// A bug in this program: 70.
    Internal,
    /// Out of memory, file handles or a broken CUDA context: 71.
    Resource,
    /// The output is refused: exists, inside a parent, read-only, no room: 73.
    Output,
    /// I/O failed while working: 74.
    Io,
    /// Trying again may work: another run holds the output, a parent changed: 75.
    TryAgain,
    /// Interrupted by SIGINT: 130.
    Interrupted,
    /// Ended by SIGTERM: 143.
    Terminated,
}

impl Kind {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Data => 65,
            Kind::NoInput => 66,
            Kind::Device => 69,
            Kind::Internal => 70,
            Kind::Resource => 71,
            Kind::Output => 73,
            Kind::Io => 74,
            Kind::TryAgain => 75,
            Kind::Interrupted => 130,
            Kind::Terminated => 143,
        }
    }
}

/// An error that reads `what: file: tensor: expected X, found Y`, with a hint on its own line.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    file: Option<PathBuf>,
    tensor: Option<String>,
    expected: String,
    found: String,
    hint: Option<String>,
    left: Vec<PathBuf>,
    rule: Option<Rule>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `what` is a few words without a final period.
    pub fn new(kind: Kind, what: impl Into<String>) -> Error {
        Error {
            kind,
            what: what.into(),
            file: None,
            tensor: None,
            expected: String::new(),
            found: String::new(),
            hint: None,
            left: Vec::new(),
            rule: None,
            source: None,
        }
    }

    /// An error of the format floor in `file`.
    pub fn from_format(file: &Path, error: FormatError) -> Error {
        let kind = match error.rule {
            Rule::Read => Kind::Io,
            Rule::NoEntry => Kind::NoInput,
            _ => Kind::Data,
        };
        let mut what = error.what;
        if let Some(offset) = error.offset {
            what.push_str(&format!(" at byte {offset}"));
        }
        Error {
            tensor: error.tensor,
            expected: error.expected,
            found: error.found,
            hint: error.hint,
            rule: Some(error.rule),
            source: error.source.map(|source| Box::new(source) as _),
            ..Error::new(kind, what).file(file)
        }
    }

    /// A failed system call on `file`.
    pub fn from_io(kind: Kind, what: impl Into<String>, file: &Path, source: io::Error) -> Error {
        let kind = match source.raw_os_error() {
            Some(code) if code == rustix::io::Errno::MFILE.raw_os_error() => Kind::Resource,
            Some(code) if code == rustix::io::Errno::NFILE.raw_os_error() => Kind::Resource,
            _ if source.kind() == io::ErrorKind::OutOfMemory => Kind::Resource,
            _ => kind,
        };
        Error {
            found: source.to_string(),
            source: Some(Box::new(source)),
            ..Error::new(kind, what).file(file)
        }
    }

    /// Adds the file's path.
    #[must_use]
    pub fn file(mut self, file: &Path) -> Error {
        self.file = Some(file.to_path_buf());
        self
    }

    /// Adds the tensor's name.
    #[must_use]
    pub fn tensor(mut self, name: impl Into<String>) -> Error {
        self.tensor = Some(name.into());
        self
    }

    /// Adds what was expected and what was found.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        self.expected = expected.into();
        self.found = found.into();
        self
    }

    /// Adds advice, printed on its own line as `hint: ...`.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what stays on disk for a later run, printed on lines of their own as `left on disk: ...`.
    #[must_use]
    pub fn left_on_disk(mut self, paths: Vec<PathBuf>) -> Error {
        self.left = paths;
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        self.source = Some(source.into());
        self
    }

    /// Whose fault.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Adds the format rule that was broken.
    #[must_use]
    pub fn with_rule(mut self, rule: Rule) -> Error {
        self.rule = Some(rule);
        self
    }

    /// The format rule that was broken, where the file itself is at fault.
    pub fn rule(&self) -> Option<Rule> {
        self.rule
    }

    /// The tensor concerned.
    pub fn tensor_name(&self) -> Option<&str> {
        self.tensor.as_deref()
    }

    /// The file concerned.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What stays on disk.
    pub fn left(&self) -> &[PathBuf] {
        &self.left
    }

    /// Advice.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Bytes of the parts of a message, which is at most 1 KB long but for lists of several lines.
const WHAT_BYTES: usize = 160;
const FILE_BYTES: usize = 300;
const TENSOR_BYTES: usize = 160;
const LINE_BYTES: usize = 180;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape_lines(&self.what, WHAT_BYTES))?;
        if let Some(file) = &self.file {
            let path = escape_up_to(&file.to_string_lossy(), usize::MAX);
            write!(f, ": {}", cut(&path, FILE_BYTES))?;
        }
        if let Some(tensor) = &self.tensor {
            write!(f, ": `{}`", cut(&escape(tensor), TENSOR_BYTES))?;
        }
        let [expected, found] =
            [&self.expected, &self.found].map(|text| escape_lines(text, LINE_BYTES));
        match (expected.is_empty(), found.is_empty()) {
            (false, false) => write!(f, ": expected {expected}, found {found}"),
            (false, true) => write!(f, ": expected {expected}"),
            (true, false) => write!(f, ": {found}"),
            (true, true) => Ok(()),
        }
    }
}

/// Escapes all unprintable characters but line breaks, which lists of mismatches have. Backslashes stay:
/// names in these texts are escaped already. Long lines lose their middle.
fn escape_lines(text: &str, most: usize) -> String {
    let line = |line: &str| {
        let parts = line.split('\\').map(|part| escape_up_to(part, usize::MAX));
        let escaped = parts.collect::<Vec<_>>().join("\\");
        cut(&escaped, most).into_owned()
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}
