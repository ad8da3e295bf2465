//! What a sweep computes: the jets of a graph's tensors, forward and in reverse, as a list of instructions.
//!
//! Along `θ(ε) = θ + ε v` every tensor is a jet `x + ε x1 + ½ ε² x2`. A [`Slot`] is one order of one tensor
//! or of its adjoint. Forward, a sum of terms differentiates term by term: linear terms act on each order
//! alone, bilinear ones follow Leibniz, pointwise ones Faà di Bruno. The reverse sweep consists of terms of
//! the same kinds (the adjoint of `y = β(a, b)` is bilinear in `ȳ` and the other operand), so its jets
//! follow the same rules. Zeros are known: an absent slot costs nothing. What no result needs is dropped.

use crate::kernels::pointwise::Pointwise;
use crate::net::{Bilinear, Constant, Graph, Linear, Node, TensorId, Term};

/// A tensor or its adjoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Var {
    /// A tensor's own values.
    Value(TensorId),
    /// The derivative of the seeded outputs with respect to a tensor.
    Adjoint(TensorId),
}

/// One order of a variable's jet. Order 0 is one tensor for all directions, higher orders one for each;
/// in a linearised reverse sweep (GGN, noise) the adjoints of order 1 are plain adjoints, one per direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Of what.
    pub var: Var,
    /// Which derivative along the direction: 0, 1 or 2.
    pub order: u8,
}

/// Order `order` of tensor `id`.
pub fn value(id: TensorId, order: u8) -> Slot {
    Slot { var: Var::Value(id), order }
}

/// Order `order` of the adjoint of tensor `id`.
pub fn adjoint(id: TensorId, order: u8) -> Slot {
    Slot { var: Var::Adjoint(id), order }
}

/// Where tangents start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tangents {
    /// Nothing moves.
    None,
    /// The directions move these parameters (positions in [`Graph::parameters`]).
    Parameters(Vec<usize>),
    /// Direction k moves coordinate k of this tensor, in every sample alike.
    Units(TensorId),
}

/// What the reverse sweep starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seeds {
    /// There is none: losses only, and slopes ℓ1 where there are tangents.
    None,
    /// The loss's adjoint and its jet, to the order of the tangents: gradient, `H v`, `∇³L[v, v]`.
    Jet,
    /// `∇²ℓ z1` as a plain adjoint: `G v`.
    Ggn,
    /// `z1` as a plain adjoint: `(1/N) Σ Jᵀ J v`.
    Outputs,
    /// `(ℓ1 − c) ∇ℓ` as a plain adjoint, with the sweep's centres c: the noise covariance's `C v` with `c = ḡ·v`, the second
    /// moment's `Σ₁ v` with c = 0.
    Noise,
}

/// What a sweep is to compute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// What moves along the directions.
    pub tangents: Tangents,
    /// Of the tangents: 0, 1 or 2.
    pub order: u8,
    /// What the reverse sweep starts from.
    pub seeds: Seeds,
    /// Orders of the adjoints of these parameters are results.
    pub gradients: Vec<(usize, u8)>,
    /// Each sample moves in a direction of its own, and its results are kept apart: the extent's k is 1. Otherwise all
    /// samples move in every direction, and results are sums over samples.
    pub per_sample: bool,
    /// These slots are results too.
    pub keep: Vec<Slot>,
}

impl Request {
    /// Losses only.
    pub fn loss() -> Request {
        let tangents = Tangents::None;
        Request { tangents, order: 0, seeds: Seeds::None, gradients: vec![], per_sample: false, keep: vec![] }
    }

    /// The gradient with respect to `parameters`.
    pub fn gradient(parameters: &[usize]) -> Request {
        let gradients = parameters.iter().map(|&p| (p, 0)).collect();
        Request { seeds: Seeds::Jet, gradients, ..Request::loss() }
    }

    /// Per-sample gradients with respect to `parameters`.
    pub fn per_sample_gradient(parameters: &[usize]) -> Request {
        Request { per_sample: true, ..Request::gradient(parameters) }
    }

    /// Products of `seeds`' operator with directions in `parameters`; `order` 1, or 2 for `∇³L[v, v]`.
    pub fn product(parameters: &[usize], seeds: Seeds, order: u8) -> Request {
        Request {
            tangents: Tangents::Parameters(parameters.to_vec()),
            order,
            seeds,
            gradients: parameters.iter().map(|&p| (p, order)).collect(),
            ..Request::loss()
        }
    }
}

/// How a bilinear map is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `β(a, b)` of a and b.
    Value,
    /// The adjoint with respect to a, of ȳ and b; of a parameter it is summed over samples, unless they are kept apart.
    AdjointA,
    /// The adjoint with respect to b, of ȳ and a.
    AdjointB,
}

