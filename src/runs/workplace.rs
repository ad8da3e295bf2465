//! The hidden folder that a run's files are made in.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use same_file::Handle;

use crate::{Error, Result};

/// How often an entry is tried again that another process clears away just then.
const TRIES: usize = 100;

/// A folder that one process has to itself while it lives, by a lock that the operating system takes back from it.
pub struct Workplace {
    folder: PathBuf,
    lock: PathBuf,
    /// Holds the lock.
    _held: File,
    /// The folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
    stages: AtomicU64,
}

/// A folder for files on their way; dropped, it is gone with what is still in it.
pub struct Stage {
    pub folder: PathBuf,
}

impl Workplace {
    /// Makes the folder `name` in `within`, which is made too, and clears what a killed process left there.
    ///
    /// `written` is what the lock stands for.
    ///
    /// # Errors
    /// [`Error::InUse`] where another process holds it, [`Error::Io`] where nothing can be written.
    pub fn open(within: &Path, name: &OsStr, written: &Path) -> Result<Workplace> {
        let folder = within.join(name);
        let lock = folder.join("lock");
        let mut made = Vec::new();
        for _ in 0..TRIES {
            made.extend(make(within)?);
            match fs::create_dir(&folder) {
                Err(error) if !matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
                    return Err(Error::io(within, "write")(error));
                }
                _ => {}
            }
            let held = match File::options().read(true).write(true).create(true).truncate(false).open(&lock) {
                Ok(held) => held,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io(&lock, "create")(error)),
            };
            match held.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(Error::InUse { path: written.into() }),
                // some file systems have no locks, those of clusters among them
                Err(TryLockError::Error(error)) => {
                    log::warn!("{}: cannot be locked: {error}", written.display());
                }
                // the process that had it before has removed it just now
                Ok(()) if !is_at(&held, &lock).map_err(Error::io(&lock, "read"))? => continue,
                Ok(()) => {}
            }
            let stages = AtomicU64::new(0);
            let workplace = Workplace { folder, lock, _held: held, made, stages };
            workplace.clear();
            return Ok(workplace);
        }
        Err(Error::InUse { path: written.into() })
    }

    /// Whether another process holds the workplace that is this folder, if it is one.
    pub fn is_held(folder: &Path) -> bool {
        let lock = File::open(folder.join("lock"));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Makes an empty folder in it.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be made, because all has been removed for instance.
    pub fn stage(&self) -> Result<Stage> {
        let folder = self.folder.join(self.stages.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&folder).map_err(Error::io(&folder, "create folder"))?;
        Ok(Stage { folder })
    }

    fn clear(&self) {
        for entry in self.folder.read_dir().into_iter().flatten().flatten() {
            if entry.path() != self.lock {
                // what cannot be removed is in nobody's way
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        self.clear();
        let _ = fs::remove_file(&self.lock);
        let _ = fs::remove_dir(&self.folder);
        for folder in &self.made {
            // stays where there is something in it
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Makes a folder and those that it is in; returns those that were not there, the innermost first.
fn make(folder: &Path) -> Result<Vec<PathBuf>> {
    let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let made = folder.ancestors().take_while(missing).map(Path::to_path_buf).collect();
    fs::create_dir_all(folder).map_err(Error::io(folder, "create folder"))?;
    Ok(made)
}

/// Whether `path` names the open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let opened = Handle::from_file(file.try_clone()?)?;
    match Handle::from_path(path) {
        Ok(there) => Ok(opened == there),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
