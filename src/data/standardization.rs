//! Inputs of mean 0 and variance 1.

use super::Dataset;
use crate::{Error, Result};

/// The mean and the standard deviation of each channel over a data set's samples and pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardization {
    /// (mean, deviation), one for each channel.
    pub channels: Vec<[f64; 2]>,
}

impl Standardization {
    /// Of images `[channels, height, width]`, or of samples `[height, width]` or `[values]` as one channel. The variance is
    /// the mean square of the differences from the mean; a channel that is constant has deviation 1 here.
    ///
    /// # Errors
    /// [`Error::Shape`] for samples of another shape.
    pub fn of(data: &Dataset) -> Result<Standardization> {
        let pixels = pixels(data)?;
        let channels = data.sample_len() / pixels;
        let count = (data.len() * pixels) as f64;
        let mean_of = |channel: usize, value: &dyn Fn(f64) -> f64| {
            let planes = data.inputs.chunks_exact(pixels).skip(channel).step_by(channels);
            planes.flatten().map(|&x| value(f64::from(x))).sum::<f64>() / count
        };
        let channel = |channel| {
            let mean = mean_of(channel, &|x| x);
            let deviation = mean_of(channel, &|x| (x - mean).powi(2)).sqrt();
            [mean, if deviation > 0.0 { deviation } else { 1.0 }]
        };
        Ok(Standardization { channels: (0..channels).map(channel).collect() })
    }

    /// `(x − mean) / deviation`
    ///
    /// # Errors
    /// [`Error::Shape`] where `data` has other channels.
    pub fn apply(&self, data: &mut Dataset) -> Result<()> {
        let pixels = pixels(data)?;
        let channels = data.sample_len() / pixels;
        if channels != self.channels.len() {
            return Err(Error::shape("inputs: channels", [channels], [self.channels.len()]));
        }
        for (plane, [mean, deviation]) in
            data.inputs.chunks_exact_mut(pixels).zip(self.channels.iter().cycle())
        {
            plane.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) / deviation) as f32);
        }
        Ok(())
    }
}

/// The number of values of one channel of one sample.
fn pixels(data: &Dataset) -> Result<usize> {
    match data.shape[..] {
        [_, height, width] => Ok(height * width),
        [_] | [_, _] => Ok(data.sample_len()),
        ref found => Err(Error::Shape {
            tensor: "standardization: one sample".into(),
            found: format!("{found:?}"),
            expected: "[channels, height, width], [height, width] or [values]".into(),
        }),
    }
}
