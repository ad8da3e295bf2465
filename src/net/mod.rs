//! Networks: the model file, its parameters, and the graph that the jet programs run on.

mod build;
mod graph;
mod model;
mod network;

pub use graph::{Bilinear, Constant, Graph, Kind, Linear, Node, Parameter, Tensor, TensorId, Term};
pub use model::{FeedForwardActivation, Layer, Loss, Model, PositionalEncoding};
pub use network::{Network, Part, Subspace};
