//! A sweep: a plan whose tensors have memory, recorded for batches of n samples and k directions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ops::{self, Extent, Of, Operand};
use super::plan::{Instruction, Request, Slot, Summand, Tangents, Var, plan};
use super::samples::Samples;
use crate::gpu::{ALIGN, Buffer, Exclusive, Gpu, Program, Recorder, View};
use crate::kernels::{Step, Write, gather, loss, pointwise, vector};
use crate::net::{Kind, Linear, Loss, Network, Subspace, Term};
use crate::{Error, Result};

/// What a sweep runs on.
pub struct Workload<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// Whose sweeps these are.
    pub network: &'a Network,
    /// The data set on the device.
    pub samples: &'a Samples,
    /// The loss of a sample.
    pub loss: Loss,
    /// θ as [`Network::all`] lays it out.
    pub theta: View,
    /// Sample indices, u32; a step's rows are `step.first …`, and n of them must be there.
    pub indices: View,
    /// The length of that list, to which per-sample results are laid out.
    pub positions: usize,
    /// Whether every batch is the data set, one sample after the other: then inputs are read where they lie.
    pub whole: bool,
}

impl Workload<'_> {
    /// The inputs of a batch where they need not be gathered: that is the data set as it lies in one buffer.
    fn inputs_in_place(&self) -> Option<&View> {
        match self.samples.shards() {
            [(0, inputs)] if self.whole => Some(inputs),
            _ => None,
        }
    }
}

/// A recorded sweep and the buffers that go in and out of it.
///
/// Runs from several threads follow each other: they share the buffers.
pub struct Sweep {
    program: Arc<Program>,
    /// Samples of a batch and directions of a block.
    pub extent: Extent,
    /// The directions, `[k, stride]` of the subspace, or per-sample ones, `[n, stride]`.
    pub directions: Option<View>,
    /// Summed adjoints of the parameters, `[1 or k, stride]`, or per-sample ones, `[n, stride]`.
    pub gradient: Option<View>,
    /// ℓ and whether the largest output is the target's, f32 each, by position in the list of indices.
    pub losses: View,
    /// Whether each sample is classified rightly, 1 or 0: `[samples]`.
    pub correct: View,
    /// ℓ1 `[k, positions]`, less its centre where it seeds a noise covariance.
    pub slopes: Option<View>,
    /// `[k]`: the centres of the slopes that seed a noise covariance.
    pub centre: Option<View>,
    kept: HashMap<Slot, View>,
}

/// How a sweep treats the buffer that its gradients go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Results {
    /// Each step writes it anew.
    Replace,
    /// Each step adds to it.
    Accumulate,
}

impl Sweep {
    /// Records `request` for batches of `extent.n` samples and blocks of `extent.k` directions.
    ///
    /// Directions and gradients have the coordinates of `space`.
    pub fn record(
        work: &Workload,
        request: &Request,
        space: &Subspace,
        extent: Extent,
        results: Results,
    ) -> Result<Sweep> {
        let mut recorder = Recorder::new(work.gpu);
        recorder.use_alone(&Exclusive::default());
        let parts = Self::record_onto(&mut recorder, work, request, space, extent, results)?;
        Ok(Sweep { program: Arc::new(recorder.finish()?), ..parts })
    }

