//! Floor 2: a model directory. The only floor that opens files.

mod child;
pub mod config;
mod discover;
mod existing;
mod finding;
mod hub;
mod inventory;
mod model;
mod output;
mod side;
mod side_file;
mod side_files;
mod source;
pub mod split;
mod staging;
mod survey;
mod token_ids;
mod tokenizer;
mod weights;

pub use child::{ChildLayout, ChildWriter, ShardSpec};
pub use config::Config;
pub use discover::{Candidate, Discovery, discover};
pub use existing::{Existing, existing_child};
pub use finding::{Finding, Severity, summary};
pub use hub::{HubEntry, cache_dir, locate};
pub use inventory::{Inventory, StorageEntry, TensorEntry};
pub use model::Checkpoint;
pub use output::{Room, check_output, check_room, room_at, same_place};
pub use side::Side;
pub use side_files::{SideFileOptions, SideFiles};
pub use source::{FileSource, Identity};
pub use staging::Staging;
pub use survey::{Rows, Survey};
pub use tokenizer::{TokenizerFacts, TokenizerMode};
