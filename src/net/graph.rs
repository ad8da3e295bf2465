//! The graph: tensors, each defined as a sum of linear, bilinear and pointwise terms.

use super::model::{Layer, Model};
use crate::kernels::pointwise::Pointwise;
use crate::{Error, Result};

/// A tensor of the graph, by its position in [`Graph::tensors`].
pub type TensorId = usize;

/// What a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The samples: one row each, no tangent.
    Input,
    /// The parameter of that position in [`Graph::parameters`]; one for all samples.
    Parameter(usize),
    /// Made by a node; one row per sample.
    Activation,
}

/// A tensor's kind and its number of values (of one sample, unless it is a parameter).
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    pub kind: Kind,
    pub len: usize,
}

/// `y = A x`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linear {
    /// A vector over the rows of a matrix: `y[n, r, c] = x[c]`, `rows` a sample. The parameter is x.
    Broadcast { rows: usize, columns: usize },
}

/// `y = β(a, b)`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bilinear {
    /// `y[n, r, o] = Σ_i a[o, i] b[n, r, i]`, `rows` a sample. The parameter is a.
    Dense { rows: usize, ins: usize, outs: usize },
}

/// A summand of a tensor's definition.
#[derive(Clone, Copy, Debug)]
pub enum Term {
    Linear { map: Linear, x: TensorId },
    Bilinear { map: Bilinear, a: TensorId, b: TensorId },
    /// Always the only term of its node.
    Pointwise { sigma: Pointwise, x: TensorId },
}

/// A tensor's definition: the sum of its terms.
#[derive(Clone, Debug)]
pub struct Node {
    pub output: TensorId,
    pub terms: Vec<Term>,
}

/// A named parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// PyTorch's `state_dict` name.
    pub name: String,
    pub shape: Vec<usize>,
    /// Where it starts in the flat vector of all parameters.
    pub offset: usize,
    pub len: usize,
    /// Half the width of PyTorch's default uniform initialisation.
    pub initial_bound: f32,
    pub tensor: TensorId,
}

/// Tensors and their definitions in topological order.
#[derive(Clone, Debug)]
pub struct Graph {
    pub tensors: Vec<Tensor>,
    pub nodes: Vec<Node>,
    pub parameters: Vec<Parameter>,
    pub input: TensorId,
    pub output: TensorId,
}

impl Graph {
    /// The graph of a model.
    ///
    /// # Errors
    /// [`Error::Model`] naming the layer whose shapes do not fit.
    pub fn new(model: &Model) -> Result<Graph> {
        let mut builder = Builder::new(&model.input)?;
        for (index, layer) in model.layers.iter().enumerate() {
            builder
                .layer(&index.to_string(), layer)
                .map_err(|problem| Error::Model(format!("layer {index} ({}): {problem}", layer.name())))?;
        }
        let [outputs] = builder.shape[..] else {
            let shape = &builder.shape;
            return Err(Error::Model(format!(
                "the last layer's output has shape {shape:?}, expected one axis: add a flatten layer"
            )));
        };
        let Builder { graph, at, .. } = builder;
        if graph.nodes.is_empty() {
            return Err(Error::Model("found no layers that compute anything, expected at least one".into()));
        }
        debug_assert_eq!(graph.tensors[at].len, outputs);
        Ok(Graph { output: at, ..graph })
    }

    /// The node that defines tensor `id`, if one does.
    pub fn node(&self, id: TensorId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.output == id)
    }

    /// For each tensor, whether it depends on any of `sources`.
    pub fn depends_on(&self, sources: &[TensorId]) -> Vec<bool> {
        let mut depends = vec![false; self.tensors.len()];
        sources.iter().for_each(|&id| depends[id] = true);
        for node in &self.nodes {
            let any = node.terms.iter().any(|term| match *term {
                Term::Linear { x, .. } | Term::Pointwise { x, .. } => depends[x],
                Term::Bilinear { a, b, .. } => depends[a] || depends[b],
            });
            depends[node.output] |= any;
        }
        depends
    }
}

