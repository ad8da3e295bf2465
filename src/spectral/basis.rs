//! A basis that grows and is rotated in place, on the device or, where it does not fit there, on the host.

use std::ops::Range;

use faer::{Mat, MatRef};

use crate::Result;
use crate::gpu::{ALIGN, Gpu, Recorder, View};
use crate::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm};
use crate::operators::{Block, Vectors, combine, copy, gram, grams, record_combine};

/// Up to `capacity` vectors V, columns of a D × len matrix.
///
/// They lie on the device if `capacity` vectors take at most half of the basis's share of the memory budget. Otherwise
/// they lie in the host's memory and go through the device in windows of an eighth of that share, with the same
/// results up to rounding.
pub struct Basis {
    gpu: Gpu,
    stride: usize,
    capacity: usize,
    len: usize,
    /// Words of the memory budget.
    share: usize,
    vectors: Residence,
}

enum Residence {
    Device(Block),
    /// `[len, stride]`, and the window through which vectors reach the device.
    Host {
        values: Vec<f32>,
        window: Block,
    },
}

use Residence::{Device, Host};

/// Vectors of the window, where a basis has to have one.
fn window(share: usize, stride: usize, capacity: usize) -> Option<usize> {
    (capacity * stride > share / 2).then(|| (share / 8 / stride).clamp(1, capacity))
}

/// Of a Q that does nothing but choose vectors, each once, the row of each column's 1.
fn chosen(q: MatRef<'_, f64>) -> Option<Vec<usize>> {
    let mut taken = vec![false; q.nrows()];
    let row = |j: usize| {
        let column = q.col(j);
        let at = column.iter().position(|&x| x != 0.0)?;
        let alone = column[at] == 1.0 && column.iter().skip(at + 1).all(|&x| x == 0.0);
        (alone && !std::mem::replace(&mut taken[at], true)).then_some(at)
    };
    (0..q.ncols()).map(row).collect()
}

/// The share of the memory budget that one of so many bases has, in words.
fn share(gpu: &Gpu, bases: usize) -> usize {
    (gpu.memory_budget() / 4) as usize / bases
}

impl Basis {
    /// An empty basis with room for `capacity` vectors of `stride` words, the only one that is held.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] where a vector does not fit into a binding, or the device has no room.
    pub fn new(gpu: &Gpu, stride: usize, capacity: usize) -> Result<Basis> {
        Basis::sharing(gpu, stride, capacity, 1)
    }

    /// [`Basis::new`], one of so many that are held at a time and share the memory budget evenly.
    ///
    /// # Errors
    /// As there.
    pub fn sharing(gpu: &Gpu, stride: usize, capacity: usize, bases: usize) -> Result<Basis> {
        let share = share(gpu, bases);
        let vectors = match window(share, stride, capacity) {
            None => Device(Block::zeros(gpu, stride, capacity)?),
            Some(window) => Host { values: Vec::new(), window: Block::zeros(gpu, stride, window)? },
        };
        Ok(Basis { gpu: gpu.clone(), stride, capacity, len: 0, share, vectors })
    }

    /// Bytes of the memory budget that such a basis takes, with what its own operations need in between: an eighth of
    /// its share, and where it lies on the host as much as a window again.
    pub fn bytes(gpu: &Gpu, stride: usize, capacity: usize, bases: usize) -> u64 {
        let share = share(gpu, bases);
        let vectors = window(share, stride, capacity).map_or(capacity, |window| 2 * window);
        4 * (vectors * stride + share / 8) as u64
    }

    /// The number of vectors.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most vectors it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether the vectors lie on the device.
    pub fn on_device(&self) -> bool {
        matches!(self.vectors, Device(_))
    }

