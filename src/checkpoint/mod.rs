//! Floor 2: reads and writes model directories. All access to model files goes through this floor.
//!
//! | room | its one job |
//! |---|---|
//! | `child` | the child's weight files and the files copied beside them: split, layout, writing |
//! | `output` | where a child appears: checks, work directory, journal, final rename |
//! | `findings` | a checkpoint checked as a whole, for `verify` |
//! | `parent` | a checkpoint found and opened by its headers |
//! | `tensors` | the tensors of a checkpoint, and their order in the model |
//! | `weights` | which files of a directory are the weights |
//! | `side_files` | config, tokenizer, adapter, modules |
//! | `files` | reading files; paths |

mod child;
mod files;
mod findings;
mod output;
mod parent;
mod parent_side;
mod side_files;
mod tensors;
mod weights;

pub use child::copied_files::{ChildRows, SideFileOptions, SideFiles, WordsOfChild};
pub use child::layout::{ChildLayout, ShardSpec};
pub use child::split;
pub use child::weight_files::DIRECT_ALIGNMENT;
pub use child::writer::{ChildWriter, Opened};
pub use files::paths::resolved;
pub use files::source::{FileSource, Identity};
pub use findings::finding::{Finding, Severity};
pub use findings::summary::summary;
pub use findings::survey::{Rows, Survey};
pub use output::check::{Room, check_apart, check_output, check_room, room_at};
pub use output::existing::{Existing, PROVENANCE_FILE, existing_child};
pub use output::journal::JournalEntry;
pub use output::mount_point::is_marked;
pub use output::staging::{Staging, has_journal};
pub use parent::checkpoint::Checkpoint;
pub use parent::discover::{Candidate, Discovery, discover};
pub use parent::hub::{HubEntry, cache_dir, file_of, locate};
pub use parent::strictness::{Opening, Strictness};
pub use parent_side::Side;
pub use side_files::adapter::{AdapterConfig, is_adapter_file};
pub use side_files::config;
pub use side_files::config::Config;
pub use side_files::special_tokens::SpecialTokens;
pub use side_files::tokenizer::{TokenizerFacts, TokenizerMode};
pub use side_files::words::spelling::Spelling;
pub use side_files::words::vocabulary::Vocabulary;
pub use tensors::inventory::{Inventory, StorageEntry, TensorEntry};
pub use weights::names::WeightNames;
pub use weights::parts::Parts;
