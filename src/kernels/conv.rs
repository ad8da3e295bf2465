//! Convolution of images and its adjoints (`shaders/conv.wgsl` and the two families of kernels beside it).

use super::Write;
use super::broadcast::Strided;
use super::gemm::{Family, Shape, sum_parts};
use crate::Result;
use crate::gpu::{Gpu, Recorder, Shader, View, Work, grid};

const LETTERS: &str = include_str!("../../shaders/conv.wgsl");

/// Register tiles, for software adapters.
pub const REGISTER: Shader = Shader {
    name: "conv_register",
    files: &[super::COMMON, LETTERS, include_str!("../../shaders/conv_register.wgsl")],
};

/// Tiles in workgroup memory.
pub const WORKGROUP: Shader = Shader {
    name: "conv_workgroup",
    files: &[super::COMMON, super::TILE, LETTERS, include_str!("../../shaders/conv_workgroup.wgsl")],
};

#[cfg(feature = "unstable")]
pub(super) fn shaders() -> Vec<(Shader, &'static [&'static str])> {
    vec![(REGISTER, &["conv", "weight"]), (WORKGROUP, &["conv", "weight"])]
}

/// The sizes of a convolution: images `[channels, height, width]`, weights `[out, in, kernel, kernel]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Channels in and out.
    pub channels: [usize; 2],
    /// Height and width.
    pub input: [usize; 2],
    /// Height and width of the outputs.
    pub output: [usize; 2],
    /// The square kernel's side.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Zeros around the image, on each side.
    pub padding: usize,
}

impl Conv {
    /// Values of one sample, in and out.
    pub fn lens(&self) -> [usize; 2] {
        let plane = |[h, w]: [usize; 2]| h * w;
        [self.channels[0] * plane(self.input), self.channels[1] * plane(self.output)]
    }

    /// Weights.
    pub fn weights(&self) -> usize {
        self.channels[0] * self.channels[1] * self.kernel * self.kernel
    }

    /// Floating-point operations of one sample, forward or either adjoint.
    pub fn flops(&self) -> f64 {
        2.0 * self.weights() as f64 * (self.output[0] * self.output[1]) as f64
    }

    /// `y = w ⋆ x` as the shader has it.
    fn value(&self) -> Pass {
        let [channels_in, channels_out] = self.channels.map(|c| c as u32);
        let kernel = self.kernel as u32;
        Pass {
            rows: channels_out,
            depth: channels_in,
            step: self.stride as u32,
            y_size: self.output.map(|len| len as u32),
            x_size: self.input.map(|len| len as u32),
            j_size: self.output.map(|len| len as u32),
            start: [-(self.padding as i32); 2],
            taps: [kernel; 2],
            out_step: 1,
            w_row: channels_in * kernel * kernel,
            w_depth: kernel * kernel,
            w_tap: [kernel as i32, 1],
            parts: 1,
            ..Pass::default()
        }
        .all_channels()
    }

