//! Blocks of vectors on the device.

use crate::gpu::{Buffer, Gpu, Recorder, View};
use crate::{Error, Result};

/// K vectors of `stride` words, one after the other, over as many buffers as their size asks for.
///
/// A binding holds 2 GiB at best, a Krylov basis may need more: vectors are never cut, shards hold whole ones.
pub struct Block {
    gpu: Gpu,
    stride: usize,
    len: usize,
    per_shard: usize,
    shards: Vec<Buffer>,
}

impl Block {
    /// Zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where a single vector is larger than a binding, or the device has no room.
    ///
    /// # Panics
    /// If `stride` is not a multiple of 64.
    pub fn zeros(gpu: &Gpu, stride: usize, len: usize) -> Result<Block> {
        assert!(stride.is_multiple_of(crate::gpu::ALIGN), "a vector takes a multiple of 64 words");
        let per_shard = gpu.max_binding_len() / stride.max(1);
        if per_shard == 0 {
            return Err(Error::OutOfMemory {
                doing: "making a block of vectors".into(),
                detail: format!("a vector has {stride} words, a binding holds {}", gpu.max_binding_len()),
            });
        }
        let count = |shard: usize| per_shard.min(len - shard * per_shard);
        let shards = (0..len.div_ceil(per_shard))
            .map(|shard| gpu.zeros(count(shard) * stride))
            .collect::<Result<_>>()?;
        Ok(Block { gpu: gpu.clone(), stride, len, per_shard, shards })
    }

    /// A block that holds `values`, `[K, stride]`.
    ///
    /// # Errors
    /// As [`Block::zeros`].
    pub fn upload(gpu: &Gpu, stride: usize, values: &[f32]) -> Result<Block> {
        let block = Block::zeros(gpu, stride, values.len() / stride)?;
        for (shard, piece) in block.shards.iter().zip(values.chunks(block.per_shard * stride)) {
            gpu.write(&shard.view(), piece)?;
        }
        Ok(block)
    }

    /// A block in a buffer of the caller's: `len` vectors of `stride` words from its start.
    ///
    /// # Errors
    /// [`Error::Shape`] where the buffer is shorter than that, or longer than a binding may be.
    pub fn from_buffer(gpu: &Gpu, stride: usize, len: usize, buffer: Buffer) -> Result<Block> {
        let words = stride * len;
        if buffer.view().len() < words || words > gpu.max_binding_len() {
            return Err(Error::shape("buffer of a block", [buffer.view().len()], [len, stride]));
        }
        Ok(Block { gpu: gpu.clone(), stride, len, per_shard: len.max(1), shards: vec![buffer] })
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// K, the number of vectors.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no vectors.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Words of one vector.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The runs of vectors `first … first + count` that lie together, with the number of each run's first.
    ///
    /// # Panics
    /// If the range is not within the block.
    pub fn runs(&self, first: usize, count: usize) -> Vec<(usize, View)> {
        assert!(first + count <= self.len, "vectors {first}..{} of {}", first + count, self.len);
        let mut runs = Vec::new();
        let mut at = first;
        while at < first + count {
            let (shard, within) = (at / self.per_shard, at % self.per_shard);
            let held = (self.per_shard - within).min(first + count - at);
            // a vector's start is a multiple of 64 words, as a view's has to be
            runs.push((at, self.shards[shard].slice(within * self.stride, held * self.stride)));
            at += held;
        }
        runs
    }

    /// Copies the vectors from number `first` on, as many as `to` has room for.
    pub(super) fn copy_to(&self, first: usize, to: &View) -> Result<()> {
        let mut recorder = Recorder::new(&self.gpu);
        for (at, run) in self.runs(first, to.len() / self.stride) {
            recorder.copy(&run, &to.slice((at - first) * self.stride, run.len()));
        }
        recorder.finish()?.run()
    }

    /// The other way round.
    pub(super) fn copy_from(&self, first: usize, of: &View) -> Result<()> {
        let mut recorder = Recorder::new(&self.gpu);
        for (at, run) in self.runs(first, of.len() / self.stride) {
            recorder.copy(&of.slice((at - first) * self.stride, run.len()), &run);
        }
        recorder.finish()?.run()
    }

    /// The vectors, `[K, stride]`.
    pub fn download(&self) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(self.len * self.stride);
        for (_, run) in self.runs(0, self.len) {
            values.extend(self.gpu.read::<f32>(&run)?);
        }
        Ok(values)
    }
}
