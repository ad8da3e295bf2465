//! A run that has its folder to itself.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Record;
use super::outputs::{Outputs, RECORD, WORKPLACE};
use super::record::sentence;
use super::workplace::{Stage, Workplace};
use crate::data::TensorFile;
use crate::files::write_atomically;
use crate::{Error, Result};

/// The member of a tensor file's metadata that holds the record of the run that wrote it.
const KEY: &str = "run";
/// The most bytes of a tensor file's header.
const LONGEST_HEADER: u64 = 100_000_000;

/// What to make of the files that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Begins anew; files of the same run are replaced.
    Begin,
    /// Goes on from where the same run stopped.
    Resume,
    /// Goes on from where a run of the same subject stopped, whatever determined it, but for what [`Record::bound`] says.
    ResumeAnyway,
    /// Begins anew; files of other runs are removed.
    Overwrite,
}

/// A run, from the moment from which on nobody else may write where it does.
pub struct Run {
    outputs: Outputs,
    record: RefCell<Record>,
    workplace: Workplace,
    mode: Mode,
    /// Files of other runs, to be removed when the first of this one are written.
    replaced: Vec<PathBuf>,
    resumes: bool,
    /// Whether a record of this run is there already.
    recorded: bool,
    begun: Cell<bool>,
}

impl Run {
    /// Takes possession of `outputs` for the run of `record`. No file is changed before the first is written; a folder
    /// that was made for the run goes where none ever is.
    ///
    /// A single file that another run of the same subject wrote is replaced; nothing else is, but by [`Mode`].
    ///
    /// # Errors
    /// [`Error::InUse`] where another process writes there, [`Error::Occupied`] and [`Error::OtherRun`] where another run
    /// has left files there, those of [`Outputs::check`], and [`Error::Io`] where nothing can be written.
    pub fn claim(mut outputs: Outputs, mut record: Record, mode: Mode) -> Result<Run> {
        outputs.check()?;
        let place = outputs.workplace();
        outputs.check_workplace(&outputs.folder.join(&place))?;
        let workplace = Workplace::open(&outputs.folder, &place, &outputs.asked)?;
        // a file of a folder that a run writes to, and a folder of which another process writes a file
        let others = if outputs.is_folder { of_files(&outputs.folder) } else { vec![WORKPLACE.into()] };
        if let Some(other) = others.iter().find(|other| Workplace::is_held(&outputs.folder.join(other))) {
            let path = if outputs.is_folder { outputs.folder.join(other) } else { outputs.folder.clone() };
            return Err(Error::InUse { path });
        }
        let there = outputs.there();
        let earlier = outputs.earlier(&there);
        let (mut replaced, mut resumes, recorded) =
            (Vec::new(), false, earlier.is_some() && mode != Mode::Overwrite);
        match (earlier, mode) {
            // put into the place of the one that is there
            (_, Mode::Overwrite) if !outputs.is_folder => {}
            (earlier, Mode::Overwrite) => {
                replaced = [there, earlier.map_or(vec![], |(_, names)| names.there())].concat();
                replaced.retain(|file| file != Path::new(RECORD));
                replaced.sort();
                replaced.dedup();
                outputs.check_files(&replaced)?;
            }
            (None, _) => outputs.refuse_strangers(&there)?,
            (Some((found, _)), _) if !outputs.is_folder && record.is_alike(&found) => {}
            (Some((found, names)), Mode::Begin) => {
                let differences = record.differences(&found, false);
                if !differences.is_empty() {
                    let files = counted(&names.there());
                    return Err(Error::Occupied {
                        path: outputs.asked,
                        found: format!("{files} of another run ({})", sentence(&differences)),
                        resumable: record.differences(&found, true).is_empty(),
                    });
                }
                outputs.refuse_strangers_to(&names, &there)?;
            }
            (Some((found, names)), Mode::Resume | Mode::ResumeAnyway) => {
                let differences = record.differences(&found, true);
                let anyway = record.could_go_on(&found, &differences);
                let accepted = differences.is_empty() || anyway && mode == Mode::ResumeAnyway;
                if !accepted {
                    let differences = sentence(&differences);
                    return Err(Error::OtherRun { path: outputs.asked, differences, anyway });
                }
                outputs.refuse_strangers_to(&names, &there)?;
                outputs.add(&names);
                let before = found["resumed_over"].as_array().into_iter().flatten().cloned();
                let over: Vec<Value> = before.chain(differences.into_iter().map(Value::from)).collect();
                if !over.is_empty() {
                    record.tell("resumed_over", json!(over));
                }
                resumes = true;
            }
        }
        if outputs.is_folder {
            record.tell("files", json!(outputs.names()));
        }
        outputs.clear_parts();
        let (record, begun) = (RefCell::new(record), Cell::new(false));
        Ok(Run { outputs, record, workplace, mode, replaced, resumes, recorded, begun })
    }

