//! Safetensors files: data sets, parameters, directions and results.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use serde_json::json;

use super::{Dataset, Targets, write_atomically};
use crate::{Error, Result};

/// A safetensors file in host memory. Every error names the file and the tensor.
pub struct TensorFile {
    path: PathBuf,
    header: Metadata,
    /// The tensors' elements, where the header's offsets point.
    data: Vec<u8>,
}

impl TensorFile {
    /// Reads the whole file.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::File`] where the header is corrupt or the file's
    /// length is not what the header says.
    pub fn read(path: impl AsRef<Path>) -> Result<TensorFile> {
        let path = path.as_ref();
        let mut bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            let problem = format!("truncated: found {} bytes, expected a safetensors header", bytes.len());
            return Err(Error::file(path, problem));
        };
        let length = u64::from_le_bytes(*length);
        if length > rest.len() as u64 {
            let found = rest.len();
            let problem = format!(
                "truncated or no safetensors file: found {found} bytes after the first eight, expected a header of {length}"
            );
            return Err(Error::file(path, problem));
        }
        let length = length as usize;
        let header: Metadata = serde_json::from_slice(&rest[..length])
            .map_err(|error| Error::file(path, format!("corrupt safetensors header: {error}")))?;
        let data = bytes.split_off(8 + length);
        if data.len() != header.data_len() {
            let (found, expected) = (data.len(), header.data_len());
            let what = if found < expected { "truncated" } else { "too long" };
            let problem = format!("{what}: found {found} bytes after the header, expected {expected}");
            return Err(Error::file(path, problem));
        }
        Ok(TensorFile { path: path.to_path_buf(), header, data })
    }

    /// The tensors' names, in the order of their data.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The text under `key` in the file's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// The shape of tensor `name`.
    ///
    /// # Errors
    /// [`Error::File`] listing what is there where there is no such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.info(name)?.shape)
    }

    /// The tensor `name` of shape `expected`, from F32 or (rounded) F64.
    ///
    /// # Errors
    /// [`Error::File`] where it is missing, has another shape or type, or holds a value that is not a
    /// finite f32.
    pub fn f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let info = self.shaped(name, expected)?;
        let bytes = self.bytes(info);
        let values: Vec<f32> = match info.dtype {
            Dtype::F32 => bytemuck::pod_collect_to_vec(bytes),
            Dtype::F64 => {
                bytemuck::pod_collect_to_vec::<_, f64>(bytes).into_iter().map(|x| x as f32).collect()
            }
            found => return Err(self.problem(name, format!("found {found}, expected F32 or F64"))),
        };
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => {
                let (found, place) = (values[at], place(at, expected));
                Err(self.problem(name, format!("found {found} at {place:?}, expected a finite f32")))
            }
            None => Ok(values),
        }
    }

    /// The tensor `name` of shape `expected`, from F64.
    ///
    /// # Errors
    /// [`Error::File`] where it is missing, has another shape or type, or holds a value that is not finite.
    pub fn f64(&self, name: &str, expected: &[usize]) -> Result<Vec<f64>> {
        let info = self.shaped(name, expected)?;
        if info.dtype != Dtype::F64 {
            return Err(self.problem(name, format!("found {}, expected F64", info.dtype)));
        }
        let values: Vec<f64> = bytemuck::pod_collect_to_vec(self.bytes(info));
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => {
                let (found, place) = (values[at], place(at, expected));
                Err(self.problem(name, format!("found {found} at {place:?}, expected a finite number")))
            }
            None => Ok(values),
        }
    }

    /// The tensor `name` of shape `expected`, from I32 or I64: classes or other indices from 0.
    ///
    /// # Errors
    /// [`Error::File`] where it is missing, has another shape or type, or holds a value that is negative
    /// or above `u32::MAX`.
    pub fn indices(&self, name: &str, expected: &[usize]) -> Result<Vec<u32>> {
        let info = self.shaped(name, expected)?;
        let bytes = self.bytes(info);
        let values: Vec<i64> = match info.dtype {
            Dtype::I32 => bytemuck::pod_collect_to_vec::<_, i32>(bytes).into_iter().map(i64::from).collect(),
            Dtype::I64 => bytemuck::pod_collect_to_vec(bytes),
            found => return Err(self.problem(name, format!("found {found}, expected I32 or I64"))),
        };
        let index = |(at, value): (usize, i64)| {
            u32::try_from(value).map_err(|_| {
                let place = place(at, expected);
                self.problem(name, format!("found {value} at {place:?}, expected 0 to {}", u32::MAX))
            })
        };
        values.into_iter().enumerate().map(index).collect()
    }

    /// `inputs` `[N, T]` and `mask` `[N, T]` as samples `[2, T]`.
    fn tokens(&self, n: usize, shape: &[usize]) -> Result<(Vec<f32>, Vec<usize>)> {
        let &[length] = shape else {
            let problem = format!("found shape {:?}, expected [N, T] for token ids", self.shape("inputs")?);
            return Err(self.problem("inputs", problem));
        };
        let ids = self.indices("inputs", &[n, length])?;
        let mask = match self.header.info("mask").map(|info| info.dtype) {
            None => vec![1.0; n * length],
            Some(Dtype::I32 | Dtype::I64) => {
                self.indices("mask", &[n, length])?.into_iter().map(|keep| keep as f32).collect()
            }
            Some(Dtype::BOOL | Dtype::U8) => {
                let bytes = self.bytes(self.shaped("mask", &[n, length])?);
                bytes.iter().map(|&keep| f32::from(keep)).collect()
            }
            Some(_) => self.f32("mask", &[n, length])?,
        };
        let samples = ids.chunks_exact(length).zip(mask.chunks_exact(length));
        let values =
            samples.flat_map(|(ids, mask)| ids.iter().map(|&id| id as f32).chain(mask.iter().copied()));
        Ok((values.collect(), vec![2, length]))
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.header.info(name).ok_or_else(|| {
            let there = match self.names() {
                names if names.is_empty() => "nor any other".into(),
                names => format!("only {}", list(&names, ", ")),
            };
            Error::file(&self.path, format!("no tensor {name}, {there}"))
        })
    }

    fn shaped(&self, name: &str, expected: &[usize]) -> Result<&TensorInfo> {
        let info = self.info(name)?;
        if info.shape != expected {
            let problem = format!("found shape {:?}, expected {expected:?}", info.shape);
            return Err(self.problem(name, problem));
        }
        Ok(info)
    }

    fn bytes(&self, info: &TensorInfo) -> &[u8] {
        &self.data[info.data_offsets.0..info.data_offsets.1]
    }

    fn problem(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        Error::file(&self.path, format!("tensor {name}: {problem}"))
    }
}

