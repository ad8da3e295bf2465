//! What an adapter does when it is tried: drivers promise less than kernels need, and some keep less than they
//! promise.

use serde::Serialize;

use super::{Gpu, Recorder, Shader, Work};
use crate::{Error, Result};

/// The trial's kernel (`shaders/trial.wgsl`).
pub const SHADER: Shader = Shader {
    name: "trial",
    files: &[include_str!("../../shaders/functions.wgsl"), include_str!("../../shaders/trial.wgsl")],
};

/// What an adapter was seen to do when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// How often an invocation went round a loop, of the 70,000 times that it was asked to.
    pub loop_iterations: u32,
    /// Whether numbers below 2⁻¹²⁶ are kept. Kernels do well without.
    pub subnormals: bool,
    /// The largest relative errors of what kernels are made of, over 64 arguments each.
    pub errors: Errors,
}

/// Relative errors of an adapter's arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Errors {
    /// Of `1/x`.
    pub division: f64,
    /// Of `√x`.
    pub sqrt: f64,
    /// Of `1/√x`.
    pub inverse_sqrt: f64,
    /// `exp` as the kernels make it, of [−80, 80].
    pub exp: f64,
    /// `log(1 + x)` as the kernels make it, of x in [1e-6, 1e6].
    pub log1p: f64,
}

/// Iterations that are asked for: more than 65,535, at which Mesa's llvmpipe of version 22 ends loops.
const ASKED: u32 = 70_000;
/// The least iterations that kernels can be cut to.
const LEAST_ITERATIONS: u32 = 4_096;
/// The largest relative error that leaves results their promised accuracy: twice what WGSL allows of a division.
const LARGEST_ERROR: f64 = 6e-7;
/// Arguments of each function: a workgroup's, which leaves the smallest of bindings room.
const ARGUMENTS: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    iterations: u32,
    arguments: u32,
    tiny: f32,
    padding: u32,
}

impl Trial {
    /// Tries the adapter.
    pub(super) fn run(gpu: &Gpu) -> Result<Trial> {
        // arguments of each kind between their ends, evenly on a logarithmic scale but for the exponential's
        let share = |i: usize| i as f64 / (ARGUMENTS - 1) as f64;
        let between = |low: f64, high: f64, i| (low.ln() + (high / low).ln() * share(i)).exp() as f32;
        let arguments: [Vec<f32>; 3] = [
            (0..ARGUMENTS).map(|i| between(1e-30, 1e30, i)).collect(),
            (0..ARGUMENTS).map(|i| (160.0 * share(i) - 80.0) as f32).collect(),
            (0..ARGUMENTS).map(|i| between(1e-6, 1e6, i)).collect(),
        ];
        let x = gpu.upload(&arguments.concat())?;
        let y = gpu.buffer(2 + 5 * ARGUMENTS)?;
        let mut rec = Recorder::new(gpu);
        let kernel = gpu.kernel(SHADER, "trial", &[])?;
        let params =
            Params { iterations: ASKED, arguments: ARGUMENTS as u32, tiny: f32::MIN_POSITIVE, padding: 0 };
        let bindings = [("x", &x.view()), ("y", &y.view())];
        // no budget is known yet
        rec.dispatch(&kernel, &bindings, &params, [1, 1, 1], Work::new(1e6, 0))?;
        rec.run()?;
        let found: Vec<f32> = gpu.read(&y.slice(0, 2 + 5 * ARGUMENTS))?;
        let (first, rest) = found.split_at(2);
        let error = |number: usize, of: usize, exact: fn(f64) -> f64| {
            let found = &rest[number * ARGUMENTS..][..ARGUMENTS];
            let errors = std::iter::zip(&arguments[of], found).map(|(&x, &found)| {
                let exact = exact(x as f64);
                ((found as f64 - exact) / exact).abs()
            });
            // a NaN is the largest of all
            errors.fold(0.0, |most: f64, error| if error <= most { most } else { error })
        };
        Ok(Trial {
            loop_iterations: first[0].to_bits(),
            subnormals: first[1] != 0.0,
            errors: Errors {
                division: error(0, 0, |x| 1.0 / x),
                sqrt: error(1, 0, f64::sqrt),
                inverse_sqrt: error(2, 0, |x| 1.0 / x.sqrt()),
                exp: error(3, 1, f64::exp),
                log1p: error(4, 2, f64::ln_1p),
            },
        })
    }

    /// Iterations that an invocation's loops may make together; `usize::MAX` where none of those asked for were
    /// missing.
    pub(super) fn loop_budget(&self) -> usize {
        match self.loop_iterations {
            ASKED => usize::MAX,
            // what was seen is one loop's: its last test may or may not be counted
            seen => seen as usize - 1,
        }
    }

    /// Refuses an adapter that no kernel can be trusted on.
    pub(super) fn check(&self, adapter: &str) -> Result<()> {
        let refuse = |problem: String| {
            let expected = "install a newer driver, or take another adapter".into();
            Err(Error::Unfit { adapter: adapter.into(), problem, remedy: expected })
        };
        if self.loop_iterations < LEAST_ITERATIONS {
            let seen = self.loop_iterations;
            return refuse(format!(
                "ends loops after {seen} iterations, at least {LEAST_ITERATIONS} are needed"
            ));
        }
        let Errors { division, sqrt, inverse_sqrt, exp, log1p } = self.errors;
        let of = [
            ("a division", division),
            ("sqrt", sqrt),
            ("inverseSqrt", inverse_sqrt),
            ("exp", exp),
            ("log(1 + x)", log1p),
        ];
        match of.into_iter().find(|(_, error)| error.is_nan() || *error > LARGEST_ERROR) {
            None => Ok(()),
            Some((what, error)) => refuse(format!(
                "the relative error of {what} is {error:.1e}, at most {LARGEST_ERROR:.0e} is expected"
            )),
        }
    }

    /// What falls short of WGSL's promises or of other adapters and is worked around, in a sentence; `None` where
    /// nothing does.
    pub fn shortcoming(&self) -> Option<String> {
        let seen = self.loop_iterations;
        (seen < ASKED).then(|| format!("ends loops after {seen} iterations; longer ones are cut"))
    }
}
