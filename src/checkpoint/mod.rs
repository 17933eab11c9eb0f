//! Floor 2: a model directory. The only floor that opens files.

mod above;
mod child;
pub mod config;
mod directory;
mod existing;
mod finding;
mod inventory;
mod journal;
mod model;
mod output;
mod place;
mod side;
mod side_file;
mod side_files;
mod source;
pub mod split;
mod staging;
mod survey;
mod token_ids;
mod tokenizer;

pub use child::{ChildLayout, ChildWriter, Opened, ShardSpec};
pub use config::Config;
pub use existing::{Existing, existing_child};
pub use finding::{Finding, Severity, summary};
pub use inventory::{Inventory, StorageEntry, TensorEntry};
pub use journal::JournalEntry;
pub use model::Checkpoint;
pub use output::{Room, check_output, check_room, room_at, same_place};
pub use side::Side;
pub use side_files::{SideFileOptions, SideFiles};
pub use source::{FileSource, Identity};
pub use staging::{Staging, has_journal};
pub use survey::{Rows, Survey};
pub use tokenizer::{TokenizerFacts, TokenizerMode};
