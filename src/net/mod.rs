//! Networks: the model file, its parameters, and the graph that the jet programs run on.

mod build;
mod graph;
mod initialisation;
mod model;
mod network;
mod parse;
mod zoo;

pub use graph::{Bilinear, Constant, Graph, Kind, Linear, Node, Parameter, Tensor, TensorId, Term};
pub use initialisation::{Initialisation, Scheme};
pub use model::{FeedForwardActivation, Layer, Loss, Model, PositionalEncoding};
pub use network::{Network, Part, Subspace};
pub use zoo::{ZOO, ZooEntry};