    /// Records onto a recorder to which the caller has more to add; [`Sweep::record`] otherwise. The
    /// program of the result is empty.
    pub fn record_onto(
        recorder: &mut Recorder,
        work: &Workload,
        request: &Request,
        space: &Subspace,
        extent: Extent,
        results: Results,
    ) -> Result<Sweep> {
        let gpu = work.gpu;
        let instructions = plan(work.network.graph(), request);
        let tangent = request.tangents != Tangents::None;
        let k = extent.k;
        assert!(k == 1 || !request.per_sample, "a sample has one direction of its own");
        let view = |words: usize| -> Result<View> { Ok(gpu.zeros(words)?.slice(0, words)) };
        let [directions, gradient] =
            vectors(request, extent).map(|count| (count > 0).then(|| view(count * space.stride)).transpose());
        let sweep = Sweep {
            program: Arc::new(Recorder::new(gpu).finish()?),
            extent,
            directions: directions?,
            gradient: gradient?,
            losses: view(work.positions)?,
            correct: view(work.positions)?,
            slopes: tangent.then(|| view(k * work.positions)).transpose()?,
            centre: tangent.then(|| view(k)).transpose()?,
            kept: HashMap::new(),
        };
        let memory = Memory::new(work.network, request, &instructions, extent);
        let mut emitter = Emitter {
            work,
            space,
            sweep,
            results,
            per_sample: request.per_sample,
            spare: gpu.buffer(1)?,
            slots: HashMap::new(),
            free: HashMap::new(),
        };
        for (at, instruction) in instructions.iter().enumerate() {
            if let (Instruction::Gather { to }, Some(inputs)) = (instruction, work.inputs_in_place()) {
                emitter.slots.insert(*to, (inputs.buffer().clone(), inputs.len()));
            } else {
                for slot in instruction.writes() {
                    emitter.allocate(slot, memory.words(slot))?;
                }
                emitter.emit(recorder, instruction)?;
            }
            for slot in memory.last_used_at(at) {
                emitter.release(slot);
            }
        }
        let Emitter { mut sweep, slots, .. } = emitter;
        for &slot in &request.keep {
            if let Some((buffer, words)) = slots.get(&slot) {
                sweep.kept.insert(slot, buffer.slice(0, *words));
            }
        }
        Ok(sweep)
    }

    /// Floating-point operations of the matrix products of one batch.
    pub fn flops(&self) -> f64 {
        self.program.flops()
    }

    /// Dispatches of one batch.
    pub fn dispatches(&self) -> usize {
        self.program.dispatches()
    }

    /// Runs the sweep on one batch after another.
    pub fn run(&self, steps: &[Step]) -> Result<()> {
        self.program.run_steps(steps)
    }

    /// The program that one step of the sweep is.
    pub(crate) fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// A slot that the request asked to keep, `[n, len]` at order 0 and `[k, n, len]` above.
    pub fn kept(&self, slot: Slot) -> Option<&View> {
        self.kept.get(&slot)
    }
}

/// How many directions and results a sweep of that extent has.
fn vectors(request: &Request, extent: Extent) -> [usize; 2] {
    let each = if request.per_sample { extent.n } else { extent.k };
    let directions = if matches!(request.tangents, Tangents::Parameters(_)) { each } else { 0 };
    let results = match request.gradients.first() {
        None => 0,
        Some((_, 0)) if !request.per_sample => 1,
        Some(_) => each,
    };
    [directions, results]
}

/// Cuts `samples` and `directions` so that a sweep keeps within the device's memory budget and bindings and
/// each dispatch within a second or so. Returns what they are cut to, and the bytes of the budget that it takes.
///
/// The budget is for all that the device holds: `held` words that are taken already (parameters, data, what is left
/// to others), the sweep's slots, directions and results, and as many vectors again of the caller's.
///
/// # Errors
/// [`Error::OutOfMemory`] where not even one sample and one direction fit.
pub fn choose_extent(
    gpu: &Gpu,
    network: &Network,
    request: &Request,
    space: &Subspace,
    held: usize,
    (samples, directions): (usize, usize),
) -> Result<(Extent, u64)> {
    let instructions = plan(network.graph(), request);
    let mut extent = Extent { n: samples, k: directions };
    // below this many rows a product has too little to do on each weight that it reads
    const ENOUGH_ROWS: usize = 256;
    loop {
        let memory = Memory::new(network, request, &instructions, extent);
        let counts = vectors(request, extent);
        let [directions, results] = counts.map(|count| count * space.stride);
        // a sixteenth for what kernels need in between, such as the parts of a split sum
        let bytes = 4 * (held + memory.buffers() + 2 * (directions + results)) as u64 / 15 * 16;
        let binding = memory.largest().max(directions).max(results);
        if bytes <= gpu.memory_budget()
            && binding <= gpu.max_binding_len()
            && memory.heaviest(network) <= gpu.dispatch_flops()
        {
            return Ok((extent, bytes));
        }
        if extent.n > ENOUGH_ROWS || (extent.k == 1 && extent.n > 1) {
            let batches = samples.div_ceil(extent.n) + 1;
            extent.n = samples.div_ceil(batches).min(extent.n - 1);
        } else if extent.k > 1 {
            extent.k = extent.k.div_ceil(2);
        } else {
            return Err(Error::OutOfMemory {
                doing: "planning a sweep over one sample and one direction".into(),
                detail: format!(
                    "it takes {bytes} bytes, {} in one binding; the budget is {} and a binding holds {}",
                    4 * binding,
                    gpu.memory_budget(),
                    4 * gpu.max_binding_len()
                ),
            });
        }
    }
}

