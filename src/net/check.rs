//! Whether a graph of a caller's can be computed.

use std::collections::HashSet;

use super::graph::{Bilinear, Constant, Graph, Kind, Linear, Node, TensorId, Term};
use crate::kernels::conv::Conv;
use crate::kernels::pool::Windows;
use crate::{Error, Result};

/// Values that a tensor, or all parameters, may have: shaders count them in 32 bits.
pub(super) const MOST: usize = u32::MAX as usize;

/// What is found and what is expected.
type Checked = std::result::Result<(), String>;

/// The number of values of a tensor of that shape; the largest number there is where it is too large to count.
pub(super) fn product(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product: usize, &axis| product.saturating_mul(axis))
}

impl Graph {
    /// Sees to it that every tensor is defined once, by terms of tensors that are defined before it and have the right
    /// numbers of values, and that parameters have names of their own and places side by side; `tokens`, the input holds
    /// token ids and a mask.
    ///
    /// # Errors
    /// [`Error::Model`] naming the tensor or the parameter that is not so.
    pub(super) fn check(&self, tokens: bool) -> Result<()> {
        self.check_parameters()?;
        let mut there: HashSet<TensorId> = self.parameters.iter().map(|parameter| parameter.tensor).collect();
        let input = self.tensors.get(self.input).is_some_and(|tensor| tensor.kind == Kind::Input);
        if !input || !there.insert(self.input) {
            return Err(Error::Model(format!(
                "input: found tensor {}, expected one of that kind",
                self.input
            )));
        }
        for node in &self.nodes {
            let checked = self.check_node(node, &there, tokens);
            checked.map_err(|problem| Error::Model(format!("tensor {}: {problem}", node.output)))?;
            there.insert(node.output);
        }
        match self.nodes.iter().any(|node| node.output == self.output) {
            true => Ok(()),
            false => {
                Err(Error::Model(format!("output: found tensor {}, which nothing defines", self.output)))
            }
        }
    }

    fn check_parameters(&self) -> Result<()> {
        let used: HashSet<TensorId> =
            self.nodes.iter().flat_map(|node| &node.terms).flat_map(Term::operands).collect();
        let (mut names, mut offset) = (HashSet::new(), 0);
        for (i, parameter) in self.parameters.iter().enumerate() {
            let tensor = self.tensors.get(parameter.tensor);
            let len = product(&parameter.shape);
            let checked = if parameter.name.is_empty() || !names.insert(parameter.name.as_str()) {
                Err("found its name twice, or none, expected a name of its own".into())
            } else if tensor.is_none_or(|tensor| tensor.kind != Kind::Parameter(i)) {
                Err(format!("found tensor {}, expected one of that kind", parameter.tensor))
            } else if len == 0 || len != parameter.len || tensor.is_some_and(|tensor| tensor.len != len) {
                Err(format!("found {} values, expected shape {:?}", parameter.len, parameter.shape))
            } else if parameter.offset != offset {
                Err(format!("found offset {}, expected {offset}", parameter.offset))
            } else if offset.saturating_add(len) > MOST {
                Err(format!(
                    "found {} values up to here, expected at most {MOST}",
                    offset.saturating_add(len)
                ))
            } else if !used.contains(&parameter.tensor) {
                Err("found nothing that uses it".to_string())
            } else {
                Ok(())
            };
            checked
                .map_err(|problem| Error::Model(format!("parameter {i} ({}): {problem}", parameter.name)))?;
            offset += len;
        }
        match self.parameters.is_empty() {
            false => Ok(()),
            true => Err(Error::Model("found no parameter, expected at least one".into())),
        }
    }

    fn check_node(&self, node: &Node, there: &HashSet<TensorId>, tokens: bool) -> Checked {
        let defined = match self.tensors.get(node.output) {
            Some(tensor) if tensor.kind == Kind::Activation => tensor.len,
            _ => return Err("found no activation of that number".into()),
        };
        if there.contains(&node.output) {
            return Err("found two definitions, expected one".into());
        }
        if !(1..=MOST).contains(&defined) {
            return Err(format!("found {defined} values, expected 1 to {MOST}"));
        }
        if let Some(missing) = node.terms.iter().flat_map(Term::operands).find(|id| !there.contains(id)) {
            return Err(format!("found a term of tensor {missing}, which is not defined before"));
        }
        let alone = node.terms.len() == 1;
        if node.terms.is_empty() {
            return Err("found no terms, expected at least one".into());
        }
        for term in &node.terms {
            if matches!(term, Term::Pointwise { .. }) && !alone {
                return Err("found a pointwise term beside others, expected it alone".into());
            }
            let made = self.made(term, tokens)?;
            if made != defined {
                return Err(format!("found a term of {made} values, expected {defined}"));
            }
        }
        Ok(())
    }

