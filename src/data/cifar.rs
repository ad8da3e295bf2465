//! CIFAR-10's binary batches: records of a label and 3 × 32 × 32 bytes.

use std::path::{Path, PathBuf};

use super::files::find;
use super::{Dataset, Split, Targets};
use crate::{Error, Result};

/// Channels, height and width.
const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;
const RECORD: usize = 1 + PIXELS;

/// Reads CIFAR-10 from `dir` or `dir/cifar-10-batches-bin`: those of `data_batch_1.bin` to
/// `data_batch_5.bin` that are there, in this order, or `test_batch.bin`.
///
/// A sample is `[3, 32, 32]` (red, green and blue) with values in [0, 1] (byte / 255), its target a class
/// below 10.
///
/// # Errors
/// [`Error::File`] where there is no batch, or one is truncated or holds a label above 9; [`Error::Io`]
/// where it cannot be read.
pub fn cifar10(dir: impl AsRef<Path>, split: Split) -> Result<Dataset> {
    const FOLDER: &str = "cifar-10-batches-bin";
    let dir = dir.as_ref();
    let (names, wanted): (Vec<String>, _) = match split {
        Split::Train => (
            (1..=5).map(|i| format!("data_batch_{i}.bin")).collect(),
            "any of data_batch_1.bin to data_batch_5.bin",
        ),
        Split::Test => (vec!["test_batch.bin".into()], "test_batch.bin"),
    };
    let paths: Vec<PathBuf> = names.iter().filter_map(|name| find(dir, FOLDER, &[name.as_str()])).collect();
    if paths.is_empty() {
        return Err(Error::file(
            dir,
            format!("found no file, expected {wanted}, here or in the folder {FOLDER}"),
        ));
    }
    let (mut inputs, mut classes) = (Vec::new(), Vec::new());
    for path in paths {
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
            let found = bytes.len();
            return Err(Error::file(
                path,
                format!("truncated: found {found} bytes, expected records of {RECORD}"),
            ));
        }
        inputs.reserve(bytes.len());
        for (at, record) in bytes.chunks_exact(RECORD).enumerate() {
            if record[0] > 9 {
                let problem = format!("found label {} for record {at}, expected 0 to 9", record[0]);
                return Err(Error::file(path, problem));
            }
            classes.push(u32::from(record[0]));
            inputs.extend(record[1..].iter().map(|&x| f32::from(x) / 255.0));
        }
    }
    Dataset::new(inputs, SHAPE.to_vec(), Targets::Classes(classes))
}
