//! Block linear algebra: inner products and combinations.
//!
//! Vectors are columns. A block X of k vectors stands for a D × k matrix, so that `XᵀY` are inner products
//! and `X S` combinations, S being a small f64 matrix of the host. Padding is zero and stays zero.

use std::ops::Range;

use faer::{Mat, MatRef};

use super::Block;
use crate::Result;
use crate::gpu::{ALIGN, Gpu, Recorder, View};
use crate::kernels::{block, vector};

/// The most partial inner products that are read back at a time.
const PARTIAL_PRODUCTS: usize = 4 << 20;

/// Coordinates that are summed in single precision; the sums are added in double precision on the host,
/// because a long sum in single precision costs orthogonality. The fewer products there are, the shorter they
/// can be.
fn chunk(stride: usize, products: usize) -> usize {
    let fits = |chunk: &usize| stride / chunk * products <= 1 << 16;
    [256, 512, 1024, 2048].into_iter().find(fits).unwrap_or(4096)
}

/// Some neighbouring vectors of a block: all of it (`(&block).into()`) or a range (`(&block, 2..5).into()`).
#[derive(Clone, Copy)]
pub struct Vectors<'a> {
    block: &'a Block,
    first: usize,
    len: usize,
}

impl<'a> From<&'a Block> for Vectors<'a> {
    fn from(block: &'a Block) -> Self {
        Vectors { block, first: 0, len: block.len() }
    }
}

impl<'a> From<(&'a Block, Range<usize>)> for Vectors<'a> {
    fn from((block, range): (&'a Block, Range<usize>)) -> Self {
        assert!(range.start <= range.end && range.end <= block.len(), "{range:?} of {}", block.len());
        Vectors { block, first: range.start, len: range.len() }
    }
}

impl Vectors<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pieces of at most `most` vectors that lie together, with the number of each piece's first, from 0.
    pub(crate) fn pieces(&self, most: usize) -> Vec<(Range<usize>, View)> {
        let stride = self.block.stride();
        let mut pieces = Vec::new();
        for (at, run) in self.block.runs(self.first, self.len) {
            let (at, held) = (at - self.first, run.len() / stride);
            for start in (0..held).step_by(most) {
                let count = most.min(held - start);
                pieces.push((at + start..at + start + count, run.slice(start * stride, count * stride)));
            }
        }
        pieces
    }
}

/// The most vectors against which `others` are multiplied in one dispatch.
fn at_once(gpu: &Gpu, stride: usize, others: usize) -> usize {
    (gpu.dispatch_flops() / (2.0 * stride as f64 * others.max(1) as f64)).max(1.0) as usize
}

/// `XᵀY`: `[k_x, k_y]`, inner products of vectors with vectors.
///
/// Summed in single precision over 256 to 4,096 coordinates, from there on in double precision, in a fixed
/// order.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the vectors of X and Y differ in their stride.
pub fn gram<'a>(x: impl Into<Vectors<'a>>, y: impl Into<Vectors<'a>>) -> Result<Mat<f64>> {
    Ok(grams(&[(x.into(), y.into())])?.swap_remove(0))
}

/// A part of a Gram matrix that one dispatch makes.
struct Part {
    /// Which of the pairs it is of, and its rows and columns there.
    pair: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    x: View,
    y: View,
    stride: usize,
    chunk: usize,
    /// Partial sums, chunk after chunk.
    words: usize,
}

