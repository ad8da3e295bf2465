//! Per-sample losses and their jets (`shaders/loss.wgsl`).

use serde::{Deserialize, Serialize};

use crate::gpu::{Recorder, Shader, View, Work, grid};
use crate::{Error, Result};

shared! { LOSSES: CROSS_ENTROPY = 0, MSE = 1, SOFTMAX_MSE = 2, SQUARED_ERROR = 3 }

/// The WGSL, for the tests that validate every shader.
pub const SHADER: Shader = Shader {
    name: "loss",
    files: &[super::COMMON, super::FUNCTIONS, LOSSES, include_str!("../../shaders/loss.wgsl")],
};

/// The per-sample loss ℓ(f, y) of the outputs `f [L]`; the loss is its mean over the N samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// `log Σ exp f − f_y`
    CrossEntropy,
    /// `(1/L) Σ (f − y)²`
    Mse,
    /// `(1/L) Σ (softmax f − y)²`
    SoftmaxMse,
    /// `½ Σ (f − y)²`
    SquaredError,
}

impl Loss {
    /// Every loss.
    pub const ALL: [Loss; 4] = [Loss::CrossEntropy, Loss::Mse, Loss::SoftmaxMse, Loss::SquaredError];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Loss::CrossEntropy => "cross-entropy",
            Loss::Mse => "mse",
            Loss::SoftmaxMse => "softmax-mse",
            Loss::SquaredError => "squared-error",
        }
    }
}

impl std::str::FromStr for Loss {
    type Err = Error;

