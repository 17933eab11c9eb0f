//! `Pair`: a tensor of the child, and the tensor of each parent that it is made from.

use crate::checkpoint::{Side, TensorEntry};
use crate::merge::names::buffers::KnownBuffer;
use crate::merge::vocab::by_word::WordRows;
use crate::merge::vocab::extension::Extension;

/// A child's tensor before its dtype and place are decided. Indices are into the inventories.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// Name in the child.
    pub name: String,
    /// The primary's tensor.
    pub primary: Option<usize>,
    /// The secondary's tensor.
    pub secondary: Option<usize>,
    /// Shape in the child.
    pub shape: Vec<u64>,
    /// Set where one side has fewer rows than the child.
    pub extension: Option<Extension>,
    /// Its rows by word, where they are merged so.
    pub by_word: Option<WordRows>,
    /// The known buffer that it is, if any.
    pub buffer: Option<KnownBuffer>,
}

impl Pair {
    /// Another name of a tensor that is paired under its first name; `Ties::share` joins the two.
    pub(crate) fn another_name(
        tensor: &TensorEntry,
        name: &str,
        side: Side,
        position: usize,
    ) -> Pair {
        let (primary, secondary) = match side {
            Side::Primary => (Some(position), None),
            Side::Secondary => (None, Some(position)),
        };
        let shape = tensor.layout.shape.clone();
        let name = name.to_owned();
        Pair { name, primary, secondary, shape, extension: None, by_word: None, buffer: None }
    }
}
