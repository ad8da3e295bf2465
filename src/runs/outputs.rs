//! The files that a run writes, by name.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf, is_separator};

use same_file::Handle;

use crate::files::{clear_parts, parent, short};
use crate::{Error, Result};

/// The record of a run that has a folder.
pub const RECORD: &str = "run.json";

/// What the names of workplaces end with; that of a folder is called so.
pub(super) const WORKPLACE: &str = ".curvkit";

/// What a run writes, and what it reads.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// As it was asked for: a folder or a file.
    pub asked: PathBuf,
    /// The folder that the files are in.
    pub folder: PathBuf,
    /// Whether a folder was asked for.
    pub is_folder: bool,
    names: Vec<Name>,
    /// Each with what names it, such as `--weights`.
    inputs: Vec<(String, PathBuf)>,
}

/// A file's path in the folder; or that of many, whose names have a number between the two texts.
#[derive(Clone, Debug, PartialEq)]
enum Name {
    One(PathBuf),
    Numbered { within: PathBuf, before: String, after: String },
}

impl Outputs {
    /// The files `names` in a folder, in the order in which they take their places, and `run.json`. A `*` in a name
    /// stands for digits.
    pub fn folder(folder: &Path, names: impl IntoIterator<Item = impl Into<String>>) -> Outputs {
        let names = names.into_iter().map(Into::into).chain([RECORD.to_string()]);
        let names = names.filter_map(|name| Name::parse(&name)).collect();
        Outputs { asked: folder.into(), folder: folder.into(), is_folder: true, names, inputs: vec![] }
    }

    /// A single file.
    ///
    /// # Errors
    /// [`Error::File`] where `file` is a folder, or is named as one, by a separator at its end.
    pub fn file(file: &Path) -> Result<Outputs> {
        let ends_as_folder =
            file.as_os_str().as_encoded_bytes().last().is_some_and(|&end| is_separator(end.into()));
        let name = match file.file_name() {
            Some(name) if !file.is_dir() && !ends_as_folder => name,
            _ => return Err(Error::file(file, "found a folder, expected a file")),
        };
        let names = vec![Name::One(name.into())];
        Ok(Outputs {
            asked: file.into(),
            folder: parent(file).into(),
            is_folder: false,
            names,
            inputs: vec![],
        })
    }

    /// Adds files that are read, each with what names it.
    pub fn reading(mut self, inputs: impl IntoIterator<Item = (impl Into<String>, PathBuf)>) -> Outputs {
        self.inputs.extend(inputs.into_iter().map(|(name, path)| (name.into(), path)));
        self
    }

    /// Checks that each file can take its place: that none is read, by whatever name, and none is a folder.
    ///
    /// # Errors
    /// [`Error::OutputIsInput`] and [`Error::File`], naming the first that is not so.
    pub fn check(&self) -> Result<()> {
        for name in &self.names {
            let within = self.folder.join(name.folder());
            if within != self.folder && within.exists() && !within.is_dir() {
                return Err(Error::file(within, "found a file, expected a folder"));
            }
        }
        self.check_files(&self.there())
    }

    /// Checks the same of files in the folder that are to be replaced or removed.
    ///
    /// # Errors
    /// Those of [`Outputs::check`].
    pub(super) fn check_files(&self, files: &[PathBuf]) -> Result<()> {
        for file in files {
            let path = self.path(file);
            // a link that leads nowhere is replaced
            let Ok(found) = path.metadata() else { continue };
            if found.is_dir() {
                return Err(Error::file(path, "found a folder, expected a file"));
            }
            if !found.is_file() {
                return Err(Error::file(path, "found something else, expected a regular file or none"));
            }
            if let Some(input) = self.input(&path) {
                return Err(Error::OutputIsInput { input: input.into(), path });
            }
        }
        Ok(())
    }

    /// Checks that nothing that is read lies in the folder `workplace`, which is cleared.
    ///
    /// # Errors
    /// [`Error::OutputIsInput`].
    pub(super) fn check_workplace(&self, workplace: &Path) -> Result<()> {
        let Ok(workplace) = workplace.canonicalize() else { return Ok(()) };
        let within = |read: &Path| read.canonicalize().is_ok_and(|read| read.starts_with(&workplace));
        match self.inputs.iter().find(|(_, read)| within(read)) {
            Some((input, path)) => Err(Error::OutputIsInput { path: path.clone(), input: input.clone() }),
            None => Ok(()),
        }
    }

