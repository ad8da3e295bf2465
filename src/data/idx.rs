//! MNIST's IDX files: a big-endian header (magic number, the length of each axis), then bytes.

use std::{
    fs::File,
    io::{BufReader, ErrorKind, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use super::{Dataset, Targets};
use crate::{Error, Result};

/// Which half of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The samples to train on.
    Train,
    /// The samples held out; for SST-2 those of `dev.tsv`.
    Test,
}

/// Reads MNIST (or another data set in its files, such as Fashion-MNIST) from `dir` or `dir/mnist`:
/// `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, or `t10k-…` for the test half, each plain
/// or with `.gz`.
///
/// A sample is `[1, 28, 28]` with values in [0, 1] (byte / 255), its target a class below 10.
///
/// # Errors
/// [`Error::File`] where a file is missing, is no such IDX file, is truncated or too long, holds a
/// label above 9, or has not as many labels as there are images; [`Error::Io`] where it cannot be read.
pub fn mnist(dir: impl AsRef<Path>, split: Split) -> Result<Dataset> {
    let prefix = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    let images_path = find(dir.as_ref(), &format!("{prefix}-images-idx3-ubyte"))?;
    let labels_path = find(dir.as_ref(), &format!("{prefix}-labels-idx1-ubyte"))?;
    let ([samples, rows, columns], pixels) = read(&images_path)?;
    let ([labels], classes) = read(&labels_path)?;
    if labels != samples {
        let problem = format!("found {labels} labels, expected {samples}, one for each image");
        return Err(Error::file(labels_path, problem));
    }
    if let Some(at) = classes.iter().position(|&class| class > 9) {
        let problem = format!("found label {} for sample {at}, expected 0 to 9", classes[at]);
        return Err(Error::file(labels_path, problem));
    }
    Dataset::new(
        pixels.into_iter().map(|x| f32::from(x) / 255.0).collect(),
        vec![1, rows, columns],
        Targets::Classes(classes.into_iter().map(u32::from).collect()),
    )
}

/// The path of `name`, plain or compressed, in `dir` or `dir/mnist`.
fn find(dir: &Path, name: &str) -> Result<PathBuf> {
    let compressed = format!("{name}.gz");
    super::find(dir, "mnist", &[name, compressed.as_str()]).ok_or_else(|| {
        let problem = format!("found neither {name} nor {compressed}, here or in the folder mnist");
        Error::file(dir, problem)
    })
}

/// The axes and the bytes of an IDX file of unsigned bytes with `RANK` axes, none of length 0.
fn read<const RANK: usize>(path: &Path) -> Result<([usize; RANK], Vec<u8>)> {
    // Two zeros, the element type (8 for unsigned bytes), the number of axes.
    let magic = 0x0800 + RANK as u32;
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let mut reader: Box<dyn Read> = match path.extension() {
        Some(extension) if extension == "gz" => Box::new(MultiGzDecoder::new(BufReader::new(file))),
        _ => Box::new(file),
    };

    let header = read_up_to(&mut reader, 4 * (1 + RANK as u64), path)?;
    let words: Vec<u32> =
        header.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]])).collect();
    if let Some(&found) = words.first()
        && found != magic
    {
        return Err(Error::file(path, format!("found magic number {found:#010x}, expected {magic:#010x}")));
    }
    if words.len() < 1 + RANK {
        let problem =
            format!("truncated: found {} bytes, expected a header of {}", header.len(), 4 * (1 + RANK));
        return Err(Error::file(path, problem));
    }

    let shape: [usize; RANK] = std::array::from_fn(|axis| words[1 + axis] as usize);
    let problem = |what: &str| Error::file(path, format!("{what} for shape {shape:?}"));
    let Some(expected) = shape.iter().try_fold(1u64, |n, &axis| n.checked_mul(axis as u64)) else {
        return Err(problem("found more bytes than can be counted"));
    };
    if expected == 0 {
        return Err(Error::file(path, format!("found shape {shape:?}, expected no axis of length 0")));
    }
    let bytes = read_up_to(&mut reader, expected.saturating_add(1), path)?;
    match bytes.len() as u64 {
        found if found < expected => {
            Err(problem(&format!("truncated: found {found} bytes after the header, expected {expected}")))
        }
        found if found > expected => {
            Err(problem(&format!("found bytes after the last element, expected {expected}")))
        }
        _ => Ok((shape, bytes)),
    }
}

/// The next `limit` bytes, or as many as there are.
fn read_up_to(reader: &mut dyn Read, limit: u64, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        // What the decompressor says of its input; the operating system does not end a file in this way.
        ErrorKind::UnexpectedEof => Error::file(path, "truncated: the compressed stream has no end"),
        ErrorKind::InvalidData | ErrorKind::InvalidInput => {
            Error::file(path, format!("no valid gzip stream: {error}"))
        }
        _ => Error::io(path, "read")(error),
    })?;
    Ok(bytes)
}
