//! Recording: a step is a list of dispatches, recorded once and replayed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::pipeline::SLOT;
use super::{Buffer, Gpu, Kernel, View};
use crate::{Error, Result};

/// What changes from one replay of a program to the next; the kernels that use it read it as `step`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Step {
    /// Where this step's samples start in the list of sample indices.
    pub first: u32,
    /// How many samples it has; the rest of the batch's rows weigh nothing.
    pub count: u32,
    /// The weight of each sample in sums over samples.
    pub weight: f32,
    pub learning_rate: f32,
    pub momentum: f32,
    pub weight_decay: f32,
    pub padding: [u32; 2],
}

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

/// A kernel's name, and buffer, byte offset and words of each binding.
type BindGroupKey = (String, Vec<(wgpu::Buffer, u64, usize)>);

/// Collects dispatches, clears and copies.
pub struct Recorder<'g> {
    gpu: &'g Gpu,
    commands: Vec<Command>,
    parameters: Vec<u8>,
    bind_groups: HashMap<BindGroupKey, Arc<wgpu::BindGroup>>,
    flops: f64,
    held: Vec<Buffer>,
    scratch: Option<Buffer>,
}

enum Command {
    Dispatch { kernel: Arc<Kernel>, bind_group: Arc<wgpu::BindGroup>, groups: [u32; 3], work: f64 },
    Clear { view: View },
    Copy { from: View, to: View },
}

/// Recorded dispatches, to be replayed.
pub struct Program {
    gpu: Gpu,
    commands: Vec<Command>,
    parameters: Option<wgpu::Buffer>,
    flops: f64,
    /// What the commands read and write: none of it goes back to the pool before the program does.
    _held: Vec<Buffer>,
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
    pub fn new(gpu: &'g Gpu) -> Recorder<'g> {
        Recorder {
            gpu,
            commands: Vec::new(),
            parameters: Vec::new(),
            bind_groups: HashMap::new(),
            flops: 0.0,
            held: Vec::new(),
            scratch: None,
        }
    }

    /// Counts floating-point operations of matrix products, by which benchmarks judge a program.
    pub(crate) fn count_flops(&mut self, flops: f64) {
        self.flops += flops;
    }

    pub fn gpu(&self) -> &'g Gpu {
        self.gpu
    }

    /// The number of dispatches so far.
    pub fn dispatches(&self) -> usize {
        self.commands.iter().filter(|c| matches!(c, Command::Dispatch { .. })).count()
    }

    /// `words` of memory for what one dispatch leaves for the next: those recorded later use it again.
    pub fn scratch(&mut self, words: usize) -> Result<View> {
        let buffer = match self.scratch.take() {
            Some(buffer) if buffer.view().len() >= words => buffer,
            _ => self.gpu.buffer(words)?,
        };
        self.scratch = Some(buffer.clone());
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
            kernel.name.clone(),
            views.iter().map(|v| (v.raw().clone(), v.byte_offset(), v.len())).collect::<Vec<_>>(),
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
        self.parameters.extend_from_slice(bytes);
        self.parameters.resize(self.parameters.len().next_multiple_of(SLOT as usize), 0);
        self.commands.push(Command::Dispatch {
            kernel: kernel.clone(),
            bind_group,
            groups,
            work: work.operations,
        });
        Ok(())
    }

    fn hold(&mut self, buffer: &Buffer) {
        if !self.held.iter().any(|held| held.is(buffer)) {
            self.held.push(buffer.clone());
        }
    }

    /// Records zeros into `view`.
    pub fn clear(&mut self, view: &View) {
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
        if !from.is_empty() {
            self.commands.push(Command::Copy { from: from.clone(), to: to.clone() });
        }
    }

