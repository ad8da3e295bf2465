//! Batched matrix products (`shaders/gemm.wgsl` and the two families of kernels beside it).

use bytemuck::Zeroable;
use serde::{Deserialize, Serialize};

use crate::Result;
pub use crate::gpu::Family;
use crate::gpu::{Gpu, Recorder, Shader, View, Work, grid};

const LETTERS: &str = include_str!("../../shaders/gemm.wgsl");

/// Register tiles, for software adapters.
pub const REGISTER: Shader = Shader {
    name: "gemm_register",
    files: &[super::TILE, LETTERS, include_str!("../../shaders/gemm_register.wgsl")],
};

/// Tiles in workgroup memory.
pub const WORKGROUP: Shader = Shader {
    name: "gemm_workgroup",
    files: &[super::TILE, LETTERS, include_str!("../../shaders/gemm_workgroup.wgsl")],
};

#[cfg(feature = "unstable")]
pub(super) fn shaders() -> Vec<(Shader, &'static [&'static str])> {
    vec![(REGISTER, &["gemm_ab4", "gemm_b4", "gemm_any", "gemm_pack", "gemm_sum"]), (WORKGROUP, &["gemm"])]
}

/// How A and B are laid out, in the letters of `C[m, n] = Σ_k A B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Layout {
    /// `A[m, k] B[n, k]`
    NT,
    /// `A[m, k] B[k, n]`
    NN,
    /// `A[k, m] B[k, n]`
    TN,
}

/// The sizes of a batch of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Products side by side.
    pub batch: usize,
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
}

impl Shape {
    /// Whether C has so few elements that it counts as small.
    pub(super) fn is_small(&self) -> bool {
        self.batch * self.m * self.n < Tuning::SMALL
    }

    /// Floating-point operations.
    pub fn flops(&self) -> f64 {
        2.0 * self.batch as f64 * self.m as f64 * self.n as f64 * self.k as f64
    }
}

/// A batch of row-major matrices.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// Where the matrices lie.
    pub view: &'a View,
    /// Words from one row to the next.
    pub row: usize,
    /// Words from one matrix of the batch to the next; 0 where one serves all.
    pub batch: usize,
    /// After how many matrices they begin again, for an operand; 0 where they do not.
    pub period: usize,
}

impl Matrix<'_> {
    /// How many matrices of a batch of so many are not one and the same.
    fn distinct(&self, batch: usize) -> usize {
        match (self.batch, self.period) {
            (0, _) => 1,
            (_, 0) => batch,
            (_, period) => period.min(batch),
        }
    }

    /// Words from the first to the end of the last of a batch of matrices.
    fn extent(&self, batch: usize, rows: usize, columns: usize) -> usize {
        (self.distinct(batch) - 1) * self.batch + rows.saturating_sub(1) * self.row + columns
    }

    /// Whether rows can be read four words at a time.
    fn has_quads(&self, batch: usize, rows: usize, columns: usize) -> bool {
        let apart = self.row.is_multiple_of(4) && self.batch.is_multiple_of(4);
        apart && self.extent(batch, rows, columns.next_multiple_of(4)) <= self.view.len()
    }
}

/// A product to record.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// How A and B are laid out.
    pub layout: Layout,
    /// The sizes.
    pub shape: Shape,
    /// The factor of the product.
    pub alpha: f32,
    /// Add to what C holds.
    pub add: bool,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    m: u32,
    n: u32,
    k: u32,
    flags: u32,
    lda: u32,
    ldb: u32,
    ldc: u32,
    k_part: u32,
    stride_a: u32,
    stride_b: u32,
    stride_c: u32,
    alpha: f32,
    tiles: u32,
    tiles_n: u32,
    parts: u32,
    stride_bias: u32,
    period_a: u32,
    period_b: u32,
    first_k: u32,
    first_z: u32,
}

const ADD: u32 = 1;
const BIAS: u32 = 2;

/// WebGPU's limit along one axis of a dispatch.
const MOST_GROUPS: usize = 65_535;