    /// Whether there is a run to go on from.
    pub fn resumes(&self) -> bool {
        self.resumes
    }

    /// Returns the path of the file `name` of the run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.outputs.folder.join(name)
    }

    /// Says something more in the run's record.
    pub fn tell(&self, name: &str, value: Value) {
        self.record.borrow_mut().tell(name, value);
    }

    /// Returns the record up to now.
    pub fn record(&self) -> Value {
        self.record.borrow().value()
    }

    /// Returns the record as metadata of a tensor file: key and text.
    pub fn metadata(&self) -> (&'static str, String) {
        (KEY, self.record().to_string())
    }

    /// Checks that a file that a run is resumed from was written by that run.
    ///
    /// # Errors
    /// [`Error::OtherRun`] where it was not, and [`Error::File`] where it does not say.
    pub fn check_state(&self, path: &Path, file: &TensorFile) -> Result<()> {
        let found = file.metadata(KEY).and_then(|text| serde_json::from_str(text).ok());
        let found: Value =
            found.ok_or_else(|| Error::file(path, "found no record of its run, expected one"))?;
        let record = self.record.borrow();
        let differences = record.differences(&found, true);
        let anyway = record.could_go_on(&found, &differences);
        if differences.is_empty() || anyway && self.mode == Mode::ResumeAnyway {
            return Ok(());
        }
        Err(Error::OtherRun { path: path.into(), differences: sentence(&differences), anyway })
    }

    /// Writes files of a run that goes on: what `write` puts into the folder that it is given takes its place once all
    /// of it is on the disk, in the order in which the run's files were named. Upon an error all files are those that
    /// were there before.
    ///
    /// # Errors
    /// Those of `write`, and [`Error::Io`] where the operating system refuses.
    pub fn write<T>(&self, write: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        self.publish(write, Some(false))
    }

    /// Writes files like [`Run::write`], those of the state that the run is resumed from: where there are results of the
    /// same run already, their record stays.
    ///
    /// # Errors
    /// Those of [`Run::write`].
    pub fn save<T>(&self, write: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let stays = self.recorded && !self.begun.get();
        self.publish(write, (!stays).then_some(false))
    }

    /// Writes files like [`Run::write`], the last ones of the run, and its record.
    ///
    /// # Errors
    /// Those of [`Run::write`].
    pub fn finish<T>(&self, write: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        self.publish(write, Some(true))
    }

    /// Removes the file `name` of the run, if it is there.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        remove(&self.path(name))
    }

    /// Writes files, and the record with what it says of them, if anything.
    fn publish<T>(&self, write: impl FnOnce(&Path) -> Result<T>, complete: Option<bool>) -> Result<T> {
        let stage = || self.workplace.stage().map_err(|error| self.gone(error));
        let (stage, begin, end) = (stage()?, stage()?, stage()?);
        let value = write(&stage.folder).map_err(|error| self.at_its_place(error, &stage))?;
        // all that needs room on the disk is written before anything changes
        let complete = complete.filter(|_| self.outputs.is_folder);
        if let Some(complete) = complete {
            for (stage, complete) in [(&begin, false), (&end, complete)] {
                self.write_record(stage, complete).map_err(|error| self.at_its_place(error, stage))?;
            }
        }
        let mut files = below(&stage.folder, Path::new(""))?;
        files.sort_by_key(|file| self.outputs.position(file));
        self.outputs.check_files(&files)?;
        if complete.is_some() {
            self.outputs.check_files(&[RECORD.into()])?;
        }
        if complete.is_some() && !self.begun.replace(true) {
            self.replaced.iter().try_for_each(|file| self.make_way(file))?;
            self.place(&begin, Path::new(RECORD))?;
        }
        for file in &files {
            debug_assert!(self.outputs.has(file), "{} is not among the run's files", file.display());
            self.place(&stage, file)?;
        }
        if complete.is_some() {
            self.place(&end, Path::new(RECORD))?;
        }
        Ok(value)
    }

    fn write_record(&self, stage: &Stage, complete: bool) -> Result<()> {
        let mut record = self.record();
        record["complete"] = json!(complete);
        write_atomically(stage.folder.join(RECORD), |file| {
            serde_json::to_writer_pretty(&mut *file, &record)?;
            file.write_all(b"\n")
        })
    }

    /// Moves a file from a stage to where it belongs.
    fn place(&self, stage: &Stage, file: &Path) -> Result<()> {
        let (from, to) = (stage.folder.join(file), self.outputs.path(file));
        if let Some(within) = within(file).map(|within| self.outputs.folder.join(within))
            && !within.exists()
        {
            fs::create_dir(&within).map_err(Error::io(&within, "create folder"))?;
        }
        match fs::rename(&from, &to) {
            // a folder of the run may lie on another disk
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                write_atomically(&to, |copy| io::copy(&mut File::open(&from)?, copy).map(|_| ()))
            }
            result => result.map_err(Error::io(&to, "rename")),
        }
    }

    /// Tells of the folder where nothing can be made in it.
    fn gone(&self, error: Error) -> Error {
        let folder = &self.outputs.folder;
        match error {
            Error::Io { .. } if folder.exists() && !folder.is_dir() => {
                Error::file(folder, "found a file, expected the folder that the run began in")
            }
            Error::Io { source, .. } if source.kind() == ErrorKind::NotFound && folder.exists() => {
                let workplace = folder.join(self.outputs.workplace());
                Error::file(workplace, "found it gone, expected the folder that the run makes its files in")
            }
            Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                Error::file(folder, "found it gone, expected the folder that the run began in")
            }
            Error::Io { source, .. } => Error::io(folder, "write")(source),
            other => other,
        }
    }

    /// Tells of the file that one in a stage was to become.
    fn at_its_place(&self, error: Error, stage: &Stage) -> Error {
        let place = |path: PathBuf| match path.strip_prefix(&stage.folder) {
            Ok(file) => self.outputs.path(file),
            Err(_) => path,
        };
        match error {
            Error::Io { path, doing, source } => Error::Io { path: place(path), doing, source },
            Error::File { path, problem } => Error::File { path: place(path), problem },
            other => other,
        }
    }

    /// Removes a file of another run, and the folder within that it was the last in.
    fn make_way(&self, file: &Path) -> Result<()> {
        remove(&self.outputs.folder.join(file))?;
        if let Some(within) = within(file) {
            // stays where there is something in it
            let _ = fs::remove_dir(self.outputs.folder.join(within));
        }
        Ok(())
    }
}

