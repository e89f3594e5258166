//! The rows of the table, in groups that share an installation.

mod database;
mod held;
mod history;
mod processes;
mod reads;
mod sessions;
mod simulated;

use crate::figures::Results;
use crate::rig::Rig;

/// A group of rows: measures them, and adds them to the results.
pub type Measure = fn(&Rig, &mut Results);

/// The groups with their names. Quick runs leave out the slow ones.
pub const GROUPS: [(&str, bool, Measure); 11] = [
    ("reads", false, reads::measure),
    ("sessions", false, sessions::measure),
    ("held", false, held::measure),
    ("simulated", false, simulated::measure_sessions),
    ("history", true, history::measure),
    ("filling", false, simulated::measure_filling),
    ("memory", false, processes::measure_memory),
    ("client", false, processes::measure_client),
    ("roundtrips", false, database::measure_requests),
    ("idle", false, database::measure_idle),
    ("start", false, processes::measure_start),
];
