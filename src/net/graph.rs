//! The graph: tensors, each defined as a sum of linear, bilinear and pointwise terms.

use super::build::Builder;
use super::check::product;
use super::initialisation::Initialisation;
use super::model::Model;
use crate::kernels::broadcast::Axes;
use crate::kernels::conv::Conv;
use crate::kernels::pointwise::Pointwise;
use crate::kernels::pool::Windows;
use crate::kernels::sequence::Heads;
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Linear {
    /// A parameter over every sample: `y[n, o, q, i] = x[q]`.
    Broadcast(Axes),
    /// Each value `inner` times: `y[n, q, i] = x[n, q]`; with `inner` 1 the identity. Transposed, sums of rows.
    Spread { m: usize, inner: usize },
    /// Means or, where `maximum`, the values at the first maxima, over windows of each of `channels` planes.
    Pool { channels: usize, windows: Windows, maximum: bool },
    /// `y[n, t, e] = x[id(n, t), e]` with the ids of the input. The parameter is x.
    Embed { ids: usize, width: usize, tokens: usize },
    /// The heads of one part of the features: `y[n, h, t, d] = x[n, t, part, h, d]`.
    Heads { tokens: usize, heads: Heads },
}

impl Linear {
    /// `y = x` on `len` values.
    pub fn identity(len: usize) -> Linear {
        Linear::Spread { m: len, inner: 1 }
    }
}

/// `y = β(a, b)`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bilinear {
    /// `y[n, r, o] = Σ_i a[o, i] b[n, r, i]`, `rows` a sample. The parameter is a.
    Dense { rows: usize, ins: usize, outs: usize },
    /// `y = a ⋆ b` for images b. The parameter is a.
    Conv(Conv),
    /// `y[n, o, q, i] = a[q] b[n, o, q, i]`. The parameter is a.
    ScaleByParameter(Axes),
    /// `y[n, q, i] = a[n, q] b[n, q, i]`
    Scale { m: usize, inner: usize },
    /// `y[n, z] = a[n, z] b[n, z]` with matrices `[m, k] [k, n]`, b `[n, k]` where `transposed_b`.
    MatMul { batch: usize, m: usize, n: usize, k: usize, transposed_b: bool },
}

impl Bilinear {
    /// Floating-point operations of one sample, of the map or of either adjoint.
    pub fn flops(&self) -> f64 {
        match *self {
            Bilinear::Dense { rows, ins, outs } => 2.0 * (rows * ins * outs) as f64,
            Bilinear::Conv(conv) => conv.flops(),
            Bilinear::ScaleByParameter(axes) => 2.0 * axes.len() as f64,
            Bilinear::Scale { m, inner } => 2.0 * (m * inner) as f64,
            Bilinear::MatMul { batch, m, n, k, .. } => 2.0 * (batch * m * n * k) as f64,
        }
    }
}

/// What does not depend on the parameters, or whose dependence cancels out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    /// The sinusoidal encoding of the positions.
    Sinusoid { tokens: usize, width: usize },
    /// Each kept token's share of its sample; without a mask all are kept.
    TokenWeight { tokens: usize, masked: bool },
    /// Minus the largest kept element of each row of this tensor of scores, −∞ on padding: softmax does not
    /// depend on such a shift, and neither do its derivatives.
    RowShift { tokens: usize, heads: usize, masked: bool, of: TensorId },
}

/// A summand of a tensor's definition.
#[derive(Clone, Copy, Debug)]
pub enum Term {
    /// `c A x`, or `c Aᵀ x`
    Linear {
        map: Linear,
        transposed: bool,
        x: TensorId,
        c: f32,
    },
    /// `c β(a, b)`
    Bilinear {
        map: Bilinear,
        a: TensorId,
        b: TensorId,
        c: f32,
    },
    Constant(Constant),
    /// Always the only term of its node.
    Pointwise {
        sigma: Pointwise,
        x: TensorId,
    },
}

impl Term {
    /// `A x`
    pub fn linear(map: Linear, x: TensorId) -> Term {
        Term::Linear { map, transposed: false, x, c: 1.0 }
    }

    /// `β(a, b)`
    pub fn bilinear(map: Bilinear, a: TensorId, b: TensorId) -> Term {
        Term::Bilinear { map, a, b, c: 1.0 }
    }

    /// The tensors that a derivative passes through.
    pub fn operands(&self) -> impl Iterator<Item = TensorId> {
        let pair = match *self {
            Term::Linear { x, .. } | Term::Pointwise { x, .. } => [Some(x), None],
            Term::Bilinear { a, b, .. } => [Some(a), Some(b).filter(|&b| b != a)],
            Term::Constant(_) => [None, None],
        };
        pair.into_iter().flatten()
    }
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
    /// What its first values are drawn from.
    pub initial: Initialisation,
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
    /// A graph of samples of `len` values, without any definitions: the input is the output.
    pub fn new(len: usize) -> Graph {
        Graph {
            tensors: vec![Tensor { kind: Kind::Input, len }],
            nodes: Vec::new(),
            parameters: Vec::new(),
            input: 0,
            output: 0,
        }
    }

    /// Adds a parameter, whose coordinates come after those of the parameters before it.
    pub fn parameter(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        initial: Initialisation,
    ) -> TensorId {
        let (tensor, len) = (self.tensors.len(), product(shape));
        let offset = self.parameters.last().map_or(0, |last| last.offset.saturating_add(last.len));
        self.tensors.push(Tensor { kind: Kind::Parameter(self.parameters.len()), len });
        self.parameters.push(Parameter {
            name: name.into(),
            shape: shape.to_vec(),
            offset,
            len,
            initial,
            tensor,
        });
        tensor
    }

    /// Adds a tensor of `len` values a sample, the sum of `terms` of tensors that are there, and makes it the output.
    pub fn define(&mut self, len: usize, terms: Vec<Term>) -> TensorId {
        let output = self.tensors.len();
        self.tensors.push(Tensor { kind: Kind::Activation, len });
        self.nodes.push(Node { output, terms });
        self.output = output;
        output
    }

    /// The graph of a model.
    ///
    /// # Errors
    /// [`Error::Model`] naming the layer whose shapes do not fit.
    pub(super) fn of_model(model: &Model) -> Result<Graph> {
        let mut builder = Builder::new(model)?;
        for (index, layer) in model.layers.iter().enumerate() {
            builder.layer(&index.to_string(), layer)?;
        }
        let [outputs] = builder.shape[..] else {
            let shape = &builder.shape;
            return Err(Error::Model(format!(
                "the last layer's output has shape {shape:?}, expected one axis: add a flatten layer"
            )));
        };
        let Builder { mut graph, at, .. } = builder;
        if graph.nodes.is_empty() {
            return Err(Error::Model("found no layers that compute anything, expected at least one".into()));
        }
        debug_assert_eq!(graph.tensors[at].len, outputs);
        debug_assert!(Graph { output: at, ..graph.clone() }.check(model.tokens.is_some()).is_ok());
        model.initialisation.apply(model, &mut graph.parameters);
        Ok(Graph { output: at, ..graph })
    }

    /// For each tensor, whether it depends on any of `sources`.
    pub fn depends_on(&self, sources: &[TensorId]) -> Vec<bool> {
        let mut depends = vec![false; self.tensors.len()];
        sources.iter().for_each(|&id| depends[id] = true);
        for node in &self.nodes {
            let any = node.terms.iter().flat_map(Term::operands).any(|id| depends[id]);
            depends[node.output] |= any;
        }
        depends
    }
}
