//! Storage buffers, pooled by size, and views of them; uploads and read-backs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Gpu;
use crate::{Error, Result};

/// Views start at multiples of this many 4-byte words: wgpu's default alignment of storage bindings.
pub const ALIGN: usize = 64;

/// Bytes of one upload or read-back; larger ones are made in pieces.
const TRANSFER: usize = 64 << 20;

/// A storage buffer of 4-byte words. Clones are the same buffer. The last one dropped, its memory serves the device's next
/// buffer of that size, unless it is the caller's own, or the caller was given it by [`Buffer::raw`].
#[derive(Clone)]
pub struct Buffer(Arc<Pooled>);

struct Pooled {
    raw: Option<wgpu::Buffer>,
    words: usize,
    pool: Arc<Pool>,
    /// Whether the pool made it.
    pooled: bool,
    /// Whether somebody may have kept a handle to it.
    shared: AtomicBool,
}

/// Free buffers, and how much memory they and those in use take.
#[derive(Default)]
pub(super) struct Pool(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// By size in words.
    free: HashMap<usize, Vec<wgpu::Buffer>>,
    /// Words of all buffers, free ones too, now and at the most.
    words: usize,
    peak: usize,
    /// Who holds buffers that can be made again.
    caches: Vec<Weak<dyn Cache>>,
}

/// What holds buffers for later use and can let go of them.
pub(crate) trait Cache: Send + Sync {
    /// Lets go of what nobody uses at present.
    fn release(&self);
}

impl Pool {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Lets go of every free buffer.
    fn trim(&mut self) {
        self.words -= self.free.drain().map(|(words, buffers)| words * buffers.len()).sum::<usize>();
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(raw) = self.raw.take().filter(|_| self.pooled) else { return };
        let mut held = self.pool.held();
        match self.shared.load(Ordering::Relaxed) {
            false => held.free.entry(self.words).or_default().push(raw),
            true => held.words -= self.words,
        }
    }
}

impl Buffer {
    /// The wgpu buffer, for commands of the caller's. A clone of it may outlive this buffer.
    pub fn raw(&self) -> &wgpu::Buffer {
        self.0.shared.store(true, Ordering::Relaxed);
        self.handle()
    }

    /// The wgpu buffer, for the crate's own commands, which hold the buffer as long as they need it.
    pub(super) fn handle(&self) -> &wgpu::Buffer {
        self.0.raw.as_ref().expect("a buffer holds its wgpu buffer until it is dropped")
    }

    /// A buffer of the caller's, which stays the caller's: it counts for no memory budget. Its first words, up to a
    /// multiple of 4 bytes, are used.
    ///
    /// # Errors
    /// [`Error::Argument`] where it lacks one of the usages `STORAGE`, `COPY_SRC` and `COPY_DST` or has less than 16 bytes,
    /// [`Error::OtherDevice`] where it is of another device.
    pub fn from_wgpu(gpu: &Gpu, raw: wgpu::Buffer) -> Result<Buffer> {
        let wanted =
            wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        if !raw.usage().contains(wanted) {
            return Err(Error::argument(
                "usage of the buffer",
                format!("{:?}", raw.usage()),
                format!("{wanted:?} among them"),
            ));
        }
        if raw.size() < 16 {
            return Err(Error::argument("bytes of the buffer", raw.size(), "at least 16"));
        }
        // wgpu tells of another device's buffer when it is used
        let own = gpu.buffer(4)?;
        let used = gpu.scoped("taking a buffer of the caller's", || {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(&raw, 0, own.handle(), 0, 16);
            encoder.finish();
        });
        if used.is_err() {
            return Err(gpu.refuses("buffer", None));
        }
        let (words, pool) = ((raw.size() / 4) as usize, gpu.inner.pool.clone());
        let pooled = Pooled { raw: Some(raw), words, pool, pooled: false, shared: AtomicBool::new(true) };
        Ok(Buffer(Arc::new(pooled)))
    }

    /// Whether it lies on that device.
    pub fn is_of(&self, gpu: &Gpu) -> bool {
        Arc::ptr_eq(&self.0.pool, &gpu.inner.pool)
    }

