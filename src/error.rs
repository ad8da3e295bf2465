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
    NoDevice {
        /// The adapter's name, as the driver gives it.
        adapter: String,
        /// Why wgpu could not make the device.
        reason: String,
    },

    /// The adapter does not do what kernels need.
    #[error("adapter {adapter}: {problem}; {remedy}")]
    Unfit {
        /// The adapter's name and driver.
        adapter: String,
        /// What it lacks or gets wrong, and what is needed.
        problem: String,
        /// What to do about it, as an instruction.
        remedy: String,
    },

    /// A kernel would go round its loops more often than the adapter lets it, and cannot be cut further.
    #[error(
        "{kernel} takes {iterations} iterations of its loops, and {adapter} ends them after {budget}: install a newer driver, or take another adapter"
    )]
    Loops {
        /// The kernel's name.
        kernel: String,
        /// The iterations that one invocation of the kernel would make.
        iterations: usize,
        /// The most iterations that the adapter lets an invocation make.
        budget: usize,
        /// The adapter's name and driver.
        adapter: String,
    },

    /// A buffer or the work itself did not fit into the device's memory.
    #[error("out of device memory while {doing}: {detail}")]
    OutOfMemory {
        /// What the memory was for, such as `uploading a matrix`.
        doing: String,
        /// What did not fit, or what the driver says of it.
        detail: String,
    },

    /// The device went away (driver reset, watchdog, unplugged).
    #[error("device lost while {doing}: {reason}")]
    DeviceLost {
        /// What was being done, such as `waiting for the device`.
        doing: String,
        /// What the driver or wgpu says of the loss, in one line.
        reason: String,
    },

    /// The driver or wgpu rejected what the crate asked for.
    #[error("device error while {doing}: {reason}")]
    Device {
        /// What was being done, such as `reading back`.
        doing: String,
        /// What the driver or wgpu says of it, in one line.
        reason: String,
    },

    /// A tensor or block has the wrong shape.
    #[error("{tensor}: found shape {found}, expected {expected}")]
    Shape {
        /// What has the wrong shape: a tensor, a block or a list, by what it is.
        tensor: String,
        /// The shape that it has.
        found: String,
        /// The shape that it should have.
        expected: String,
    },

    /// A tensor or block lies on another device than what it is to be used with.
    #[error("{tensor}: found {found}, expected memory of {expected}")]
    OtherDevice {
        /// What lies on the wrong device, by what it is.
        tensor: String,
        /// The memory that it lies in, with that device's adapter where it is known.
        found: String,
        /// The adapter that it should lie on: name and driver.
        expected: String,
    },

    /// An option or argument has a value that cannot be used.
    #[error("{option}: found {found}, expected {expected}")]
    Argument {
        /// The option or argument, by its name or in a few words.
        option: String,
        /// The value that it has.
        found: String,
        /// The values that it may have.
        expected: String,
    },

    /// A file's content is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file, or the folder where it was looked for.
        path: PathBuf,
        /// What is wrong with it: what was found, and what was expected.
        problem: String,
    },

    /// A published data set's files hold fewer samples than were asked for: the first `there` of them alone.
    #[error("{}: {problem}", path.display())]
    FewerSamples {
        /// The file that has too few samples, or the folder that lacks one.
        path: PathBuf,
        /// What was found of it, and what was expected.
        problem: String,
        /// The number of samples that could be read, the first of the data set.
        there: usize,
    },

    /// The operating system refused to read or write.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file or folder that could not be read or written.
        path: PathBuf,
        /// What was being done, such as `read`, `write` or `create folder`.
        doing: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// A file that is to be written is one that is read.
    #[error("{}: found the file that {input} names, expected an output that is no input", path.display())]
    OutputIsInput {
        /// The file that would have been overwritten or removed.
        path: PathBuf,
        /// What names it as an input, such as an option of the command line.
        input: String,
    },

    /// Another process writes to the same folder or file.
    #[error("{}: found another process writing there, expected none", path.display())]
    InUse {
        /// The folder or file that the other process writes to.
        path: PathBuf,
    },

    /// There are files that this run did not make; `resumable`, it could go on from them.
    #[error("{}: found {found}, expected none", path.display())]
    Occupied {
        /// The folder or file that was to be written to.
        path: PathBuf,
        /// The files that are there, in words.
        found: String,
        /// Whether this run could go on from them.
        resumable: bool,
    },

    /// A run that is to be resumed was determined by something else; `anyway`, it could go on from there nevertheless.
    #[error("{}: found another run: {differences}", path.display())]
    OtherRun {
        /// The folder or file whose run was to be resumed.
        path: PathBuf,
        /// What the two runs differ in, in one sentence.
        differences: String,
        /// Whether it could go on from there nevertheless, the differences being noted.
        anyway: bool,
    },

    /// A model's layers do not fit together.
    #[error("model: {0}")]
    Model(String),

    /// Training left the finite numbers.
    #[error("training diverged at step {step} (epoch {epoch}): loss is {loss}; {remedy}")]
    Diverged {
        /// The step whose loss is the first that is not finite, counted from 1 over all epochs.
        step: u64,
        /// Its epoch, counted from 1.
        epoch: u64,
        /// The loss, NaN or infinite.
        loss: f64,
        /// What to change, as an instruction: which hyper-parameter to lower.
        remedy: String,
    },

    /// A result is not finite although every input was.
    #[error("{quantity} is not finite: {detail}")]
    NotFinite {
        /// The quantity that is NaN or infinite.
        quantity: String,
        /// Which of its values is not finite, or how that came about.
        detail: String,
    },

    /// A quantity has no value on what it is of: a fit through no points, the correlation of a constant, 0/0.
    #[error("{quantity} is undefined: {reason}")]
    Undefined {
        /// The quantity that has no value.
        quantity: String,
        /// Why it has none.
        reason: String,
    },

    /// Something that was asked for could not be made, for these reasons; everything else is there.
    #[error("{}", .0.join("; "))]
    Incomplete(Vec<String>),

    /// An eigensolver has not found all that it was to find; what it has found is there nevertheless.
    #[error("{of}: {converged} of {wanted} eigenpairs {problem}")]
    NotConverged {
        /// The operator that the eigenpairs are of, in words.
        of: String,
        /// The number of eigenpairs that have converged.
        converged: usize,
        /// The number of eigenpairs that were asked for.
        wanted: usize,
        /// The end of the message, after `eigenpairs`: what was missed, and why.
        problem: String,
    },

    /// Whoever watches has stopped it before there was anything to return.
    #[error("stopped before there was a result")]
    Cancelled,

    /// What code of the caller's that was called back has failed with.
    #[error(transparent)]
    Foreign(Box<dyn std::error::Error + Send + Sync>),

    /// A download failed.
    #[error("{url}: {problem}")]
    Download {
        /// The URL of the archive.
        url: String,
        /// What went wrong: the server's answer, the transfer, the sum or the disk.
        problem: String,
    },
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
