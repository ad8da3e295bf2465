//! Reverse differentiation of any formula over [`Scalar`]s.
//!
//! The formula is evaluated in [`Variable`]s, which write down on a [`Tape`] what each number was made of and
//! its partial derivatives; [`Tape::pull_back`] reads them backwards. There is no rule of derivation here: the
//! partial derivatives are slopes over [`Dual`]s.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::scalar::{Dual, Scalar};

/// Numbers in the order of their making.
pub struct Tape<S> {
    nodes: RefCell<Nodes<S>>,
}

/// Node i was made of the nodes `edges[ends[i − 1]..ends[i]].0`, with partial derivatives `.1`.
struct Nodes<S> {
    edges: Vec<(usize, S)>,
    ends: Vec<usize>,
}

/// A number on a tape, or a constant on none.
#[derive(Clone, Copy)]
pub struct Variable<'t, S> {
    pub value: S,
    node: Option<(&'t Tape<S>, usize)>,
}

impl<S: Scalar> Tape<S> {
    pub fn new() -> Tape<S> {
        Tape { nodes: RefCell::new(Nodes { edges: Vec::new(), ends: Vec::new() }) }
    }

    /// Numbers to differentiate with respect to.
    pub fn variables(&self, values: &[S]) -> Vec<Variable<'_, S>> {
        values.iter().map(|&value| self.push(value, [])).collect()
    }

    /// `Σ_j ȳ_j ∂y_j/∂x [X]`
    pub fn pull_back(&self, x: &[Variable<S>], y: &[Variable<S>], y_adjoint: &[S]) -> Vec<S> {
        let Nodes { edges, ends } = &*self.nodes.borrow();
        let mut adjoint = vec![S::constant(0.0); ends.len()];
        for (y, &y_adjoint) in y.iter().zip(y_adjoint) {
            if let Some((_, node)) = y.node {
                adjoint[node] = adjoint[node] + y_adjoint;
            }
        }
        for node in (0..ends.len()).rev() {
            let start = if node == 0 { 0 } else { ends[node - 1] };
            for &(parent, partial) in &edges[start..ends[node]] {
                adjoint[parent] = adjoint[parent] + partial * adjoint[node];
            }
        }
        x.iter().map(|x| x.node.map_or(S::constant(0.0), |(_, node)| adjoint[node])).collect()
    }

    fn push(&self, value: S, edges: impl IntoIterator<Item = (usize, S)>) -> Variable<'_, S> {
        let mut nodes = self.nodes.borrow_mut();
        nodes.edges.extend(edges);
        let end = nodes.edges.len();
        nodes.ends.push(end);
        Variable { value, node: Some((self, nodes.ends.len() - 1)) }
    }
}

impl<S: Scalar> Default for Tape<S> {
    fn default() -> Self {
        Tape::new()
    }
}

impl<'t, S: Scalar> Variable<'t, S> {
    /// The value of a formula whose partial derivatives with respect to some numbers are known.
    fn made_of(value: S, parts: &[(Variable<'t, S>, S)]) -> Self {
        let edges = || parts.iter().filter_map(|(part, partial)| Some((part.node?.1, *partial)));
        match parts.iter().find_map(|(part, _)| part.node) {
            Some((tape, _)) => tape.push(value, edges()),
            None => Variable { value, node: None },
        }
    }

    /// `f(self)`
    fn map(self, f: impl Fn(Dual<S>) -> Dual<S>) -> Self {
        let Dual { value, slope } = f(Dual::variable(self.value));
        Variable::made_of(value, &[(self, slope)])
    }

    /// `f(self, b)`
    fn join(self, b: Self, f: impl Fn(Dual<S>, Dual<S>) -> Dual<S>) -> Self {
        let [x, y] = [self.value, b.value];
        let along = f(Dual::variable(x), Dual::constant_in(y));
        let across = f(Dual::constant_in(x), Dual::variable(y));
        Variable::made_of(along.value, &[(self, along.slope), (b, across.slope)])
    }
}

impl<S: Scalar> Add for Variable<'_, S> {
    type Output = Self;
    fn add(self, b: Self) -> Self {
        self.join(b, |a, b| a + b)
    }
}

impl<S: Scalar> Sub for Variable<'_, S> {
    type Output = Self;
    fn sub(self, b: Self) -> Self {
        self.join(b, |a, b| a - b)
    }
}

