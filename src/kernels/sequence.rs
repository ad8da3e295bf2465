//! What sequences of tokens need beyond matrix products (`shaders/sequence.wgsl`).

use super::Write;
use super::broadcast::{Axes, Strided, expand};
use crate::Result;
use crate::gpu::{Recorder, Shader, View, Work, grid};

/// The WGSL, for the tests that validate every shader.
pub const SHADER: Shader =
    Shader { name: "sequence", files: &[super::COMMON, include_str!("../../shaders/sequence.wgsl")] };

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    directions: u32,
    samples: u32,
    tokens: u32,
    width: u32,
    count: u32,
    parts: u32,
    part: u32,
    stride: u32,
    add: u32,
    c: f32,
    token_stride: u32,
    first: u32,
    end: u32,
}

/// Sizes that the kernels share.
#[derive(Clone, Copy, Debug)]
pub struct Sequences {
    /// K, or 1 at order 0.
    pub directions: usize,
    /// Samples of the batch.
    pub samples: usize,
    /// Tokens of a sample, padding included.
    pub tokens: usize,
}

impl Sequences {
    fn params(self, width: usize, count: usize, Write { c, add }: Write) -> Params {
        Params {
            directions: self.directions as u32,
            samples: self.samples as u32,
            tokens: self.tokens as u32,
            width: width as u32,
            count: count as u32,
            add: add as u32,
            c,
            ..Params::default()
        }
    }

    fn positions(self) -> usize {
        self.directions * self.samples * self.tokens
    }
}

/// Places of tokens that one list of [`embed`]'s adjoint goes through: the sums over more are added up.
const POSITIONS: usize = 16_384;

/// `y[k, n, t, e] (+)= c W[k, id(n, t), e]`; transposed, `W[k, v, e] (+)= c Σ y[k, n, t, e]` over the tokens v, in order.
///
/// `ids`, `width`, `stride`: W is `[ids, width]` of each direction, `stride` words apart (0: one for all).
/// `tokens`: `[n, 2, t]`, one for all directions or one for each.
pub fn embed(
    rec: &mut Recorder,
    s: Sequences,
    (ids, width, stride): (usize, usize, usize),
    transposed: bool,
    (x, tokens): (&View, Strided),
    y: &View,
    write: Write,
) -> Result<()> {
    let params =
        Params { stride: stride as u32, token_stride: tokens.stride as u32, ..s.params(width, ids, write) };
    if transposed {
        let lists = if tokens.stride == 0 { 1 } else { s.directions };
        let positions = s.samples * s.tokens;
        let links = rec.scratch(super::PARTS, lists * (ids + positions))?;
        let make_links = rec.gpu().kernel(SHADER, "embed_links", &[])?;
        let follow = rec.gpu().kernel(SHADER, "embed_adjoint", &[])?;
        // a list of all the places of a frequent token would be long
        let at_once = POSITIONS.min(rec.gpu().loop_budget() - 1);
        for first in (0..positions.max(1)).step_by(at_once) {
            let end = positions.min(first + at_once);
            let add = (write.add || first > 0) as u32;
            let params = Params { first: first as u32, end: end as u32, add, ..params };
            let work = Work::new((lists * ids * (end - first)) as f64, end - first + 1);
            let into = [("tokens", tokens.view), ("links", &links)];
            rec.dispatch(&make_links, &into, &params, grid(lists * ids, 64), work)?;
            let items = s.directions * ids * width;
            let work = Work::new((s.directions * (end - first) * width + items) as f64, end - first + 1);
            let along = [("x", x), ("links_in", &links), ("y", y)];
            rec.dispatch(&follow, &along, &params, grid(items, 64), work)?;
        }
        return Ok(());
    }
    let kernel = rec.gpu().kernel(SHADER, "embed", &[])?;
    let items = s.positions() * width;
    let bindings = [("x", x), ("tokens", tokens.view), ("y", y)];
    rec.dispatch(&kernel, &bindings, &params, grid(items, 64), Work::new(2.0 * items as f64, 0))
}

