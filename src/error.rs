//! Every error of the crate: what was being done, where, what was found, what was expected; and what has no value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Each message is one line and stands by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter answers.
    #[error("found no adapter, expected a Vulkan, Metal or DX12 driver (Debian: mesa-vulkan-drivers)")]
    NoAdapter,

    /// The adapter refused to give a device.
    #[error("adapter {adapter}: no device: {reason}")]
    NoDevice { adapter: String, reason: String },

    /// The adapter does not do what kernels need.
    #[error("adapter {adapter}: {problem}; {remedy}")]
    Unfit { adapter: String, problem: String, remedy: String },

    /// A kernel would go round its loops more often than the adapter lets it, and cannot be cut further.
    #[error(
        "{kernel} takes {iterations} iterations of its loops, and {adapter} ends them after {budget}: install a newer driver, or take another adapter"
    )]
    Loops { kernel: String, iterations: usize, budget: usize, adapter: String },

    /// A buffer or the work itself did not fit into the device's memory.
    #[error("out of device memory while {doing}: {detail}")]
    OutOfMemory { doing: String, detail: String },

    /// The device went away (driver reset, watchdog, unplugged).
    #[error("device lost while {doing}: {reason}")]
    DeviceLost { doing: String, reason: String },

    /// The driver or wgpu rejected what the crate asked for.
    #[error("device error while {doing}: {reason}")]
    Device { doing: String, reason: String },

    /// A tensor or block has the wrong shape.
    #[error("{tensor}: found shape {found}, expected {expected}")]
    Shape { tensor: String, found: String, expected: String },

    /// A tensor or block lies on another device than what it is to be used with.
    #[error("{tensor}: found {found}, expected memory of {expected}")]
    OtherDevice { tensor: String, found: String, expected: String },

    /// An option or argument has a value that cannot be used.
    #[error("{option}: found {found}, expected {expected}")]
    Argument { option: String, found: String, expected: String },

    /// A file's content is not what it should be.
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: String },

    /// A published data set's files hold fewer samples than were asked for: the first `there` of them alone.
    #[error("{}: {problem}", path.display())]
    FewerSamples { path: PathBuf, problem: String, there: usize },

    /// The operating system refused to read or write.
    #[error("{}: {doing}: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: std::io::Error },

    /// A file that is to be written is one that is read.
    #[error("{}: found the file that {input} names, expected an output that is no input", path.display())]
    OutputIsInput { path: PathBuf, input: String },

    /// Another process writes to the same folder or file.
    #[error("{}: found another process writing there, expected none", path.display())]
    InUse { path: PathBuf },

    /// There are files that this run did not make; `resumable`, it could go on from them.
    #[error("{}: found {found}, expected none", path.display())]
    Occupied { path: PathBuf, found: String, resumable: bool },

    /// A run that is to be resumed was determined by something else; `anyway`, it could go on from there nevertheless.
    #[error("{}: found another run: {differences}", path.display())]
    OtherRun { path: PathBuf, differences: String, anyway: bool },

    /// A model's layers do not fit together.
    #[error("model: {0}")]
    Model(String),

    /// Training left the finite numbers.
    #[error("training diverged at step {step} (epoch {epoch}): loss is {loss}; {remedy}")]
    Diverged { step: u64, epoch: u64, loss: f64, remedy: String },

    /// A result is not finite although every input was.
    #[error("{quantity} is not finite: {detail}")]
    NotFinite { quantity: String, detail: String },

    /// A quantity has no value on what it is of: a fit through no points, the correlation of a constant, 0/0.
    #[error("{quantity} is undefined: {reason}")]
    Undefined { quantity: String, reason: String },

    /// Something that was asked for could not be made, for these reasons; everything else is there.
    #[error("{}", .0.join("; "))]
    Incomplete(Vec<String>),

    /// An eigensolver has not found all that it was to find; what it has found is there nevertheless.
    #[error("{of}: {converged} of {wanted} eigenpairs {problem}")]
    NotConverged { of: String, converged: usize, wanted: usize, problem: String },

    /// Whoever watches has stopped it before there was anything to return.
    #[error("stopped before there was a result")]
    Cancelled,

    /// What code of the caller's that was called back has failed with.
    #[error(transparent)]
    Foreign(Box<dyn std::error::Error + Send + Sync>),

    /// A download failed.
    #[error("{url}: {problem}")]
    Download { url: String, problem: String },
}

impl Error {
    /// [`Error::Shape`] from what is at hand.
    pub fn shape(
        tensor: impl Into<String>,
        found: impl std::fmt::Debug,
        expected: impl std::fmt::Debug,
    ) -> Self {
        Error::Shape { tensor: tensor.into(), found: format!("{found:?}"), expected: format!("{expected:?}") }
    }

    /// [`Error::Argument`] from what is at hand.
    pub fn argument(
        option: impl Into<String>,
        found: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Error::Argument {
            option: option.into(),
            found: printable(&found.to_string()),
            expected: expected.into(),
        }
    }

    /// [`Error::Undefined`] from what is at hand.
    pub fn undefined(quantity: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Undefined { quantity: quantity.into(), reason: reason.into() }
    }

    /// [`Error::File`] from what is at hand.
    pub fn file(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().to_path_buf(), problem: printable(&problem.into()) }
    }

    /// For `map_err`: [`Error::Io`] on `path` while `doing` ("read", "write", "create folder").
    pub fn io(path: impl AsRef<Path>, doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, doing, source }
    }
}

/// A name that is shown may hold anything: what would end the line or steer a terminal is shown as Rust writes it.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Which quantities have no value, by their names, and why. It stands beside the `None` that each of them then is: JSON
/// has the reasons under `undefined`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Undefined(BTreeMap<String, String>);

impl Undefined {
    /// The value of the quantity `name`, or nothing where it is undefined, of which the reason is kept.
    ///
    /// # Errors
    /// Whatever else has gone wrong.
    pub fn or_value<T>(&mut self, name: &str, value: Result<T>) -> Result<Option<T>> {
        match value {
            Err(Error::Undefined { reason, .. }) => {
                self.note(name, reason);
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// The quantity `name` has no value, for this reason.
    pub fn note(&mut self, name: &str, reason: impl Into<String>) {
        self.0.insert(name.into(), reason.into());
    }

    /// Why the quantity `name` has no value, if it has none.
    pub fn reason(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether every quantity has a value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and reasons, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, reason)| (name.as_str(), reason.as_str()))
    }
}