/// The number of values in a tensor of that shape, which the shaders' 32-bit indices have to reach.
fn size(shape: &[usize]) -> std::result::Result<usize, String> {
    let size = shape.iter().try_fold(1u32, |size, &axis| size.checked_mul(u32::try_from(axis).ok()?));
    match size {
        Some(size) if size > 0 => Ok(size as usize),
        _ => Err(format!("found shape {shape:?}, expected positive sizes and at most {} values", u32::MAX)),
    }
}

/// Appends layers to a graph; `at` is the tensor that the next layer takes, `shape` its shape.
struct Builder {
    graph: Graph,
    at: TensorId,
    shape: Vec<usize>,
}

impl Builder {
    fn new(input: &[usize]) -> Result<Builder> {
        let len = size(input).map_err(|problem| Error::Model(format!("input: {problem}")))?;
        let graph = Graph {
            tensors: vec![Tensor { kind: Kind::Input, len }],
            nodes: Vec::new(),
            parameters: Vec::new(),
            input: 0,
            output: 0,
        };
        Ok(Builder { graph, at: 0, shape: input.to_vec() })
    }

    fn layer(&mut self, name: &str, layer: &Layer) -> std::result::Result<(), String> {
        match *layer {
            Layer::Linear { out_features, bias } => {
                let Some((&ins, rows)) = self.shape.split_last() else {
                    return Err("takes a tensor with at least one axis".into());
                };
                let (rows, outs) = (rows.iter().product(), out_features);
                size(&[rows, outs]).map_err(|problem| format!("output: {problem}"))?;
                size(&[outs, ins]).map_err(|problem| format!("weight: {problem}"))?;
                let bound = 1.0 / (ins as f32).sqrt();
                let a = self.parameter(format!("{name}.weight"), &[outs, ins], bound);
                let mut terms =
                    vec![Term::Bilinear { map: Bilinear::Dense { rows, ins, outs }, a, b: self.at }];
                if bias {
                    let x = self.parameter(format!("{name}.bias"), &[outs], bound);
                    terms.push(Term::Linear { map: Linear::Broadcast { rows, columns: outs }, x });
                }
                *self.shape.last_mut().expect("has an axis") = outs;
                self.define(terms);
            }
            Layer::Flatten => self.shape = vec![self.shape.iter().product()],
            Layer::Relu => self.pointwise(Pointwise::Relu),
            Layer::LeakyRelu { negative_slope } => {
                self.pointwise(Pointwise::LeakyRelu { slope: negative_slope });
            }
            Layer::Tanh => self.pointwise(Pointwise::Tanh),
            Layer::Gelu => self.pointwise(Pointwise::Gelu),
        }
        Ok(())
    }

    fn pointwise(&mut self, sigma: Pointwise) {
        self.define(vec![Term::Pointwise { sigma, x: self.at }]);
    }

    /// Defines the next tensor, of the shape in hand.
    fn define(&mut self, terms: Vec<Term>) {
        let output = self.graph.tensors.len();
        let len = self.shape.iter().product();
        self.graph.tensors.push(Tensor { kind: Kind::Activation, len });
        self.graph.nodes.push(Node { output, terms });
        self.at = output;
    }

    fn parameter(&mut self, name: String, shape: &[usize], initial_bound: f32) -> TensorId {
        let graph = &mut self.graph;
        let (tensor, len) = (graph.tensors.len(), shape.iter().product());
        let offset = graph.parameters.last().map_or(0, |last| last.offset + last.len);
        let kind = Kind::Parameter(graph.parameters.len());
        graph.tensors.push(Tensor { kind, len });
        graph.parameters.push(Parameter { name, shape: shape.to_vec(), offset, len, initial_bound, tensor });
        tensor
    }
}
