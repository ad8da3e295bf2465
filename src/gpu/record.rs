//! Recording: a step is a list of dispatches, recorded once and replayed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::pipeline::SLOT;
use super::{Buffer, Gpu, Kernel, View};
use crate::{Error, Result};

/// What one dispatch takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Floating-point operations and words moved, by which submissions are paced.
    pub operations: f64,
    /// How often an invocation goes round its loops at the most, all of them together, a loop's last test counted:
    /// some adapters end loops that go on for long ([`Gpu::loop_budget`]).
    pub iterations: usize,
}

impl Work {
    /// Work of so many operations by invocations that go round their loops so often.
    pub fn new(operations: f64, iterations: usize) -> Work {
        Work { operations, iterations }
    }
}

/// A kernel, by its address (its name may be another's too), and buffer, byte offset and words of each binding.
type BindGroupKey = (usize, Vec<(wgpu::Buffer, u64, usize)>);

/// Collects dispatches, clears, copies and replays of other programs.
pub struct Recorder<'g> {
    gpu: &'g Gpu,
    commands: Vec<Command>,
    parameters: Vec<u8>,
    bind_groups: HashMap<BindGroupKey, Arc<wgpu::BindGroup>>,
    flops: f64,
    dispatches: usize,
    held: Vec<Buffer>,
    scratch: Vec<(&'static str, Buffer)>,
    exclusive: Vec<Exclusive>,
    preparations: Vec<Arc<dyn Prepare>>,
    /// What went wrong where nothing could be returned.
    error: Option<Error>,
}

pub(super) enum Command {
    Dispatch {
        kernel: Arc<Kernel>,
        bind_group: Arc<wgpu::BindGroup>,
        groups: [u32; 3],
        work: f64,
    },
    Clear {
        view: View,
    },
    Copy {
        from: View,
        to: View,
    },
    /// With steps of its own, or once.
    Replay {
        program: Arc<Program>,
        steps: Option<Steps>,
    },
}

/// Steps of a replay, as kernels read them; the bind group holds the dispatches' parameters too.
pub(super) struct Steps {
    count: usize,
    uniforms: Option<wgpu::BindGroup>,
}

/// What only one run of a program may use at a time, such as the buffers of a sweep that several operators share: runs on
/// other threads are submitted after it.
pub(crate) type Exclusive = Arc<Mutex<()>>;

/// What a program depends on and has to be brought up to date before it runs.
pub(crate) trait Prepare: Send + Sync {
    /// Brings it up to date.
    fn prepare(&self) -> Result<()>;
}

/// Recorded dispatches, to be replayed.
///
/// Programs can be run from several threads. Runs on one device follow each other in the order of their submissions; no
/// thread waits for another's.
pub struct Program {
    gpu: Gpu,
    commands: Vec<Command>,
    parameters: Option<wgpu::Buffer>,
    /// The steps of [`Program::run`]: one, of zeros.
    once: OnceLock<Steps>,
    flops: f64,
    dispatches: usize,
    /// In the order of their addresses, in which they are locked.
    exclusive: Vec<Exclusive>,
    preparations: Vec<Arc<dyn Prepare>>,
    /// What the commands read and write: none of it goes back to the pool before the program does.
    _held: Vec<Buffer>,
}

/// A program that has been submitted, before another that shares buffers with it may be: what is copied from those
/// buffers has to be submitted by now.
pub(crate) struct Submitted<'p> {
    _guards: Vec<MutexGuard<'p, ()>>,
}

/// How long submissions take, so that each stays short of a desktop's watchdog.
pub(super) struct Pace {
    /// Units of work (floating-point operations and words moved) a second, as last seen.
    rate: f64,
}

impl Pace {
    /// Seconds of one submission: a fifth of the shortest watchdog (2 s), for a rate misjudged by five.
    const SUBMISSION: f64 = 0.4;
    /// Work that a dispatch is worth at the least: its launch.
    const DISPATCH: f64 = 2e5;

    pub(super) fn new(device_type: wgpu::DeviceType) -> Pace {
        Pace { rate: Self::first_rate(device_type) }
    }

