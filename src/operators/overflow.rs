//! Which of weights, inputs and targets is why a loss is not finite.

use super::{LossReport, Session};
use crate::data::{Dataset, Targets};
use crate::gpu::Gpu;
use crate::net::{Loss, Network};
use crate::{Error, Result};

impl Session {
    /// Returns the session that [`Session::new`] makes, and its loss, which is finite at every sample.
    ///
    /// # Errors
    /// Those of [`Session::new`]; [`Error::NotFinite`] naming the first sample whose loss is not finite, and which of
    /// weights, inputs and targets is too large: the targets where it is finite with zeros in their place, the inputs
    /// where it is with none above 1, else the weights.
    pub fn with_loss(
        gpu: &Gpu,
        network: &Network,
        parameters: &[f32],
        data: &Dataset,
        loss: Loss,
    ) -> Result<(Session, LossReport)> {
        let session = Session::new(gpu, network, parameters, data, loss)?;
        let report = session.loss()?;
        let Some(at) = report.per_sample.iter().position(|loss| !loss.is_finite()) else {
            return Ok((session, report));
        };
        drop(session);
        let sample = data.select(&[at]);
        let finite = |sample: &Dataset| -> Result<bool> {
            let report = Session::new(gpu, network, parameters, sample, loss)?.loss()?;
            Ok(report.loss.is_finite())
        };
        let mut culprit = None;
        if let Targets::Values { values, width } = &sample.targets {
            let targets = Targets::Values { values: vec![0.0; *width], width: *width };
            if finite(&Dataset { targets, ..sample.clone() })? {
                culprit = Some(format!("targets as large as {:e}", largest(values)));
            }
        }
        let scale = largest(&sample.inputs);
        if culprit.is_none() && !sample.tokens && scale > 1.0 {
            let inputs = sample.inputs.iter().map(|x| x / scale).collect();
            if finite(&Dataset { inputs, ..sample })? {
                culprit = Some(format!("inputs as large as {scale:e}"));
            }
        }
        let culprit = culprit.unwrap_or_else(|| {
            let of = |name, values| (name, largest(values));
            let each = network.parameters().iter().map(|p| of(&p.name, &parameters[p.offset..][..p.len]));
            let most = each.rev().max_by(|a, b| a.1.total_cmp(&b.1)); // of equal ones the first
            most.map_or("weights".into(), |(name, most)| format!("weights as large as {most:e}, of {name}"))
        });
        let detail = format!("sample {at} has {}: it overflows by {culprit}", report.per_sample[at]);
        Err(Error::NotFinite { quantity: "loss".into(), detail })
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, x| most.max(x.abs()))
}