    /// Adds vectors behind those that there are.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn append(&mut self, x: &Block) -> Result<()> {
        assert!(
            self.len + x.len() <= self.capacity,
            "{} + {} vectors of {}",
            self.len,
            x.len(),
            self.capacity
        );
        match &mut self.vectors {
            Device(block) => copy(x, (&*block, self.len..self.len + x.len()))?,
            Host { values, .. } => values.extend(x.download()?),
        }
        self.len += x.len();
        Ok(())
    }

    /// Drops all but the first `len` vectors.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        if let Host { values, .. } = &mut self.vectors {
            values.truncate(self.len * self.stride);
        }
    }

    /// A copy of the vectors of `range`, on the device.
    ///
    /// # Errors
    /// The device's.
    pub fn block(&self, range: Range<usize>) -> Result<Block> {
        assert!(range.end <= self.len, "{range:?} of {} vectors", self.len);
        match &self.vectors {
            Device(block) => {
                let taken = Block::zeros(&self.gpu, self.stride, range.len())?;
                copy((block, range), &taken)?;
                Ok(taken)
            }
            Host { values, .. } => Block::upload(
                &self.gpu,
                self.stride,
                &values[range.start * self.stride..range.end * self.stride],
            ),
        }
    }

    /// The vectors of `range` where they lie, if they lie together on the device; otherwise a copy.
    ///
    /// # Errors
    /// The device's.
    pub(super) fn lent(&self, range: Range<usize>) -> Result<Block> {
        if let Device(block) = &self.vectors
            && let [(_, run)] = &block.runs(range.start, range.len())[..]
        {
            return Block::from_view(&self.gpu, self.stride, run.clone());
        }
        self.block(range)
    }

    /// All vectors, `[len, stride]`.
    ///
    /// # Errors
    /// The device's.
    pub fn download(&self) -> Result<Vec<f32>> {
        match &self.vectors {
            Device(block) => {
                let mut values = Vec::with_capacity(self.len * self.stride);
                for (_, run) in block.runs(0, self.len) {
                    values.extend(self.gpu.read::<f32>(&run)?);
                }
                Ok(values)
            }
            Host { values, .. } => Ok(values.clone()),
        }
    }

    /// Hands the vectors of `range` to `each` in their order, as many at a time as the device has room for.
    fn windows(
        &self,
        range: Range<usize>,
        mut each: impl FnMut(Range<usize>, Vectors) -> Result<()>,
    ) -> Result<()> {
        match &self.vectors {
            Device(block) => each(range.clone(), (block, range).into()),
            Host { values, window } => {
                let held = &values[range.start * self.stride..range.end * self.stride];
                for (i, piece) in held.chunks(window.len() * self.stride).enumerate() {
                    let (first, count) = (range.start + i * window.len(), piece.len() / self.stride);
                    for (held, view) in Vectors::from((window, 0..count)).pieces(count) {
                        self.gpu.write(&view, &piece[held.start * self.stride..held.end * self.stride])?;
                    }
                    each(first..first + count, (window, 0..count).into())?;
                }
                Ok(())
            }
        }
    }

    /// `C = VᵀY`: `[len, k]`.
    ///
    /// # Errors
    /// The device's.
    pub fn project(&self, y: &Block) -> Result<Mat<f64>> {
        self.project_range(0..self.len, y)
    }

    /// `C = VᵀY` for the vectors V of `range`: `[range, k]`.
    fn project_range(&self, range: Range<usize>, y: &Block) -> Result<Mat<f64>> {
        let mut c = Mat::zeros(range.len(), y.len());
        self.windows(range.clone(), |held, v| {
            c.subrows_mut(held.start - range.start, held.len()).copy_from(&gram(v, y)?);
            Ok(())
        })?;
        Ok(c)
    }

    /// `VᵀV`: `[len, len]`, as symmetric as it is.
    ///
    /// # Errors
    /// The device's.
    pub(super) fn gram(&self) -> Result<Mat<f64>> {
        let at_once = (self.share / 16 / self.stride).clamp(1, 64);
        let mut g = Mat::zeros(self.len, self.len);
        for first in (0..self.len).step_by(at_once) {
            let count = at_once.min(self.len - first);
            let part = self.project_range(first..self.len, &self.block(first..first + count)?)?;
            for (i, j) in (0..self.len - first).flat_map(|i| (0..count).map(move |j| (i, j))) {
                (g[(first + i, first + j)], g[(first + j, first + i)]) = (part[(i, j)], part[(i, j)]);
            }
        }
        Ok(g)
    }

    /// `C = VᵀU` for another basis U, or V itself: `[len, len of U]`.
    ///
    /// # Errors
    /// The device's.
    pub fn project_all(&self, u: &Basis) -> Result<Mat<f64>> {
        let at_once = (self.share / 16 / self.stride).clamp(1, 64);
        let mut c = Mat::zeros(self.len, u.len);
        for first in (0..u.len).step_by(at_once) {
            let count = at_once.min(u.len - first);
            c.subcols_mut(first, count).copy_from(&self.project(&u.block(first..first + count)?)?);
        }
        Ok(c)
    }

    /// `Y = V S`, or `Y += V S` where `add`, with S `[len, k]`.
    ///
    /// # Errors
    /// The device's.
    pub fn combine(&self, s: MatRef<'_, f64>, y: &Block, add: bool) -> Result<()> {
        self.windows(0..self.len, |range, v| {
            combine(s.subrows(range.start, range.len()), v, y, add || range.start > 0)
        })
    }

    /// `VᵀY` for the vectors V of `range`, and `YᵀY`: `[range, k]` and `[k, k]`; on the device, read back together.
    ///
    /// # Errors
    /// The device's.
    pub(super) fn grams(&self, range: Range<usize>, y: &Block) -> Result<[Mat<f64>; 2]> {
        match &self.vectors {
            Device(block) => {
                let pairs = [((block, range).into(), y.into()), (y.into(), y.into())];
                Ok(grams(&pairs)?.try_into().expect("two pairs have two Gram matrices"))
            }
            Host { .. } => Ok([self.project_range(range, y)?, gram(y, y)?]),
        }
    }

    /// `Z = V S + Y R` for the vectors V of `range`, with S `[range, k_z]` and R `[k, k_z]`; on the device, in one go.
    ///
    /// # Errors
    /// The device's.
    pub(super) fn combine_with(
        &self,
        (range, s): (Range<usize>, MatRef<'_, f64>),
        (r, y): (MatRef<'_, f64>, &Block),
        z: Vectors<'_>,
    ) -> Result<()> {
        match &self.vectors {
            Device(block) => {
                let mut rec = Recorder::new(&self.gpu);
                record_combine(&mut rec, r, y.into(), z, false)?;
                record_combine(&mut rec, s, (block, range).into(), z, true)?;
                rec.run()
            }
            Host { .. } => {
                combine(r, y, z, false)?;
                let first = range.start;
                self.windows(range, |held, v| combine(s.subrows(held.start - first, held.len()), v, z, true))
            }
        }
    }

    /// `Y −= V C` with `C = VᵀY`, window after window, and C: `[len, k]`. What one pass leaves of V in Y is
    /// rounding, measured against Y's size before it.
    ///
    /// # Errors
    /// The device's.
    pub fn remove_from(&self, y: &Block) -> Result<Mat<f64>> {
        let mut c = Mat::zeros(self.len, y.len());
        self.windows(0..self.len, |range, v| {
            let part = gram(v, y)?;
            combine((-1.0 * &part).as_ref(), v, y, true)?;
            c.subrows_mut(range.start, range.len()).copy_from(&part);
            Ok(())
        })?;
        Ok(c)
    }

    /// `V = V Q`, in place, with Q `[len, k]` and k ≤ `len`; the basis has k vectors then.
    ///
    /// Made for a run of coordinates at a time: V is read whole along all its vectors before they are
    /// written.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// If Q has not as many rows as there are vectors, or more columns.
    pub fn rotate(&mut self, q: MatRef<'_, f64>) -> Result<()> {
        let k = q.ncols();
        assert!(q.nrows() == self.len && k <= self.len, "{} × {k} for {} vectors", q.nrows(), self.len);
        if let Some(chosen) = chosen(q) {
            self.choose(&chosen)?;
        } else if k > 0 {
            // a sixteenth of the share holds the rotated coordinates, and another one Q
            let by_flops = self.gpu.dispatch_flops() / (2.0 * self.len as f64 * k as f64);
            let run = (self.share / 16 / k).min(by_flops as usize).min(self.stride) / ALIGN * ALIGN;
            let run = run.max(ALIGN);
            let rotated = self.gpu.buffer(k * run)?;
            for first in (0..self.stride).step_by(run) {
                let coordinates = first..self.stride.min(first + run);
                let rotated = rotated.slice(0, k * coordinates.len());
                self.rotate_coordinates(q, coordinates.clone(), &rotated)?;
                self.write_coordinates(coordinates, &rotated)?;
            }
        }
        self.truncate(k);
        Ok(())
    }

    /// Makes vectors that are orthonormal but for what rounding summed up over many rotations orthonormal to
    /// rounding, each by as little as can be: `V (VᵀV)^(−1/2)`, to first order.
    ///
    /// # Errors
    /// The device's.
    pub fn reorthonormalise(&mut self) -> Result<()> {
        let g = self.gram()?;
        let root =
            Mat::from_fn(self.len, self.len, |i, j| (if i == j { 1.5 } else { 0.0 }) - 0.5 * g[(i, j)]);
        self.rotate(root.as_ref())
    }

    /// Puts vector `chosen[i]` in place of vector i; the basis keeps those behind the last i.
    fn choose(&mut self, chosen: &[usize]) -> Result<()> {
        let stride = self.stride;
        let mut needed = vec![false; self.len];
        chosen.iter().for_each(|&from| needed[from] = true);
        // from a place whose vector nobody needs, or out of a ring whose first vector is set aside, each is moved to where
        // the one before came from
        let mut moves = Vec::new(); // (from, to); `None` stands for the vector set aside
        let mut done: Vec<bool> = chosen.iter().enumerate().map(|(to, &from)| to == from).collect();
        let free: Vec<usize> = (0..chosen.len()).filter(|&to| !needed[to]).collect();
        for first in free.into_iter().chain(0..chosen.len()) {
            if done[first] {
                continue;
            }
            let ring = needed[first];
            if ring {
                moves.push((Some(first), None));
            }
            let mut to = first;
            loop {
                done[to] = true;
                let from = chosen[to];
                moves.push((if ring && from == first { None } else { Some(from) }, Some(to)));
                if from >= chosen.len() || done[from] {
                    break;
                }
                to = from;
            }
        }
        if moves.is_empty() {
            return Ok(());
        }
        match &mut self.vectors {
            Device(block) => {
                let [aside, between] = [(); 2].map(|()| self.gpu.buffer(stride));
                let [aside, between] = [aside?.slice(0, stride), between?.slice(0, stride)];
                let vector = |at: Option<usize>| match at {
                    Some(at) => Vectors::from((&*block, at..at + 1)).pieces(1).swap_remove(0).1,
                    None => aside.clone(),
                };
                let mut rec = Recorder::new(&self.gpu);
                for (from, to) in moves {
                    rec.copy(&vector(from), &between);
                    rec.copy(&between, &vector(to));
                }
                rec.run()
            }
            Host { values, .. } => {
                let mut aside = vec![0.0; stride];
                for (from, to) in moves {
                    match (from, to) {
                        (Some(from), Some(to)) => {
                            values.copy_within(from * stride..(from + 1) * stride, to * stride)
                        }
                        (Some(from), None) => aside.copy_from_slice(&values[from * stride..][..stride]),
                        (None, Some(to)) => values[to * stride..][..stride].copy_from_slice(&aside),
                        (None, None) => {}
                    }
                }
                Ok(())
            }
        }
    }

    /// `(V Q)[coordinates]` into `to`: `[k, coordinates]`.
    fn rotate_coordinates(&self, q: MatRef<'_, f64>, coordinates: Range<usize>, to: &View) -> Result<()> {
        let (k, n) = (q.ncols(), coordinates.len());
        // products like rows of whole quads
        let padded = k.next_multiple_of(4);
        // of Q, whose buffer is rounded up to a power of two
        let most = (self.gpu.max_binding_len().min(self.share / 32) / padded).max(1);
        let record = |rows: Range<usize>, v: &View, row: usize| -> Result<()> {
            let entry = |i, j| if j < k { q[(i, j)] as f32 } else { 0.0 };
            let values: Vec<f32> = rows.clone().flat_map(|i| (0..padded).map(move |j| entry(i, j))).collect();
            let q = self.gpu.buffer(values.len().next_power_of_two())?.slice(0, values.len());
            self.gpu.write(&q, &values)?;
            let shape = Shape { batch: 1, m: k, n, k: rows.len() };
            let product = Gemm { layout: Layout::TN, shape, alpha: 1.0, add: rows.start > 0 };
            let [q, v, to] = [(&q, padded), (v, row), (to, n)].map(|(view, row)| Matrix {
                view,
                row,
                batch: 0,
                period: 0,
            });
            let mut rec = Recorder::new(&self.gpu);
            gemm(&mut rec, product, q, v, None, to)?;
            rec.run()
        };
        match &self.vectors {
            Device(block) => {
                for (rows, v) in Vectors::from((block, 0..self.len)).pieces(most) {
                    record(rows, &v.slice(coordinates.start, v.len() - coordinates.start), self.stride)?;
                }
            }
            Host { values, window } => {
                let most = most.min((window.len() * self.stride / n).max(1));
                for first in (0..self.len).step_by(most) {
                    let rows = first..self.len.min(first + most);
                    let of = |i: usize| &values[i * self.stride..][coordinates.clone()];
                    let gathered: Vec<f32> = rows.clone().flat_map(of).copied().collect();
                    let v = self.gpu.upload(&gathered)?.slice(0, gathered.len());
                    record(rows, &v, n)?;
                }
            }
        }
        Ok(())
    }

    /// Writes `from`, `[k, coordinates]`, to the first k vectors.
    fn write_coordinates(&mut self, coordinates: Range<usize>, from: &View) -> Result<()> {
        let n = coordinates.len();
        let k = from.len() / n;
        match &mut self.vectors {
            Device(block) => {
                let mut rec = Recorder::new(&self.gpu);
                for (i, v) in Vectors::from((&*block, 0..k)).pieces(1) {
                    rec.copy(&from.slice(i.start * n, n), &v.slice(coordinates.start, n));
                }
                rec.run()
            }
            Host { values, .. } => {
                let rotated = self.gpu.read::<f32>(from)?;
                for (vector, rotated) in values.chunks_exact_mut(self.stride).zip(rotated.chunks_exact(n)) {
                    vector[coordinates.clone()].copy_from_slice(rotated);
                }
                Ok(())
            }
        }
    }
}
