//! What the program tells on standard error, and what drivers would tell beside it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::printable;

/// The process's own standard error, once that of everybody else is lost.
static OWN: OnceLock<File> = OnceLock::new();

/// Writes a line to standard error.
pub fn tell(line: impl Display) {
    // there is nobody left to tell where it is closed
    let _ = match OWN.get() {
        Some(mut own) => writeln!(own, "{line}"),
        None => writeln!(io::stderr(), "{line}"),
    };
}

/// From now on, what drivers and other libraries write to this process's standard error is lost; what [`tell`] and
/// panics write is not.
#[cfg(unix)]
pub fn silence_others() {
    use std::os::fd::AsFd as _;

    let Ok(own) = io::stderr().as_fd().try_clone_to_owned() else {
        return; // closed: nobody would be heard
    };
    let Ok(nowhere) = File::options().write(true).open("/dev/null") else {
        return;
    };
    if OWN.set(own.into()).is_ok() && rustix::stdio::dup2_stderr(nowhere).is_ok() {
        std::panic::set_hook(Box::new(|panic| tell(panic)));
    }
}

/// There is no such need: drivers of this system have no standard error to write to.
#[cfg(not(unix))]
pub fn silence_others() {}

/// Spares a machine without a desktop what a layer of Mesa says there in spite of having nothing to say: it asks a
/// Wayland compositor for its GPU, and without `XDG_RUNTIME_DIR` libwayland prints an "error:" before it answers that
/// there is none. With a path where no compositor can be, the answer is the same.
///
/// To be called before the process has a second thread.
pub fn without_desktop() {
    const NAME: &str = "XDG_RUNTIME_DIR";
    let unset = std::env::var_os(NAME).is_none_or(|path| !std::path::Path::new(&path).is_absolute());
    if cfg!(unix) && unset {
        // SAFETY: nothing else runs yet that could read the environment.
        unsafe { std::env::set_var(NAME, "/dev/null") };
    }
}

/// Tells the library's warnings, each once.
struct Warnings {
    told: Mutex<BTreeSet<String>>,
    /// Those that wait for [`release_warnings`]; nothing waits after it.
    held: Mutex<Option<Vec<String>>>,
}

static WARNINGS: Warnings =
    Warnings { told: Mutex::new(BTreeSet::new()), held: Mutex::new(Some(Vec::new())) };

/// From now on, the library's warnings are heard; those of others are not. They wait until all input was found to be
/// good: where it was not, the error is all there is to say.
pub fn hear_warnings() {
    if log::set_logger(&WARNINGS).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

/// Writes the warnings that waited to standard error, and all later ones as they come.
pub fn release_warnings() {
    let held = lock(&WARNINGS.held).take();
    held.into_iter().flatten().for_each(tell);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &log::Record) {
        let line = printable(&format!("curvkit: warning: {}", record.args()));
        if self.enabled(record.metadata()) && lock(&self.told).insert(line.clone()) {
            match &mut *lock(&self.held) {
                Some(held) => held.push(line),
                None => tell(line),
            }
        }
    }

    fn flush(&self) {}
}