    /// What names the file at `path` where it is one of those that are read.
    fn input(&self, path: &Path) -> Option<&str> {
        let written = Handle::from_path(path).ok()?;
        let is_written = |read: &Path| {
            read.metadata().is_ok_and(|found| found.is_file())
                && Handle::from_path(read).is_ok_and(|read| read == written)
        };
        self.inputs.iter().find(|(_, read)| is_written(read)).map(|(input, _)| input.as_str())
    }

    /// Returns the path of `file` in the folder, or the one that was asked for.
    pub(super) fn path(&self, file: &Path) -> PathBuf {
        if self.is_folder { self.folder.join(file) } else { self.asked.clone() }
    }

    /// Returns whether `file` in the folder is one of them.
    pub(super) fn has(&self, file: &Path) -> bool {
        self.position(file).is_some()
    }

    /// Returns which of them `file` is.
    pub(super) fn position(&self, file: &Path) -> Option<usize> {
        self.names.iter().position(|name| name.is(file))
    }

    /// Returns those that are there, as paths in the folder.
    pub(super) fn there(&self) -> Vec<PathBuf> {
        self.names.iter().flat_map(|name| name.there(&self.folder)).collect()
    }

    /// Removes what killed processes left of them outside of a workplace.
    pub(super) fn clear_parts(&self) {
        for name in &self.names {
            let folder = self.folder.join(name.folder());
            clear_parts(&folder, |path, of| name.is_called(of) && self.input(path).is_none());
        }
    }

    /// Adds the names on the record of an earlier run to those of this one.
    pub(super) fn add(&mut self, names: &Outputs) {
        for name in &names.names {
            if !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
    }

    /// Returns the names as [`Outputs::folder`] takes them.
    pub(super) fn names(&self) -> Vec<String> {
        self.names.iter().map(Name::text).collect()
    }

    /// Returns the name of the workplace, in the folder.
    pub(super) fn workplace(&self) -> OsString {
        let mut name = OsString::from(if self.is_folder { "" } else { "." });
        if !self.is_folder {
            name.push(short(self.asked.file_name().unwrap_or_default()));
        }
        name.push(WORKPLACE);
        name
    }
}

impl Name {
    /// `None` where it does not stay within the folder.
    fn parse(name: &str) -> Option<Name> {
        let path = Path::new(name);
        let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
        let last = path.file_name().and_then(|last| last.to_str()).filter(|_| stays)?;
        Some(match last.split_once('*') {
            Some((before, after)) => Name::Numbered {
                within: path.parent().unwrap_or(Path::new("")).into(),
                before: before.into(),
                after: after.into(),
            },
            None => Name::One(path.into()),
        })
    }

    fn folder(&self) -> &Path {
        match self {
            Name::One(path) => path.parent().unwrap_or(Path::new("")),
            Name::Numbered { within, .. } => within,
        }
    }

    fn text(&self) -> String {
        match self {
            Name::One(path) => path.to_string_lossy().into(),
            Name::Numbered { within, before, after } => {
                within.join(format!("{before}*{after}")).to_string_lossy().into()
            }
        }
    }

    fn is(&self, file: &Path) -> bool {
        match self {
            Name::One(path) => path == file,
            Name::Numbered { within, before, after } => {
                let last = file.file_name().and_then(|last| last.to_str()).unwrap_or_default();
                let number =
                    last.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(after.as_str()));
                let digits =
                    |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
                file.parent() == Some(within) && number.is_some_and(digits)
            }
        }
    }

    /// Whether it is [`short`] for the last part of such a file's path.
    fn is_called(&self, file: &[u8]) -> bool {
        match self {
            Name::One(path) => path.file_name().is_some_and(|name| short(name).as_encoded_bytes() == file),
            Name::Numbered { within, .. } => {
                std::str::from_utf8(file).is_ok_and(|file| self.is(&within.join(file)))
            }
        }
    }

    /// Those that are there, in `folder`, in the order of their names.
    fn there(&self, folder: &Path) -> Vec<PathBuf> {
        match self {
            Name::One(path) => {
                let is_there = fs::symlink_metadata(folder.join(path)).is_ok();
                if is_there { vec![path.clone()] } else { vec![] }
            }
            Name::Numbered { within, .. } => {
                let entries = folder.join(within).read_dir().into_iter().flatten().flatten();
                let files = entries.map(|entry| within.join(entry.file_name()));
                let mut files: Vec<PathBuf> = files.filter(|file| self.is(file)).collect();
                files.sort();
                files
            }
        }
    }
}