    /// What adapters of that class reach at the least.
    fn first_rate(device_type: wgpu::DeviceType) -> f64 {
        match device_type {
            wgpu::DeviceType::DiscreteGpu => 5e11,
            wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::VirtualGpu => 5e10,
            wgpu::DeviceType::Cpu | wgpu::DeviceType::Other => 5e9,
        }
    }
}

/// Workgroups for `items` invocations in groups of `size`, folded into two dimensions where one is not
/// enough; the shaders undo it with `linear_index`.
pub fn grid(items: usize, size: usize) -> [u32; 3] {
    let groups = items.div_ceil(size);
    let x = groups.min(32_768);
    [x as u32, groups.div_ceil(x.max(1)) as u32, 1]
}

impl<'g> Recorder<'g> {
    /// Returns an empty recording for the device.
    pub fn new(gpu: &'g Gpu) -> Recorder<'g> {
        Recorder {
            gpu,
            commands: Vec::new(),
            parameters: Vec::new(),
            bind_groups: HashMap::new(),
            flops: 0.0,
            dispatches: 0,
            held: Vec::new(),
            scratch: Vec::new(),
            exclusive: Vec::new(),
            preparations: Vec::new(),
            error: None,
        }
    }

    /// Counts floating-point operations of matrix products, by which benchmarks judge a program.
    pub(crate) fn count_flops(&mut self, flops: f64) {
        self.flops += flops;
    }

    /// Returns the device.
    pub fn gpu(&self) -> &'g Gpu {
        self.gpu
    }

    /// The number of dispatches so far, those of replayed programs included.
    pub fn dispatches(&self) -> usize {
        self.dispatches
    }

    /// Records that no other run of a program may use what `exclusive` stands for at the same time.
    pub(crate) fn use_alone(&mut self, exclusive: &Exclusive) {
        if !self.exclusive.iter().any(|other| Arc::ptr_eq(other, exclusive)) {
            self.exclusive.push(exclusive.clone());
        }
    }

    /// Records what has to be brought up to date before each run.
    pub(crate) fn prepare(&mut self, preparation: &Arc<dyn Prepare>) {
        if !self.preparations.iter().any(|other| Arc::ptr_eq(other, preparation)) {
            self.preparations.push(preparation.clone());
        }
    }

    /// Records a replay of `program` for each of `steps`, which its kernels read as `step`.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] where the program is one of another device, and the device's errors.
    pub fn replay<S: bytemuck::Pod>(&mut self, program: &Arc<Program>, steps: &[S]) -> Result<()> {
        if !self.gpu.is(&program.gpu) {
            return Err(self.gpu.refuses("program", Some(&program.gpu)));
        }
        for chunk in steps.chunks(most_steps(self.gpu)) {
            let steps = Some(program.steps(chunk)?);
            self.commands.push(Command::Replay { program: program.clone(), steps });
        }
        self.takes(program, steps.len());
        Ok(())
    }

    /// Records one replay of `program`, with a step of zeros.
    ///
    /// # Errors
    /// As [`Recorder::replay`].
    pub fn replay_once(&mut self, program: &Arc<Program>) -> Result<()> {
        if !self.gpu.is(&program.gpu) {
            return Err(self.gpu.refuses("program", Some(&program.gpu)));
        }
        program.once()?;
        self.commands.push(Command::Replay { program: program.clone(), steps: None });
        self.takes(program, 1);
        Ok(())
    }

    /// What `times` replays of a program take and need.
    fn takes(&mut self, program: &Program, times: usize) {
        self.flops += program.flops * times as f64;
        self.dispatches += program.dispatches * times;
        program.exclusive.iter().for_each(|exclusive| self.use_alone(exclusive));
        program.preparations.iter().for_each(|preparation| self.prepare(preparation));
    }

