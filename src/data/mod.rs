//! Data sets in host memory, and the files they come from.

mod cifar;
mod idx;
mod layout;
mod sst2;
mod standardization;
mod synthetic;
mod tensors;

#[cfg(feature = "cli")]
pub mod fetch;

pub use cifar::cifar10;
pub use idx::{Split, mnist};
pub use layout::{Layout, Span};
pub use sst2::{PADDING, Sentences, UNKNOWN, Vocabulary, sst2};
pub use standardization::Standardization;
pub use synthetic::synthetic_digits;
pub(crate) use tensors::{Elements, write_state};
pub use tensors::{Others, TensorFile, read_directions, read_parameters, write_parameters, write_tensors};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use crate::files::write_atomically;
use crate::{Error, Result};

/// N samples and their targets, in host memory.
///
/// A sample of tokens is `[2, T]`: the ids, then the mask (1 keeps a token, 0 is padding), both exact in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Sample after sample, each `shape` in row-major order: `[N, …shape]`.
    pub inputs: Vec<f32>,
    /// The shape of one sample.
    pub shape: Vec<usize>,
    /// The targets, in the order of the samples.
    pub targets: Targets,
    /// Whether the samples are token ids and mask, which only a model of tokens takes.
    pub tokens: bool,
}

/// What a loss compares the network's outputs with.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// One class a sample: `[N]`.
    Classes(Vec<u32>),
    /// `width` values a sample: `[N, width]`.
    Values {
        /// The values, sample after sample: `[N, width]`.
        values: Vec<f32>,
        /// The number of values of one sample.
        width: usize,
    },
}

/// Which samples of a data set to take: of `classes` (all where `None`) the first `per_class` each, of
/// those the first `limit`. They stay in the data set's order, and classes keep their numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// The classes to take samples of.
    pub classes: Option<Vec<u32>>,
    /// The number of samples of each class, at least 1; all where `None`.
    pub per_class: Option<usize>,
    /// The number of samples in all, at least 1; all where `None`.
    pub limit: Option<usize>,
}

impl Dataset {
    /// A data set of numbers that has passed [`Dataset::check`].
    ///
    /// # Errors
    /// Those of [`Dataset::check`].
    pub fn new(inputs: Vec<f32>, shape: Vec<usize>, targets: Targets) -> Result<Self> {
        let data = Dataset { inputs, shape, targets, tokens: false };
        data.check()?;
        Ok(data)
    }

    /// Sees to it that inputs and targets agree in number and that all of them are finite.
    ///
    /// # Errors
    /// [`Error::Shape`] where they do not agree, [`Error::NotFinite`] naming the first sample with a
    /// NaN or an infinity, [`Error::Argument`] where there is no sample at all.
    pub fn check(&self) -> Result<()> {
        let width = self.sample_len();
        let samples = match &self.targets {
            Targets::Classes(classes) => classes.len(),
            Targets::Values { values, width } => values.len() / (*width).max(1),
        };
        if samples == 0 || width == 0 {
            return Err(Error::argument("data set", "no samples", "at least one sample"));
        }
        if self.inputs.len() != samples * width {
            return Err(Error::shape("inputs", [self.inputs.len() / width, width], [samples, width]));
        }
        finite("inputs", &self.inputs, width)?;
        if let Targets::Values { values, width } = &self.targets {
            if values.len() != samples * width {
                return Err(Error::shape("targets", [values.len()], [samples, *width]));
            }
            finite("targets", values, *width)?;
        }
        Ok(())
    }

    /// N.
    pub fn len(&self) -> usize {
        self.inputs.len() / self.sample_len()
    }

    /// Never true: a data set has at least one sample.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The number of values in one sample.
    pub fn sample_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The samples `indices`, in that order.
    ///
    /// # Panics
    /// If an index is not below N.
    pub fn select(&self, indices: &[usize]) -> Dataset {
        let d = self.sample_len();
        let inputs = indices.iter().flat_map(|&i| &self.inputs[i * d..(i + 1) * d]).copied().collect();
        let targets = match &self.targets {
            Targets::Classes(classes) => Targets::Classes(indices.iter().map(|&i| classes[i]).collect()),
            Targets::Values { values, width } => Targets::Values {
                values: indices.iter().flat_map(|&i| &values[i * width..(i + 1) * width]).copied().collect(),
                width: *width,
            },
        };
        Dataset { inputs, shape: self.shape.clone(), targets, tokens: self.tokens }
    }

    /// The same values as samples of another shape that [`same_axes`] finds to be the same.
    pub fn in_shape(self, shape: &[usize]) -> Dataset {
        assert!(same_axes(&self.shape, shape), "{:?} as {shape:?}", self.shape);
        Dataset { shape: shape.to_vec(), ..self }
    }

    /// The number of samples of each class that occurs; nothing where the targets are no classes.
    pub fn class_counts(&self) -> BTreeMap<u32, usize> {
        let mut counts = BTreeMap::new();
        if let Targets::Classes(classes) = &self.targets {
            classes.iter().for_each(|&class| *counts.entry(class).or_insert(0) += 1);
        }
        counts
    }

    /// The samples that `selection` takes.
    ///
    /// # Errors
    /// [`Error::Argument`] where a class does not occur or has fewer samples than `per_class`, where there are fewer
    /// samples than `limit`, or where the targets are no classes although either of the first two is given.
    pub fn selected(&self, selection: &Selection) -> Result<Dataset> {
        Ok(self.select(&selection.indices(&self.targets, self.len())?))
    }