/// The index along each axis of element `at`.
fn place(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut place = vec![0; shape.len()];
    for (index, &axis) in place.iter_mut().zip(shape).rev() {
        *index = at % axis;
        at /= axis;
    }
    place
}

/// The first few items and the number of the others.
fn list(items: &[String], separator: &str) -> String {
    const SHOWN: usize = 8;
    let shown = items[..items.len().min(SHOWN)].join(separator);
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        others => format!("{shown}{separator}and {others} more"),
    }
}

/// Writes `tensors` (name, shape, elements) as F32, and `metadata` (key, text), atomically. The same
/// content gives the same bytes.
///
/// # Errors
/// [`Error::Shape`] where shape and elements do not agree, [`Error::NotFinite`] where an element is not
/// finite, [`Error::Argument`] where a name is used twice, and those of [`write_atomically`].
pub fn write_tensors(
    path: impl AsRef<Path>,
    tensors: &[(&str, &[usize], &[f32])],
    metadata: &[(&str, &str)],
) -> Result<()> {
    let tensors: Vec<_> =
        tensors.iter().map(|&(name, shape, values)| (name, shape, Elements::F32(values))).collect();
    write_elements(path, &tensors, metadata)
}

/// A tensor's elements, in the precision in which they are written.
#[derive(Clone, Copy)]
pub(crate) enum Elements<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