/// A kernel's entry point and constants, the rows and columns of C that a workgroup of it makes, and how many
/// workgroups, with how long a run of k each, are worth splitting a product for.
struct Choice {
    family: Family,
    shader: Shader,
    entry: &'static str,
    constants: Vec<(&'static str, u32)>,
    tile: (usize, usize),
    enough: usize,
    least_k: usize,
}

/// Terms that the kernels add up in one accumulator before they add it to what came before.
const RUN: usize = 256;
/// The longest run of k of one dispatch: the sums of more are added by another.
const LONGEST: usize = 128 * RUN;
/// Workgroup memory's kernel adds up as many terms in one accumulator as cuBLAS and its like; only longer sums are worth
/// the registers of a second one.
const PLAIN: usize = 4096;

/// Rows or columns of C for each row or column of an operand from which on a copy of the operand pays: it costs some 2.3
/// loads of a word for each word, and saves half of the loads of eight words that every 8 rows or columns make.
const WORTH_PACKING: usize = 64;
/// Floating-point operations of a product that are worth another dispatch.
const LEAST_PACKED: f64 = 5e5;

impl Choice {
    /// A kernel of that family for operands as they are.
    fn new(family: Family, layout: Layout, s: Shape, a: &Matrix, b: &Matrix) -> Choice {
        let layout_constant = ("LAYOUT", layout as u32);
        if family == Family::Workgroup {
            let constants = vec![layout_constant, ("RUNS", (s.k > PLAIN) as u32)];
            let (tile, enough, least_k) = ((128, 128), 128, 256);
            return Choice { family, shader: WORKGROUP, entry: "gemm", constants, tile, enough, least_k };
        }
        let entry =
            match (layout == Layout::TN && a.has_quads(s.batch, s.k, s.m), b.has_quads(s.batch, s.k, s.n)) {
                (_, true) if layout == Layout::NT => "gemm_any",
                (true, true) => "gemm_ab4",
                (false, true) => "gemm_b4",
                _ => "gemm_any",
            };
        // lanes along n, unless another arrangement of the eight covers C with fewer workgroups
        let cost = |lx: usize| s.n.div_ceil(8 * lx) * s.m.div_ceil(64 / lx);
        let lx = [8, 4, 2, 1].into_iter().min_by_key(|&lx| cost(lx)).unwrap_or(8);
        let ly = 8 / lx;
        let mut constants = vec![("LX", lx as u32), ("LY", ly as u32)];
        if entry != "gemm_ab4" {
            constants.push(layout_constant);
        }
        let tile = (8 * ly, 8 * lx);
        Choice { family, shader: REGISTER, entry, constants, tile, enough: 4, least_k: 512 }
    }

    /// How often an invocation goes round its loops for a run of `k`.
    fn iterations(&self, k: usize) -> usize {
        let store = 17;
        match self.family {
            // a run's loop and its last test, and the loop over runs
            Family::Register => k + 2 * k.div_ceil(RUN) + 1 + store,
            // eight of k and the last test at a time
            Family::Workgroup => k.div_ceil(8) * 10 + 1 + store,
        }
    }

