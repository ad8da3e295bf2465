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
    /// Where its values come from.
    pub kind: Kind,
    /// The number of values of one sample, or of the parameter.
    pub len: usize,
}

/// `y = A x`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Linear {
    /// A parameter over every sample: `y[n, o, q, i] = x[q]`.
    Broadcast(Axes),
    /// Each value `inner` times: `y[n, q, i] = x[n, q]`; with `inner` 1 the identity. Transposed, sums of rows.
    Spread {
        /// m, the values of one sample of x.
        m: usize,
        /// i, how often each of them is repeated, side by side.
        inner: usize,
    },
    /// Means or, where `maximum`, the values at the first maxima, over windows of each of `channels` planes.
    Pool {
        /// The planes of one sample, each pooled by itself.
        channels: usize,
        /// The windows of a plane, and the sizes of what goes in and comes out.
        windows: Windows,
        /// Whether it takes maxima, in place of means.
        maximum: bool,
    },
    /// `y[n, t, e] = x[id(n, t), e]` with the ids of the input. The parameter is x.
    Embed {
        /// The number of ids, which is that of the parameter's rows.
        ids: usize,
        /// The length of a row: the features of a token.
        width: usize,
        /// The tokens of one sample, padding included.
        tokens: usize,
    },
    /// The heads of one part of the features: `y[n, h, t, d] = x[n, t, part, h, d]`.
    Heads {
        /// The tokens of one sample, padding included; 1 where the features are those of an image.
        tokens: usize,
        /// The sizes of the features: heads, their width, the parts, and which part is taken.
        heads: Heads,
    },
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
    Dense {
        /// r, the rows of one sample that the matrix is applied to.
        rows: usize,
        /// i, the values of a row of b: the columns of a.
        ins: usize,
        /// o, the values of a row of y: the rows of a.
        outs: usize,
    },
    /// `y = a ⋆ b` for images b. The parameter is a.
    Conv(Conv),
    /// `y[n, o, q, i] = a[q] b[n, o, q, i]`. The parameter is a.
    ScaleByParameter(Axes),
    /// `y[n, q, i] = a[n, q] b[n, q, i]`
    Scale {
        /// q, the values of one sample of a.
        m: usize,
        /// i, the neighbours in b that share a value of a.
        inner: usize,
    },
    /// `y[n, z] = a[n, z] b[n, z]` with matrices `[m, k] [k, n]`, b `[n, k]` where `transposed_b`.
    MatMul {
        /// z, the pairs of matrices in one sample.
        batch: usize,
        /// The rows of a and y.
        m: usize,
        /// The columns of y.
        n: usize,
        /// What is summed over: the columns of a.
        k: usize,
        /// Whether b is held as `[n, k]`, in place of `[k, n]`.
        transposed_b: bool,
    },
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
    Sinusoid {
        /// The positions: the tokens of one sample.
        tokens: usize,
        /// The features of a token.
        width: usize,
    },
    /// Each kept token's share of its sample; without a mask all are kept.
    TokenWeight {
        /// The tokens of one sample, padding included.
        tokens: usize,
        /// Whether the input bears a mask, as a token model's does.
        masked: bool,
    },
    /// Minus the largest kept element of each row of this tensor of scores, −∞ on padding: softmax does not
    /// depend on such a shift, and neither do its derivatives.
    RowShift {
        /// The tokens of one sample: the rows of a head's scores, and their columns.
        tokens: usize,
        /// The heads of attention.
        heads: usize,
        /// Whether the input bears a mask, as a token model's does.
        masked: bool,
        /// The scores, `[heads, tokens, tokens]` of one sample.
        of: TensorId,
    },
}

/// A summand of a tensor's definition.
#[derive(Clone, Copy, Debug)]
pub enum Term {
    /// `c A x`, or `c Aᵀ x`
    Linear {
        /// A, the linear map.
        map: Linear,
        /// Whether it is Aᵀ that is applied.
        transposed: bool,
        /// The tensor that it is applied to.
        x: TensorId,
        /// The constant factor.
        c: f32,
    },
    /// `c β(a, b)`
    Bilinear {
        /// β, the bilinear map.
        map: Bilinear,
        /// The first operand; the parameter where β has one.
        a: TensorId,
        /// The second operand.
        b: TensorId,
        /// The constant factor.
        c: f32,
    },
    /// A tensor that no derivative passes through.
    Constant(Constant),
    /// Always the only term of its node.
    Pointwise {
        /// The function of each value.
        sigma: Pointwise,
        /// The tensor whose values it is applied to.
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
    /// The tensor that is defined, an activation.
    pub output: TensorId,
    /// The summands.
    pub terms: Vec<Term>,
}

/// A named parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// PyTorch's `state_dict` name.
    pub name: String,
    /// Its axes in row-major order, as PyTorch has them.
    pub shape: Vec<usize>,
    /// Where it starts in the flat vector of all parameters.
    pub offset: usize,
    /// The number of its values, the product of the shape.
    pub len: usize,
    /// What its first values are drawn from.
    pub initial: Initialisation,
    /// The tensor of the graph that holds its values.
    pub tensor: TensorId,
}

/// Tensors and their definitions in topological order.
#[derive(Clone, Debug)]
pub struct Graph {
    /// All tensors, the input first; a [`TensorId`] is a position here.
    pub tensors: Vec<Tensor>,
    /// The definitions of the activations, each after those that it takes.
    pub nodes: Vec<Node>,
    /// The parameters in the order of their coordinates in flat vectors.
    pub parameters: Vec<Parameter>,
    /// The tensor of the samples.
    pub input: TensorId,
    /// The tensor that the loss takes: the network's outputs.
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