impl Outputs {
    /// The record of the run that wrote the files that are `there`, and the names of its files.
    fn earlier(&self, there: &[PathBuf]) -> Option<(Value, Outputs)> {
        let on_record = || {
            let text = fs::read(self.folder.join(RECORD)).ok()?;
            let record: Value = serde_json::from_slice(&text).ok()?;
            let names =
                record["files"].as_array()?.iter().filter_map(Value::as_str).filter(|name| *name != RECORD);
            let names = Outputs::folder(&self.folder, names);
            Some((record, names))
        };
        let in_file = |file: &PathBuf| Some((recorded(&self.folder.join(file))?, self.clone()));
        self.is_folder.then(on_record).flatten().or_else(|| there.iter().find_map(in_file))
    }

    /// Refuses files that no run on record wrote.
    fn refuse_strangers(&self, files: &[PathBuf]) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let found = if self.is_folder {
            format!("{} of no run on record", counted(files))
        } else {
            "a file that no such run wrote".into()
        };
        Err(Error::Occupied { path: self.asked.clone(), found, resumable: false })
    }

    /// Refuses those of the files that are not among the `names` of the run on record.
    fn refuse_strangers_to(&self, names: &Outputs, files: &[PathBuf]) -> Result<()> {
        let strangers: Vec<PathBuf> = files.iter().filter(|file| !names.has(file)).cloned().collect();
        self.refuse_strangers(&strangers)
    }
}

