//! Floor 4: runs a plan. The only floor that names torch.

mod assemble;
mod buffer;
mod conclude;
mod cuda;
mod device;
mod devices;
mod explain;
mod extend;
mod finite;
mod flusher;
mod kernel;
mod narrow;
mod outputs;
mod provenance;
mod region;
mod report;
mod reporter;
mod resume;
mod schedule;
mod settings;
mod source;
mod task;
mod torch;
mod units;
mod verify;
mod work;
mod worker;

pub use assemble::{Job, Outcome, Prepared, prepare, run};
pub use devices::{ComputeDevice, DeviceChoice, DeviceInfo, Devices, devices};
pub use outputs::expand_outputs;
pub use provenance::ChildState;
pub use report::{Counts, MergeReport, TensorReport};
pub use reporter::Reporter;
pub use schedule::execute;
pub use settings::Settings;
pub use verify::{Verified, VerifySettings, verify};