/// How much memory the slots of a plan take, and when each is last used.
struct Memory<'a> {
    network: &'a Network,
    instructions: &'a [Instruction],
    extent: Extent,
    last_use: HashMap<Slot, usize>,
}

impl<'a> Memory<'a> {
    fn new(
        network: &'a Network,
        request: &Request,
        instructions: &'a [Instruction],
        extent: Extent,
    ) -> Memory<'a> {
        let mut last_use = HashMap::new();
        for (at, instruction) in instructions.iter().enumerate() {
            for slot in instruction.reads().into_iter().chain(instruction.writes()) {
                last_use.insert(slot, at);
            }
        }
        for slot in &request.keep {
            last_use.insert(*slot, instructions.len());
        }
        Memory { network, instructions, extent, last_use }
    }

    /// Words of a slot that the sweep itself holds; none for parameters and their adjoints.
    fn words(&self, slot: Slot) -> usize {
        let (Var::Value(id) | Var::Adjoint(id)) = slot.var;
        let tensor = self.network.graph().tensors[id];
        match tensor.kind {
            Kind::Parameter(_) => 0,
            _ => tensor.len * self.extent.n * if slot.order == 0 { 1 } else { self.extent.k },
        }
    }

    fn last_used_at(&self, at: usize) -> impl Iterator<Item = Slot> + '_ {
        let instruction = &self.instructions[at];
        let mut slots: Vec<Slot> = instruction.reads().into_iter().chain(instruction.writes()).collect();
        slots.sort_unstable();
        slots.dedup();
        slots.into_iter().filter(move |slot| self.last_use[slot] == at)
    }

    /// Words of the largest slot.
    fn largest(&self) -> usize {
        let slots = self.instructions.iter().flat_map(Instruction::writes);
        slots.map(|slot| self.words(slot)).max().unwrap_or(0)
    }

    /// Words of the buffers that a recording makes: a slot takes one that another of its size has left.
    fn buffers(&self) -> usize {
        let (mut free, mut live, mut made) = (HashMap::<usize, usize>::new(), HashSet::new(), 0);
        for (at, instruction) in self.instructions.iter().enumerate() {
            for slot in instruction.writes().into_iter().filter(|&slot| live.insert(slot)) {
                let words = self.words(slot);
                match free.get_mut(&words).filter(|left| **left > 0) {
                    Some(left) => *left -= 1,
                    None => made += words.next_multiple_of(ALIGN),
                }
            }
            for slot in self.last_used_at(at).filter(|slot| live.remove(slot)) {
                *free.entry(self.words(slot)).or_default() += 1;
            }
        }
        made
    }

    /// Floating-point operations of the heaviest dispatch.
    fn heaviest(&self, network: &Network) -> f64 {
        let maps = network.graph().nodes.iter().flat_map(|node| &node.terms).filter_map(|term| match term {
            Term::Bilinear { map, .. } => Some(map.flops()),
            _ => None,
        });
        maps.fold(0.0, f64::max) * (self.extent.n * self.extent.k) as f64
    }
}

/// Records instructions, handing out buffers.
struct Emitter<'a> {
    work: &'a Workload<'a>,
    space: &'a Subspace,
    sweep: Sweep,
    results: Results,
    per_sample: bool,
    /// Bound in the place of an output that is not made.
    spare: Buffer,
    slots: HashMap<Slot, (Buffer, usize)>,
    /// Buffers whose slots have been used for the last time, by words.
    free: HashMap<usize, Vec<Buffer>>,
}