    /// `words` of memory for what one dispatch leaves for the next: those recorded later use what has the same name again.
    pub fn scratch(&mut self, name: &'static str, words: usize) -> Result<View> {
        let at = self.scratch.iter().position(|(other, _)| *other == name);
        let buffer = match at.map(|at| self.scratch.swap_remove(at).1) {
            Some(buffer) if buffer.view().len() >= words => buffer,
            _ => {
                // rounded up, so that the pool's buffers serve what grows, and the smaller ones add up to no more
                let most = self.gpu.max_binding_len();
                self.gpu.buffer(words.next_power_of_two().min(most).max(words))?
            }
        };
        self.scratch.push((name, buffer.clone()));
        Ok(buffer.slice(0, words))
    }

    /// Records a dispatch of `groups` workgroups. `bindings` are given by the names that the shader calls
    /// them.
    ///
    /// # Errors
    /// [`Error::Loops`] where an invocation would go round its loops more often than the adapter lets it, and the
    /// device's errors.
    ///
    /// # Panics
    /// If the names are not those of the shader's bindings, if one buffer is bound both read-only and
    /// read-write, or if the parameters are not as long as the shader's struct: these are mistakes in a kernel's
    /// host wrapper.
    pub fn dispatch<P: bytemuck::Pod>(
        &mut self,
        kernel: &Arc<Kernel>,
        bindings: &[(&str, &View)],
        parameters: &P,
        groups: [u32; 3],
        work: Work,
    ) -> Result<()> {
        if groups.contains(&0) {
            return Ok(());
        }
        let budget = self.gpu.loop_budget();
        if work.iterations > budget {
            return Err(Error::Loops {
                kernel: kernel.name.clone(),
                iterations: work.iterations,
                budget,
                adapter: self.gpu.driver(),
            });
        }
        for (name, view) in bindings {
            self.gpu.own(name, view)?;
        }
        let views: Vec<&View> = kernel
            .bindings
            .iter()
            .map(|(wanted, ..)| match bindings.iter().find(|(name, _)| name == wanted) {
                Some((_, view)) => *view,
                None => panic!("{}: nothing is bound to {wanted}", kernel.name),
            })
            .collect();
        assert_eq!(views.len(), bindings.len(), "{}: binds what the shader has not", kernel.name);
        for (i, (name, _, written)) in kernel.bindings.iter().enumerate() {
            for (j, (other, ..)) in kernel.bindings.iter().enumerate() {
                let aliased = *written && i != j && views[i].buffer.is(&views[j].buffer);
                assert!(!aliased, "{}: {name} and {other} lie in one buffer", kernel.name);
            }
        }
        let key = (
            Arc::as_ptr(kernel) as usize,
            views.iter().map(|v| (v.buffer.handle().clone(), v.byte_offset(), v.len())).collect::<Vec<_>>(),
        );
        let bind_group = match self.bind_groups.get(&key) {
            Some(bind_group) => bind_group.clone(),
            None => {
                let entries: Vec<_> = std::iter::zip(&kernel.bindings, &views)
                    .map(|((_, binding, _), view)| wgpu::BindGroupEntry {
                        binding: *binding,
                        resource: view.binding(),
                    })
                    .collect();
                let made = self.gpu.scoped(&format!("binding {}", kernel.name), || {
                    self.gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                        label: Some(&kernel.name),
                        layout: &kernel.layout,
                        entries: &entries,
                    })
                })?;
                let made = Arc::new(made);
                self.bind_groups.insert(key, made.clone());
                made
            }
        };
        views.iter().for_each(|view| self.hold(&view.buffer));
        let bytes = bytemuck::bytes_of(parameters);
        assert_eq!(bytes.len(), kernel.parameters, "{}: bytes of parameters", kernel.name);
        // a slot for each dispatch, also of kernels without parameters
        let end = self.parameters.len() + SLOT as usize;
        self.parameters.extend_from_slice(bytes);
        self.parameters.resize(end, 0);
        self.commands.push(Command::Dispatch {
            kernel: kernel.clone(),
            bind_group,
            groups,
            work: work.operations,
        });
        self.dispatches += 1;
        Ok(())
    }

    /// Keeps the first error for [`Recorder::finish`].
    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }

    fn hold(&mut self, buffer: &Buffer) {
        if !self.held.iter().any(|held| held.is(buffer)) {
            self.held.push(buffer.clone());
        }
    }

    /// Records zeros into `view`.
    pub fn clear(&mut self, view: &View) {
        self.note(self.gpu.own("memory to clear", view));
        if !view.is_empty() {
            self.commands.push(Command::Clear { view: view.clone() });
        }
    }

    /// Records a copy.
    ///
    /// # Panics
    /// If the lengths differ or both lie in one buffer.
    pub fn copy(&mut self, from: &View, to: &View) {
        assert_eq!(from.len(), to.len(), "a copy's lengths");
        assert!(!from.buffer.is(&to.buffer), "a copy within one buffer");
        self.note(self.gpu.own("memory to copy from", from));
        self.note(self.gpu.own("memory to copy to", to));
        if !from.is_empty() {
            self.commands.push(Command::Copy { from: from.clone(), to: to.clone() });
        }
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] where something was recorded that lies on another device, and the device's errors.
    pub fn finish(mut self) -> Result<Program> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let parameters = match self.parameters.as_slice() {
            [] => None,
            bytes => Some(uniform_buffer(self.gpu, bytes)?),
        };
        self.exclusive.sort_by_key(|exclusive| Arc::as_ptr(exclusive) as usize);
        Ok(Program {
            gpu: self.gpu.clone(),
            commands: self.commands,
            parameters,
            once: OnceLock::new(),
            flops: self.flops,
            dispatches: self.dispatches,
            exclusive: self.exclusive,
            preparations: self.preparations,
            _held: self.held,
        })
    }

    /// Ends the recording and runs it once.
    ///
    /// # Errors
    /// As [`Recorder::finish`] and [`Program::run`].
    pub fn run(self) -> Result<()> {
        self.finish()?.run()
    }
}