/// A summand of a slot.
#[allow(missing_docs)] // each variant's formula names its fields
#[derive(Clone, Copy, Debug)]
pub enum Summand {
    /// `c A x`, or `c Aᵀ x`; the latter, where A acts on a parameter, summed over samples, unless they are kept apart.
    /// A may depend on values `by`: ids, or what decides a maximum.
    Linear { map: Linear, transposed: bool, x: Slot, by: Option<Slot>, c: f32 },
    /// `c β(x, y)` in one of its forms.
    Bilinear { map: Bilinear, form: Form, x: Slot, y: Slot, c: f32 },
    /// Of order 0 alone; it may depend on the input and on values `of`.
    Constant { constant: Constant, input: Slot, of: Option<Slot> },
    /// The order in hand of `σ′(x) d̄`, of those slots that are there.
    PointwiseAdjoint { sigma: Pointwise, x: [Option<Slot>; 3], d: [Option<Slot>; 3] },
}

/// A step of a sweep.
#[allow(missing_docs)] // each variant's formula names its fields
#[derive(Clone, Debug)]
pub enum Instruction {
    /// The batch's samples.
    Gather {
        to: Slot,
    },
    /// Tangents that are unit directions.
    Units {
        to: Slot,
    },
    Sum {
        to: Slot,
        summands: Vec<Summand>,
    },
    /// `σ` of a jet, to the order of what is there.
    Jet {
        sigma: Pointwise,
        x: [Option<Slot>; 3],
        y: [Option<Slot>; 3],
    },
    /// Losses and, weighted, their gradient.
    Loss {
        z: Slot,
        g: Slot,
    },
    /// Slopes and the higher orders of the loss's adjoint.
    LossTangent {
        z: [Option<Slot>; 3],
        g1: Slot,
        g2: Option<Slot>,
    },
    /// The adjoint that is weighted output tangents.
    OutputSeed {
        z1: Slot,
        g1: Slot,
    },
    NoiseSeed {
        g: Slot,
        g1: Slot,
    },
}

impl Instruction {
    /// The slots it makes.
    pub fn writes(&self) -> Vec<Slot> {
        match self {
            Instruction::Gather { to } | Instruction::Units { to } | Instruction::Sum { to, .. } => vec![*to],
            Instruction::Jet { y, .. } => y.iter().flatten().copied().collect(),
            Instruction::Loss { g, .. } => vec![*g],
            Instruction::LossTangent { g1, g2, .. } => [Some(*g1), *g2].into_iter().flatten().collect(),
            Instruction::OutputSeed { g1, .. } | Instruction::NoiseSeed { g1, .. } => vec![*g1],
        }
    }

    /// The slots it reads.
    pub fn reads(&self) -> Vec<Slot> {
        match self {
            Instruction::Gather { .. } | Instruction::Units { .. } => vec![],
            Instruction::Sum { summands, .. } => summands
                .iter()
                .flat_map(|summand| match *summand {
                    Summand::Linear { x, by, .. } => [Some(x), by].into_iter().flatten().collect(),
                    Summand::Bilinear { x, y, .. } => vec![x, y],
                    Summand::Constant { input, of, .. } => [Some(input), of].into_iter().flatten().collect(),
                    Summand::PointwiseAdjoint { x, d, .. } => x.into_iter().chain(d).flatten().collect(),
                })
                .collect(),
            Instruction::Jet { x, .. } => x.iter().flatten().copied().collect(),
            Instruction::Loss { z, .. } => vec![*z],
            Instruction::LossTangent { z, .. } => z.iter().flatten().copied().collect(),
            Instruction::OutputSeed { z1, .. } => vec![*z1],
            Instruction::NoiseSeed { g, .. } => vec![*g],
        }
    }
}

/// The instructions that a request needs, in order.
pub fn plan(graph: &Graph, request: &Request) -> Vec<Instruction> {
    let mut planner = Planner { graph, request, present: Default::default(), instructions: Vec::new() };
    planner.forward();
    planner.losses();
    if request.seeds != Seeds::None {
        planner.reverse();
    }
    let results = planner.results();
    drop_unused(planner.instructions, &results)
}

struct Planner<'g> {
    graph: &'g Graph,
    request: &'g Request,
    /// Slots that are not zero.
    present: std::collections::HashSet<Slot>,
    instructions: Vec<Instruction>,
}

/// `(i, j, binomial(order, i))` for `i + j = order`.
fn leibniz(order: u8) -> impl Iterator<Item = (u8, u8, f32)> {
    (0..=order).map(move |i| (i, order - i, if order == 2 && i == 1 { 2.0 } else { 1.0 }))
}