    /// The longest run of k that a dispatch may have within `budget` iterations.
    fn longest(&self, budget: usize) -> usize {
        let mut k = LONGEST;
        while k > 8 && self.iterations(k) > budget {
            k /= 2;
        }
        k
    }
}

/// `C = α op(A) op(B) + bias`, or `C += …`.
///
/// `bias`: rows of N, one per matrix of the batch that many words apart (0: one for all), added to every row
/// of C. A product of few elements and a long contraction is split along k, and a very long contraction is, in a way
/// that depends on nothing but its sizes, the adapter's tuning and the memory budget.
///
/// # Panics
/// If a matrix or the bias is longer than its view, or if matrices of C are one and the same.
pub fn gemm(
    rec: &mut Recorder,
    product: Gemm,
    a: Matrix,
    b: Matrix,
    bias: Option<(&View, usize)>,
    c: Matrix,
) -> Result<()> {
    let family = Tuning::of(rec.gpu()).family(product.shape);
    gemm_with(rec, family, product, a, b, bias, c)
}

/// [`gemm`] by a kernel of that family.
pub fn gemm_with(
    rec: &mut Recorder,
    family: Family,
    product: Gemm,
    a: Matrix,
    b: Matrix,
    bias: Option<(&View, usize)>,
    c: Matrix,
) -> Result<()> {
    let Gemm { layout, shape: s, alpha, add } = product;
    if s.batch * s.m * s.n == 0 {
        return Ok(());
    }
    let fits = |matrix: &Matrix, rows, columns| matrix.extent(s.batch, rows, columns) <= matrix.view.len();
    let (rows_a, columns_a) = if layout == Layout::TN { (s.k, s.m) } else { (s.m, s.k) };
    let (rows_b, columns_b) = if layout == Layout::NT { (s.n, s.k) } else { (s.k, s.n) };
    assert!(fits(&a, rows_a, columns_a), "A of {product:?} leaves its view of {}", a.view.len());
    assert!(fits(&b, rows_b, columns_b), "B of {product:?} leaves its view of {}", b.view.len());
    assert!(fits(&c, s.m, s.n), "C of {product:?} leaves its view of {}", c.view.len());
    assert!(c.period == 0 && c.distinct(s.batch) == s.batch, "C of {product:?} is written more than once");
    if let Some((bias, stride)) = bias {
        let words = (s.batch - 1) * stride + s.n;
        assert!(words <= bias.len(), "the bias of {product:?} leaves its view of {}", bias.len());
    }

    let mut packed = [None, None];
    let (layout, a, b) = match family {
        Family::Register => pack(rec, (layout, s), a, b, &mut packed)?,
        Family::Workgroup => (layout, a, b),
    };
    let choice = Choice::new(family, layout, s, &a, &b);
    let (tiles_m, tiles_n) = (s.m.div_ceil(choice.tile.0), s.n.div_ceil(choice.tile.1));
    let tiles = tiles_m * tiles_n;
    let all_tiles = tiles * s.batch;
    let wanted = if all_tiles >= choice.enough {
        1
    } else {
        choice.enough.div_ceil(all_tiles).min(s.k / choice.least_k).max(1)
    };
    let longest = choice.longest(rec.gpu().loop_budget());
    let k_part = s.k.div_ceil(wanted).next_multiple_of(8).min(longest).min(s.k).max(1);
    let parts = s.k.div_ceil(k_part).max(1);

    let whole = Params {
        m: s.m as u32,
        n: s.n as u32,
        k: s.k as u32,
        flags: 0,
        lda: a.row as u32,
        ldb: b.row as u32,
        ldc: c.row as u32,
        k_part: k_part as u32,
        stride_a: a.batch as u32,
        stride_b: b.batch as u32,
        stride_c: c.batch as u32,
        alpha,
        tiles: tiles as u32,
        tiles_n: tiles_n as u32,
        parts: 1,
        stride_bias: bias.map_or(0, |(_, stride)| stride as u32),
        period_a: if a.period == 0 { s.batch } else { a.period } as u32,
        period_b: if b.period == 0 { s.batch } else { b.period } as u32,
        first_k: 0,
        first_z: 0,
    };
    let kernel = rec.gpu().kernel(choice.shader, choice.entry, &choice.constants)?;
    let (name_a, name_b) = match choice.entry {
        "gemm_ab4" => ("a4", "b4"),
        "gemm_b4" => ("a", "b4"),
        _ => ("a", "b"),
    };
    let bias_view = bias.map_or(a.view, |(view, _)| view);
    rec.count_flops(s.flops());
    let [x, y, _] = grid(tiles, 1);
    let record = |rec: &mut Recorder, params: &Params, c: &View| {
        let parts = params.parts as usize;
        let at_once = MOST_GROUPS / parts;
        for first in (0..s.batch).step_by(at_once) {
            let count = at_once.min(s.batch - first);
            let bindings = [(name_a, a.view), (name_b, b.view), ("c", c), ("bias", bias_view)];
            let k = (params.k - params.first_k) as usize;
            let work = Work::new(Shape { batch: count, k, ..s }.flops(), choice.iterations(k_part));
            let params = Params { first_z: first as u32, ..*params };
            rec.dispatch(&kernel, &bindings, &params, [x, y, (count * parts) as u32], work)?;
        }
        Ok(())
    };
    // as many parts at once as there is memory for; what they make is added to what came before
    let words = s.batch * s.m * s.n;
    let at_once =
        (super::scratch_words(rec.gpu()) / words).min(MOST_GROUPS).min(rec.gpu().loop_budget() / 2).max(1);
    for first in (0..parts).step_by(at_once) {
        let count = at_once.min(parts - first);
        let flags =
            if add || first > 0 { ADD } else { 0 } | if bias.is_some() && first == 0 { BIAS } else { 0 };
        let [first_k, k] = [first, first + count].map(|part| (part * k_part).min(s.k) as u32);
        let round = Params { flags, first_k, k, ..whole };
        if count == 1 {
            record(rec, &round, c.view)?;
            continue;
        }
        let scratch = rec.scratch(super::PARTS, words * count)?;
        let (ldc, stride_c) = (s.n as u32, (s.m * s.n) as u32);
        let parts = count as u32;
        record(rec, &Params { flags: 0, ldc, stride_c, alpha: 1.0, parts, ..round }, &scratch)?;
        record_sum(rec, &scratch, bias_view, c.view, &Params { parts, ..round }, s.batch)?;
    }
    Ok(())
}

/// Copies operands of a product by registers to where they can be read four words at a time, where that pays: `packed`
/// is where the copies are held.
fn pack<'a>(
    rec: &mut Recorder,
    (layout, s): (Layout, Shape),
    a: Matrix<'a>,
    b: Matrix<'a>,
    packed: &'a mut [Option<View>; 2],
) -> Result<(Layout, Matrix<'a>, Matrix<'a>)> {
    let most = super::scratch_words(rec.gpu()) / 2;
    let pays = |operand: &Matrix, columns: usize, others: usize| {
        let distinct = operand.distinct(s.batch);
        let words = distinct * s.k * columns.next_multiple_of(4);
        s.flops() >= LEAST_PACKED && others * s.batch / distinct >= WORTH_PACKING && words <= most
    };
    let [packed_a, packed_b] = packed;
    let b_is_kn = layout != Layout::NT;
    let b = if b_is_kn && b.has_quads(s.batch, s.k, s.n) {
        b
    } else if pays(&b, s.n, s.m) {
        record_pack(rec, "packed b", &b, b_is_kn, (s.k, s.n, s.batch), packed_b)?
    } else {
        return Ok((layout, a, b));
    };
    let a_is_km = layout == Layout::TN;
    if a_is_km && a.has_quads(s.batch, s.k, s.m) {
        return Ok((Layout::TN, a, b));
    }
    if !pays(&a, s.m, s.n) {
        return Ok((if a_is_km { Layout::TN } else { Layout::NN }, a, b));
    }
    let a = record_pack(rec, "packed a", &a, a_is_km, (s.k, s.m, s.batch), packed_a)?;
    Ok((Layout::TN, a, b))
}

