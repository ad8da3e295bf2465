//! Result files take their names only once they are whole.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
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

/// Removes what killed processes left in `folder` of the files that `of` picks, by the path of what is left and the
/// [`short`] name of the file.
pub(crate) fn clear_parts(folder: &Path, of: impl Fn(&Path, &[u8]) -> bool) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let path = entry.path();
        let is_left = written(entry.file_name().as_encoded_bytes()).is_some_and(|name| of(&path, name))
            && File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if is_left {
            // Whoever may not remove it is told so where the file itself cannot be written.
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// What stands for the name of a file in that of another beside it, which says more: the name itself where there is room
/// for more, otherwise its beginning and a sum of all of it.
pub(crate) fn short(name: &OsStr) -> OsString {
    // file systems have names of up to 255 bytes, or 255 UTF-16 units
    const LONGEST: usize = 200;
    const KEPT: usize = 160;
    if name.len() <= LONGEST {
        return name.into();
    }
    let mut sum = DefaultHasher::new();
    name.hash(&mut sum);
    let text = name.to_string_lossy();
    format!("{}~{:016x}", &text[..text.floor_char_boundary(KEPT)], sum.finish()).into()
}

/// The [`short`] name of the file that a [`Part`] of that name may become.
fn written(part: &[u8]) -> Option<&[u8]> {
    let part = part.strip_prefix(b".")?.strip_suffix(b".part")?;
    let serial = part.iter().rposition(|&byte| byte == b'.')?;
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let mut numbers = part[serial + 1..].splitn(2, |&byte| byte == b'-');
    (numbers.next().is_some_and(digits) && numbers.next().is_some_and(digits)).then(|| &part[..serial])
}

/// The folder that `path` is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that is still being written, beside the one that it may become; dropped, it is gone.
///
/// It is locked for as long as it is written: what is there under such a name and is not locked was left by a process
/// that was killed, and the next one to write the same file removes it.
pub(crate) struct Part {
    pub(crate) file: File,
    path: PathBuf,
}

impl Part {
    /// Makes an empty file in the folder of `target`, readable and writable.
    pub(crate) fn create(target: &Path) -> Result<Part> {
        static CREATED: AtomicU64 = AtomicU64::new(0);

        let name = match (target.file_name(), target.metadata()) {
            (Some(name), Ok(found)) if found.is_file() => name,
            (Some(name), Err(_)) => name,
            _ => return Err(Error::file(target, "found something else, expected a regular file or none")),
        };
        let name = short(name);
        clear_parts(parent(target), |_, of| of == name.as_encoded_bytes());
        loop {
            let serial = CREATED.fetch_add(1, Ordering::Relaxed);
            let mut part = OsString::from(".");
            part.push(&name);
            part.push(format!(".{}-{serial}.part", process::id()));
            let path = target.with_file_name(part);
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(Error::io(target, "create"))?;
            // Some file systems have no locks; there, what is left by a killed process stays.
            let locked = file.lock().is_ok();
            // Between the two, another process may have taken it for one that was left.
            if !locked || path.exists() {
                return Ok(Part { file, path });
            }
        }
    }

    /// Waits until the content is on the disk, then gives it the name `target`.
    pub(crate) fn publish(self, target: &Path) -> Result<()> {
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
