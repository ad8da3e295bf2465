//! An operator whose products are timed.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::Result;
use crate::gpu::Gpu;
use crate::operators::{Block, SymmetricOperator};

/// Another operator, and the seconds that its products took. Each is waited for.
pub struct Timed<'a> {
    operator: &'a dyn SymmetricOperator,
    seconds: Mutex<f64>,
}

impl<'a> Timed<'a> {
    pub fn new(operator: &'a dyn SymmetricOperator) -> Timed<'a> {
        Timed { operator, seconds: Mutex::new(0.0) }
    }

    /// Seconds of all products so far.
    pub fn seconds(&self) -> f64 {
        *self.seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SymmetricOperator for Timed<'_> {
    fn gpu(&self) -> &Gpu {
        self.operator.gpu()
    }

    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn stride(&self) -> usize {
        self.operator.stride()
    }

    fn apply(&self, x: &Block, y: &Block) -> Result<()> {
        self.gpu().wait()?;
        let start = Instant::now();
        self.operator.apply(x, y)?;
        self.gpu().wait()?;
        *self.seconds.lock().unwrap_or_else(PoisonError::into_inner) += start.elapsed().as_secs_f64();
        Ok(())
    }

    fn leave_room(&self, bytes: u64) {
        self.operator.leave_room(bytes);
    }

    fn rounding(&self) -> Result<f64> {
        self.operator.rounding()
    }

    fn description(&self) -> Option<String> {
        self.operator.description()
    }

    fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
        self.operator.pad(flat)
    }

    fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
        self.operator.unpad(padded)
    }
}