fn uniform_buffer(gpu: &Gpu, bytes: &[u8]) -> Result<wgpu::Buffer> {
    gpu.scoped("making a parameter buffer", || {
        let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        gpu.queue().write_buffer(&buffer, 0, bytes);
        buffer
    })
}

/// Steps whose parameters one uniform buffer holds.
fn most_steps(gpu: &Gpu) -> usize {
    (gpu.limits().max_buffer_size.min(16 << 20) / SLOT) as usize
}

/// A program in the course of a run.
#[derive(Clone, Copy)]
pub(super) struct Frame<'p> {
    program: &'p Program,
    steps: &'p Steps,
    step: usize,
    command: usize,
    /// Dispatches of this step so far.
    slot: u32,
}

impl<'p> Frame<'p> {
    fn new(program: &'p Program, steps: &'p Steps) -> Frame<'p> {
        Frame { program, steps, step: 0, command: 0, slot: 0 }
    }
}

impl Program {
    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Floating-point operations of the matrix products in one replay.
    pub fn flops(&self) -> f64 {
        self.flops
    }

    /// The number of dispatches in one replay.
    pub fn dispatches(&self) -> usize {
        self.dispatches
    }

    /// Binds the parameters of dispatches and `steps`.
    fn steps<S: bytemuck::Pod>(&self, steps: &[S]) -> Result<Steps> {
        assert!(size_of::<S>() <= SLOT as usize, "a step of {} bytes, {SLOT} fit", size_of::<S>());
        let Some(parameters) = &self.parameters else {
            return Ok(Steps { count: steps.len(), uniforms: None });
        };
        let mut ring = vec![0; steps.len() * SLOT as usize];
        for (slot, step) in ring.chunks_exact_mut(SLOT as usize).zip(steps) {
            slot[..size_of::<S>()].copy_from_slice(bytemuck::bytes_of(step));
        }
        let gpu = &self.gpu;
        let ring = uniform_buffer(gpu, &ring)?;
        let uniforms = gpu.scoped("binding parameters", || {
            let entry = |binding, buffer| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset: 0,
                    size: std::num::NonZeroU64::new(SLOT),
                }),
            };
            gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("parameters"),
                layout: &gpu.inner.uniform_layout,
                entries: &[entry(0, parameters), entry(1, &ring)],
            })
        })?;
        Ok(Steps { count: steps.len(), uniforms: Some(uniforms) })
    }

    /// Replays the program once, with a step of zeros; does not wait for the end.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`] or [`Error::Device`] where the device fails.
    pub fn run(&self) -> Result<()> {
        self.submit().map(drop)
    }

    /// [`Program::run`], with the right to read what it leaves in buffers that it shares with others.
    pub(crate) fn submit(&self) -> Result<Submitted<'_>> {
        let submitted = self.begin()?;
        self.submit_all(self.once()?)?;
        Ok(submitted)
    }

    /// [`Program::run_steps`] after `before`, which may write to buffers that the program shares with others, and with the
    /// right to read from them.
    pub(crate) fn submit_steps<S: bytemuck::Pod>(
        &self,
        steps: &[S],
        before: impl FnOnce() -> Result<()>,
    ) -> Result<Submitted<'_>> {
        let submitted = self.begin()?;
        before()?;
        steps.chunks(most_steps(&self.gpu)).try_for_each(|chunk| self.submit_all(&self.steps(chunk)?))?;
        Ok(submitted)
    }

    /// One step of zeros.
    fn once(&self) -> Result<&Steps> {
        if let Some(steps) = self.once.get() {
            return Ok(steps);
        }
        let steps = self.steps(&[[0u8; SLOT as usize]])?;
        Ok(self.once.get_or_init(|| steps))
    }

    /// One run of the program, at its beginning.
    pub(super) fn frames(&self) -> Result<Vec<Frame<'_>>> {
        Ok(vec![Frame::new(self, self.once()?)])
    }

    /// Replays the program once per step, in submissions of bounded time; does not wait for the end.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_steps<S: bytemuck::Pod>(&self, steps: &[S]) -> Result<()> {
        self.submit_steps(steps, || Ok(())).map(drop)
    }

    /// Brings up to date what the program depends on, and takes what it uses alone.
    pub(super) fn begin(&self) -> Result<Submitted<'_>> {
        self.preparations.iter().try_for_each(|preparation| preparation.prepare())?;
        let guards = self.exclusive.iter().map(|exclusive| exclusive.lock());
        Ok(Submitted { _guards: guards.map(|guard| guard.unwrap_or_else(PoisonError::into_inner)).collect() })
    }

    fn submit_all(&self, steps: &Steps) -> Result<()> {
        let gpu = &self.gpu;
        let mut frames = vec![Frame::new(self, steps)];
        let mut in_flight: Option<(wgpu::SubmissionIndex, f64, f64, Instant)> = None;
        while !frames.is_empty() && !self.commands.is_empty() {
            let allowed = gpu.pace().rate * Pace::SUBMISSION;
            let started = Instant::now();
            let (submission, work) = gpu.scoped("submitting work", || {
                let mut encoder = gpu.device().create_command_encoder(&Default::default());
                let work = encode(&mut encoder, &mut frames, allowed);
                (gpu.queue().submit([encoder.finish()]), work)
            })?;
            // one submission runs while the next is encoded; the one before has to be done
            if let Some((before, done, allowed, since)) =
                in_flight.replace((submission, work, allowed, started))
            {
                gpu.wait_for(Some(before), "running submitted work")?;
                let seconds = since.elapsed().as_secs_f64();
                if done > 0.5 * allowed && seconds > 1e-3 {
                    let mut pace = gpu.pace();
                    pace.rate = (done / seconds).clamp(0.5 * pace.rate, 2.0 * pace.rate);
                }
            }
        }
        Ok(())
    }
}