/// [`gram`] of each of some pairs, read back together.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If the vectors of a pair differ in their stride.
pub fn grams(pairs: &[(Vectors<'_>, Vectors<'_>)]) -> Result<Vec<Mat<f64>>> {
    let mut products: Vec<Mat<f64>> = pairs.iter().map(|(x, y)| Mat::zeros(x.len, y.len)).collect();
    let mut parts = Vec::new();
    for (pair, &(x, y)) in pairs.iter().enumerate() {
        let (gpu, stride) = (x.block.gpu(), x.block.stride());
        assert_eq!(stride, y.block.stride(), "the strides of X and Y");
        let chunk = chunk(stride, x.len * y.len);
        let chunks = block::chunks(stride, chunk);
        for (columns, y) in y.pieces((PARTIAL_PRODUCTS / chunks).max(1)) {
            let fits =
                (PARTIAL_PRODUCTS / (chunks * columns.len())).clamp(1, at_once(gpu, stride, columns.len()));
            for (rows, x) in x.pieces(fits) {
                let words = chunks * rows.len() * columns.len();
                let (columns, y) = (columns.clone(), y.clone());
                parts.push(Part { pair, rows, columns, x, y, stride, chunk, words });
            }
        }
    }
    let mut rest = &parts[..];
    while let Some(first) = rest.first() {
        let gpu = pairs[first.pair].0.block.gpu();
        let (mut count, mut words) = (0, 0);
        while let Some(part) = rest.get(count)
            && (count == 0 || words + part.words <= PARTIAL_PRODUCTS)
        {
            (count, words) = (count + 1, (words + part.words).next_multiple_of(ALIGN));
        }
        let (now, later) = rest.split_at(count);
        // rounded up, so that the pool's buffers serve a basis that grows
        let partial = gpu.buffer(words.next_power_of_two())?;
        let mut rec = Recorder::new(gpu);
        let mut at = 0;
        for part in now {
            let sums = partial.slice(at, part.words);
            block::gram(&mut rec, part.stride, part.chunk, &part.x, &part.y, &sums)?;
            at = (at + part.words).next_multiple_of(ALIGN);
        }
        rec.run()?;
        let sums = gpu.read::<f32>(&partial.slice(0, words))?;
        let mut at = 0;
        for part in now {
            let (rows, columns) = (part.rows.len(), part.columns.len());
            for chunk in sums[at..at + part.words].chunks_exact(rows * columns) {
                for (i, row) in chunk.chunks_exact(columns).enumerate() {
                    for (j, &product) in row.iter().enumerate() {
                        products[part.pair][(part.rows.start + i, part.columns.start + j)] += product as f64;
                    }
                }
            }
            at = (at + part.words).next_multiple_of(ALIGN);
        }
        rest = later;
    }
    Ok(products)
}

/// `Y = X S`, or `Y += X S` where `add`, with S `[k_x, k_y]`, rounded to single precision.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If S has not as many rows and columns as X and Y have vectors, or X and Y share a buffer.
pub fn combine<'a>(
    s: MatRef<'_, f64>,
    x: impl Into<Vectors<'a>>,
    y: impl Into<Vectors<'a>>,
    add: bool,
) -> Result<()> {
    let y = y.into();
    let mut rec = Recorder::new(y.block.gpu());
    record_combine(&mut rec, s, x.into(), y, add)?;
    rec.run()
}

/// Records [`combine`], with this S.
///
/// # Errors
/// The device's.
///
/// # Panics
/// As there.
pub(crate) fn record_combine(
    rec: &mut Recorder,
    s: MatRef<'_, f64>,
    x: Vectors<'_>,
    y: Vectors<'_>,
    add: bool,
) -> Result<()> {
    assert_eq!((s.nrows(), s.ncols()), (x.len, y.len), "rows and columns of S");
    let stride = y.block.stride();
    let gpu = y.block.gpu();
    for (columns, y) in y.pieces(gpu.max_binding_len()) {
        if x.is_empty() && !add {
            rec.clear(&y);
        }
        for (rows, x) in x.pieces(at_once(gpu, stride, columns.len())) {
            let s = upload_transposed(gpu, s, &rows, &columns)?;
            block::combine(rec, stride, &s, &x, &y, add || rows.start > 0)?;
        }
    }
    Ok(())
}

/// `Sᵀ` of these rows and columns, on the device: `[columns, rows]`.
fn upload_transposed(
    gpu: &Gpu,
    s: MatRef<'_, f64>,
    rows: &Range<usize>,
    columns: &Range<usize>,
) -> Result<View> {
    let transposed: Vec<f32> =
        columns.clone().flat_map(|j| rows.clone().map(move |i| s[(i, j)] as f32)).collect();
    let buffer = gpu.buffer(transposed.len().next_power_of_two())?;
    let view = buffer.slice(0, transposed.len());
    gpu.write(&view, &transposed)?;
    Ok(view)
}

