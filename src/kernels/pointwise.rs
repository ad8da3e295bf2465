//! Pointwise maps, their jets and their adjoints' jets (`shaders/pointwise.wgsl`).

use std::sync::{Mutex, PoisonError};

use crate::gpu::{Recorder, Shader, View, Work, grid};
use crate::{Error, Result};

shared! {
    NUMBERS:
    RELU = 0, LEAKY_RELU = 1, TANH = 2, GELU = 3, EXP = 4, RECIPROCAL = 5, RECIPROCAL_SQRT = 6,
    HAS_X2 = 2, HAS_D1 = 8, HAS_D2 = 16,
}

const JETS: &str = include_str!("../../shaders/pointwise.wgsl");

/// The jets of the functions that the crate has.
pub const SHADER: Shader = Shader {
    name: "pointwise",
    files: &[super::COMMON, super::FUNCTIONS, NUMBERS, include_str!("../../shaders/sigma.wgsl"), JETS],
};

/// The entry points of [`SHADER`].
pub(super) const ENTRIES: &[&str] = &["jet0", "jet1", "jet2", "adjoint_block", "adjoint1", "adjoint2"];

/// A pointwise function of the caller's, given in WGSL: see [`Function::new`].
#[derive(Debug, PartialEq)]
pub struct Function {
    name: String,
    piecewise_linear: bool,
    shader: Shader,
}

impl Function {
    /// Makes a function of WGSL that defines `fn sigma(v: f32) -> vec4<f32>`, which returns `[σ, σ′, σ″, σ‴]` at v.
    /// `exponential` and what else `shaders/functions.wgsl` has may be called. Where it is `piecewise_linear`, σ″ and σ‴
    /// are taken to be 0 and not asked for.
    ///
    /// Functions last as long as the program does, as their kernels do; the same text gives the same function.
    ///
    /// # Errors
    /// [`Error::Argument`] with what is wrong with the WGSL.
    pub fn new(name: &str, wgsl: &str, piecewise_linear: bool) -> Result<&'static Function> {
        static MADE: Mutex<Vec<&'static Function>> = Mutex::new(Vec::new());

        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |function: &&&Function| {
            function.name == name
                && function.piecewise_linear == piecewise_linear
                && function.shader.files[SIGMA_FILE] == wgsl
        };
        if let Some(function) = made.iter().find(is_same) {
            return Ok(function);
        }
        let refused = |found: String| {
            Error::argument(format!("function {name}"), found, "fn sigma(v: f32) -> vec4<f32>")
        };
        let files = [super::COMMON, super::FUNCTIONS, NUMBERS, wgsl, JETS];
        crate::gpu::check_wgsl(&files.join("\n"), ENTRIES).map_err(refused)?;
        let text: &'static str = String::from(wgsl).leak();
        let files = vec![super::COMMON, super::FUNCTIONS, NUMBERS, text, JETS].leak();
        let shader = Shader { name: "pointwise", files };
        let function = Box::leak(Box::new(Function { name: name.into(), piecewise_linear, shader }));
        made.push(function);
        Ok(function)
    }

    /// The name that it was given.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Which of a pointwise shader's files defines `sigma`.
const SIGMA_FILE: usize = 3;

/// A map σ that acts on each element alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pointwise {
    /// `max(x, 0)`, with σ′(0) = 0
    Relu,
    /// `max(x, 0) + slope · min(x, 0)`, with σ′(0) = slope
    LeakyRelu {
        /// The slope below 0.
        slope: f32,
    },
    /// The hyperbolic tangent.
    Tanh,
    /// `x Φ(x)`
    Gelu,
    /// The exponential.
    Exp,
    /// `1 / x`
    Reciprocal,
    /// `1 / √(x + shift)`
    ReciprocalSqrt {
        /// Added to x.
        shift: f32,
    },
    /// A function of the caller's.
    Custom(&'static Function),
}

impl Pointwise {
    /// Whether σ″ vanishes wherever it exists.
    pub fn is_piecewise_linear(self) -> bool {
        match self {
            Pointwise::Relu | Pointwise::LeakyRelu { .. } => true,
            Pointwise::Custom(function) => function.piecewise_linear,
            _ => false,
        }
    }

    fn shader(self) -> Shader {
        match self {
            Pointwise::Custom(function) => function.shader,
            _ => SHADER,
        }
    }

    fn constants(self) -> Vec<(&'static str, u32)> {
        let code = match self {
            Pointwise::Relu => RELU,
            Pointwise::LeakyRelu { .. } => LEAKY_RELU,
            Pointwise::Tanh => TANH,
            Pointwise::Gelu => GELU,
            Pointwise::Exp => EXP,
            Pointwise::Reciprocal => RECIPROCAL,
            Pointwise::ReciprocalSqrt { .. } => RECIPROCAL_SQRT,
            Pointwise::Custom(_) => return vec![],
        };
        vec![("SIGMA", code)]
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
    let kernel = |rec: &Recorder, entry| rec.gpu().kernel(sigma.shader(), entry, &sigma.constants());
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
    let kernel = rec.gpu().kernel(sigma.shader(), "adjoint_block", &sigma.constants())?;
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
    let kernel = rec.gpu().kernel(sigma.shader(), "adjoint1", &sigma.constants())?;
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
    let kernel = rec.gpu().kernel(sigma.shader(), "adjoint2", &sigma.constants())?;
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