    /// All of it.
    pub fn view(&self) -> View {
        View { buffer: self.clone(), offset: 0, len: self.0.words }
    }

    /// `len` words from word `offset` on, a multiple of 64.
    ///
    /// # Panics
    /// If the offset is no such multiple or the end lies outside of the buffer.
    pub fn slice(&self, offset: usize, len: usize) -> View {
        self.view().slice(offset, len)
    }

    /// Whether both are the same memory.
    pub fn is(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A part of a buffer, in 4-byte words.
#[derive(Clone)]
pub struct View {
    pub(super) buffer: Buffer,
    offset: usize,
    len: usize,
}

impl View {
    /// The number of words.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no words.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` words from word `offset` of this view on, a multiple of 64.
    ///
    /// # Panics
    /// If the offset is no such multiple or the end lies outside of the view.
    pub fn slice(&self, offset: usize, len: usize) -> View {
        assert!(offset.is_multiple_of(ALIGN), "a view starts at a multiple of {ALIGN} words, found {offset}");
        assert!(offset + len <= self.len, "words {offset}..{} of a view of {}", offset + len, self.len);
        View { buffer: self.buffer.clone(), offset: self.offset + offset, len }
    }

    pub(super) fn binding(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: self.buffer.handle(),
            offset: self.byte_offset(),
            // an empty tensor is never read, but a binding has at least one word
            size: std::num::NonZeroU64::new(4 * self.len.max(1) as u64),
        })
    }

    /// Where the view starts in its buffer, in bytes.
    pub fn byte_offset(&self) -> u64 {
        4 * self.offset as u64
    }

    /// The view's length in bytes.
    pub fn byte_len(&self) -> u64 {
        4 * self.len as u64
    }

    /// The buffer that this is a view of.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The wgpu buffer that this is a view of; as [`Buffer::raw`].
    pub fn raw(&self) -> &wgpu::Buffer {
        self.buffer.raw()
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} words)", self.0.words)
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({}..{} of {:?})", self.offset, self.offset + self.len, self.buffer)
    }
}

/// What has been read by the time that it is waited for: see [`Gpu::start_read`].
pub(crate) struct Reading<T> {
    gpu: Gpu,
    /// The copy, and the submission that makes it; none of an empty view.
    copy: Option<(wgpu::Buffer, wgpu::SubmissionIndex)>,
    values: std::marker::PhantomData<T>,
}

impl<T: bytemuck::Pod> Reading<T> {
    /// Waits for the copy, and for nothing that was submitted later.
    pub fn wait(self) -> Result<Vec<T>> {
        let Some((staging, submission)) = self.copy else { return Ok(Vec::new()) };
        self.gpu.wait_for(Some(submission), "reading back")?;
        let mapped = staging
            .get_mapped_range(..)
            .map_err(|error| Error::Device { doing: "reading back".into(), reason: error.to_string() })?;
        Ok(bytemuck::cast_slice(&mapped).to_vec())
    }
}

impl Gpu {
    /// A buffer of `words` 4-byte words; its content is whatever was there before.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the device has no room or the limits forbid that size.
    pub fn buffer(&self, words: usize) -> Result<Buffer> {
        let words = words.max(4).next_multiple_of(ALIGN);
        let size = 4 * words as u64;
        let doing = || format!("making a buffer of {size} bytes");
        if size > self.limits().max_buffer_size {
            let detail = format!("the device's largest buffer is {}", self.limits().max_buffer_size);
            return Err(Error::OutOfMemory { doing: doing(), detail });
        }
        let pool = &self.inner.pool;
        let mut held = pool.held();
        let raw = match held.free.get_mut(&words).and_then(Vec::pop) {
            Some(raw) => raw,
            None => {
                let too_much = |held: &Held| 4 * (held.words + words) as u64 > self.memory_budget();
                if too_much(&held) {
                    held.trim();
                }
                if too_much(&held) {
                    let caches: Vec<_> = held.caches.iter().filter_map(Weak::upgrade).collect();
                    drop(held);
                    caches.iter().for_each(|cache| cache.release());
                    held = pool.held();
                    held.trim();
                }
                held.words += words;
                held.peak = held.peak.max(held.words);
                drop(held);
                let made = self.scoped(&doing(), || {
                    self.device().create_buffer(&wgpu::BufferDescriptor {
                        label: None,
                        size,
                        usage: wgpu::BufferUsages::STORAGE
                            | wgpu::BufferUsages::COPY_SRC
                            | wgpu::BufferUsages::COPY_DST,
                        mapped_at_creation: false,
                    })
                });
                made.inspect_err(|_| pool.held().words -= words)?
            }
        };
        let (pool, shared) = (self.inner.pool.clone(), AtomicBool::new(false));
        Ok(Buffer(Arc::new(Pooled { raw: Some(raw), words, pool, pooled: true, shared })))
    }