/// Encodes what comes next, until all programs have ended or `allowed` work is reached; returns the work done.
fn encode(encoder: &mut wgpu::CommandEncoder, frames: &mut Vec<Frame<'_>>, allowed: f64) -> f64 {
    let mut done = 0.0;
    let mut passes = Passes { pass: None, last: None };
    while done < allowed {
        let Some((frame, command)) = next(frames) else { break };
        done += passes.encode(encoder, &frame, command);
    }
    done
}

/// Encodes the next command alone; returns it, `None` where all programs have ended.
pub(super) fn encode_one<'p>(
    encoder: &mut wgpu::CommandEncoder,
    frames: &mut Vec<Frame<'p>>,
) -> Option<&'p Command> {
    let (frame, command) = next(frames)?;
    Passes { pass: None, last: None }.encode(encoder, &frame, command);
    Some(command)
}

/// The command that comes next, replays entered, and the program's frame at it.
fn next<'p>(frames: &mut Vec<Frame<'p>>) -> Option<(Frame<'p>, &'p Command)> {
    loop {
        let frame = frames.last_mut()?;
        if frame.step == frame.steps.count {
            frames.pop();
            continue;
        }
        let Some(command) = frame.program.commands.get(frame.command) else {
            (frame.step, frame.command, frame.slot) = (frame.step + 1, 0, 0);
            continue;
        };
        let at = *frame;
        frame.command += 1;
        match command {
            Command::Replay { program, steps } => {
                let steps = steps.as_ref().or_else(|| program.once.get());
                frames.push(Frame::new(program, steps.expect("made when the replay was recorded")));
            }
            Command::Dispatch { .. } => {
                frame.slot += 1;
                return Some((at, command));
            }
            Command::Clear { .. } | Command::Copy { .. } => return Some((at, command)),
        }
    }
}