/// Each piece of X that lies together, with the vectors of Y that its vectors meet in turn: of X's vectors, number
/// j meets number j modulo the number of Y's. With a piece stands the number in Y's run of what its first meets.
fn meeting(x: Vectors, y: &Block) -> Vec<(Range<usize>, View, View, usize)> {
    let m = y.len();
    assert_eq!(x.block.stride(), y.stride(), "the strides of X and Y");
    assert!(x.is_empty() || x.len.is_multiple_of(m), "{} vectors for {m}", x.len);
    let most = at_once(y.gpu(), y.stride(), 1);
    let runs = y.runs(0, m);
    let mut all = Vec::new();
    let mut add = |numbers: Range<usize>, run: &View| {
        let vectors = Vectors { block: x.block, first: x.first + numbers.start, len: numbers.len() };
        for (piece, view) in vectors.pieces(most) {
            let numbers = numbers.start + piece.start..numbers.start + piece.end;
            all.push((numbers, view, run.clone(), piece.start % (run.len() / y.stride())));
        }
    };
    match &runs[..] {
        [(_, run)] => add(0..x.len, run),
        _ => {
            for (start, (first, run)) in
                (0..x.len).step_by(m.max(1)).flat_map(|s| runs.iter().map(move |r| (s, r)))
            {
                add(start + first..start + first + run.len() / y.stride(), run);
            }
        }
    }
    all
}

/// `x_j · y_i` with i = j modulo the number of Y's vectors, of which X has a multiple: `[k_x]`. Summed as by
/// [`gram`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// If X has no multiple of Y's vectors, or they differ in their stride.
pub fn dots<'a>(x: impl Into<Vectors<'a>>, y: &Block) -> Result<Vec<f64>> {
    let (x, gpu, stride) = (x.into(), y.gpu(), y.stride());
    let chunks = stride.div_ceil(vector::CHUNK);
    let mut products = vec![0.0; x.len];
    for (numbers, x, y, first) in meeting(x, y) {
        let words = numbers.len() * chunks;
        let partial = gpu.buffer(words.next_power_of_two())?.slice(0, words);
        let mut rec = Recorder::new(gpu);
        vector::dot(&mut rec, stride, (&y, first), &x, &partial)?;
        rec.run()?;
        let partial: Vec<f32> = gpu.read(&partial)?;
        for (product, parts) in products[numbers].iter_mut().zip(partial.chunks_exact(chunks)) {
            *product = parts.iter().map(|&part| part as f64).sum();
        }
    }
    Ok(products)
}

/// `y_i = Σ_j c_j x_j`, or `y_i += …` where `add`, over the j that are i modulo the number of Y's vectors, c rounded
/// to single precision.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If C has not as many entries as X vectors, X no multiple of Y's vectors, they differ in their stride or share a
/// buffer.
pub fn combine_each<'a>(c: &[f64], x: impl Into<Vectors<'a>>, y: &Block, add: bool) -> Result<()> {
    let (x, gpu, stride) = (x.into(), y.gpu(), y.stride());
    assert_eq!(c.len(), x.len, "entries of C");
    let mut rec = Recorder::new(gpu);
    if !add {
        y.runs(0, y.len()).iter().for_each(|(_, run)| rec.clear(run));
    }
    for (numbers, x, y, first) in meeting(x, y) {
        let c: Vec<f32> = c[numbers].iter().map(|&c| c as f32).collect();
        let buffer = gpu.buffer(c.len().next_power_of_two())?;
        let view = buffer.slice(0, c.len());
        gpu.write(&view, &c)?;
        vector::combine_each(&mut rec, stride, (&view, &x, first), &y)?;
    }
    rec.run()
}

/// `Y = X`, vector by vector.
///
/// # Errors
/// The device's.
///
/// # Panics
/// If they differ in number or stride, or share a buffer.
pub fn copy<'a>(x: impl Into<Vectors<'a>>, y: impl Into<Vectors<'a>>) -> Result<()> {
    let (x, y) = (x.into(), y.into());
    assert_eq!(x.len, y.len, "vectors copied");
    let mut rec = Recorder::new(x.block.gpu());
    for ((_, from), (_, to)) in x.pieces(1).iter().zip(y.pieces(1)) {
        rec.copy(from, &to);
    }
    rec.run()
}
