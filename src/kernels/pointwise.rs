//! Pointwise maps, their jets and their adjoints' jets (`shaders/pointwise.wgsl`).

use crate::Result;
use crate::gpu::{Recorder, Shader, View, Work, grid};

pub const SHADER: Shader = Shader {
    name: "pointwise",
    files: &[super::COMMON, super::FUNCTIONS, include_str!("../../shaders/pointwise.wgsl")],
};

/// A map σ that acts on each element alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pointwise {
    /// `max(x, 0)`, with σ′(0) = 0
    Relu,
    /// `max(x, 0) + slope · min(x, 0)`, with σ′(0) = slope
    LeakyRelu {
        slope: f32,
    },
    Tanh,
    /// `x Φ(x)`
    Gelu,
    Exp,
    /// `1 / x`
    Reciprocal,
    /// `1 / √(x + shift)`
    ReciprocalSqrt {
        shift: f32,
    },
}

impl Pointwise {
    /// Whether σ″ vanishes wherever it exists.
    pub fn is_piecewise_linear(self) -> bool {
        matches!(self, Pointwise::Relu | Pointwise::LeakyRelu { .. })
    }

    fn constants(self) -> [(&'static str, u32); 1] {
        let code = match self {
            Pointwise::Relu => 0,
            Pointwise::LeakyRelu { .. } => 1,
            Pointwise::Tanh => 2,
            Pointwise::Gelu => 3,
            Pointwise::Exp => 4,
            Pointwise::Reciprocal => 5,
            Pointwise::ReciprocalSqrt { .. } => 6,
        };
        [("SIGMA", code)]
    }

    /// The number that the shader calls `number`.
    fn number(self) -> f32 {
        match self {
            Pointwise::LeakyRelu { slope } => slope,
            Pointwise::ReciprocalSqrt { shift } => shift,
            _ => 0.0,
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    elements: u32,
    directions: u32,
    has: u32,
    add: u32,
    number: f32,
}

const HAS_X2: u32 = 2;
const HAS_D1: u32 = 8;
const HAS_D2: u32 = 16;

/// Words moved: so many of each element, and so many more of each direction, which an invocation goes through.
fn work(elements: usize, directions: usize, of_element: usize, of_direction: usize) -> Work {
    Work::new((elements * (of_element + of_direction * directions)) as f64, directions + 1)
}

/// `y = σ(x)` and its jet (Faà di Bruno) for K directions at once, to the order of the views given.
///
/// `x`, `y`: `[E]`. First and second orders: `[K, E]`; `x.2` may be absent where `y.2` is wanted.
pub fn jet(
    rec: &mut Recorder,
    sigma: Pointwise,
    (elements, directions): (usize, usize),
    (x, x1, x2): (&View, Option<&View>, Option<&View>),
    (y, y1, y2): (&View, Option<&View>, Option<&View>),
) -> Result<()> {
    let params = Params {
        elements: elements as u32,
        directions: directions as u32,
        has: if x2.is_some() { HAS_X2 } else { 0 },
        add: 0,
        number: sigma.number(),
    };
    let groups = grid(elements, 64);
    let kernel = |rec: &Recorder, entry| rec.gpu().kernel(SHADER, entry, &sigma.constants());
    match (x1, y1, y2) {
        (Some(x1), Some(y1), Some(y2)) => {
            let bindings = [("x", x), ("x1", x1), ("x2", x2.unwrap_or(x1)), ("y", y), ("y1", y1), ("y2", y2)];
            let kernel = kernel(rec, "jet2")?;
            rec.dispatch(&kernel, &bindings, &params, groups, work(elements, directions, 2, 6))
        }
        (Some(x1), Some(y1), None) => {
            let kernel = kernel(rec, "jet1")?;
            let bindings = [("x", x), ("x1", x1), ("y", y), ("y1", y1)];
            rec.dispatch(&kernel, &bindings, &params, groups, work(elements, directions, 2, 3))
        }
        _ => {
            let kernel = kernel(rec, "jet0")?;
            rec.dispatch(&kernel, &[("x", x), ("y", y)], &params, groups, work(elements, 0, 2, 0))
        }
    }
}

/// `g[k] (+)= σ′(x) ȳ[k]` for a block of K adjoints (K = 1: the plain adjoint).
///
/// `x`: `[E]`. `d` (ȳ), `g`: `[K, E]`.
pub fn adjoint_block(
    rec: &mut Recorder,
    sigma: Pointwise,
    (elements, directions): (usize, usize),
    x: &View,
    d: &View,
    g: &View,
    add: bool,
) -> Result<()> {
    let params = Params {
        elements: elements as u32,
        directions: directions as u32,
        has: 0,
        add: add as u32,
        number: sigma.number(),
    };
    let kernel = rec.gpu().kernel(SHADER, "adjoint_block", &sigma.constants())?;
    let bindings = [("x", x), ("d1", d), ("g1", g)];
    rec.dispatch(&kernel, &bindings, &params, grid(elements, 64), work(elements, directions, 1, 3))
}

/// First order of `g = σ′(x) ȳ`: `g1 (+)= σ′(x) ȳ1 + σ″(x) x1 ȳ`.
///
/// `x`, `d` (ȳ): `[E]`. `x1`, `d1` (ȳ1; zero if absent), `g1`: `[K, E]`.
pub fn adjoint1(
    rec: &mut Recorder,
    sigma: Pointwise,
    (elements, directions): (usize, usize),
    (x, x1): (&View, &View),
    (d, d1): (&View, Option<&View>),
    g1: &View,
    add: bool,
) -> Result<()> {
    let params = Params {
        elements: elements as u32,
        directions: directions as u32,
        has: if d1.is_some() { HAS_D1 } else { 0 },
        add: add as u32,
        number: sigma.number(),
    };
    let kernel = rec.gpu().kernel(SHADER, "adjoint1", &sigma.constants())?;
    let bindings = [("x", x), ("x1", x1), ("d", d), ("d1", d1.unwrap_or(x1)), ("g1", g1)];
    rec.dispatch(&kernel, &bindings, &params, grid(elements, 64), work(elements, directions, 2, 5))
}

/// Second order of `g = σ′(x) ȳ`: `g2 (+)= σ′ ȳ2 + 2 σ″ x1 ȳ1 + (σ″ x2 + σ‴ x1²) ȳ`.
///
/// `x`, `d` (ȳ): `[E]`. `x1`, `x2`, `d1`, `d2`, `g2`: `[K, E]`; what is absent is zero.
pub fn adjoint2(
    rec: &mut Recorder,
    sigma: Pointwise,
    (elements, directions): (usize, usize),
    (x, x1, x2): (&View, &View, Option<&View>),
    (d, d1, d2): (&View, Option<&View>, Option<&View>),
    g2: &View,
    add: bool,
) -> Result<()> {
    let flag = |view: Option<&View>, bit| if view.is_some() { bit } else { 0 };
    let params = Params {
        elements: elements as u32,
        directions: directions as u32,
        has: flag(x2, HAS_X2) | flag(d1, HAS_D1) | flag(d2, HAS_D2),
        add: add as u32,
        number: sigma.number(),
    };
    let kernel = rec.gpu().kernel(SHADER, "adjoint2", &sigma.constants())?;
    let bindings = [
        ("x", x),
        ("x1", x1),
        ("x2", x2.unwrap_or(x1)),
        ("d", d),
        ("d1", d1.unwrap_or(x1)),
        ("d2", d2.unwrap_or(x1)),
        ("g2", g2),
    ];
    rec.dispatch(&kernel, &bindings, &params, grid(elements, 64), work(elements, directions, 2, 8))
}
