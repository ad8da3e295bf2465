//! Lanczos recurrences of many operators, one vector each, advanced together.

use std::ops::Range;

use faer::Mat;

use super::Which;
use super::projection::{Projection, Ritz};
use super::random::{Distribution, RandomVectors};
use crate::operators::{Block, OperatorFamily, combine_each, copy, dots};
use crate::{Error, Result};

/// Below this share of |λ₁|, what a product leaves outside of the basis is rounding.
const ROUNDING: f64 = 1e-6;

/// The share of a random vector that has to be left outside of the basis for its direction not to be rounding's.
const LEAST_LEFT: f64 = 1e-5;

/// For each member i of a family, orthonormal `V_i = [v_0 … v_(n−1)]` with
///
/// ```text
/// A_i v_j = β_(j−1) v_(j−1) + α_j v_j + β_j v_(j+1)
/// ```
///
/// (Lanczos 1950), each product orthogonalised twice against all of V_i. Where nothing of a product is left, β is 0 and
/// a random vector goes on: what it adds has no part in the start vector.
pub(super) struct Recurrences<'a> {
    family: &'a dyn OperatorFamily,
    members: Range<usize>,
    random: RandomVectors,
    /// v_j of the i-th member at number `j · members + i`.
    vectors: Block,
    /// v_n: `[members]`
    next: Block,
    /// n.
    pub len: usize,
    /// α, β: `[n, members]`
    alpha: Vec<f64>,
    beta: Vec<f64>,
    /// The longest product: `[members]`
    longest: Vec<f64>,
}

/// Bytes that the recurrences of so many members take, with what their products take.
pub(super) fn bytes(family: &dyn OperatorFamily, steps: usize, members: usize) -> u64 {
    const OF_PRODUCTS: usize = 8; // vectors
    4 * (members * family.stride() * (steps + OF_PRODUCTS)) as u64
}

/// The ranges of members whose recurrences of `steps` steps, with what their products take, find
/// room in half of the memory budget, and whose vectors fit one binding.
pub(super) fn groups(family: &dyn OperatorFamily, steps: usize) -> Vec<Range<usize>> {
    let (gpu, count, stride) = (family.gpu(), family.count(), family.stride());
    let fits = (gpu.memory_budget() / 2 / bytes(family, steps, 1)) as usize;
    let most = fits.min(gpu.max_binding_len() / stride).max(1);
    // as even as can be
    let each = count.div_ceil(count.div_ceil(most).max(1)).max(1);
    (0..count).step_by(each).map(|first| first..count.min(first + each)).collect()
}

