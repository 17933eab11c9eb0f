//! `Side`: which of the two parents, the primary or the secondary.

use serde::{Deserialize, Serialize};

/// One of the two parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The first parent, which t = 0 gives.
    Primary,
    /// The second parent, which t = 1 gives.
    Secondary,
}

impl Side {
    /// `primary` or `secondary`.
    pub fn name(self) -> &'static str {
        match self {
            Side::Primary => "primary",
            Side::Secondary => "secondary",
        }
    }
}
