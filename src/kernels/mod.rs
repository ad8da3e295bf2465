//! One module per WGSL file: typed arguments, shapes checked, dispatch.
//!
//! Every function records onto a [`crate::gpu::Recorder`]. Lengths are asserted: a wrong one is a mistake
//! of the caller's within this crate, not of the user's input.

/// Numbers that Rust and WGSL share, from one list: constants of both, those of WGSL as the text `$wgsl`.
macro_rules! shared {
    ($wgsl:ident: $($name:ident = $number:literal),+ $(,)?) => {
        $(const $name: u32 = $number;)+
        const $wgsl: &str = concat!(
            "// numbers that Rust and WGSL share\n",
            $("const ", stringify!($name), " = ", $number, "u;\n"),+
        );
    };
}

pub mod block;
pub mod broadcast;
pub mod conv;
pub mod gather;
pub mod gemm;
pub mod jacobi;
pub mod loss;
pub mod pack;
pub mod pointwise;
pub mod pool;
pub mod sequence;
pub mod sgd;
pub(crate) mod timings;
pub mod vector;

use crate::gpu::Gpu;
#[cfg(feature = "unstable")]
use crate::gpu::Shader;

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
    /// SGD's η.
    pub learning_rate: f32,
    /// SGD's momentum, from 0 to below 1.
    pub momentum: f32,
    /// SGD's weight decay: the gradient of ½ λ ‖θ‖² is added.
    pub weight_decay: f32,
}

/// How a kernel writes what it makes: `y ← c · made`, or `y ← y + c · made` where it adds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Write {
    /// The factor of what is made.
    pub c: f32,
    /// Whether what stands there stays, and what is made is added.
    pub add: bool,
}

impl Write {
    /// `y ← made`
    pub const NEW: Write = Write { c: 1.0, add: false };
}

const COMMON: &str = include_str!("../../shaders/common.wgsl");
const TILE: &str = include_str!("../../shaders/tile.wgsl");
const FUNCTIONS: &str = include_str!("../../shaders/functions.wgsl");

/// The name of the memory that a split sum's parts, and whatever else only the next few dispatches read, lie in.
const PARTS: &str = "parts";

/// Words of memory that a split sum's parts may take at a time, and as many a product's copied operands: a quarter of what [`crate::jets::sweep::choose_extent`] leaves to
/// kernels.
fn scratch_words(gpu: &Gpu) -> usize {
    (gpu.memory_budget() as usize / 4 / 64).min(gpu.max_binding_len())
}

/// Every shader with its entry points, for the tests that validate and translate them all.
#[cfg(feature = "unstable")]
pub fn shaders() -> Vec<(Shader, &'static [&'static str])> {
    let mut all: Vec<(Shader, &'static [&'static str])> = vec![
        (block::SHADER, &["gram", "combine"]),
        (broadcast::SHADER, &["expand", "expand4", "reduce_many", "reduce_long"]),
        (gather::SHADER, &["gather"]),
        (jacobi::SHADER, &["eigen"]),
        (loss::SHADER, &["primal", "tangent", "centre", "noise_seed", "output_seed"]),
        (pack::SHADER, &["matrix", "square"]),
        (pointwise::SHADER, pointwise::ENTRIES),
        (
            pool::SHADER,
            &["average", "average_adjoint", "maximum", "maximum_adjoint", "maximum_adjoint_apart"],
        ),
        (
            sequence::SHADER,
            &["embed", "embed_links", "embed_adjoint", "heads", "heads_adjoint", "token_weight", "row_shift"],
        ),
        (sgd::SHADER, &["sgd"]),
        (vector::SHADER, &["combine", "add_outer", "units", "dot", "combine_each"]),
        (crate::gpu::TRIAL, &["trial"]),
    ];
    all.extend(conv::shaders());
    all.extend(gemm::shaders());
    all
}