/// A copy of a batch of matrices `[k, columns]`, or of `[columns, k]`, as `[k, columns]` with rows of whole quads.
fn record_pack<'a>(
    rec: &mut Recorder,
    name: &'static str,
    from: &Matrix,
    is_km: bool,
    (k, columns, batch): (usize, usize, usize),
    to: &'a mut Option<View>,
) -> Result<Matrix<'a>> {
    let (matrices, row) = (from.distinct(batch), columns.next_multiple_of(4));
    let to = &*to.insert(rec.scratch(name, matrices * k * row)?);
    let layout = if is_km { Layout::TN } else { Layout::NT };
    let kernel = rec.gpu().kernel(REGISTER, "gemm_pack", &[("LAYOUT", layout as u32)])?;
    let params = Params {
        m: columns as u32,
        k: k as u32,
        lda: from.row as u32,
        ldc: row as u32,
        stride_a: from.batch as u32,
        tiles: matrices as u32,
        ..Params::zeroed()
    };
    let bindings = [("a", from.view), ("c4", to)];
    rec.dispatch(&kernel, &bindings, &params, grid(to.len() / 4, 64), Work::new(2.0 * to.len() as f64, 0))?;
    Ok(Matrix { view: to, row, batch: if from.batch == 0 { 0 } else { k * row }, period: from.period })
}

/// `c[z] (+)= α Σ_part parts[z, part]`, in order: what products and convolutions that were split end with.
///
/// `sizes`: batch, parts and the length of each. `parts`: `[batch, parts, len]`.
pub(super) fn sum_parts(
    rec: &mut Recorder,
    (batch, parts, len): (usize, usize, usize),
    from: &View,
    c: super::broadcast::Strided,
    alpha: f32,
    add: bool,
) -> Result<()> {
    assert!(from.len() >= batch * parts * len, "{batch} sums of {parts} parts of {len} words");
    assert!(c.view.len() >= (batch - 1) * c.stride + len, "{batch} sums of {len} words");
    let params = Params {
        m: 1,
        n: len as u32,
        flags: if add { ADD } else { 0 },
        ldc: len as u32,
        stride_c: c.stride as u32,
        alpha,
        parts: parts as u32,
        ..Params::zeroed()
    };
    record_sum(rec, from, from, c.view, &params, batch)
}

fn record_sum(
    rec: &mut Recorder,
    from: &View,
    bias: &View,
    c: &View,
    params: &Params,
    batch: usize,
) -> Result<()> {
    let kernel = rec.gpu().kernel(REGISTER, "gemm_sum", &[])?;
    let items = batch * (params.m * params.n) as usize;
    // runs of 32 parts, and a loop over them
    let iterations = params.parts as usize + 2 * params.parts.div_ceil(32) as usize + 1;
    let params = Params { tiles: batch as u32, ..*params };
    let bindings = [("a", from), ("c", c), ("bias", bias)];
    rec.dispatch(&kernel, &bindings, &params, grid(items, 64), Work::new(from.len() as f64, iterations))
}

