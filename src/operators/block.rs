//! Blocks of vectors on the device.

use crate::gpu::{ALIGN, Buffer, Gpu, Recorder, View};
use crate::{Error, Result};

/// K vectors of `stride` words, one after the other, over as many buffers as their size asks for.
///
/// A binding holds 2 GiB at best, a Krylov basis may need more: vectors are never cut, shards hold whole ones.
pub struct Block {
    gpu: Gpu,
    stride: usize,
    len: usize,
    per_shard: usize,
    shards: Vec<View>,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({} vectors of {} words on {:?})", self.len, self.stride, self.gpu)
    }
}

/// Whether `stride` words can be those of a vector.
fn check_stride(stride: usize) -> Result<()> {
    match stride > 0 && stride.is_multiple_of(ALIGN) {
        true => Ok(()),
        false => Err(Error::argument("stride", stride, format!("a multiple of {ALIGN}"))),
    }
}

impl Block {
    /// A block whose vectors hold whatever was there before.
    ///
    /// # Errors
    /// [`Error::Argument`] where `stride` is not a multiple of 64, [`Error::OutOfMemory`] where a single vector is larger
    /// than a binding, or the device has no room.
    pub fn uninitialized(gpu: &Gpu, stride: usize, len: usize) -> Result<Block> {
        check_stride(stride)?;
        let per_shard = gpu.max_binding_len() / stride;
        if per_shard == 0 {
            return Err(Error::OutOfMemory {
                doing: "making a block of vectors".into(),
                detail: format!("a vector has {stride} words, a binding holds {}", gpu.max_binding_len()),
            });
        }
        let words = |shard: usize| per_shard.min(len - shard * per_shard) * stride;
        let shards = (0..len.div_ceil(per_shard))
            .map(|shard| Ok(gpu.buffer(words(shard))?.slice(0, words(shard))))
            .collect::<Result<_>>()?;
        Ok(Block { gpu: gpu.clone(), stride, len, per_shard, shards })
    }

    /// Zeros.
    ///
    /// # Errors
    /// As [`Block::uninitialized`].
    pub fn zeros(gpu: &Gpu, stride: usize, len: usize) -> Result<Block> {
        let block = Block::uninitialized(gpu, stride, len)?;
        block.clear()?;
        Ok(block)
    }

    /// A block that holds `values`, `[K, stride]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where the values are not whole vectors, and as [`Block::uninitialized`].
    pub fn upload(gpu: &Gpu, stride: usize, values: &[f32]) -> Result<Block> {
        check_stride(stride)?;
        if !values.len().is_multiple_of(stride) {
            let expected = format!("[K, {stride}]");
            return Err(Error::Shape {
                tensor: "values of a block".into(),
                found: format!("[{}]", values.len()),
                expected,
            });
        }
        let block = Block::uninitialized(gpu, stride, values.len() / stride)?;
        for (shard, piece) in block.shards.iter().zip(values.chunks(block.per_shard * stride)) {
            gpu.write(shard, piece)?;
        }
        Ok(block)
    }

    /// A block in a buffer of the caller's: `len` vectors of `stride` words from its start.
    ///
    /// # Errors
    /// [`Error::Argument`] where `stride` is not a multiple of 64, [`Error::OtherDevice`] where the buffer is of another
    /// device, [`Error::Shape`] where the buffer is shorter than that, or longer than a binding may be.
    pub fn from_buffer(gpu: &Gpu, stride: usize, len: usize, buffer: Buffer) -> Result<Block> {
        let words = stride * len;
        if buffer.view().len() < words || words > gpu.max_binding_len() {
            return Err(Error::shape("buffer of a block", [buffer.view().len()], [len, stride]));
        }
        Block::from_view(gpu, stride, buffer.slice(0, words))
    }

    /// A block that is a part of a buffer: `[K, stride]`.
    ///
    /// # Errors
    /// As [`Block::from_buffer`].
    pub fn from_view(gpu: &Gpu, stride: usize, view: View) -> Result<Block> {
        check_stride(stride)?;
        if !view.buffer().is_of(gpu) {
            return Err(gpu.refuses("buffer of a block", None));
        }
        if !view.len().is_multiple_of(stride) || view.len() > gpu.max_binding_len() {
            let expected = format!("[K, {stride}] within {} words", gpu.max_binding_len());
            let found = format!("[{}]", view.len());
            return Err(Error::Shape { tensor: "buffer of a block".into(), found, expected });
        }
        let len = view.len() / stride;
        Ok(Block { gpu: gpu.clone(), stride, len, per_shard: len.max(1), shards: vec![view] })
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

    /// Whether the two have memory in common.
    pub fn overlaps(&self, other: &Block) -> bool {
        self.shards.iter().any(|a| other.shards.iter().any(|b| a.buffer().is(b.buffer())))
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

    /// Makes every vector zero.
    ///
    /// # Errors
    /// The device's.
    pub fn clear(&self) -> Result<()> {
        let mut rec = Recorder::new(&self.gpu);
        self.record_clear(&mut rec);
        rec.run()
    }

    /// Records zeros for every vector.
    pub fn record_clear(&self, rec: &mut Recorder) {
        self.shards.iter().for_each(|shard| rec.clear(shard));
    }

    /// Records a copy of the vectors from number `first` on, as many as `to` has room for.
    pub(super) fn record_copy_to(&self, rec: &mut Recorder, first: usize, to: &View) {
        for (at, run) in self.runs(first, to.len() / self.stride) {
            rec.copy(&run, &to.slice((at - first) * self.stride, run.len()));
        }
    }

    /// Records a copy of the vectors of `of` to those from number `first` on.
    pub(super) fn record_copy_from(&self, rec: &mut Recorder, first: usize, of: &View) {
        for (at, run) in self.runs(first, of.len() / self.stride) {
            rec.copy(&of.slice((at - first) * self.stride, run.len()), &run);
        }
    }

    /// The vectors, `[K, stride]`.
    ///
    /// # Errors
    /// The device's.
    pub fn download(&self) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(self.len * self.stride);
        for (_, run) in self.runs(0, self.len) {
            values.extend(self.gpu.read::<f32>(&run)?);
        }
        Ok(values)
    }
}