    /// From now on `cache` is asked to let go of its buffers before the memory budget is passed.
    pub(crate) fn register(&self, cache: Weak<dyn Cache>) {
        let mut held = self.inner.pool.held();
        held.caches.retain(|other| other.strong_count() > 0);
        held.caches.push(cache);
    }

    /// Bytes of the storage buffers that are in use.
    pub fn memory_in_use(&self) -> u64 {
        let held = self.inner.pool.held();
        let free: usize = held.free.iter().map(|(words, buffers)| words * buffers.len()).sum();
        4 * (held.words - free) as u64
    }

    /// The most bytes that storage buffers took at once, those kept for use again included.
    pub fn peak_memory(&self) -> u64 {
        4 * self.inner.pool.held().peak as u64
    }

    /// A buffer that holds `values`.
    pub fn upload<T: bytemuck::Pod>(&self, values: &[T]) -> Result<Buffer> {
        let buffer = self.buffer(size_of_val(values).div_ceil(4))?;
        self.write(&buffer.view(), values)?;
        Ok(buffer)
    }

    /// Writes `values` to the start of `view`, before whatever is submitted next.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] where the view lies on another device, and the device's errors.
    ///
    /// # Panics
    /// If there are more values than the view has room for.
    pub fn write<T: bytemuck::Pod>(&self, view: &View, values: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        assert!(bytes.len() as u64 <= view.byte_len(), "{} bytes into {}", bytes.len(), view.byte_len());
        self.own("memory to write", view)?;
        self.scoped("uploading", || {
            for (i, piece) in bytes.chunks(TRANSFER).enumerate() {
                let at = view.byte_offset() + (i * TRANSFER) as u64;
                self.queue().write_buffer(view.buffer.handle(), at, piece);
                if bytes.len() > TRANSFER {
                    self.queue().submit([]);
                }
            }
        })
    }

    /// Whether `view` lies on this device.
    pub(super) fn own(&self, name: &str, view: &View) -> Result<()> {
        match view.buffer.is_of(self) {
            true => Ok(()),
            false => Err(self.refuses(name, None)),
        }
    }

    /// Waits for the device and reads `view`.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] where the view lies on another device, and the device's errors.
    pub fn read<T: bytemuck::Pod>(&self, view: &View) -> Result<Vec<T>> {
        let mut values = Vec::with_capacity(view.len);
        let mut at = 0;
        while at < view.len {
            let words = (TRANSFER / 4).min(view.len - at);
            values.extend(self.start_read::<T>(&view.slice(at, words))?.wait()?);
            at += words;
        }
        Ok(values)
    }

    /// Submits a copy of `view` as it is by now, to be waited for.
    pub(crate) fn start_read<T: bytemuck::Pod>(&self, view: &View) -> Result<Reading<T>> {
        assert_eq!(size_of::<T>(), 4, "views are made of 4-byte words");
        self.own("memory to read", view)?;
        let reading = |copy| Reading { gpu: self.clone(), copy, values: std::marker::PhantomData };
        if view.is_empty() {
            return Ok(reading(None));
        }
        let copy = self.scoped("reading back", || {
            let staging = self.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: view.byte_len(),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut encoder = self.device().create_command_encoder(&Default::default());
            let from = view.buffer.handle();
            encoder.copy_buffer_to_buffer(from, view.byte_offset(), &staging, 0, view.byte_len());
            let submission = self.queue().submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., |_| {});
            (staging, submission)
        })?;
        Ok(reading(Some(copy)))
    }
}