/// Which family makes products fastest on an adapter, as measured once and kept for that adapter and driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// For products below [`Tuning::SMALL`] elements of C.
    pub small: Family,
    /// For larger ones with fewer than [`Tuning::NARROW`] rows or columns of C: a layer's of some tens of outputs.
    pub narrow: Family,
    /// For all others.
    pub large: Family,
}

impl Tuning {
    /// Elements of C, over the whole batch, below which a product counts as small.
    pub const SMALL: usize = 128 * 128;
    /// Rows or columns of C that fill the tiles of workgroup memory's kernel.
    pub const NARROW: usize = 128;

    fn family(&self, s: Shape) -> Family {
        match s {
            _ if s.is_small() => self.small,
            _ if s.m.min(s.n) < Self::NARROW => self.narrow,
            _ => self.large,
        }
    }

    /// The device's tuning: the family that the caller wants, else what an earlier run measured for this adapter and
    /// driver, else what is measured now and kept. Where nothing can be kept or measured it is the family for the
    /// adapter's class: one run's bits are then the next one's.
    pub fn of(gpu: &Gpu) -> Tuning {
        *gpu.kept(|gpu| {
            let software = gpu.info().device_type == wgpu::DeviceType::Cpu;
            let of_class = if software { Family::Register } else { Family::Workgroup };
            let all = |family| Tuning { small: family, narrow: family, large: family };
            match gpu.family() {
                Some(family) => all(family),
                None => super::timings::kept_or_measured(gpu, "products", || Self::measure(gpu))
                    .unwrap_or(all(of_class)),
            }
        })
    }

    fn measure(gpu: &Gpu) -> Result<Tuning> {
        use Layout::{NN, NT, TN};
        let shape = |batch, m, n, k| Shape { batch, m, n, k };
        // a small layer's product, inner products of vectors, and vectors' combinations; of a layer of tens of outputs, the
        // outputs and the weight's gradient: what is fast at one of them may be slow at the others
        let small = [(NT, shape(1, 50, 100, 256)), (NT, shape(16, 8, 8, 64)), (NN, shape(1, 8, 1000, 16))];
        let narrow = [(NT, shape(1, 500, 50, 256)), (TN, shape(1, 50, 784, 128))];
        let large = [(NT, shape(1, 512, 512, 256)), (TN, shape(1, 512, 512, 256))];
        let faster = |products: &[(Layout, Shape)], runs: usize| -> Result<Family> {
            let mut advantage = 1.0; // of registers
            for &(layout, s) in products {
                let [register, workgroup] =
                    [Family::Register, Family::Workgroup].map(|family| rate(gpu, family, layout, s, runs));
                advantage *= register? / workgroup?;
            }
            Ok(if advantage >= 1.0 { Family::Register } else { Family::Workgroup })
        };
        Ok(Tuning { small: faster(&small, 4)?, narrow: faster(&narrow, 4)?, large: faster(&large, 1)? })
    }
}

/// Floating-point operations a second of products of that layout and shape, of numbers in [0, 1): the best of
/// five.
pub fn rate(gpu: &Gpu, family: Family, layout: Layout, s: Shape, runs: usize) -> Result<f64> {
    // not zeros: a device that draws less power by multiplying them runs faster
    let numbers = |len: usize| (0..len).map(|i| (i * 7919 % 1000) as f32 / 1000.0).collect::<Vec<_>>();
    let a = gpu.upload(&numbers(s.batch * s.m * s.k))?.view();
    let b = gpu.upload(&numbers(s.batch * s.n * s.k))?.view();
    let c = gpu.zeros(s.batch * s.m * s.n)?.view();
    let mut rec = Recorder::new(gpu);
    let product = Gemm { layout, shape: s, alpha: 1.0, add: false };
    let row_a = if layout == Layout::TN { s.m } else { s.k };
    let row_b = if layout == Layout::NT { s.k } else { s.n };
    for _ in 0..runs {
        let a = Matrix { view: &a, row: row_a, batch: s.m * s.k, period: 0 };
        let b = Matrix { view: &b, row: row_b, batch: s.n * s.k, period: 0 };
        let c = Matrix { view: &c, row: s.n, batch: s.m * s.n, period: 0 };
        gemm_with(&mut rec, family, product, a, b, None, c)?;
    }
    let program = rec.finish()?;
    program.run()?;
    gpu.wait()?;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = std::time::Instant::now();
        program.run()?;
        gpu.wait()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(runs as f64 * s.flops() / best)
}
