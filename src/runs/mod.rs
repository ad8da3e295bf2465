//! A run: the folder or file that it writes to, which is its own while it does, and what determined it.
//!
//! | piece | sees to it that |
//! |---|---|
//! | [`Outputs`] | nothing that is read is written over, and no folder stands where a file is to be |
//! | `Workplace` | one process writes at a time, and what a killed one left is cleared |
//! | [`Record`] | a run is taken for the same only where all that determined it is the same |
//! | [`Run`] | what lies in the folder is of one run, and of one moment of it |
//!
//! Everything is written to a hidden folder within first; once it is whole, all of it takes its place at once.
//! `run.json` is the first file of a run, and the last: until then its member `complete` is false.

mod digest;
mod outputs;
mod record;
mod run;
mod workplace;

pub use digest::{digest_of_data, digest_of_values};
pub use outputs::Outputs;
pub use record::{Record, adapter, path};
pub use run::{Mode, Run};