    /// Ends the recording.
    pub fn finish(self) -> Result<Program> {
        let parameters = match self.parameters.as_slice() {
            [] => None,
            bytes => Some(uniform_buffer(self.gpu, bytes)?),
        };
        Ok(Program {
            gpu: self.gpu.clone(),
            commands: self.commands,
            parameters,
            flops: self.flops,
            _held: self.held,
        })
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

impl Program {
    /// Floating-point operations of the matrix products in one replay.
    pub fn flops(&self) -> f64 {
        self.flops
    }

    /// The number of dispatches in one replay.
    pub fn dispatches(&self) -> usize {
        self.commands.iter().filter(|c| matches!(c, Command::Dispatch { .. })).count()
    }

    /// Replays the program once, with no step parameters.
    pub fn run(&self) -> Result<()> {
        self.run_steps(&[Step::default()])
    }

    /// Replays the program once per step, in submissions of bounded time; does not wait for the end.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`], [`crate::Error::DeviceLost`] or [`crate::Error::Device`] where the
    /// device fails.
    pub fn run_steps(&self, steps: &[Step]) -> Result<()> {
        let gpu = &self.gpu;
        let Some(parameters) = &self.parameters else {
            return self.submit_all(steps.len(), None);
        };
        // the steps' parameters in one ring, as long as a uniform buffer may be
        let most = (gpu.limits().max_buffer_size.min(16 << 20) / SLOT) as usize;
        for steps in steps.chunks(most) {
            let mut ring = vec![0; steps.len() * SLOT as usize];
            for (slot, step) in ring.chunks_exact_mut(SLOT as usize).zip(steps) {
                slot[..size_of::<Step>()].copy_from_slice(bytemuck::bytes_of(step));
            }
            let ring = uniform_buffer(gpu, &ring)?;
            let group = gpu.scoped("binding parameters", || {
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
            self.submit_all(steps.len(), Some(&group))?;
        }
        Ok(())
    }

    fn submit_all(&self, steps: usize, uniforms: Option<&wgpu::BindGroup>) -> Result<()> {
        let gpu = &self.gpu;
        let mut pace = gpu.inner.pace.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut position = (0, 0); // step, command
        let mut slot = 0;
        let mut in_flight: Option<(wgpu::SubmissionIndex, f64, Instant)> = None;
        while position.0 < steps && !self.commands.is_empty() {
            let allowed = pace.rate * Pace::SUBMISSION;
            let started = Instant::now();
            let mut work = 0.0;
            let submission = gpu.scoped("submitting work", || {
                let mut encoder = gpu.device().create_command_encoder(&Default::default());
                while position.0 < steps && work < allowed {
                    work += self.encode(&mut encoder, &mut position, &mut slot, uniforms, allowed - work);
                    if position.1 == self.commands.len() {
                        position = (position.0 + 1, 0);
                        slot = 0;
                    }
                }
                gpu.queue().submit([encoder.finish()])
            })?;
            // one submission runs while the next is encoded; the one before has to be done
            if let Some((before, done, since)) = in_flight.replace((submission, work, started)) {
                gpu.wait_for(Some(before), "running submitted work")?;
                let seconds = since.elapsed().as_secs_f64();
                if done > 0.5 * allowed && seconds > 1e-3 {
                    pace.rate = (done / seconds).clamp(0.5 * pace.rate, 2.0 * pace.rate);
                }
            }
        }
        Ok(())
    }

    /// Encodes commands from `position` on, until the step ends or `allowed` work is reached; returns the
    /// work done.
    fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        position: &mut (usize, usize),
        slot: &mut u32,
        uniforms: Option<&wgpu::BindGroup>,
        allowed: f64,
    ) -> f64 {
        let mut done = 0.0;
        while position.1 < self.commands.len() && done < allowed {
            match &self.commands[position.1] {
                Command::Clear { view } => {
                    encoder.clear_buffer(view.raw(), view.byte_offset(), Some(view.byte_len()));
                    done += Pace::DISPATCH + view.len() as f64;
                    position.1 += 1;
                }
                Command::Copy { from, to } => {
                    let bytes = from.byte_len();
                    encoder.copy_buffer_to_buffer(
                        from.raw(),
                        from.byte_offset(),
                        to.raw(),
                        to.byte_offset(),
                        bytes,
                    );
                    done += Pace::DISPATCH + from.len() as f64;
                    position.1 += 1;
                }
                Command::Dispatch { .. } => {
                    let mut pass = encoder.begin_compute_pass(&Default::default());
                    let mut last: Option<&Arc<Kernel>> = None;
                    while let Some(Command::Dispatch { kernel, bind_group, groups, work }) =
                        self.commands.get(position.1)
                        && done < allowed
                    {
                        if last.is_none_or(|last| !Arc::ptr_eq(last, kernel)) {
                            pass.set_pipeline(&kernel.pipeline);
                            last = Some(kernel);
                        }
                        pass.set_bind_group(0, &**bind_group, &[]);
                        let offsets = [*slot * SLOT as u32, position.0 as u32 * SLOT as u32];
                        pass.set_bind_group(1, uniforms, &offsets);
                        pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
                        done += Pace::DISPATCH + work;
                        position.1 += 1;
                        *slot += 1;
                    }
                }
            }
        }
        done
    }
}

impl Gpu {
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
        recorder.finish()?.run()
    }

    /// A buffer of zeros.
    pub fn zeros(&self, words: usize) -> Result<Buffer> {
        let buffer = self.buffer(words)?;
        let mut recorder = Recorder::new(self);
        recorder.clear(&buffer.view());
        recorder.finish()?.run()?;
        Ok(buffer)
    }
}