impl<'a> Recurrences<'a> {
    /// Of these members, with room for `steps` steps. Member i starts from the i-th random vector of that distribution.
    pub fn new(
        family: &'a dyn OperatorFamily,
        members: Range<usize>,
        steps: usize,
        distribution: Distribution,
        seed: u64,
    ) -> Result<Recurrences<'a>> {
        let (gpu, stride, m) = (family.gpu(), family.stride(), members.len());
        let vectors = Block::zeros(gpu, stride, steps * m)?;
        let mut random = RandomVectors::new(distribution, seed);
        random.drawn = members.start as u64;
        let start: Vec<f32> = family.pad(&random.coordinates(family.dim(), m))?;
        let next = unit(&Block::upload(gpu, stride, &start)?)?;
        let (alpha, beta, longest) = (Vec::new(), Vec::new(), vec![0.0; m]);
        Ok(Recurrences { family, members, random, vectors, next, len: 0, alpha, beta, longest })
    }

    /// One product for each member.
    ///
    /// # Errors
    /// [`Error::NotFinite`] naming the member whose product is not finite, and the device's errors.
    ///
    /// # Panics
    /// If there is no room, or the vectors span the space.
    pub fn step(&mut self) -> Result<()> {
        let (m, j, dim) = (self.members.len(), self.len, self.family.dim());
        assert!(j < dim, "{j} vectors span the space");
        copy(&self.next, (&self.vectors, j * m..(j + 1) * m))?;
        let y = Block::zeros(self.family.gpu(), self.family.stride(), m)?;
        self.family.apply(self.members.clone(), &self.next, &y)?;
        for (i, square) in dots(&y, &y)?.into_iter().enumerate() {
            if !square.is_finite() {
                return Err(Error::NotFinite {
                    quantity: format!("product {} of operator {}", j + 1, self.members.start + i),
                    detail: "the operator overflows, or holds what is no number".into(),
                });
            }
            self.longest[i] = self.longest[i].max(square.sqrt());
        }
        self.len += 1;
        let (first, second) = (self.remove_from(&y)?, self.remove_from(&y)?);
        self.alpha.extend((j * m..(j + 1) * m).map(|at| first[at] + second[at]));
        if self.len == dim {
            self.beta.extend(vec![0.0; m]);
            return Ok(());
        }
        let mut beta: Vec<f64> = dots(&y, &y)?.into_iter().map(f64::sqrt).collect();
        let ended: Vec<usize> = (0..m).filter(|&i| beta[i] <= ROUNDING * self.longest[i]).collect();
        if !ended.is_empty() {
            let fresh = self.fresh(&ended)?;
            for &i in &ended {
                beta[i] = 0.0;
                copy((&fresh, i..i + 1), (&y, i..i + 1))?;
            }
        }
        self.beta.extend(beta);
        self.next = unit(&y)?;
        Ok(())
    }

    /// For each member i that is named, a random vector orthogonal to V_i; numbered by step and member, so that it does
    /// not depend on who else is here.
    fn fresh(&mut self, named: &[usize]) -> Result<Block> {
        let (family, m) = (self.family, self.members.len());
        // of what is drawn
        let length = (family.dim() as f64).sqrt();
        let fresh = Block::zeros(family.gpu(), family.stride(), m)?;
        let mut left = named.to_vec();
        for attempt in 0_u64.. {
            let mut padded = vec![0.0; m * family.stride()];
            for &i in &left {
                self.random.drawn = attempt << 56 | (self.len as u64) << 32 | (self.members.start + i) as u64;
                let vector = family.pad(&self.random.coordinates(family.dim(), 1))?;
                padded[i * family.stride()..][..family.stride()].copy_from_slice(&vector);
            }
            let drawn = Block::upload(family.gpu(), family.stride(), &padded)?;
            for _ in 0..2 {
                self.remove_from(&drawn)?;
            }
            let squares = dots(&drawn, &drawn)?;
            // of one that V_i holds already, rounding is left: with entries ±1 that is likely where there are few
            let (made, held): (Vec<usize>, Vec<usize>) =
                left.into_iter().partition(|&i| squares[i].sqrt() > LEAST_LEFT * length);
            made.into_iter().try_for_each(|i| copy((&drawn, i..i + 1), (&fresh, i..i + 1)))?;
            left = held;
            if left.is_empty() {
                break;
            }
        }
        Ok(fresh)
    }

    /// `y_i −= V_i c_i` with `c_i = V_iᵀ y_i`, and c: `[n, members]`.
    fn remove_from(&self, y: &Block) -> Result<Vec<f64>> {
        let held = 0..self.len * self.members.len();
        let c = dots((&self.vectors, held.clone()), y)?;
        let minus: Vec<f64> = c.iter().map(|c| -c).collect();
        combine_each(&minus, (&self.vectors, held), y, true)?;
        Ok(c)
    }

    /// Ritz pairs of the i-th member, the wanted ones first, by coordinates in V_i.
    pub fn ritz(&self, i: usize, which: Which) -> Result<Ritz> {
        let (m, n) = (self.members.len(), self.len);
        let t = Mat::from_fn(n, n, |row, column| match row.abs_diff(column) {
            0 => self.alpha[row * m + i],
            1 => self.beta[row.min(column) * m + i],
            _ => 0.0,
        });
        let s = Mat::from_fn(1, n, |_, j| if j + 1 == n { self.beta[j * m + i] } else { 0.0 });
        Projection { t, s }.ritz(0, which)
    }

    /// |λ₁| of the i-th member, whose Ritz values these are, as far as seen.
    pub fn largest(&self, i: usize, values: &[f64]) -> f64 {
        values.iter().fold(self.longest[i], |largest, value| largest.max(value.abs()))
    }

    /// `V_i q_i` for each member, with q `[n, members]`: `[members]`.
    pub fn combined(&self, q: &[f64]) -> Result<Block> {
        let y = Block::zeros(self.family.gpu(), self.family.stride(), self.members.len())?;
        combine_each(q, (&self.vectors, 0..self.len * self.members.len()), &y, false)?;
        Ok(y)
    }
}

/// Each vector by its length.
fn unit(x: &Block) -> Result<Block> {
    let lengths: Vec<f64> = dots(x, x)?.into_iter().map(|square| 1.0 / square.sqrt()).collect();
    let y = Block::zeros(x.gpu(), x.stride(), x.len())?;
    combine_each(&lengths, x, &y, false)?;
    Ok(y)
}