impl<'a> Elements<'a> {
    fn dtype(self) -> &'static str {
        match self {
            Elements::F32(_) => "F32",
            Elements::F64(_) => "F64",
        }
    }

    fn len(self) -> usize {
        match self {
            Elements::F32(values) => values.len(),
            Elements::F64(values) => values.len(),
        }
    }

    fn bytes(self) -> &'a [u8] {
        match self {
            Elements::F32(values) => bytemuck::cast_slice(values),
            Elements::F64(values) => bytemuck::cast_slice(values),
        }
    }

    /// The first element that is not finite, and which it is.
    fn not_finite(self) -> Option<(f64, usize)> {
        match self {
            Elements::F32(x) => x.iter().position(|x| !x.is_finite()).map(|at| (x[at] as f64, at)),
            Elements::F64(x) => x.iter().position(|x| !x.is_finite()).map(|at| (x[at], at)),
        }
    }
}

/// [`write_tensors`], each tensor in its own precision.
///
/// # Errors
/// Those of [`write_tensors`].
pub(crate) fn write_elements(
    path: impl AsRef<Path>,
    tensors: &[(&str, &[usize], Elements)],
    metadata: &[(&str, &str)],
) -> Result<()> {
    let metadata: serde_json::Map<_, _> =
        metadata.iter().map(|&(key, text)| (key.into(), text.into())).collect();
    let mut header = serde_json::Map::from_iter([("__metadata__".into(), metadata.into())]);
    let mut offset = 0;
    for &(name, shape, values) in tensors {
        if values.len() != shape.iter().product::<usize>() {
            return Err(Error::shape(name, [values.len()], shape));
        }
        if let Some((value, at)) = values.not_finite() {
            let detail = format!("{value} at {:?}", place(at, shape));
            return Err(Error::NotFinite { quantity: name.into(), detail });
        }
        let end = offset + values.bytes().len();
        let info = json!({ "dtype": values.dtype(), "shape": shape, "data_offsets": [offset, end] });
        if header.insert(name.into(), info).is_some() {
            return Err(Error::argument("tensor name", format!("{name} twice"), "each name once"));
        }
        offset = end;
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // The elements start at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        // Little-endian, as every host is that wgpu runs on.
        tensors.iter().try_for_each(|(_, _, values)| file.write_all(values.bytes()))
    })
}

/// Reads the parameters named and shaped by `layout` into one flat vector, in that order.
///
/// # Errors
/// Those of [`TensorFile::read`] and [`TensorFile::f32`]; [`Error::File`] listing the tensors that are
/// missing, that are shaped otherwise, and that the layout does not have.
pub fn read_parameters<Name: AsRef<str>, Shape: AsRef<[usize]>>(
    path: impl AsRef<Path>,
    layout: &[(Name, Shape)],
) -> Result<Vec<f32>> {
    let file = TensorFile::read(path)?;
    let mut problems = Vec::new();
    let mut wanted = HashSet::new();
    for (name, shape) in layout {
        let (name, shape) = (name.as_ref(), shape.as_ref());
        wanted.insert(name);
        match file.header.info(name) {
            None => problems.push(format!("{name} {shape:?} is missing")),
            Some(info) if info.shape != shape => {
                problems.push(format!("{name}: found shape {:?}, expected {shape:?}", info.shape));
            }
            Some(_) => {}
        }
    }
    for name in file.names().iter().filter(|name| !wanted.contains(name.as_str())) {
        problems.push(format!("{name} {:?} is not among the model's parameters", file.shape(name)?));
    }
    if !problems.is_empty() {
        return Err(Error::file(&file.path, list(&problems, "; ")));
    }
    let mut parameters = Vec::new();
    for (name, shape) in layout {
        parameters.extend(file.f32(name.as_ref(), shape.as_ref())?);
    }
    Ok(parameters)
}

