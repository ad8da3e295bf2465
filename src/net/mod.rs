//! Networks: the model file, its parameters, and the graph that the jet programs run on.

mod model;

pub use model::{Layer, Loss, Model};
