//! Safetensors files: data sets, parameters, directions and results.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use flate2::Crc;
use half::{bf16, f16};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use serde_json::json;

use super::{Dataset, Layout, PADDING, Targets, layout, long_axes, same_axes, write_atomically};
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
        TensorFile::from_bytes(path, std::fs::read(path).map_err(Error::io(path, "read"))?)
    }

    /// Takes a file's content from memory; `path` is what errors call it.
    ///
    /// # Errors
    /// [`Error::File`] where the header is corrupt or the length is not what it says.
    pub fn from_bytes(path: impl AsRef<Path>, mut bytes: Vec<u8>) -> Result<TensorFile> {
        let path = path.as_ref();
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

    /// Sees to it that the file is to the bit what [`write_state`] wrote.
    ///
    /// # Errors
    /// [`Error::File`] where it is not.
    pub(crate) fn check_undamaged(&self) -> Result<()> {
        let metadata = self.header.metadata().iter().flatten();
        let others = metadata.filter(|(key, _)| *key != CHECKSUM).map(|(key, text)| (&**key, &**text));
        match self.metadata(CHECKSUM) {
            Some(found) if found == checksum(others, [&self.data[..]]) => Ok(()),
            _ => {
                Err(Error::file(&self.path, format!("damaged: the content is not what its {CHECKSUM} says")))
            }
        }
    }

    /// The tensors' names, in the order of their data.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The parameters named and shaped by `layout` in one flat vector, in that order. Where `module.` or `_orig_mod.` stands
    /// before every name, or several of these, the names are read without.
    ///
    /// # Errors
    /// Those of [`TensorFile::f32`]; [`Error::File`] listing the tensors that are missing, that are shaped otherwise, and,
    /// where they are refused, that the layout does not have.
    pub fn parameters<Name: AsRef<str>, Shape: AsRef<[usize]>>(
        &self,
        layout: &[(Name, Shape)],
        others: Others,
    ) -> Result<Vec<f32>> {
        let names = self.names();
        let prefix = common_prefix(&names);
        let (mut missing, mut reshaped) = (Vec::new(), Vec::new());
        let mut wanted = HashSet::new();
        for (name, shape) in layout {
            let (name, shape) = (format!("{prefix}{}", name.as_ref()), shape.as_ref());
            match self.header.info(&name) {
                None => missing.push(format!("{name} {shape:?} is missing")),
                Some(info) if info.shape != shape => {
                    reshaped.push(format!("{name}: found shape {:?}, expected {shape:?}", info.shape));
                }
                Some(_) => {}
            }
            wanted.insert(name);
        }
        let mut strange = Vec::new();
        for name in names.iter().filter(|name| others == Others::Refuse && !wanted.contains(*name)) {
            strange.push(format!("{name} {:?} is not among the model's parameters", self.shape(name)?));
        }
        let problems = [
            few(reshaped, "have other shapes"),
            few(missing, "are missing"),
            few(strange, "are not among them"),
        ]
        .concat();
        if !problems.is_empty() {
            return Err(Error::file(&self.path, problems.join("; ")));
        }
        let mut parameters = Vec::new();
        for (name, shape) in layout {
            parameters.extend(self.f32(&format!("{prefix}{}", name.as_ref()), shape.as_ref())?);
        }
        Ok(parameters)
    }

    /// The text under `key` in the file's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// What the metadata hold under `key` as JSON.
    ///
    /// # Errors
    /// [`Error::File`] that calls the file not `what` where there is no such thing.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, key: &str, what: &str) -> Result<T> {
        let found = self.metadata(key).and_then(|text| serde_json::from_str(text).ok());
        found.ok_or_else(|| Error::file(&self.path, format!("not {what}")))
    }

    /// The shape of tensor `name`.
    ///
    /// # Errors
    /// [`Error::File`] listing what is there where there is no such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.info(name)?.shape)
    }

    /// The tensor `name` of shape `expected`, from F32, F16 or BF16 (exactly), or from F64 (rounded).
    ///
    /// # Errors
    /// [`Error::File`] where it is missing, has another shape or type, or holds a value that is not a
    /// finite f32, be it one of F64 beyond the range of f32.
    pub fn f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let info = self.shaped(name, expected)?;
        let bytes = self.bytes(info);
        let values: Vec<f32> = match info.dtype {
            Dtype::F32 => bytemuck::pod_collect_to_vec(bytes),
            Dtype::F64 => pods::<f64>(bytes).map(|x| x as f32).collect(),
            Dtype::F16 => pods::<u16>(bytes).map(|bits| f16::from_bits(bits).to_f32()).collect(),
            Dtype::BF16 => pods::<u16>(bytes).map(|bits| bf16::from_bits(bits).to_f32()).collect(),
            found => return Err(self.problem(name, format!("found {found}, expected {FLOATS}"))),
        };
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => {
                let place = place(at, expected);
                let found = match info.dtype {
                    Dtype::F64 => pods::<f64>(bytes).nth(at).unwrap_or(f64::NAN),
                    _ => values[at].into(),
                };
                Err(self.problem(name, format!("found {found:?} at {place:?}, expected a finite f32")))
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
            Dtype::I32 => pods::<i32>(bytes).map(i64::from).collect(),
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

    /// Token ids `inputs` and what `mask` keeps of them, `[N, T]` each, as samples `[2, T]`.
    fn tokens(&self, n: usize, shape: &[usize]) -> Result<(Vec<f32>, Vec<usize>)> {
        let whole = [&[n], shape].concat();
        let long = long_axes(shape);
        let length = long.first().copied().unwrap_or(1);
        if long.len() > 1 {
            return Err(
                self.problem("inputs", format!("found shape {whole:?}, expected [N, T] for token ids"))
            );
        }
        let ids = self.indices("inputs", &whole)?;
        let mask = match self.header.info("mask") {
            None => {
                let padded = ids.chunks_exact(length).filter(|ids| ids.ends_with(&[PADDING; 2])).count();
                if padded > 0 {
                    let (path, end) =
                        (self.path.display(), format!("{padded} of {n} samples end in ids {PADDING}"));
                    log::warn!("{path}: no tensor mask: every token is kept, although {end}");
                }
                vec![1.0; n * length]
            }
            Some(info) => self.mask(info, &[n, length])?,
        };
        let samples = ids.chunks_exact(length).zip(mask.chunks_exact(length));
        let values =
            samples.flat_map(|(ids, mask)| ids.iter().map(|&id| id as f32).chain(mask.iter().copied()));
        Ok((values.collect(), vec![2, length]))
    }

    /// The tensor `mask`, of integers, floats or truth values.
    fn mask(&self, info: &TensorInfo, expected: &[usize]) -> Result<Vec<f32>> {
        if !same_axes(&info.shape, expected) || info.shape.first() != expected.first() {
            let problem = format!("found shape {:?}, expected {expected:?}", info.shape);
            return Err(self.problem("mask", problem));
        }
        match info.dtype {
            Dtype::I32 | Dtype::I64 => {
                Ok(self.indices("mask", &info.shape)?.into_iter().map(|keep| keep as f32).collect())
            }
            Dtype::BOOL | Dtype::U8 => Ok(self.bytes(info).iter().map(|&keep| f32::from(keep)).collect()),
            dtype if is_float(dtype) => self.f32("mask", &info.shape),
            found => {
                let expected = format!("BOOL, U8, I32 or I64, or {FLOATS}");
                Err(self.problem("mask", format!("found {found}, expected {expected}")))
            }
        }
    }

    /// The tensor `targets` of N samples.
    fn targets(&self, n: usize) -> Result<Targets> {
        let TensorInfo { dtype, shape, .. } = self.info("targets")?;
        let long = long_axes(shape.get(1..).unwrap_or_default());
        let of_all = shape.first() == Some(&n);
        let inputs = self.shape("inputs")?;
        if let (Some(count), [_, last]) = (shape.first(), inputs)
            && !of_all
            && last == count
        {
            let problem =
                format!("found shape {inputs:?}, expected the {count} samples of targets on the first axis");
            return Err(self.problem("inputs", problem));
        }
        match dtype {
            Dtype::I32 | Dtype::I64 if of_all && long.is_empty() => {
                Ok(Targets::Classes(self.indices("targets", shape)?))
            }
            Dtype::I32 | Dtype::I64 => {
                Err(self.problem("targets", format!("found shape {shape:?}, expected [{n}]")))
            }
            &dtype if is_float(dtype) => {
                let width = long.iter().product();
                if !of_all || long.len() > 1 || width == 0 {
                    let problem = format!("found shape {shape:?}, expected [{n}, L]");
                    return Err(self.problem("targets", problem));
                }
                Ok(Targets::Values { values: self.f32("targets", shape)?, width })
            }
            found => {
                let expected = format!("I32 or I64 [{n}], or {FLOATS} [{n}, L]");
                Err(self.problem("targets", format!("found {found} {shape:?}, expected {expected}")))
            }
        }
    }

    /// Warns of the tensors that are not among those that were looked for.
    fn warn_of_others(&self, read: &[&str]) {
        let others: Vec<String> =
            self.names().into_iter().filter(|name| !read.contains(&name.as_str())).collect();
        if !others.is_empty() {
            let (path, others, read) = (self.path.display(), list(&others, ", "), read.join(", "));
            log::warn!("{path}: not read: {others}; what is read here is {read}");
        }
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

/// What [`TensorFile::f32`] reads, in words.
const FLOATS: &str = "F32, F64, F16 or BF16";

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F64 | Dtype::F16 | Dtype::BF16)
}

