//! CIFAR-10's binary batches: records of a label and 3 × 32 × 32 bytes.

use std::path::Path;

use super::{Dataset, Selection, Split, Targets, find};
use crate::{Error, Result};

/// Channels, height and width.
const SHAPE: [usize; 3] = [3, 32, 32];
const RECORD: usize = 1 + 3 * 32 * 32;
/// Records of every published batch.
const RECORDS: usize = 10_000;
const CLASSES: u8 = 10;

/// Reads those samples of CIFAR-10 that `wanted` takes from `dir` or `dir/cifar-10-batches-bin`: of
/// `data_batch_1.bin` to `data_batch_5.bin`, in this order and as far as it needs them, or of `test_batch.bin`.
///
/// A sample is `[3, 32, 32]` (red, green and blue) with values in [0, 1] (byte / 255), its target a class
/// below 10.
///
/// # Errors
/// [`Error::File`] where a batch is missing or has other than its 10,000 records before `wanted` has all samples that
/// it asks for, or where one holds a label above 9; [`Error::Io`] where it cannot be read; those of
/// [`Dataset::selected`].
pub fn cifar10(dir: impl AsRef<Path>, split: Split, wanted: &Selection) -> Result<Dataset> {
    const FOLDER: &str = "cifar-10-batches-bin";
    let dir = dir.as_ref();
    let names: Vec<String> = match split {
        Split::Train => (1..=5).map(|i| format!("data_batch_{i}.bin")).collect(),
        Split::Test => vec!["test_batch.bin".into()],
    };
    let (mut inputs, mut classes) = (Vec::new(), Vec::new());
    for name in &names {
        let Some(path) = find(dir, FOLDER, &[name]) else {
            let (path, there) = (dir.to_path_buf(), classes.len());
            let problem = format!("found no {name}, here or in the folder {FOLDER}");
            return Err(Error::FewerSamples { path, problem, there });
        };
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
            let found = bytes.len();
            let problem = format!("truncated: found {found} bytes, expected records of {RECORD}");
            return Err(Error::file(path, problem));
        }
        inputs.reserve(bytes.len());
        for (at, record) in bytes.chunks_exact(RECORD).enumerate() {
            if record[0] >= CLASSES {
                let problem = format!("found label {} for record {at}, expected 0 to 9", record[0]);
                return Err(Error::file(path, problem));
            }
            classes.push(u32::from(record[0]));
            inputs.extend(record[1..].iter().map(|&x| f32::from(x) / 255.0));
        }
        if wanted.is_complete(&classes, CLASSES.into()) {
            break;
        }
        let found = bytes.len() / RECORD;
        if found != RECORDS {
            let problem = format!("found {found} records, expected {RECORDS}");
            return Err(Error::FewerSamples { path, problem, there: classes.len() });
        }
    }
    Dataset::new(inputs, SHAPE.to_vec(), Targets::Classes(classes))?.selected(wanted)
}