/// `history.csv and 3 more files`
fn counted(files: &[PathBuf]) -> String {
    let first = files.first().map_or("no file".into(), |file| file.display().to_string());
    match files.len().saturating_sub(1) {
        0 => first,
        1 => format!("{first} and another file"),
        more => format!("{first} and {more} more files"),
    }
}

/// The record in a tensor file's metadata; only its header is read.
fn recorded(path: &Path) -> Option<Value> {
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    let mut header = Vec::new();
    file.take(length.min(LONGEST_HEADER)).read_to_end(&mut header).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    serde_json::from_str(header["__metadata__"][KEY].as_str()?).ok()
}

/// The folder within the run's that a file is in, if it is in one.
fn within(file: &Path) -> Option<&Path> {
    file.parent().filter(|within| !within.as_os_str().is_empty())
}

/// The files below `folder`, as paths in it.
fn below(folder: &Path, within: &Path) -> Result<Vec<PathBuf>> {
    let path = folder.join(within);
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(Error::io(&path, "read"))? {
        let entry = entry.map_err(Error::io(&path, "read"))?;
        let inner = within.join(entry.file_name());
        match entry.path().is_dir() {
            true => files.extend(below(folder, &inner)?),
            false => files.push(inner),
        }
    }
    Ok(files)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path, "remove")(error)),
        _ => Ok(()),
    }
}

