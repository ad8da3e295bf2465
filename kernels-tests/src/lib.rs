//! What the tests of `curvkit` compare with, in f64 and in plain Rust, sharing no code with the engine:
//!
//! | module | holds |
//! |---|---|
//! | [`reference`](mod@reference) | losses and derivatives of whole networks, by dual numbers |
//! | [`twins`] | one function a kernel |
//! | [`cases`] | the networks that the tests run over, and the measure of agreement |
//! | [`prescribed`] | operators of prescribed spectrum |
//! | [`spectra`] | such spectra, and what is claimed of eigenpairs |
//! | [`engine`] | every quantity of a network against the reference |
//! | [`device`] | the device that a test binary's tests share |
//! | [`zoo`] | samples for any network of the zoo |
//! | [`tensors`] | a tensor of each direction, with poison between |

pub mod cases;
pub mod device;
pub mod engine;
pub mod prescribed;
pub mod reference;
pub mod spectra;
pub mod tensors;
pub mod twins;
pub mod zoo;

/// f32 or f64: what a twin accepts, computing in f64 whatever comes.
pub trait Real: Copy + Into<f64> {}

impl<T: Copy + Into<f64>> Real for T {}

/// `x` in f64.
pub fn f64s(x: &[impl Real]) -> Vec<f64> {
    x.iter().map(|&x| x.into()).collect()
}