/// The heads of one of several parts of the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads of attention.
    pub heads: usize,
    /// Features of one head.
    pub width: usize,
    /// Parts that the features are of, such as queries, keys and values.
    pub parts: usize,
    /// Which of the parts is taken, from 0.
    pub part: usize,
}

/// `y[k, n, h, t, d] (+)= c x[k, n, t, part, h, d]`; transposed, the other way, zero in the other parts.
pub fn heads(
    rec: &mut Recorder,
    s: Sequences,
    h: Heads,
    transposed: bool,
    x: &View,
    y: &View,
    write: Write,
) -> Result<()> {
    let params = Params { parts: h.parts as u32, part: h.part as u32, ..s.params(h.width, h.heads, write) };
    let entry = if transposed { "heads_adjoint" } else { "heads" };
    let kernel = rec.gpu().kernel(SHADER, entry, &[])?;
    let items = s.positions() * h.heads * h.width * if transposed { h.parts } else { 1 };
    let work = Work::new(2.0 * items as f64, 0);
    rec.dispatch(&kernel, &[("x", x), ("y", y)], &params, grid(items, 64), work)
}

/// `y[n, t, e] (+)=` the sinusoidal encoding of position t: `sin(t / 10000^(2i/E))` at e = 2i, the cosine at e = 2i + 1.
///
/// The table is made on the host: WGSL allows `sin` and `cos` an error of 2⁻¹¹.
pub fn sinusoid(rec: &mut Recorder, s: Sequences, width: usize, y: &View, add: bool) -> Result<()> {
    let value = |t: usize, e: usize| {
        let angle = t as f64 / 10_000f64.powf((e - e % 2) as f64 / width as f64);
        if e.is_multiple_of(2) { angle.sin() } else { angle.cos() }
    };
    let table: Vec<f32> = (0..s.tokens).flat_map(|t| (0..width).map(move |e| value(t, e) as f32)).collect(); // [t, e]
    let view = rec.gpu().upload(&table)?.slice(0, table.len());
    let axes = Axes { outer: s.samples, m: table.len(), inner: 1 };
    let [table, y] = [&view, y].map(|view| Strided { view, stride: 0 });
    expand(rec, 1, axes, table, None, y, Write { c: 1.0, add })
}

/// `y[n, t] (+)= mask(n, t) / Σ_t mask(n, t)`; without tokens that bear a mask, all are kept.
pub fn token_weight(
    rec: &mut Recorder,
    s: Sequences,
    tokens: Option<&View>,
    y: &View,
    add: bool,
) -> Result<()> {
    let kernel = rec.gpu().kernel(SHADER, "token_weight", &[])?;
    let items = s.samples * s.tokens;
    let spare = rec.gpu().buffer(1)?.view();
    let params = Params { part: tokens.is_none() as u32, ..s.params(1, 1, Write { c: 1.0, add }) };
    let bindings = [("tokens", tokens.unwrap_or(&spare)), ("y", y)];
    let work = Work::new((items * s.tokens) as f64, s.tokens + 1);
    rec.dispatch(&kernel, &bindings, &params, grid(items, 64), work)
}

/// `y[n, h, t, s] (+)= −max x` over the kept s of the row, and −1e30 where s is padding; without tokens that
/// bear a mask, all are kept.
pub fn row_shift(
    rec: &mut Recorder,
    s: Sequences,
    heads: usize,
    x: &View,
    tokens: Option<&View>,
    y: &View,
    add: bool,
) -> Result<()> {
    let kernel = rec.gpu().kernel(SHADER, "row_shift", &[])?;
    let rows = s.samples * heads * s.tokens;
    let params = Params { part: tokens.is_none() as u32, ..s.params(1, heads, Write { c: 1.0, add }) };
    let bindings = [("x", x), ("tokens", tokens.unwrap_or(x)), ("y", y)];
    let work = Work::new(3.0 * (rows * s.tokens) as f64, 2 * (s.tokens + 1));
    rec.dispatch(&kernel, &bindings, &params, grid(rows, 64), work)
}