impl Emitter<'_> {
    fn allocate(&mut self, slot: Slot, words: usize) -> Result<()> {
        if words == 0 || self.slots.contains_key(&slot) {
            return Ok(());
        }
        let buffer = match self.free.get_mut(&words).and_then(Vec::pop) {
            Some(buffer) => buffer,
            None => self.work.gpu.buffer(words)?,
        };
        self.slots.insert(slot, (buffer, words));
        Ok(())
    }

    fn release(&mut self, slot: Slot) {
        let in_place = self.work.inputs_in_place();
        if let Some((buffer, words)) = self.slots.remove(&slot)
            && in_place.is_none_or(|inputs| !inputs.buffer().is(&buffer))
        {
            self.free.entry(words).or_default().push(buffer);
        }
    }

    fn parameter(&self, id: usize) -> Option<usize> {
        match self.work.network.graph().tensors[id].kind {
            Kind::Parameter(index) => Some(index),
            _ => None,
        }
    }

    fn operand(&self, slot: Slot) -> Operand {
        let part_of = |index| self.space.part(index).expect("a parameter that moves lies in the subspace");
        let rows_of = |view: &View, index, of: fn(usize) -> Of| {
            let (part, stride) = (part_of(index), self.space.stride);
            Operand { view: view.slice(part.padded, view.len() - stride + part.len), of: of(stride) }
        };
        let own = if self.per_sample { Of::Sample } else { Of::Direction };
        match slot.var {
            Var::Value(id) if self.parameter(id).is_some() => {
                let index = self.parameter(id).expect("just checked");
                match (&self.sweep.directions, slot.order) {
                    (Some(directions), 1) => rows_of(directions, index, own),
                    _ => {
                        let all = self.work.network.all();
                        let part = all.part(index).expect("all parameters lie in the whole space");
                        Operand { view: self.work.theta.slice(part.padded, part.len), of: Of::All }
                    }
                }
            }
            Var::Adjoint(id) if self.parameter(id).is_some() => {
                let index = self.parameter(id).expect("just checked");
                let gradient = self.sweep.gradient.as_ref().expect("a gradient was asked for");
                let summed_once = slot.order == 0 && !self.per_sample;
                rows_of(gradient, index, if summed_once { |_| Of::All } else { own })
            }
            _ => {
                let (buffer, words) = &self.slots[&slot];
                let of = if slot.order == 0 { Of::All } else { Of::Direction(words / self.sweep.extent.k) };
                Operand { view: buffer.slice(0, *words), of }
            }
        }
    }

    fn view(&self, slot: Slot) -> View {
        self.operand(slot).view
    }

    fn views(&self, slots: [Option<Slot>; 3]) -> [Option<View>; 3] {
        slots.map(|slot| slot.map(|slot| self.view(slot)))
    }

    fn emit(&self, rec: &mut Recorder, instruction: &Instruction) -> Result<()> {
        let Extent { n, k } = self.sweep.extent;
        let outputs = self.work.network.outputs();
        let targets = loss::Targets {
            loss: self.work.loss,
            indices: self.work.indices.clone(),
            targets: self.work.samples.targets(),
            classes: self.work.samples.classes(),
        };
        match instruction {
            Instruction::Gather { to } => {
                let (x, width) = (self.view(*to), self.work.samples.width());
                for (start, data) in self.work.samples.shards() {
                    gather::gather(rec, data, *start, &self.work.indices, (n, width), &x)?;
                }
                Ok(())
            }
            Instruction::Units { to } => {
                let view = self.view(*to);
                vector::units(rec, 0, k, view.len() / (k * n), &view)
            }
            Instruction::Jet { sigma, x, y } => {
                let ([x0, x1, x2], [y0, y1, y2]) = (self.views(*x), self.views(*y));
                let (x0, y0) = (x0.expect("a value has order 0"), y0.expect("a value has order 0"));
                let elements = y0.len();
                let (x, y) = ((&x0, x1.as_ref(), x2.as_ref()), (&y0, y1.as_ref(), y2.as_ref()));
                pointwise::jet(rec, *sigma, (elements, k), x, y)
            }
            Instruction::Loss { z, g } => {
                let (z, g) = (self.view(*z), self.view(*g));
                let per_sample = (&self.sweep.losses, &self.sweep.correct);
                loss::primal(rec, &targets, (n, outputs), &z, per_sample, &g)
            }
            Instruction::LossTangent { z, g1, g2 } => {
                let [z0, z1, z2] = self.views(*z);
                let (z0, z1) = (z0.expect("order 0"), z1.expect("order 1"));
                let g1 = self.view(*g1);
                let g2 = g2.map(|g2| self.view(g2));
                let second = g2.as_ref().map(|g2| (z2.as_ref(), g2));
                let spare = self.spare.view();
                let shape = (n, outputs, k);
                loss::tangent(rec, &targets, shape, (&z0, &z1), self.slopes(), (&g1, &spare), second)
            }
            Instruction::OutputSeed { z1, g1 } => {
                loss::output_seed(rec, (n, outputs, k), &self.view(*z1), &self.view(*g1))
            }
            Instruction::NoiseSeed { g, g1 } => {
                let (g, g1) = (self.view(*g), self.view(*g1));
                let centre = self.sweep.centre.as_ref().expect("there are tangents");
                loss::centre(rec, (n, k), centre, self.slopes())?;
                loss::noise_seed(rec, (n, outputs, k), self.slopes(), &g, &g1)
            }
            Instruction::Sum { to, summands } => self.emit_sum(rec, *to, summands),
        }
    }

    fn slopes(&self) -> (&View, usize) {
        (self.sweep.slopes.as_ref().expect("there are tangents"), self.work.positions)
    }

    fn emit_sum(&self, rec: &mut Recorder, to: Slot, summands: &[Summand]) -> Result<()> {
        let (Var::Value(id) | Var::Adjoint(id)) = to.var;
        let is_result = self.parameter(id).is_some();
        let mut add = is_result && self.results == Results::Accumulate && !self.per_sample;
        let out = self.operand(to);
        let extent = self.sweep.extent;
        let mut fused = None;
        for (at, summand) in summands.iter().enumerate() {
            if fused == Some(at) {
                continue;
            }
            match *summand {
                Summand::Linear { map, transposed, x, by, c } => {
                    let (x, by) = (self.operand(x), by.map(|by| self.operand(by)));
                    ops::linear(rec, map, transposed, extent, (&x, by.as_ref()), &out, Write { c, add })?;
                }
                Summand::Constant { constant, input, of } => {
                    let (input, of) = (self.view(input), of.map(|of| self.view(of)));
                    ops::constant(rec, constant, extent.n, &input, of.as_ref(), &out.view, add)?;
                }
                Summand::Bilinear { map, form, x, y, c } => {
                    let (x, y) = (self.operand(x), self.operand(y));
                    let mut bias = None;
                    if fused.is_none() {
                        let later = summands.iter().enumerate().skip(at + 1);
                        for (other, summand) in later {
                            if let Summand::Linear {
                                map: Linear::Broadcast(_),
                                transposed: false,
                                x: b,
                                c: 1.0,
                                ..
                            } = *summand
                            {
                                let operand = self.operand(b);
                                if ops::takes_bias(map, form, &x, &y, &operand) {
                                    fused = Some(other);
                                    bias = Some(operand);
                                    break;
                                }
                            }
                        }
                    }
                    ops::bilinear(rec, map, form, extent, (&x, &y, bias.as_ref()), &out, Write { c, add })?;
                }
                Summand::PointwiseAdjoint { sigma, x, d } => {
                    self.emit_pointwise_adjoint(rec, sigma, x, d, to, add)?;
                }
            }
            add = true;
        }
        Ok(())
    }

    fn emit_pointwise_adjoint(
        &self,
        rec: &mut Recorder,
        sigma: pointwise::Pointwise,
        x: [Option<Slot>; 3],
        d: [Option<Slot>; 3],
        to: Slot,
        add: bool,
    ) -> Result<()> {
        let ([x0, x1, x2], [d0, d1, d2]) = (self.views(x), self.views(d));
        let x0 = x0.expect("a value has order 0");
        let g = self.view(to);
        let shape = (x0.len(), self.sweep.extent.k);
        let bent = x1.is_some() && d0.is_some() && !sigma.is_piecewise_linear();
        match (to.order, x1, d0) {
            (0, _, Some(d0)) => pointwise::adjoint_block(rec, sigma, (x0.len(), 1), &x0, &d0, &g, add),
            (1, Some(x1), Some(d0)) if bent => {
                pointwise::adjoint1(rec, sigma, shape, (&x0, &x1), (&d0, d1.as_ref()), &g, add)
            }
            (2, Some(x1), Some(d0)) if bent => {
                let (x, d) = ((&x0, &x1, x2.as_ref()), (&d0, d1.as_ref(), d2.as_ref()));
                pointwise::adjoint2(rec, sigma, shape, x, d, &g, add)
            }
            (order, ..) => {
                let d = if order == 1 { d1 } else { d2 };
                let d = d.expect("the plan gives what the order needs");
                pointwise::adjoint_block(rec, sigma, shape, &x0, &d, &g, add)
            }
        }
    }
}
