//! What each command of a program takes.

use std::time::Instant;

use super::record::{Command, encode_one};
use super::{Gpu, Program};
use crate::Result;

/// One command of a program, and the time that it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// The kernel's name, or "clear" or "copy".
    pub kernel: String,
    /// Workgroups; zeros of what is no dispatch.
    pub groups: [u32; 3],
    /// Floating-point operations and words moved, as submissions are paced by.
    pub operations: f64,
    /// Seconds by the wall clock, what an empty submission takes not counted.
    pub seconds: f64,
}

impl Program {
    /// Runs the program once, each command in a submission of its own that is waited for, and returns what each took, in
    /// order.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn profile(&self) -> Result<Vec<Taken>> {
        let _submitted = self.begin()?;
        let gpu = self.gpu();
        let empty = (0..20).map(|_| timed(gpu, |_| ())).collect::<Result<Vec<f64>>>()?;
        let empty = empty.into_iter().fold(f64::INFINITY, f64::min);
        let mut frames = self.frames()?;
        let mut all = Vec::new();
        loop {
            let mut command = None;
            let seconds = timed(gpu, |encoder| command = encode_one(encoder, &mut frames))?;
            let Some(command) = command else { return Ok(all) };
            let (kernel, groups, operations) = match command {
                Command::Dispatch { kernel, groups, work, .. } => (kernel.name.clone(), *groups, *work),
                Command::Clear { view } => ("clear".into(), [0; 3], view.len() as f64),
                Command::Copy { from, .. } => ("copy".into(), [0; 3], from.len() as f64),
                Command::Replay { .. } => unreachable!("replays are entered"),
            };
            all.push(Taken { kernel, groups, operations, seconds: (seconds - empty).max(0.0) });
        }
    }
}

/// Seconds of a submission, with those of its encoding.
fn timed(gpu: &Gpu, encode: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<f64> {
    let start = Instant::now();
    gpu.scoped("submitting work", || {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        encode(&mut encoder);
        gpu.queue().submit([encoder.finish()]);
    })?;
    gpu.wait()?;
    Ok(start.elapsed().as_secs_f64())
}