    fn from_str(name: &str) -> Result<Loss> {
        Loss::ALL
            .into_iter()
            .find(|loss| loss.name() == name)
            .ok_or_else(|| Error::argument("loss", format!("“{name}”"), Loss::ALL.map(Loss::name).join(", ")))
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What the loss compares with, and where per-sample results go.
#[derive(Clone)]
pub struct Targets {
    /// Which loss.
    pub loss: Loss,
    /// Sample indices, u32.
    pub indices: View,
    /// Classes `[samples]` u32, or values `[samples, L]` f32.
    pub targets: View,
    /// Whether the targets are classes.
    pub classes: bool,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    outputs: u32,
    directions: u32,
    order: u32,
    has_z2: u32,
    slope_stride: u32,
}

impl Targets {
    fn constants(&self) -> [(&'static str, u32); 2] {
        let code = match self.loss {
            Loss::CrossEntropy => CROSS_ENTROPY,
            Loss::Mse => MSE,
            Loss::SoftmaxMse => SOFTMAX_MSE,
            Loss::SquaredError => SQUARED_ERROR,
        };
        [("LOSS", code), ("CLASSES", self.classes as u32)]
    }

    /// Iterations of `loops` loops over the outputs, one more for each time that the target's residual is asked for.
    fn iterations(&self, outputs: usize, loops: usize, residuals: usize) -> usize {
        (loops + if self.classes { residuals } else { 0 }) * (outputs + 1)
    }
}

/// Losses ℓ, whether each sample's largest output is its target's, and the adjoint `g = w ∇ℓ`.
///
/// `z`, `g`: `[N, L]`. `losses`, `correct`: indexed by `step.first + n`.
pub fn primal(
    rec: &mut Recorder,
    to: &Targets,
    (rows, outputs): (usize, usize),
    z: &View,
    (losses, correct): (&View, &View),
    g: &View,
) -> Result<()> {
    let params = Params {
        rows: rows as u32,
        outputs: outputs as u32,
        directions: 0,
        order: 0,
        has_z2: 0,
        slope_stride: 0,
    };
    let kernel = rec.gpu().kernel(SHADER, "primal", &to.constants())?;
    let bindings = [
        ("z", z),
        ("indices", &to.indices),
        ("targets", &to.targets),
        ("losses", losses),
        ("correct", correct),
        ("g", g),
    ];
    // softmax two, the target's largest entry, and those of the loss
    let iterations = match to.loss {
        Loss::CrossEntropy => to.iterations(outputs, 4, 1),
        Loss::SoftmaxMse => to.iterations(outputs, 5, 3),
        Loss::Mse | Loss::SquaredError => to.iterations(outputs, 4, 0),
    };
    let work = Work::new((20 * rows * outputs) as f64, iterations);
    rec.dispatch(&kernel, &bindings, &params, grid(rows, 64), work)
}

/// Slopes `ℓ1 = ∇ℓ·z1`, the adjoint's first order `g1 = w ∇²ℓ z1` and, where `second` is given, its second
/// order `g2 = w (∇²ℓ z2 + ∇³ℓ[z1, z1])`, for K directions.
///
/// `z`: `[N, L]`. `z1`, `g1` and `second = (z2 or zero, g2)`: `[K, N, L]`. `slopes`: K rows of
/// `slope_stride` words, indexed by `step.first + n`. `spare` is bound in the place of an absent output.
pub fn tangent(
    rec: &mut Recorder,
    to: &Targets,
    (rows, outputs, directions): (usize, usize, usize),
    (z, z1): (&View, &View),
    (slopes, slope_stride): (&View, usize),
    (g1, spare): (&View, &View),
    second: Option<(Option<&View>, &View)>,
) -> Result<()> {
    let z2 = second.and_then(|(z2, _)| z2);
    let params = Params {
        rows: rows as u32,
        outputs: outputs as u32,
        directions: directions as u32,
        order: 1 + second.is_some() as u32,
        has_z2: z2.is_some() as u32,
        slope_stride: slope_stride as u32,
    };
    let kernel = rec.gpu().kernel(SHADER, "tangent", &to.constants())?;
    let bindings = [
        ("z", z),
        ("indices", &to.indices),
        ("targets", &to.targets),
        ("z1", z1),
        ("z2", z2.unwrap_or(z1)),
        ("slopes", slopes),
        ("g1", g1),
        ("g2", second.map_or(spare, |(_, g2)| g2)),
    ];
    let iterations = match to.loss {
        Loss::CrossEntropy => to.iterations(outputs, 5, 2),
        Loss::SoftmaxMse => to.iterations(outputs, 6, 4),
        Loss::Mse | Loss::SquaredError => to.iterations(outputs, 1, 0),
    };
    let work = Work::new(40.0 * (rows * outputs * directions) as f64, iterations);
    rec.dispatch(&kernel, &bindings, &params, grid(rows * directions, 64), work)
}

/// Centres slopes: `ℓ1[k, n] ← ℓ1[k, n] − c[k]`, for the samples of the step.
///
/// `slopes`: K rows of `slope_stride` words, indexed by `step.first + n`. `centre`: `[K]`.
pub fn centre(
    rec: &mut Recorder,
    (rows, directions): (usize, usize),
    centre: &View,
    (slopes, slope_stride): (&View, usize),
) -> Result<()> {
    let params = Params {
        rows: rows as u32,
        outputs: 1,
        directions: directions as u32,
        order: 1,
        has_z2: 0,
        slope_stride: slope_stride as u32,
    };
    let kernel = rec.gpu().kernel(SHADER, "centre", &[])?;
    let bindings = [("centres", centre), ("slopes", slopes)];
    let items = rows * directions;
    rec.dispatch(&kernel, &bindings, &params, grid(items, 64), Work::new(3.0 * items as f64, 0))
}

/// Seeds of `(1/N) Σ JᵀJ`: `g1[k, n] = w[n] z1[k, n]` with the step's weights w, 0 in rows without a sample.
///
/// `z1`, `g1`: `[K, N, L]`.
pub fn output_seed(
    rec: &mut Recorder,
    (rows, outputs, directions): (usize, usize, usize),
    z1: &View,
    g1: &View,
) -> Result<()> {
    let params = Params {
        rows: rows as u32,
        outputs: outputs as u32,
        directions: directions as u32,
        order: 1,
        has_z2: 0,
        slope_stride: 0,
    };
    let kernel = rec.gpu().kernel(SHADER, "output_seed", &[])?;
    let items = rows * outputs * directions;
    rec.dispatch(
        &kernel,
        &[("z1", z1), ("g1", g1)],
        &params,
        grid(items, 64),
        Work::new(2.0 * items as f64, 0),
    )
}

/// Seeds of a noise covariance: `g1[k, n] = ℓ1[k, n] g[n]`.
///
/// `g`: `[N, L]`. `g1`: `[K, N, L]`. `slopes` as in [`centre`].
pub fn noise_seed(
    rec: &mut Recorder,
    (rows, outputs, directions): (usize, usize, usize),
    (slopes, slope_stride): (&View, usize),
    g: &View,
    g1: &View,
) -> Result<()> {
    let params = Params {
        rows: rows as u32,
        outputs: outputs as u32,
        directions: directions as u32,
        order: 1,
        has_z2: 0,
        slope_stride: slope_stride as u32,
    };
    let kernel = rec.gpu().kernel(SHADER, "noise_seed", &[])?;
    let bindings = [("slopes_in", slopes), ("g_in", g), ("g1", g1)];
    let items = rows * outputs * directions;
    rec.dispatch(&kernel, &bindings, &params, grid(items, 64), Work::new(3.0 * items as f64, 0))
}