/// What has been encoded last: dispatches that follow each other share a pass.
struct Passes {
    pass: Option<wgpu::ComputePass<'static>>,
    last: Option<Arc<Kernel>>,
}

impl Passes {
    /// Encodes a command of a program at `frame`; returns its work.
    fn encode(&mut self, encoder: &mut wgpu::CommandEncoder, frame: &Frame<'_>, command: &Command) -> f64 {
        match command {
            Command::Replay { .. } => unreachable!("replays are entered"),
            Command::Clear { view } => {
                self.pass = None;
                encoder.clear_buffer(view.buffer.handle(), view.byte_offset(), Some(view.byte_len()));
                Pace::DISPATCH + view.len() as f64
            }
            Command::Copy { from, to } => {
                self.pass = None;
                encoder.copy_buffer_to_buffer(
                    from.buffer.handle(),
                    from.byte_offset(),
                    to.buffer.handle(),
                    to.byte_offset(),
                    from.byte_len(),
                );
                Pace::DISPATCH + from.len() as f64
            }
            Command::Dispatch { kernel, bind_group, groups, work } => {
                let last = &mut self.last;
                let pass = self.pass.get_or_insert_with(|| {
                    *last = None;
                    encoder.begin_compute_pass(&Default::default()).forget_lifetime()
                });
                if last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, kernel)) {
                    pass.set_pipeline(&kernel.pipeline);
                    *last = Some(kernel.clone());
                }
                pass.set_bind_group(0, &**bind_group, &[]);
                let offsets = [frame.slot * SLOT as u32, frame.step as u32 * SLOT as u32];
                pass.set_bind_group(1, frame.steps.uniforms.as_ref(), &offsets);
                pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
                Pace::DISPATCH + work
            }
        }
    }
}

impl Gpu {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.inner.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The floating-point operations that one dispatch may have, for it to end well within a watchdog. A
    /// software adapter has none.
    ///
    /// It depends on the adapter's class and not on the rate last seen: batches are cut by it, and with them
    /// the sums over samples, whose bits must not depend on how busy the machine was.
    pub(crate) fn dispatch_flops(&self) -> f64 {
        (Pace::first_rate(self.info().device_type) * Pace::SUBMISSION).max(2e10)
    }

    /// Copies `from` to `to` at once.
    pub fn copy(&self, from: &View, to: &View) -> Result<()> {
        let mut recorder = Recorder::new(self);
        recorder.copy(from, to);
        recorder.run()
    }

    /// A buffer of zeros.
    pub fn zeros(&self, words: usize) -> Result<Buffer> {
        let buffer = self.buffer(words)?;
        let mut recorder = Recorder::new(self);
        recorder.clear(&buffer.view());
        recorder.run()?;
        Ok(buffer)
    }
}
