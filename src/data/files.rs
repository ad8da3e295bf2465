//! Result files take their names only once they are whole.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{Error, Result};

/// Writes the file `path` through `write`, atomically: until everything is on the disk it bears
/// another name in the same folder, and upon any error that file is removed and what stood at `path`
/// before still stands there.
///
/// # Errors
/// [`Error::Io`] where the operating system refuses, [`Error::File`] where `path` names something
/// other than a regular file (a folder, a device).
pub fn write_atomically(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let part = Part::create(path)?;
    let mut buffered = BufWriter::new(&part.file);
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(Error::io(path, "write"))?;
    drop(buffered);
    part.publish(path)
}

/// Makes the folder `path` and sees to it that files can be written there, before work is spent on them.
///
/// # Errors
/// [`Error::Io`] where it cannot be made or written to.
pub fn prepare_folder(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    std::fs::create_dir_all(path).map_err(Error::io(path, "create folder"))?;
    match Part::create(&path.join("result")) {
        Err(Error::Io { source, .. }) => Err(Error::io(path, "write")(source)),
        tried => tried.map(drop),
    }
}

/// The first file that there is of `names` in `dir`, then in the folder `folder` below it.
pub(super) fn find(dir: &Path, folder: &str, names: &[&str]) -> Option<PathBuf> {
    let places = [dir.to_path_buf(), dir.join(folder)];
    places.iter().flat_map(|place| names.iter().map(|name| place.join(name))).find(|path| path.is_file())
}

/// A file that is still being written, beside the one that it may become; dropped, it is gone.
pub(super) struct Part {
    pub(super) file: File,
    path: PathBuf,
}

impl Part {
    /// Makes an empty file in the folder of `target`, readable and writable.
    pub(super) fn create(target: &Path) -> Result<Part> {
        static CREATED: AtomicU64 = AtomicU64::new(0);

        let name = match (target.file_name(), target.metadata()) {
            (Some(name), Ok(found)) if found.is_file() => name,
            (Some(name), Err(_)) => name,
            _ => return Err(Error::file(target, "found something else, expected a regular file or none")),
        };
        let serial = CREATED.fetch_add(1, Ordering::Relaxed);
        let name = format!(".{}.{}-{serial}.part", name.to_string_lossy(), process::id());
        let path = target.with_file_name(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::io(target, "create"))?;
        Ok(Part { file, path })
    }

    /// Waits until the content is on the disk, then gives it the name `target`.
    pub(super) fn publish(self, target: &Path) -> Result<()> {
        self.file.sync_all().map_err(Error::io(target, "write"))?;
        std::fs::rename(&self.path, target).map_err(Error::io(target, "rename"))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Once published there is nothing under this name any more, and that is well.
        let _ = std::fs::remove_file(&self.path);
    }
}