/// The elements that `bytes` hold, in the byte order of the file and of every host that wgpu runs on.
fn pods<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> impl Iterator<Item = T> + '_ {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned)
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

/// The metadata's key under which a state has its checksum.
const CHECKSUM: &str = "checksum";

/// CRC-32 of a file's other metadata and of its elements.
fn checksum<'a>(
    metadata: impl Iterator<Item = (&'a str, &'a str)>,
    data: impl IntoIterator<Item = &'a [u8]>,
) -> String {
    let mut sum = Crc::new();
    let sorted: BTreeMap<&str, &str> = metadata.collect();
    sorted.iter().for_each(|entry| sum.update(format!("{entry:?}").as_bytes()));
    data.into_iter().for_each(|bytes| sum.update(bytes));
    format!("{:08x}", sum.sum())
}

/// [`write_elements`], such that [`TensorFile::check_undamaged`] knows the file again: a state that work goes on from.
///
/// # Errors
/// Those of [`write_tensors`].
pub(crate) fn write_state(
    path: impl AsRef<Path>,
    tensors: &[(&str, &[usize], Elements)],
    metadata: &[(&str, &str)],
) -> Result<()> {
    let sum = checksum(metadata.iter().copied(), tensors.iter().map(|(_, _, values)| values.bytes()));
    write_elements(path, tensors, &[metadata, &[(CHECKSUM, &sum)]].concat())
}