impl<S: Scalar> Mul for Variable<'_, S> {
    type Output = Self;
    fn mul(self, b: Self) -> Self {
        self.join(b, |a, b| a * b)
    }
}

impl<S: Scalar> Div for Variable<'_, S> {
    type Output = Self;
    fn div(self, b: Self) -> Self {
        self.join(b, |a, b| a / b)
    }
}

impl<S: Scalar> Neg for Variable<'_, S> {
    type Output = Self;
    fn neg(self) -> Self {
        self.map(|x| -x)
    }
}

impl<S: Scalar> Scalar for Variable<'_, S> {
    fn constant(c: f64) -> Self {
        Variable { value: S::constant(c), node: None }
    }
    fn real(self) -> f64 {
        self.value.real()
    }
    fn exceeds(self, b: Self) -> bool {
        self.value.exceeds(b.value)
    }
    fn exp(self) -> Self {
        self.map(Scalar::exp)
    }
    fn ln(self) -> Self {
        self.map(Scalar::ln)
    }
    fn sqrt(self) -> Self {
        self.map(Scalar::sqrt)
    }
    fn tanh(self) -> Self {
        self.map(Scalar::tanh)
    }
    fn normal_cdf(self) -> Self {
        self.map(Scalar::normal_cdf)
    }
    /// One node, whose partial derivatives are the other factors: as `join` would find, but smaller.
    fn dot(pairs: impl IntoIterator<Item = (Self, Self)>) -> Self {
        let mut value = S::constant(0.0);
        let mut parts = Vec::new();
        for (a, b) in pairs {
            value = value + a.value * b.value;
            parts.extend([(a, b.value), (b, a.value)]);
        }
        Variable::made_of(value, &parts)
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;
    use crate::reference::scalar::Curve;

    fn formula<S: Scalar>(x: &[S]) -> S {
        let two = S::constant(2.0);
        let y = S::dot([(x[0], x[1]), (x[1], x[1]), (two, x[2])]);
        (y.tanh() / (two + x[0].exp()) - (x[2] * x[2]).ln() + y.normal_cdf()) * (y * y + two).sqrt() - -y
    }

    #[test]
    fn the_gradient_has_the_slopes_along_each_axis() {
        let x = [0.3, -1.2, 0.7];
        let tape = Tape::new();
        let variables = tape.variables(&x);
        let y = formula(&variables);
        assert_eq!(y.value, formula(&x));
        let gradient = tape.pull_back(&variables, &[y], &[1.0]);
        for (i, gradient) in gradient.into_iter().enumerate() {
            let mut x = x.map(Dual::constant_in);
            x[i].slope = 1.0;
            assert_relative_eq!(gradient, formula(&x).slope, max_relative = 1e-14);
        }
    }

    /// Over curves, the gradient has the derivatives along the curve, as Schwarz has it.
    #[test]
    fn derivatives_commute() {
        let (x, v) = ([0.3, -1.2, 0.7], [1.1, 0.4, -0.8]);
        let curve: Vec<Curve<f64>> = x.iter().zip(v).map(|(&x, v)| Curve::new([x, v, 0.0])).collect();
        let tape = Tape::new();
        let variables = tape.variables(&curve);
        let gradient = tape.pull_back(&variables, &[formula(&variables)], &[Curve::constant(1.0)]);
        for (i, gradient) in gradient.into_iter().enumerate() {
            let x: Vec<_> = (0..3)
                .map(|j| Dual { value: curve[j], slope: Curve::constant(if i == j { 1.0 } else { 0.0 }) })
                .collect();
            let along = formula(&x).slope.derivatives();
            for (found, expected) in gradient.derivatives().into_iter().zip(along) {
                assert_relative_eq!(found, expected, max_relative = 1e-12);
            }
        }
    }

    #[test]
    fn constants_leave_no_trace() {
        let tape = Tape::new();
        let x = tape.variables(&[2.0]);
        let c: Variable<f64> = Variable::constant(3.0) * Variable::constant(4.0);
        assert_eq!((c.value, tape.pull_back(&x, &[c], &[1.0])), (12.0, vec![0.0]));
        assert_eq!(tape.pull_back(&x, &[c * x[0], x[0]], &[1.0, 5.0]), [17.0]);
    }
}