    /// The adjoint with respect to x: one pass for each first pixel, of y's and x's places exchanged.
    fn adjoint(&self) -> Vec<Pass> {
        let value = self.value();
        let (stride, padding, kernel) = (self.stride, self.padding, self.kernel);
        // along one axis, from `first` on: the taps that are met are last, last − stride, … and the first
        // pixel meets the first of them at `start`
        let axis = |first: usize, len: usize| {
            let least = (first + padding) % stride;
            let taps = (kernel.saturating_sub(least)).div_ceil(stride);
            let last = (least + stride * taps).saturating_sub(stride);
            let start = ((first + padding) / stride) as i32 - taps as i32 + 1;
            (len.saturating_sub(first).div_ceil(stride) as u32, taps as u32, last as u32, start)
        };
        let mut passes = Vec::new();
        for first in (0..stride * stride).map(|i| [i / stride, i % stride]) {
            let [rows, columns] = [0, 1].map(|i| axis(first[i], self.input[i]));
            let pass = Pass {
                rows: value.depth,
                depth: value.rows,
                step: 1,
                y_size: value.x_size,
                x_size: value.y_size,
                j_size: [rows.0, columns.0],
                out_first: first.map(|first| first as u32),
                start: [rows.3, columns.3],
                taps: [rows.1, columns.1],
                out_step: stride as u32,
                w_first: rows.2 * kernel as u32 + columns.2,
                w_row: value.w_depth,
                w_depth: value.w_row,
                w_tap: value.w_tap.map(|tap| -tap * stride as i32),
                ..value
            };
            passes.push(pass.all_channels());
        }
        passes
    }
}

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Pass {
    samples: u32,
    rows: u32,
    depth: u32,
    step: u32,
    y_size: [u32; 2],
    x_size: [u32; 2],
    j_size: [u32; 2],
    out_first: [u32; 2],
    start: [i32; 2],
    taps: [u32; 2],
    out_step: u32,
    w_first: u32,
    w_row: u32,
    w_depth: u32,
    w_tap: [i32; 2],
    x_stride: u32,
    w_stride: u32,
    y_stride: u32,
    bias_stride: u32,
    tiles: u32,
    tiles_n: u32,
    batch: u32,
    flags: u32,
    alpha: f32,
    parts: u32,
    part_len: u32,
    part_stride: u32,
    part_first: u32,
    x_sample: u32,
    x_first: u32,
    padding: u32,
}

const ADD: u32 = 1;
const BIAS: u32 = 2;
/// Pixels of a register tile: so many that loading its weights is little of the work, and its sums lie in the
/// nearest cache.
const LINE: usize = 128;

/// Terms that one pass of [`conv`] adds up at the most.
const LONGEST: usize = 4096;
/// Pixels that [`weight`] adds up in one accumulator.
const RUN: usize = 256;

impl Pass {
    /// With samples of x that have as many channels as the pass.
    fn all_channels(self) -> Pass {
        Pass { x_sample: self.depth * self.x_size[0] * self.x_size[1], ..self }
    }

    /// `depth` of the channels, from number `first` on.
    fn channels(self, first: usize, depth: usize) -> Pass {
        Pass {
            depth: depth as u32,
            x_first: first as u32 * self.x_size[0] * self.x_size[1],
            w_first: self.w_first + first as u32 * self.w_depth,
            ..self
        }
    }

    /// Terms of a pixel.
    fn taps(&self) -> usize {
        self.depth as usize * (self.taps[0] * self.taps[1]) as usize
    }

    /// Columns of a row of taps in a register tile.
    fn span(&self, columns: usize) -> usize {
        (self.taps[1] as usize).clamp(1, columns)
    }

    /// Pixels of a line (a row of j, cut where it is longer than a register tile has room for), and how many lines there
    /// are.
    fn lines(&self) -> (usize, usize) {
        let [height, width] = self.j_size.map(|len| len as usize);
        (width.min(LINE), self.samples as usize * height * width.div_ceil(LINE))
    }

    /// In parts of `part_len` lines or pixels, `all` in total.
    fn in_parts(self, part_len: usize, all: usize) -> Pass {
        Pass { part_len: part_len as u32, parts: all.div_ceil(part_len) as u32, ..self }
    }

    /// Of j, of all samples.
    fn pixels(&self) -> usize {
        self.samples as usize * (self.j_size[0] * self.j_size[1]) as usize
    }

    /// How often an invocation of the register tiles' `conv` goes round its loops.
    fn iterations_register(&self) -> usize {
        let (columns, span) = (32, self.span(32));
        let (rows, pieces) = (columns / span, (self.taps[1] as usize).div_ceil(span));
        let all_rows = self.depth as usize * self.taps[0] as usize * pieces;
        let (line, lines) = (self.lines().0, self.part_len as usize);
        // of rows of taps: their places, their weights, the lines' windows
        let chunk = (rows + 1) + (rows * (span + 2) + 1) + lines * (line + span + 1) + 2;
        all_rows.div_ceil(rows) * chunk + lines * (6 * line + 2) + 2
    }

