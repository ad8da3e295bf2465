//! The program, run in a folder of its own.

// each test binary uses a part of it
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

/// A folder that the program works in. What it measures of the adapter is kept for all tests.
pub struct Place {
    pub folder: TempDir,
}

const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");

/// What a call of the program did.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn empty() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    /// With model, data, weights and directions of the reference case called `case`.
    pub fn of(case: &str) -> Place {
        let place = Place::empty();
        for entry in fs::read_dir(reference(case)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, place.path().join(path.file_name().unwrap())).unwrap();
        }
        place
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// The program with `args`, which are split at spaces, to be run in the folder.
    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_curvkit"));
        command.args(args.split_whitespace()).current_dir(self.path());
        command.env("CURVKIT_CACHE", CACHE).env_remove("CURVKIT_DATA");
        // as on a machine without a desktop
        command.env_remove("XDG_RUNTIME_DIR");
        command
    }

    pub fn run(&self, args: &str) -> Outcome {
        outcome(&mut self.command(args))
    }

    /// Runs what has to succeed; gives what it printed.
    pub fn done(&self, args: &str) -> String {
        let outcome = self.run(args);
        assert_eq!(outcome.code, Some(0), "{args}: {}", outcome.err);
        outcome.out
    }

    /// Runs what has to fail with exit code 2 and one line on standard error, without a change to any
    /// file; gives that line.
    pub fn refused(&self, args: &str) -> String {
        self.refused_command(&mut self.command(args))
    }

    pub fn refused_command(&self, command: &mut Command) -> String {
        let before = files(self.path());
        let Outcome { code, out, err } = outcome(command);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{command:?}: {err}");
        let after = files(self.path());
        let changed = |(path, content): &(&PathBuf, &Option<Vec<u8>>)| before.get(*path) != Some(content);
        let changed: Vec<_> = after.iter().filter(changed).map(|(path, _)| path).collect();
        assert!(after.len() == before.len() && changed.is_empty(), "{command:?}: {err}{changed:?} changed");
        let message = err.strip_prefix("curvkit: ").and_then(|err| err.strip_suffix('\n'));
        let message = message.unwrap_or_else(|| panic!("{command:?}: {err}"));
        assert!(!message.contains('\n'), "{command:?}: {err}");
        message.to_string()
    }

    /// The tensors of a safetensors file: type, shape, bytes.
    pub fn tensors(&self, name: &str) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
        let bytes = self.read(name);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let whole = |view: TensorView| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        file.tensors().into_iter().map(|(name, view)| (name, whole(view))).collect()
    }

    /// The tensor `tensor` of the file `name`: shape and values.
    pub fn values(&self, name: &str, tensor: &str) -> (Vec<usize>, Vec<f64>) {
        let (dtype, shape, bytes) = self.tensors(name).remove(tensor).expect(tensor);
        let values = match dtype {
            Dtype::F32 => bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
            Dtype::F64 => bytes.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            other => panic!("{tensor}: {other}"),
        };
        (shape, values)
    }
}

pub fn reference(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/reference-cases").join(case)
}

pub fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Every file and folder below `folder`, with the files' contents.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
            found.insert(path, None);
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, Some(content));
        }
    }
    found
}

/// A safetensors file of tensors (name, type, shape, bytes).
pub fn safetensors(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
    let views = tensors.iter().map(|&(name, dtype, shape, bytes)| {
        (name.to_string(), TensorView::new(dtype, shape.to_vec(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

pub fn i64s(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// ‖found − expected‖ / ‖expected‖
pub fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied())
}