    /// The number of values that a term makes of its operands.
    fn made(&self, term: &Term, tokens: bool) -> std::result::Result<usize, String> {
        let has = |what: &str, id: TensorId, len: usize, of_all: bool| {
            let tensor = &self.tensors[id];
            match (tensor.len == len, matches!(tensor.kind, Kind::Parameter(_)) == of_all) {
                (true, true) => Ok(()),
                (false, _) => Err(format!("{what}: found {} values, expected {len}", tensor.len)),
                (_, false) if of_all => Err(format!("{what}: found tensor {id}, expected a parameter")),
                _ => Err(format!("{what}: found a parameter, expected a tensor of each sample")),
            }
        };
        let of_tokens = |needs: bool| match needs && !tokens {
            true => Err("found a term of tokens, expected one of numbers, as samples are".to_string()),
            false => Ok(()),
        };
        match *term {
            Term::Linear { map, transposed, x, c } => {
                finite(c)?;
                let (from, to, of_all) = match map {
                    Linear::Broadcast(axes) => (axes.m, product(&[axes.outer, axes.m, axes.inner]), true),
                    Linear::Spread { m, inner } => (m, product(&[m, inner]), false),
                    Linear::Pool { channels, windows, .. } => {
                        check_windows(&windows)?;
                        let [[h, w], [oh, ow]] = [windows.input, windows.output];
                        (product(&[channels, h, w]), product(&[channels, oh, ow]), false)
                    }
                    Linear::Embed { ids, width, tokens } => {
                        of_tokens(true)?;
                        (product(&[ids, width]), product(&[tokens, width]), true)
                    }
                    Linear::Heads { tokens, heads } => {
                        if heads.part >= heads.parts {
                            return Err(format!("heads: found part {} of {}", heads.part, heads.parts));
                        }
                        let one = product(&[tokens, heads.heads, heads.width]);
                        (one.saturating_mul(heads.parts), one, false)
                    }
                };
                if transposed && !matches!(map, Linear::Spread { .. } | Linear::Heads { .. }) {
                    return Err("found a transposed map, expected one that spreads or takes heads".into());
                }
                let (from, to) = if transposed { (to, from) } else { (from, to) };
                has("x", x, from, of_all)?;
                Ok(to)
            }
            Term::Bilinear { map, a, b, c } => {
                finite(c)?;
                let (of_a, of_b, to, of_all) = match map {
                    Bilinear::Dense { rows, ins, outs } => {
                        (product(&[outs, ins]), product(&[rows, ins]), product(&[rows, outs]), true)
                    }
                    Bilinear::Conv(conv) => {
                        check_conv(&conv)?;
                        let [from, to] = conv.lens();
                        (conv.weights(), from, to, true)
                    }
                    Bilinear::ScaleByParameter(axes) => {
                        let len = product(&[axes.outer, axes.m, axes.inner]);
                        (axes.m, len, len, true)
                    }
                    Bilinear::Scale { m, inner } => (m, product(&[m, inner]), product(&[m, inner]), false),
                    Bilinear::MatMul { batch, m, n, k, .. } => {
                        (product(&[batch, m, k]), product(&[batch, k, n]), product(&[batch, m, n]), false)
                    }
                };
                has("a", a, of_a, of_all)?;
                has("b", b, of_b, false)?;
                Ok(to)
            }
            Term::Constant(Constant::Sinusoid { tokens, width }) => Ok(product(&[tokens, width])),
            Term::Constant(Constant::TokenWeight { tokens, masked }) => {
                of_tokens(masked)?;
                Ok(tokens)
            }
            Term::Constant(Constant::RowShift { tokens, heads, masked, of }) => {
                of_tokens(masked)?;
                let len = product(&[heads, tokens, tokens]);
                match self.tensors.get(of) {
                    Some(scores) if scores.len == len && scores.kind == Kind::Activation => Ok(len),
                    _ => Err(format!("of: found tensor {of}, expected scores of {len} values")),
                }
            }
            Term::Pointwise { x, .. } => {
                let len = self.tensors[x].len;
                has("x", x, len, false)?;
                Ok(len)
            }
        }
    }
}

fn finite(c: f32) -> Checked {
    if c.is_finite() { Ok(()) } else { Err(format!("c: found {c}, expected a finite number")) }
}

fn check_windows(windows: &Windows) -> Checked {
    for (from, to) in windows.input.into_iter().zip(windows.output) {
        let fits = match windows.fixed {
            Some((kernel, stride)) => {
                kernel >= 1 && stride >= 1 && from >= kernel && to == (from - kernel) / stride + 1
            }
            None => (1..=from).contains(&to),
        };
        if !fits {
            return Err(format!("windows: found {windows:?}, expected an output that they make"));
        }
    }
    Ok(())
}

fn check_conv(conv: &Conv) -> Checked {
    for (from, to) in conv.input.into_iter().zip(conv.output) {
        let padded = from.saturating_add(conv.padding.saturating_mul(2));
        let fits = conv.kernel >= 1
            && conv.stride >= 1
            && padded >= conv.kernel
            && to == (padded - conv.kernel) / conv.stride + 1;
        if !fits {
            return Err(format!("convolution: found {conv:?}, expected an output that it makes"));
        }
    }
    Ok(())
}
