//! A data set on the device.

use crate::data::{Dataset, Targets, same_axes};
use crate::gpu::{Buffer, Gpu, View};
use crate::net::{Loss, Network};
use crate::{Error, Result};

/// A data set's inputs and targets in device memory; the inputs are cut over buffers where one binding is
/// too small for them.
pub struct Samples {
    len: usize,
    width: usize,
    /// First sample and values, `[held, width]`.
    shards: Vec<(usize, View)>,
    targets: Buffer,
    classes: bool,
}

/// Whether `network` takes the samples of `data`, and `loss` their targets.
///
/// # Errors
/// Those of [`Dataset::check`]; [`Error::Shape`] where samples or targets do not fit the network,
/// [`Error::Argument`] where a class is not below the number of outputs, where the loss cannot take the targets, or
/// where one of the network and the samples has token ids and the other has not.
pub fn check(network: &Network, data: &Dataset, loss: Loss) -> Result<()> {
    data.check()?;
    let (found, expected) = (&data.shape[..], network.sample_shape());
    let of_tokens = network.token_ids().is_some();
    if data.tokens && !of_tokens {
        let expected = format!("numbers {expected:?} a sample: the model has no tokens");
        return Err(Error::argument("inputs", "token ids (I32 or I64)", expected));
    }
    if of_tokens && !data.tokens && found != expected {
        let expected = format!("token ids (I32 or I64) [N, {}]: the model has tokens", expected[1]);
        return Err(Error::argument("inputs", format!("numbers {found:?} a sample"), expected));
    }
    if of_tokens && found.len() == expected.len() && found != expected {
        let expected = format!("{}, as the model has", expected[1]);
        return Err(Error::argument("inputs", format!("{} tokens a sample", found[1]), expected));
    }
    let fits = if of_tokens { found == expected } else { same_axes(found, expected) };
    if !fits {
        return Err(Error::shape("inputs: one sample", found, expected));
    }
    if let Some(ids) = network.token_ids() {
        data.check_tokens(ids)?;
    }
    let outputs = network.outputs();
    match &data.targets {
        Targets::Classes(classes) => match classes.iter().position(|&class| class as usize >= outputs) {
            Some(at) => {
                let found = format!("class {} for sample {at}", classes[at]);
                Err(Error::argument("targets", found, format!("0 to {} for {outputs} outputs", outputs - 1)))
            }
            None => Ok(()),
        },
        Targets::Values { .. } if loss == Loss::CrossEntropy => {
            Err(Error::argument("targets", "values", "classes (I32 or I64) for cross-entropy"))
        }
        Targets::Values { width, .. } if *width != outputs => {
            Err(Error::shape("targets", [data.len(), *width], [data.len(), outputs]))
        }
        Targets::Values { .. } => Ok(()),
    }
}

impl Samples {
    /// Uploads `data` for `network` and `loss`.
    ///
    /// # Errors
    /// Those of [`check`], and the device's.
    pub fn new(gpu: &Gpu, network: &Network, data: &Dataset, loss: Loss) -> Result<Samples> {
        check(network, data, loss)?;
        let width = network.input_len();
        let per_shard = gpu.max_binding_len() / width;
        if per_shard == 0 {
            return Err(Error::OutOfMemory {
                doing: "uploading the data set".into(),
                detail: format!("one sample has {width} values, a binding holds {}", gpu.max_binding_len()),
            });
        }
        let (targets, classes) = match &data.targets {
            Targets::Classes(classes) => (gpu.upload(classes)?, true),
            Targets::Values { values, .. } => (gpu.upload(values)?, false),
        };
        let mut shards = Vec::new();
        for (i, piece) in data.inputs.chunks(per_shard * width).enumerate() {
            let buffer = gpu.upload(piece)?;
            shards.push((i * per_shard, buffer.slice(0, piece.len())));
        }
        Ok(Samples { len: data.len(), width, shards, targets, classes })
    }

    /// N.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a data set has at least one sample.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of values in one sample.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Words that inputs and targets take.
    pub fn words(&self) -> usize {
        self.len * self.width + self.targets.view().len()
    }

    /// First sample and values of each part.
    pub fn shards(&self) -> &[(usize, View)] {
        &self.shards
    }

    /// Classes u32 `[N]` or values f32 `[N, L]`.
    pub fn targets(&self) -> View {
        self.targets.view()
    }

    /// Whether the targets are classes.
    pub fn classes(&self) -> bool {
        self.classes
    }
}