    /// The same of workgroup memory's.
    fn iterations_workgroup(&self, [ly, lx]: [usize; 2]) -> usize {
        let (of_w, of_x) = (64usize.div_ceil(lx) + 1, 8usize.div_ceil(ly) + 1);
        self.taps().div_ceil(8) * (of_w + 8 * (of_x + 1) + 1 + 9 + 1) + of_x + 16 * 6 + 3
    }
}

/// The family asked for, or the one that the adapter is tuned to. Narrow convolutions go by large products: workgroup
/// memory's tiles fit their shape.
fn chosen(gpu: &Gpu, family: Option<Family>, s: Shape) -> Family {
    let tuning = super::gemm::Tuning::of(gpu);
    family.unwrap_or(if s.is_small() { tuning.small } else { tuning.large })
}

/// A kernel, its constants, the tiles of its matrix (rows and columns), and how many a workgroup makes.
struct Choice {
    shader: Shader,
    constants: Vec<(&'static str, u32)>,
    tiles: [usize; 2],
    tiles_of_workgroup: usize,
    /// Rows and columns of invocations that make a tile in workgroup memory; none where registers do.
    lanes: Option<[usize; 2]>,
}

impl Choice {
    /// A register tile of so many columns: 32 for `conv`, which keeps weights in them, 16 for `weight`, which
    /// keeps sums.
    fn register(pass: &Pass, columns: usize, tiles: [usize; 2]) -> Choice {
        let constants = vec![
            ("SPAN", pass.span(columns) as u32),
            ("SLIDES", (pass.step == 1) as u32),
            ("COLUMNS", columns as u32),
        ];
        Choice { shader: REGISTER, constants, tiles, tiles_of_workgroup: 8, lanes: None }
    }

    /// The arrangement of invocations, 8 rows and 8 columns each, whose tiles cover the least beyond the matrix,
    /// and of those the one of the largest tiles.
    fn workgroup(matrix: [usize; 2]) -> Choice {
        let tiles = |lanes: [usize; 2]| [0, 1].map(|i| matrix[i].div_ceil(8 * lanes[i]));
        let covered = |lanes: [usize; 2]| tiles(lanes).iter().product::<usize>() * lanes[0] * lanes[1];
        let arrangements = [[8, 16], [4, 16], [2, 16], [1, 32], [4, 8]];
        let lanes = arrangements.into_iter().min_by_key(|&lanes| covered(lanes)).unwrap_or([8, 16]);
        let constants = vec![("LX", lanes[1] as u32), ("LY", lanes[0] as u32)];
        let tiles = tiles(lanes);
        Choice { shader: WORKGROUP, constants, tiles, tiles_of_workgroup: 1, lanes: Some(lanes) }
    }

