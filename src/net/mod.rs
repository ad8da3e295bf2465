//! Networks: the model file, its parameters, and the graph that the jet programs run on.

mod build;
mod check;
mod graph;
mod initialisation;
mod model;
mod network;
mod parse;
mod zoo;

pub use graph::{Bilinear, Constant, Graph, Kind, Linear, Node, Parameter, Tensor, TensorId, Term};
pub use initialisation::{Initialisation, Scheme};
pub use model::{FeedForwardActivation, Layer, Model, PositionalEncoding};
pub(crate) use network::check_whole;
pub use network::{Network, Part, Subspace};
pub use zoo::{ZOO, ZooEntry};

pub use crate::kernels::broadcast::Axes;
pub use crate::kernels::conv::Conv;
pub use crate::kernels::loss::Loss;
pub use crate::kernels::pointwise::{Function, Pointwise};
pub use crate::kernels::pool::Windows;
pub use crate::kernels::sequence::Heads;