/// The names of the workplaces of single files in `folder`.
fn of_files(folder: &Path) -> Vec<OsString> {
    let names = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.file_name());
    let of_a_file = |name: &OsString| {
        let name = name.as_encoded_bytes();
        name.len() > WORKPLACE.len() && name.starts_with(b".") && name.ends_with(WORKPLACE.as_bytes())
    };
    names.filter(of_a_file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of the files a, b-3 and so on, and state, in a folder that is not there yet.
    fn claim(folder: &Path, seed: u64, mode: Mode) -> Result<Run> {
        let outputs = Outputs::folder(folder, ["a", "in/b-*", "state"]);
        let record = Record::new("test", None, json!({ "seed": seed }), json!({}));
        Run::claim(outputs, record, mode)
    }

    fn write(run: &Run, files: &[(&str, &str)]) -> Result<()> {
        run.write(|folder| {
            fs::create_dir(folder.join("in")).map_err(Error::io(folder, "create folder"))?;
            let write = |&(name, text): &(&str, &str)| {
                write_atomically(folder.join(name), |file| file.write_all(text.as_bytes()))
            };
            files.iter().try_for_each(write)
        })
    }

    fn record(folder: &Path) -> Value {
        serde_json::from_slice(&fs::read(folder.join(RECORD)).unwrap()).unwrap()
    }

    #[test]
    fn nothing_is_left_of_a_run_that_writes_nothing() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("some/where");
        let run = claim(&folder, 0, Mode::Begin).unwrap();
        assert!(folder.exists());
        drop(run);
        assert!(!place.path().join("some").exists());
    }

    /// A file of a folder that a run writes to is no other run's, and a folder with a file that is being written neither.
    #[test]
    fn a_folder_and_its_files_belong_to_one_run() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("run");
        let file = |name: &str| {
            let record = Record::new("test", None, json!({}), json!({}));
            Run::claim(Outputs::file(&folder.join(name))?, record, Mode::Overwrite)
        };
        let run = claim(&folder, 0, Mode::Begin).unwrap();
        for name in ["a", "run.json", "other"] {
            assert!(matches!(file(name).err(), Some(Error::InUse { .. })), "{name}");
        }
        drop(run);
        let held = file("a").unwrap();
        assert!(matches!(claim(&folder, 0, Mode::Begin).err(), Some(Error::InUse { .. })));
        drop(held);
        claim(&folder, 0, Mode::Begin).unwrap();
    }

    #[test]
    fn all_files_take_their_places_or_none() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("run");
        let run = claim(&folder, 0, Mode::Begin).unwrap();
        let refused = run.write(|stage| {
            write_atomically(stage.join("a"), |file| file.write_all(b"one"))?;
            write_atomically(stage.join("state"), |_| Err(io::Error::other("no room")))
        });
        assert_eq!(refused.unwrap_err().to_string(), format!("{}/state: write: no room", folder.display()));
        assert!(!folder.join("a").exists() && !folder.join(RECORD).exists());

        write(&run, &[("a", "one"), ("in/b-3", "two")]).unwrap();
        assert_eq!(record(&folder)["complete"], false);
        fs::create_dir(folder.join("state")).unwrap();
        let refused = write(&run, &[("a", "other"), ("state", "other")]).unwrap_err().to_string();
        assert_eq!(refused, format!("{}/state: found a folder, expected a file", folder.display()));
        assert_eq!(fs::read(folder.join("a")).unwrap(), b"one");
        fs::remove_dir(folder.join("state")).unwrap();
        run.finish(|_| Ok(())).unwrap();
        assert_eq!(record(&folder)["complete"], true);
        drop(run);
        assert!(!folder.join(".curvkit").exists());
    }

    #[test]
    fn one_run_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let run = claim(place.path(), 0, Mode::Begin).unwrap();
        assert!(matches!(claim(place.path(), 0, Mode::Begin), Err(Error::InUse { .. })));
        drop(run);
        claim(place.path(), 0, Mode::Begin).unwrap();
    }

    #[test]
    fn files_of_another_run_go_when_the_first_are_written() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path();
        write(&claim(folder, 0, Mode::Begin).unwrap(), &[("a", "0"), ("in/b-3", "0"), ("state", "0")])
            .unwrap();
        fs::write(folder.join("in/b-mine"), "").unwrap();
        let refused =
            |mode| claim(folder, 1, mode).err().unwrap().to_string().replace(folder.to_str().unwrap(), "DIR");
        assert_eq!(
            refused(Mode::Begin),
            "DIR: found a and 3 more files of another run (seed: found 0, expected 1), expected none"
        );
        assert_eq!(refused(Mode::Resume), "DIR: found another run: seed: found 0, expected 1");
        assert!(claim(folder, 0, Mode::Resume).unwrap().resumes());
        assert!(!claim(folder, 0, Mode::Begin).unwrap().resumes());
        assert_eq!(
            claim(folder, 1, Mode::ResumeAnyway).unwrap().record()["resumed_over"],
            json!(["seed: found 0, expected 1"])
        );
        let run = claim(folder, 1, Mode::Overwrite).unwrap();
        assert!(folder.join("in/b-3").exists());
        write(&run, &[("a", "1")]).unwrap();
        let there = |name: &str| folder.join(name).exists();
        assert!(!there("in/b-3") && !there("state") && there("in/b-mine"));
        assert_eq!(record(folder)["seed"], 1);
    }
}
