//! Storage buffers, pooled by size, and views of them; uploads and read-backs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Gpu;
use crate::{Error, Result};

/// Views start at multiples of this many 4-byte words: wgpu's default alignment of storage bindings.
pub const ALIGN: usize = 64;

/// Bytes of one upload or read-back; larger ones are made in pieces.
const TRANSFER: usize = 64 << 20;

/// A storage buffer of 4-byte words. Dropped, it goes back to the pool.
#[derive(Clone)]
pub struct Buffer(Arc<Pooled>);

struct Pooled {
    raw: Option<wgpu::Buffer>,
    words: usize,
    pool: Arc<Pool>,
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
}

impl Pool {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
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
        if let Some(raw) = self.raw.take() {
            self.pool.held().free.entry(self.words).or_default().push(raw);
        }
    }
}

impl Buffer {
    /// The wgpu buffer.
    pub fn raw(&self) -> &wgpu::Buffer {
        self.0.raw.as_ref().expect("a buffer holds its wgpu buffer until it is dropped")
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

    pub(super) fn is(&self, other: &Buffer) -> bool {
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
            buffer: self.buffer.raw(),
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

    /// The wgpu buffer that this is a view of.
    pub fn raw(&self) -> &wgpu::Buffer {
        self.buffer.raw()
    }
}

impl Gpu {
    /// A buffer of `words` 4-byte words; its content is whatever was there before.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the device has no room or the limits forbid that size.
    pub fn buffer(&self, words: usize) -> Result<Buffer> {
        let words = words.max(4).next_multiple_of(ALIGN);
        let pool = self.inner.pool.clone();
        let mut held = pool.held();
        let raw = match held.free.get_mut(&words).and_then(Vec::pop) {
            Some(raw) => raw,
            None => {
                let size = 4 * words as u64;
                let doing = format!("making a buffer of {size} bytes");
                if size > self.limits().max_buffer_size {
                    let detail = format!("the device's largest buffer is {}", self.limits().max_buffer_size);
                    return Err(Error::OutOfMemory { doing, detail });
                }
                if 4 * (held.words + words) as u64 > self.memory_budget() {
                    held.trim();
                }
                let made = self.scoped(&doing, || {
                    self.device().create_buffer(&wgpu::BufferDescriptor {
                        label: None,
                        size,
                        usage: wgpu::BufferUsages::STORAGE
                            | wgpu::BufferUsages::COPY_SRC
                            | wgpu::BufferUsages::COPY_DST,
                        mapped_at_creation: false,
                    })
                })?;
                held.words += words;
                held.peak = held.peak.max(held.words);
                made
            }
        };
        drop(held);
        Ok(Buffer(Arc::new(Pooled { raw: Some(raw), words, pool })))
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
    /// # Panics
    /// If there are more values than the view has room for.
    pub fn write<T: bytemuck::Pod>(&self, view: &View, values: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        assert!(bytes.len() as u64 <= view.byte_len(), "{} bytes into {}", bytes.len(), view.byte_len());
        self.scoped("uploading", || {
            for (i, piece) in bytes.chunks(TRANSFER).enumerate() {
                self.queue().write_buffer(view.raw(), view.byte_offset() + (i * TRANSFER) as u64, piece);
                if bytes.len() > TRANSFER {
                    self.queue().submit([]);
                }
            }
        })
    }

    /// Waits for the device and reads `view`.
    pub fn read<T: bytemuck::Pod>(&self, view: &View) -> Result<Vec<T>> {
        assert_eq!(size_of::<T>(), 4, "views are made of 4-byte words");
        let mut values = Vec::with_capacity(view.len);
        let mut at = 0;
        while at < view.len {
            let words = (TRANSFER / 4).min(view.len - at);
            let bytes = 4 * words as u64;
            let staging = self.scoped("reading back", || {
                let staging = self.device().create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size: bytes,
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                });
                let mut encoder = self.device().create_command_encoder(&Default::default());
                let from = view.byte_offset() + 4 * at as u64;
                encoder.copy_buffer_to_buffer(view.raw(), from, &staging, 0, bytes);
                self.queue().submit([encoder.finish()]);
                staging.map_async(wgpu::MapMode::Read, .., |_| {});
                staging
            })?;
            self.wait_for(None, "reading back")?;
            let mapped = staging
                .get_mapped_range(..)
                .map_err(|error| Error::Device { doing: "reading back".into(), reason: error.to_string() })?;
            values.extend_from_slice(bytemuck::cast_slice(&mapped));
            at += words;
        }
        Ok(values)
    }
}