    fn tiles(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// How often an invocation of `conv` goes round its loops.
    fn iterations(&self, pass: &Pass) -> usize {
        self.lanes.map_or_else(|| pass.iterations_register(), |lanes| pass.iterations_workgroup(lanes))
    }

    /// How often an invocation of `weight` goes round its loops for `part_len` lines or pixels.
    fn iterations_of_weight(&self, pass: &Pass, part_len: usize) -> usize {
        match self.lanes {
            None => {
                let (line, columns, span) = (pass.lines().0, 16, pass.span(16));
                let runs = (part_len * line).div_ceil(RUN).min(part_len);
                part_len * (line + span + 1) + runs * (columns + 1) + (columns / span + 1) + 6 * columns + 3
            }
            Some([ly, lx]) => {
                let step = 64usize.div_ceil(lx) + 64usize.div_ceil(ly) + 2 + 9 + 1;
                part_len.div_ceil(8) * step + 8usize.div_ceil(ly) + 2 + 16 * 6 + 2
            }
        }
    }

    /// How many channels of x a pass of `conv` may sum over: as many as keep it within the loops' budget, and its sums
    /// short.
    fn depth(&self, pass: &Pass, budget: usize) -> usize {
        let taps = (pass.taps[0] * pass.taps[1]).max(1) as usize;
        let mut depth = (pass.depth as usize).min(LONGEST / taps).max(1);
        while depth > 1 && self.iterations(&pass.channels(0, depth)) > budget {
            depth = depth.div_ceil(2);
        }
        depth
    }

    fn record(
        &self,
        rec: &mut Recorder,
        entry: &'static str,
        pass: Pass,
        bindings: &[(&str, &View)],
        work: Work,
    ) -> Result<()> {
        let [_, tiles_n] = self.tiles;
        let pass = Pass { tiles: self.tiles() as u32, tiles_n: tiles_n as u32, ..pass };
        let kernel = rec.gpu().kernel(self.shader, entry, &self.constants)?;
        let all = self.tiles() * pass.batch as usize * pass.parts as usize;
        rec.dispatch(&kernel, bindings, &pass, grid(all, self.tiles_of_workgroup), work)
    }
}

/// `y (+)= α w ⋆ x (+ bias)`; transposed, `x (+)= α` the adjoint of `y`.
///
/// `operand`: x `[n, in, h, w]`, or ȳ `[n, out, h, w]` where transposed; `out` the other. `w`: `[out, in, k, k]`.
/// Each is one for all of the `batch`, or one for each, `stride` words apart. `family`: `None` for the one that
/// the adapter is tuned to.
pub fn conv(
    rec: &mut Recorder,
    c: Conv,
    (transposed, family): (bool, Option<Family>),
    (batch, samples): (usize, usize),
    (w, operand, bias): (Strided, Strided, Option<Strided>),
    out: Strided,
    Write { c: alpha, add }: Write,
) -> Result<()> {
    rec.count_flops(c.flops() * (batch * samples) as f64);
    for pass in if transposed { c.adjoint() } else { vec![c.value()] } {
        let pass = Pass {
            samples: samples as u32,
            batch: batch as u32,
            x_stride: operand.stride as u32,
            w_stride: w.stride as u32,
            y_stride: out.stride as u32,
            bias_stride: bias.map_or(0, |bias| bias.stride as u32),
            flags: if add { ADD } else { 0 } | if bias.is_some() { BIAS } else { 0 },
            alpha,
            ..pass
        };
        let [m, n, k] = [pass.rows as usize, pass.pixels(), pass.taps()];
        if n == 0 || (k == 0 && add) {
            continue;
        }
        let (choice, pass) = match chosen(rec.gpu(), family, Shape { batch, m, n, k }) {
            Family::Register => {
                let (line, lines) = pass.lines();
                let mut part_len = LINE / line;
                let goes_on = |part_len| {
                    pass.channels(0, 1).in_parts(part_len, lines).iterations_register()
                        > rec.gpu().loop_budget()
                };
                while part_len > 1 && goes_on(part_len) {
                    part_len = part_len.div_ceil(2);
                }
                (Choice::register(&pass, 32, [m.div_ceil(4), 1]), pass.in_parts(part_len, lines))
            }
            Family::Workgroup => (Choice::workgroup([m, n]), pass),
        };
        let shift = bias.map_or(w.view, |bias| bias.view);
        let bindings = [("w", w.view), ("x", operand.view), ("bias", shift), ("out", out.view)];
        let depth = choice.depth(&pass, rec.gpu().loop_budget());
        for first in (0..(pass.depth as usize).max(1)).step_by(depth) {
            let flags = if first > 0 { ADD } else { pass.flags };
            let cut = Pass { flags, ..pass.channels(first, depth.min(pass.depth as usize - first)) };
            let operations = 2.0 * (batch * m * n) as f64 * cut.taps() as f64;
            let work = Work::new(operations, choice.iterations(&cut));
            choice.record(rec, "conv", cut, &bindings, work)?;
        }
    }
    Ok(())
}

/// `w (+)= α` the adjoint with respect to the weights, summed over samples in a fixed order.
///
/// `y` (ȳ): `[n, out, h, w]`. `x`: `[n, in, h, w]`. `w`: `[out, in, k, k]`. `family` as in [`conv`].
pub fn weight(
    rec: &mut Recorder,
    c: Conv,
    family: Option<Family>,
    (batch, samples): (usize, usize),
    (y, x): (Strided, Strided),
    w: Strided,
    Write { c: alpha, add }: Write,
) -> Result<()> {
    /// Tiles that keep an adapter busy.
    const ENOUGH: usize = 512;
    /// Terms of a part: fewer are not worth one.
    const TERMS: [usize; 2] = [256, 8192];
    let pass = Pass {
        samples: samples as u32,
        batch: batch as u32,
        x_stride: x.stride as u32,
        w_stride: w.stride as u32,
        y_stride: y.stride as u32,
        ..c.value()
    };
    let (choice, unit, all) = match choice_of_weight(rec.gpu(), c, family, batch) {
        choice if choice.lanes.is_some() => (choice, 1, pass.pixels()),
        choice => {
            let (line, lines) = pass.lines();
            (choice, line, lines)
        }
    };
    let weights = c.weights();
    if batch * weights == 0 {
        return Ok(());
    }
    // of lines or pixels
    let wanted = ENOUGH.div_ceil(choice.tiles() * batch);
    let terms = (pass.pixels() / wanted).clamp(TERMS[0], TERMS[1]);
    let mut part_len = (terms / unit.max(1)).clamp(1, all.max(1));
    let budget = rec.gpu().loop_budget();
    while part_len > 1 && choice.iterations_of_weight(&pass, part_len) > budget {
        part_len = part_len.div_ceil(2);
    }
    let iterations = choice.iterations_of_weight(&pass, part_len);
    let parts = all.div_ceil(part_len).max(1);
    // as many parts at once as there is memory for; what they make is added to what came before
    let at_once = (super::scratch_words(rec.gpu()) / (batch * weights)).min(budget / 2).max(1);
    rec.count_flops(c.flops() * (batch * samples) as f64);
    for first in (0..parts).step_by(at_once) {
        let count = at_once.min(parts - first);
        let add = add || first > 0;
        let operations = c.flops() * (batch * samples) as f64 * count as f64 / parts as f64;
        let work = Work::new(operations, iterations);
        let pass = Pass { parts: count as u32, part_len: part_len as u32, part_first: first as u32, ..pass };
        let bindings = [("y", y.view), ("x", x.view)];
        if count == 1 {
            let pass = Pass { flags: if add { ADD } else { 0 }, alpha, ..pass };
            choice.record(rec, "weight", pass, &[&bindings[..], &[("out", w.view)]].concat(), work)?;
            continue;
        }
        let scratch = rec.scratch(super::PARTS, batch * count * weights)?;
        let (w_stride, part_stride) = ((count * weights) as u32, weights as u32);
        let pass = Pass { w_stride, part_stride, alpha: 1.0, ..pass };
        choice.record(rec, "weight", pass, &[&bindings[..], &[("out", &scratch)]].concat(), work)?;
        sum_parts(rec, (batch, count, weights), &scratch, w, alpha, add)?;
    }
    Ok(())
}

fn choice_of_weight(gpu: &Gpu, c: Conv, family: Option<Family>, batch: usize) -> Choice {
    let [m, n] = [c.channels[1], c.channels[0] * c.kernel * c.kernel];
    match chosen(gpu, family, Shape { batch, m, n, k: c.output[0] * c.output[1] }) {
        Family::Register => {
            let (pass, columns) = (c.value(), 16);
            let span = pass.span(columns);
            let rows_of_taps = c.channels[0] * c.kernel * c.kernel.div_ceil(span);
            Choice::register(&pass, columns, [m.div_ceil(4), rows_of_taps.div_ceil(columns / span)])
        }
        Family::Workgroup => Choice::workgroup([m, n]),
    }
}