    /// Sees to it that samples are tokens: ids below `ids`, and a mask of zeros and ones that keeps at least
    /// one token of each sample.
    ///
    /// # Errors
    /// [`Error::Shape`] where samples are not `[2, T]`, [`Error::Argument`] naming the first token that is
    /// not so.
    pub fn check_tokens(&self, ids: usize) -> Result<()> {
        let [2, tokens] = self.shape[..] else {
            let (tensor, found) = ("inputs: one sample".into(), format!("{:?}", self.shape));
            return Err(Error::Shape { tensor, found, expected: "[2, tokens]".into() });
        };
        for (n, sample) in self.inputs.chunks_exact(2 * tokens).enumerate() {
            let (words, mask) = sample.split_at(tokens);
            let place = |t: usize| format!("for token {t} of sample {n}");
            let known = |&id: &f32| id >= 0.0 && id < ids as f32 && id.fract() == 0.0;
            if let Some(t) = words.iter().position(|id| !known(id)) {
                let found = format!("id {} {}", words[t], place(t));
                return Err(Error::argument("tokens", found, format!("0 to {}", ids - 1)));
            }
            if let Some(t) = mask.iter().position(|&keep| keep != 0.0 && keep != 1.0) {
                return Err(Error::argument("mask", format!("{} {}", mask[t], place(t)), "0 or 1"));
            }
            if !mask.contains(&1.0) {
                return Err(Error::argument("mask", format!("no token kept of sample {n}"), "at least one"));
            }
        }
        Ok(())
    }
}

/// Whether samples of shape `found` are samples of shape `expected`: the same axes in the same order, but for axes of
/// length 1, which hold nothing apart; or all values along one axis, on either side.
pub fn same_axes(found: &[usize], expected: &[usize]) -> bool {
    let (found, expected) = (long_axes(found), long_axes(expected));
    let flat = found.len() <= 1 || expected.len() <= 1;
    found == expected || flat && found.iter().product::<usize>() == expected.iter().product::<usize>()
}

/// The axes but those of length 1.
fn long_axes(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|&axis| axis != 1).collect()
}

/// The first file that there is of `names` in `dir`, then in the folder `folder` below it.
fn find(dir: &Path, folder: &str, names: &[&str]) -> Option<PathBuf> {
    let places = [dir.to_path_buf(), dir.join(folder)];
    places.iter().flat_map(|place| names.iter().map(|name| place.join(name))).find(|path| path.is_file())
}

/// Refuses what is not finite in rows of `width` values, one a sample.
fn finite(quantity: &str, values: &[f32], width: usize) -> Result<()> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let detail = format!("sample {} holds {}", at / width, values[at]);
            Err(Error::NotFinite { quantity: quantity.into(), detail })
        }
    }
}

impl Selection {
    /// Whether samples of these classes hold, up to here, all that is asked for, of a data set with the classes 0 to
    /// `all` − 1: what follows need not be read. Never true where neither `limit` nor `per_class` says how many.
    pub(super) fn is_complete(&self, classes: &[u32], all: u32) -> bool {
        let wanted = |class: &u32| self.classes.as_ref().is_none_or(|wanted| wanted.contains(class));
        let taken = classes.iter().filter(|class| wanted(class));
        match (self.per_class, self.limit) {
            (Some(count), _) => {
                (0..all).filter(wanted).all(|class| taken.clone().filter(|&&of| of == class).count() >= count)
            }
            (None, Some(limit)) => taken.count() >= limit,
            (None, None) => false,
        }
    }

    /// The positions of the samples that are taken, of `len` with these targets.
    ///
    /// # Errors
    /// Those of [`Dataset::selected`].
    pub fn indices(&self, targets: &Targets, len: usize) -> Result<Vec<usize>> {
        for (option, count) in [("per_class", self.per_class), ("limit", self.limit)] {
            if count == Some(0) {
                return Err(Error::argument(option, 0, "at least 1"));
            }
        }
        let mut taken = match (&self.classes, self.per_class) {
            (None, None) => (0..len).collect(),
            (classes, per_class) => of_classes(targets, classes.as_deref(), per_class)?,
        };
        if taken.is_empty() {
            return Err(Error::argument("data set", "no samples", "at least one sample"));
        }
        if let Some(limit) = self.limit {
            if limit > taken.len() {
                let found = format!("{limit} of {} samples", taken.len());
                return Err(Error::argument("limit", found, "no more than there are"));
            }
            taken.truncate(limit);
        }
        Ok(taken)
    }
}

/// The first `per_class` samples of each of `classes`.
fn of_classes(targets: &Targets, classes: Option<&[u32]>, per_class: Option<usize>) -> Result<Vec<usize>> {
    let Targets::Classes(targets) = targets else {
        let option = if classes.is_some() { "classes" } else { "per_class" };
        return Err(Error::argument(option, "targets that are values", "targets that are classes"));
    };
    let wanted = |class| classes.is_none_or(|classes| classes.contains(&class));
    let mut counts = BTreeMap::new();
    let mut taken = Vec::new();
    for (i, &class) in targets.iter().enumerate() {
        let count = counts.entry(class).or_insert(0);
        if wanted(class) && *count < per_class.unwrap_or(usize::MAX) {
            taken.push(i);
        }
        *count += 1;
    }
    if let Some(class) = classes.unwrap_or_default().iter().find(|class| !counts.contains_key(class)) {
        let there: Vec<String> = counts.keys().map(u32::to_string).collect();
        let found = format!("class {class}, of which there is no sample");
        return Err(Error::argument("classes", found, format!("some of {}", there.join(","))));
    }
    let expected = per_class.unwrap_or(0);
    if let Some((class, found)) = counts.iter().find(|&(&class, &count)| wanted(class) && count < expected) {
        let found = format!("{found} samples of class {class}");
        return Err(Error::argument("per_class", found, format!("at least {expected}")));
    }
    Ok(taken)
}
