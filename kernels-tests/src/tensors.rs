//! What a kernel reads or writes for K directions: a tensor of each, with poison between, or one for all.

use curvkit::gpu::{Gpu, View};
use curvkit::kernels::broadcast::Strided;

use crate::cases::random;
use crate::device::{POISON, read, upload};
use crate::f64s;

/// The tensors, one after the other.
pub struct Tensors {
    /// `[K, len]`, or `[len]`.
    pub values: Vec<f32>,
    pub len: usize,
    /// Words of poison after each direction's on the device; `None` where one serves all.
    pub gap: Option<usize>,
}

impl Tensors {
    /// Uniform in [−1, 1).
    pub fn random(seed: u64, k: usize, len: usize, gap: Option<usize>) -> Tensors {
        let count = if gap.is_some() { k } else { 1 };
        Tensors { values: random(seed, count * len), len, gap }
    }

    /// An output: random where it is added to, else poison.
    pub fn output(k: usize, len: usize, gap: usize, add: bool) -> Tensors {
        let mut out = Tensors::random(9, k, len, Some(gap));
        if !add {
            out.values.fill(POISON);
        }
        out
    }

    /// That of direction k.
    pub fn of(&self, k: usize) -> &[f32] {
        let k = if self.gap.is_some() { k } else { 0 };
        &self.values[k * self.len..(k + 1) * self.len]
    }

    /// What the sums in an output start from.
    pub fn before(&self, add: bool) -> Vec<f64> {
        if add { f64s(&self.values) } else { vec![0.0; self.values.len()] }
    }

    pub fn upload(&self, gpu: &Gpu) -> OnDevice {
        let gap = self.gap.unwrap_or(0);
        let tensors = self.values.chunks(self.len);
        let spread = tensors.flat_map(|tensor| tensor.iter().copied().chain(vec![POISON; gap]));
        let view = upload(gpu, &spread.collect::<Vec<f32>>());
        OnDevice { view, stride: self.gap.map_or(0, |gap| self.len + gap) }
    }

    /// What is found in the tensors' places.
    ///
    /// # Panics
    /// Where anything but poison is found between them.
    #[track_caller]
    pub fn found(&self, what: &str, gpu: &Gpu, on_device: &OnDevice) -> Vec<f32> {
        let mut found = Vec::with_capacity(self.values.len());
        for tensor in read(gpu, &on_device.view).chunks(self.len + self.gap.unwrap_or(0)) {
            let (values, gap) = tensor.split_at(self.len);
            let untouched = gap.iter().all(|x| x.to_bits() == POISON.to_bits());
            assert!(untouched, "{what}: written between two tensors");
            found.extend_from_slice(values);
        }
        found
    }
}

/// [`Tensors`] on the device.
pub struct OnDevice {
    pub view: View,
    /// Words from one direction's to the next's; 0 where one serves all.
    pub stride: usize,
}

impl OnDevice {
    pub fn strided(&self) -> Strided<'_> {
        Strided { view: &self.view, stride: self.stride }
    }
}