impl Planner<'_> {
    fn has(&self, slot: Slot) -> bool {
        self.present.contains(&slot)
    }

    /// The orders of a variable's jet that are not zero.
    fn jet(&self, of: fn(TensorId, u8) -> Slot, id: TensorId) -> [Option<Slot>; 3] {
        [0, 1, 2].map(|order| Some(of(id, order)).filter(|&slot| self.has(slot)))
    }

    fn push(&mut self, instruction: Instruction) {
        self.present.extend(instruction.writes());
        self.instructions.push(instruction);
    }

    fn forward(&mut self) {
        self.push(Instruction::Gather { to: value(self.graph.input, 0) });
        for (index, parameter) in self.graph.parameters.iter().enumerate() {
            self.present.insert(value(parameter.tensor, 0));
            if matches!(&self.request.tangents, Tangents::Parameters(moving) if moving.contains(&index)) {
                self.present.insert(value(parameter.tensor, 1));
            }
        }
        for node in &self.graph.nodes {
            self.forward_node(node);
        }
    }

    fn forward_node(&mut self, node: &Node) {
        let output = node.output;
        if let [Term::Pointwise { sigma, x }] = node.terms[..] {
            let jet = self.jet(value, x);
            let first = jet[1].is_some();
            let second =
                self.request.order == 2 && first && (jet[2].is_some() || !sigma.is_piecewise_linear());
            let y = [
                Some(value(output, 0)),
                first.then_some(value(output, 1)),
                second.then_some(value(output, 2)),
            ];
            self.push(Instruction::Jet { sigma, x: jet, y });
        } else {
            for order in 0..=self.request.order {
                let summands: Vec<Summand> =
                    node.terms.iter().flat_map(|&term| self.forward_summands(term, order)).collect();
                if !summands.is_empty() {
                    self.push(Instruction::Sum { to: value(output, order), summands });
                }
            }
        }
        if self.request.tangents == Tangents::Units(output) {
            self.push(Instruction::Units { to: value(output, 1) });
        }
    }

    fn forward_summands(&self, term: Term, order: u8) -> Vec<Summand> {
        match term {
            Term::Linear { map, transposed, x, c } => {
                let (by, x) = (self.by(map, x), value(x, order));
                let summand = Summand::Linear { map, transposed, x, by, c };
                self.has(x).then_some(summand).into_iter().collect()
            }
            Term::Bilinear { map, a, b, c } => leibniz(order)
                .map(|(i, j, times)| (value(a, i), value(b, j), c * times))
                .filter(|&(x, y, _)| self.has(x) && self.has(y))
                .map(|(x, y, c)| Summand::Bilinear { map, form: Form::Value, x, y, c })
                .collect(),
            Term::Constant(constant) if order == 0 => {
                let of = match constant {
                    Constant::RowShift { of, .. } => Some(value(of, 0)),
                    _ => None,
                };
                vec![Summand::Constant { constant, input: value(self.graph.input, 0), of }]
            }
            Term::Constant(_) => vec![],
            Term::Pointwise { .. } => unreachable!("a pointwise term is the only one of its node"),
        }
    }

    /// The values that a linear map of tensor `x` depends on.
    fn by(&self, map: Linear, x: TensorId) -> Option<Slot> {
        match map {
            Linear::Embed { .. } => Some(value(self.graph.input, 0)),
            Linear::Pool { maximum: true, .. } => Some(value(x, 0)),
            _ => None,
        }
    }

    fn losses(&mut self) {
        let output = self.graph.output;
        let z = self.jet(value, output);
        let z0 = z[0].expect("the output has a value");
        self.push(Instruction::Loss { z: z0, g: adjoint(output, 0) });
        if z[1].is_some() {
            let second = self.request.order == 2 && self.request.seeds == Seeds::Jet;
            let g2 = second.then_some(adjoint(output, 2));
            self.push(Instruction::LossTangent { z, g1: adjoint(output, 1), g2 });
            // the slopes stay; the adjoint's first order is made anew
            let (g, g1) = (adjoint(output, 0), adjoint(output, 1));
            match (self.request.seeds, z[1]) {
                (Seeds::Noise, _) => self.push(Instruction::NoiseSeed { g, g1 }),
                (Seeds::Outputs, Some(z1)) => self.push(Instruction::OutputSeed { z1, g1 }),
                _ => {}
            }
        }
    }

    fn reverse(&mut self) {
        // a plain adjoint sees no tangents and has no order 0
        if matches!(self.request.seeds, Seeds::Ggn | Seeds::Outputs | Seeds::Noise) {
            self.present.retain(|slot| match slot.var {
                Var::Value(_) => slot.order == 0,
                Var::Adjoint(_) => slot.order == 1,
            });
        }
        let graph = self.graph;
        let gradients = self.request.gradients.iter();
        let mut sources: Vec<TensorId> = gradients.map(|&(p, _)| graph.parameters[p].tensor).collect();
        sources.extend(self.request.keep.iter().filter_map(|slot| match slot.var {
            Var::Adjoint(id) => Some(id),
            Var::Value(_) => None,
        }));
        let wanted = graph.depends_on(&sources);
        // an adjoint is complete once every node that uses its tensor has been passed
        let mut users: Vec<Vec<&Node>> = vec![Vec::new(); graph.tensors.len()];
        for node in &graph.nodes {
            for id in node.terms.iter().flat_map(Term::operands) {
                if users[id].last().is_none_or(|last| last.output != node.output) {
                    users[id].push(node);
                }
            }
        }
        let mut order_of_adjoints: Vec<TensorId> = graph.nodes.iter().rev().map(|node| node.output).collect();
        order_of_adjoints.retain(|&id| id != graph.output);
        order_of_adjoints.extend(graph.parameters.iter().map(|parameter| parameter.tensor));
        for id in order_of_adjoints.into_iter().filter(|&id| wanted[id]) {
            for order in 0..=self.request.order {
                let summands: Vec<Summand> = users[id]
                    .iter()
                    .flat_map(|node| node.terms.iter().map(|&term| (node.output, term)))
                    .flat_map(|(output, term)| self.reverse_summands(id, output, term, order))
                    .collect();
                if !summands.is_empty() {
                    self.push(Instruction::Sum { to: adjoint(id, order), summands });
                }
            }
        }
    }

    /// What `term` of the definition of `output` adds to order `order` of the adjoint of tensor `id`.
    fn reverse_summands(&self, id: TensorId, output: TensorId, term: Term, order: u8) -> Vec<Summand> {
        let product = |form, other: TensorId, map, c: f32| {
            leibniz(order)
                .map(move |(i, j, times)| (adjoint(output, i), value(other, j), c * times))
                .filter(|&(x, y, _)| self.has(x) && self.has(y))
                .map(move |(x, y, c)| Summand::Bilinear { map, form, x, y, c })
        };
        match term {
            Term::Linear { map, transposed, x, c } if x == id => {
                let (by, x) = (self.by(map, x), adjoint(output, order));
                let summand = Summand::Linear { map, transposed: !transposed, x, by, c };
                self.has(x).then_some(summand).into_iter().collect()
            }
            Term::Bilinear { map, a, b, c } => {
                let mut summands = Vec::new();
                if a == id {
                    summands.extend(product(Form::AdjointA, b, map, c));
                }
                if b == id {
                    summands.extend(product(Form::AdjointB, a, map, c));
                }
                summands
            }
            Term::Pointwise { sigma, x } if x == id => {
                let (x, mut d) = (self.jet(value, x), self.jet(adjoint, output));
                let bent = x[1].is_some() && !sigma.is_piecewise_linear();
                let there = match order {
                    0 => d[0].is_some(),
                    1 => d[1].is_some() || (bent && d[0].is_some()),
                    _ => d[2].is_some() || (bent && (d[1].is_some() || d[0].is_some())),
                };
                d[order as usize + 1..].fill(None);
                there.then_some(Summand::PointwiseAdjoint { sigma, x, d }).into_iter().collect()
            }
            _ => vec![],
        }
    }

    fn results(&self) -> Vec<Slot> {
        let of = |&p: &usize, order| adjoint(self.graph.parameters[p].tensor, order);
        let gradients = self.request.gradients.iter().map(|(p, order)| of(p, *order));
        gradients.chain(self.request.keep.iter().copied()).collect()
    }
}

/// Keeps the instructions that `results` and the per-sample losses depend on.
fn drop_unused(instructions: Vec<Instruction>, results: &[Slot]) -> Vec<Instruction> {
    let mut needed: std::collections::HashSet<Slot> = results.iter().copied().collect();
    let mut kept = Vec::new();
    for mut instruction in instructions.into_iter().rev() {
        let reports = matches!(instruction, Instruction::Loss { .. } | Instruction::LossTangent { .. });
        if !reports && !instruction.writes().iter().any(|slot| needed.contains(slot)) {
            continue;
        }
        match &mut instruction {
            // the highest order of a jet that nobody reads is not made
            Instruction::Jet { x, y, .. } => {
                for order in [2, 1] {
                    if y[order].is_some_and(|slot| !needed.contains(&slot)) {
                        y[order] = None;
                        x[order] = None;
                    } else if y[order].is_some() {
                        break;
                    }
                }
            }
            // a slot of an adjoint may be made twice: the later one stands
            Instruction::OutputSeed { g1, .. } | Instruction::NoiseSeed { g1, .. } => {
                needed.remove(g1);
            }
            _ => {}
        }
        needed.extend(instruction.reads());
        kept.push(instruction);
    }
    kept.reverse();
    kept
}