/// Writes the flat `parameters` under the names and shapes of `layout`, as [`read_parameters`] reads them.
///
/// # Errors
/// [`Error::Shape`] where there are more or fewer values than the layout has, and those of
/// [`write_tensors`].
pub fn write_parameters<Name: AsRef<str>, Shape: AsRef<[usize]>>(
    path: impl AsRef<Path>,
    layout: &[(Name, Shape)],
    parameters: &[f32],
    metadata: &[(&str, &str)],
) -> Result<()> {
    let lengths = layout.iter().map(|(_, shape)| shape.as_ref().iter().product::<usize>());
    let expected: usize = lengths.clone().sum();
    if parameters.len() != expected {
        return Err(Error::shape("parameters", [parameters.len()], [expected]));
    }
    let mut rest = parameters;
    let mut tensors = Vec::new();
    for ((name, shape), length) in layout.iter().zip(lengths) {
        let (values, after) = rest.split_at(length);
        tensors.push((name.as_ref(), shape.as_ref(), values));
        rest = after;
    }
    write_tensors(path, &tensors, metadata)
}

/// Reads K directions of length `p`, the tensor `v` `[K, P]`: K, and the directions one after another.
///
/// # Errors
/// Those of [`TensorFile::read`] and [`TensorFile::f32`]; [`Error::File`] where K is 0 or P is not `p`.
pub fn read_directions(path: impl AsRef<Path>, p: usize) -> Result<(usize, Vec<f32>)> {
    let file = TensorFile::read(path)?;
    match *file.shape("v")? {
        [k, found] if k > 0 && found == p => Ok((k, file.f32("v", &[k, p])?)),
        ref found => {
            Err(file.problem("v", format!("found shape {found:?}, expected [K, {p}] with K at least 1")))
        }
    }
}

impl Dataset {
    /// Reads a data set: `inputs` `[N, …]` F32 or F64, or token ids `[N, T]` I32 or I64 with `mask` `[N, T]`
    /// (numbers 0 and 1, or BOOL; all 1 where there is none); `targets` `[N]` I32 or I64 (classes), or
    /// `[N, L]` F32 or F64.
    ///
    /// # Errors
    /// Those of [`TensorFile::read`], [`TensorFile::f32`] and [`TensorFile::indices`]; [`Error::File`]
    /// where there is no sample, or a target for each, where an id is above 16,777,216, or where the mask
    /// keeps no token of a sample.
    pub fn read(path: impl AsRef<Path>) -> Result<Dataset> {
        let path = path.as_ref();
        let file = TensorFile::read(path)?;
        let inputs = file.info("inputs")?;
        let (n, shape) = match *inputs.shape {
            [n, ref shape @ ..] if !shape.is_empty() && !inputs.shape.contains(&0) => (n, shape.to_vec()),
            ref found => {
                let problem = format!("found shape {found:?}, expected [N, …] without an axis of length 0");
                return Err(file.problem("inputs", problem));
            }
        };
        let (values, shape) = match inputs.dtype {
            Dtype::I32 | Dtype::I64 => file.tokens(n, &shape)?,
            Dtype::F32 | Dtype::F64 => (file.f32("inputs", &inputs.shape)?, shape),
            found => {
                let problem = format!("found {found}, expected F32 or F64, or I32 or I64 for token ids");
                return Err(file.problem("inputs", problem));
            }
        };
        let targets = file.info("targets")?;
        let targets = match (targets.dtype, &targets.shape[..]) {
            (Dtype::I32 | Dtype::I64, _) => Targets::Classes(file.indices("targets", &[n])?),
            (Dtype::F32 | Dtype::F64, &[_, width]) if width > 0 => {
                Targets::Values { values: file.f32("targets", &[n, width])?, width }
            }
            (dtype, shape) => {
                let expected = format!("I32 or I64 [{n}], or F32 or F64 [{n}, L]");
                return Err(file.problem("targets", format!("found {dtype} {shape:?}, expected {expected}")));
            }
        };
        let data = Dataset::new(values, shape, targets)?;
        if matches!(inputs.dtype, Dtype::I32 | Dtype::I64) {
            // every integer up to here is an f32
            data.check_tokens((1 << f32::MANTISSA_DIGITS) + 1)
                .map_err(|error| Error::file(path, error.to_string()))?;
        }
        Ok(data)
    }
}