/// [`write_tensors`], each tensor in its own precision.
///
/// # Errors
/// Those of [`write_tensors`].
fn write_elements(
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

/// The first few of many problems of one kind, and of how many others the same is true.
fn few(mut problems: Vec<String>, same: &str) -> Vec<String> {
    const SHOWN: usize = 4;
    let others = problems.len().saturating_sub(SHOWN);
    if others > 0 {
        problems.truncate(SHOWN);
        problems.push(format!("and {others} more {same}"));
    }
    problems
}

/// What [`torch.nn.DataParallel`](https://docs.pytorch.org/docs/stable/generated/torch.nn.DataParallel.html) and
/// `torch.compile` put before the names of a model's parameters.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// The prefix that wrapped models share: as many of [`PREFIXES`] as stand before every name.
fn common_prefix(names: &[String]) -> String {
    let mut prefix = String::new();
    while let Some(next) = PREFIXES.iter().find(|next| {
        let rest = |name: &String| name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with(**next));
        !names.is_empty() && names.iter().all(rest)
    }) {
        prefix += next;
    }
    prefix
}

/// What to make of tensors that are none of a model's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Each of them is an error: the file may be another model's.
    Refuse,
    /// They are not read: running means and whatever else is kept beside parameters.
    Ignore,
}

/// Reads the parameters named and shaped by `layout` into one flat vector, as [`TensorFile::parameters`], from a file that
/// holds nothing else.
///
/// # Errors
/// Those of [`TensorFile::read`] and [`TensorFile::parameters`].
pub fn read_parameters<Name: AsRef<str>, Shape: AsRef<[usize]>>(
    path: impl AsRef<Path>,
    layout: &[(Name, Shape)],
) -> Result<Vec<f32>> {
    TensorFile::read(path)?.parameters(layout, Others::Refuse)
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

/// Reads K directions in the coordinates of `layout`, the tensor `v` `[K, P]`: K, and the directions one after another.
///
/// # Errors
/// Those of [`TensorFile::read`] and [`TensorFile::f32`]; [`Error::File`] where K is 0, P is not the layout's, or the
/// file says in its metadata that its vectors have another layout.
pub fn read_directions(path: impl AsRef<Path>, layout: &Layout) -> Result<(usize, Vec<f32>)> {
    let file = TensorFile::read(path)?;
    let p = layout.dim();
    if let Some(text) = file.metadata(layout::KEY) {
        let found: Layout = serde_json::from_str(text).map_err(|error| {
            Error::file(&file.path, format!("no layout of vectors in the metadata: {error}"))
        })?;
        if let Some(difference) = layout.difference(&found) {
            return Err(Error::file(&file.path, format!("layout of the vectors: {difference}")));
        }
    }
    match *file.shape("v")? {
        [k, found] if k > 0 && found == p => {
            file.warn_of_others(&["v"]);
            Ok((k, file.f32("v", &[k, p])?))
        }
        ref found => {
            Err(file.problem("v", format!("found shape {found:?}, expected [K, {p}] with K at least 1")))
        }
    }
}

impl Dataset {
    /// Reads a data set: `inputs` `[N, …]` F32, F64, F16 or BF16, or token ids `[N, T]` I32 or I64 with `mask` `[N, T]`
    /// (numbers 0 and 1, or BOOL; all 1 where there is none); `targets` `[N]` I32 or I64 (classes), or
    /// `[N, L]` of the types that inputs have (`[N]` for L = 1). Axes of length 1 behind N may be there or not.
    ///
    /// A tensor of another name is not read, of which a warning is logged.
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
        let tokens = matches!(inputs.dtype, Dtype::I32 | Dtype::I64);
        let (values, shape) = match inputs.dtype {
            _ if tokens => file.tokens(n, &shape)?,
            dtype if is_float(dtype) => (file.f32("inputs", &inputs.shape)?, shape),
            found => {
                let problem = format!("found {found}, expected {FLOATS}, or I32 or I64 for token ids");
                return Err(file.problem("inputs", problem));
            }
        };
        let targets = file.targets(n)?;
        file.warn_of_others(if tokens { &["inputs", "mask", "targets"] } else { &["inputs", "targets"] });
        let data = Dataset { tokens, ..Dataset::new(values, shape, targets)? };
        if tokens {
            // every integer up to here is an f32
            data.check_tokens((1 << f32::MANTISSA_DIGITS) + 1)
                .map_err(|error| Error::file(path, error.to_string()))?;
        }
        Ok(data)
    }
}
