//! Third derivatives of the loss.

use super::algebra::{combine, copy, dots};
use super::pass::{Frame, Outline};
use super::products::Products;
use super::session::{check_directions, parameters_of};
use super::{Block, Session, check_vectors};
use crate::jets::plan::{Request, Seeds};
use crate::net::Subspace;
use crate::{Error, Result};

impl Session {
    fn thirds(&self, space: &Subspace) -> Result<Products> {
        self.network().check_subspace(space)?;
        let request = Request::product(&parameters_of(space), Seeds::Jet, 2);
        Ok(Products::new(self, Outline::whole(self, request, space), Frame::Fresh))
    }

    /// `∇³L[v, v, ·] = ∇θ (vᵀ H v)` for each of the flat directions `[K, dim]`: `[K, dim]`.
    ///
    /// # Errors
    /// As [`Session::hvp`].
    pub fn third(&self, space: &Subspace, directions: &[f32]) -> Result<Vec<f32>> {
        self.thirds(space)?.apply_flat(directions)
    }

    /// `∇³L[u, v, ·]` for each pair of the flat directions `[K, dim]`: `[K, dim]`. As [`Session::third_of_pairs`].
    ///
    /// # Errors
    /// As [`Session::hvp`], and [`Error::Shape`] where there are not as many v as u.
    pub fn third_mixed(&self, space: &Subspace, u: &[f32], v: &[f32]) -> Result<Vec<f32>> {
        self.network().check_subspace(space)?;
        check_directions(space, u)?;
        check_directions(space, v)?;
        if u.len() != v.len() {
            let shape = |x: &[f32]| [x.len() / space.dim, space.dim];
            return Err(Error::shape("directions v", shape(v), shape(u)));
        }
        let block = |flat: &[f32]| Block::upload(self.gpu(), space.stride, &space.pad(flat)?);
        let (u, v) = (block(u)?, block(v)?);
        let y = Block::zeros(self.gpu(), space.stride, u.len())?;
        self.third_of_pairs(space, &u, &v, &y)?;
        space.unpad(&y.download()?)
    }

    /// `y_k = ∇³L[v_k, v_k, ·]` for blocks of K vectors of `space` on the device.
    ///
    /// # Errors
    /// [`Error::Shape`] where the blocks are not of such vectors or differ in number, and the device's errors.
    pub fn third_of_block(&self, space: &Subspace, v: &Block, y: &Block) -> Result<()> {
        let thirds = self.thirds(space)?;
        check_vectors(self.gpu(), space.stride, &[("V", v), ("Y", y)], v.len())?;
        thirds.apply(v, y)
    }

    /// `y_k = ∇³L[u_k, v_k, ·]` for blocks of K vectors of `space` on the device, in 2 K products by polarisation:
    ///
    /// ```text
    /// ∇³L[u, v] = (‖u‖‖v‖/4) (∇³L[û + v̂, û + v̂] − ∇³L[û − v̂, û − v̂])      û = u/‖u‖, v̂ = v/‖v‖
    /// ```
    ///
    /// The rounding is that of the two terms: some 1e-6 of ‖u‖‖v‖ times the largest ∇³L[w, w] of a unit vector w of their
    /// plane.
    ///
    /// # Errors
    /// As [`Session::third_of_block`].
    pub fn third_of_pairs(&self, space: &Subspace, u: &Block, v: &Block, y: &Block) -> Result<()> {
        let thirds = self.thirds(space)?;
        check_vectors(self.gpu(), space.stride, &[("U", u), ("V", v), ("Y", y)], u.len())?;
        let k = u.len();
        let lengths = |x: &Block| -> Result<Vec<f64>> { Ok(dots(x, x)?.iter().map(|s| s.sqrt()).collect()) };
        let (u_len, v_len) = (lengths(u)?, lengths(v)?);
        let unit = |length: f64| if length > 0.0 { 1.0 / length } else { 0.0 };
        let directions = Block::zeros(self.gpu(), space.stride, 2 * k)?;
        let products = Block::zeros(self.gpu(), space.stride, 2 * k)?;
        // û + v̂ for all pairs, then û − v̂
        for (half, sign) in [(0, 1.0), (k, -1.0)] {
            let diagonal = |lengths: &[f64], sign: f64| {
                faer::Mat::from_fn(k, k, |i, j| if i == j { sign * unit(lengths[i]) } else { 0.0 })
            };
            combine(diagonal(&u_len, 1.0).as_ref(), u, (&directions, half..half + k), false)?;
            combine(diagonal(&v_len, sign).as_ref(), v, (&directions, half..half + k), true)?;
        }
        thirds.apply(&directions, &products)?;
        let s = faer::Mat::from_fn(2 * k, k, |i, j| match i % k == j {
            true => 0.25 * u_len[j] * v_len[j] * if i < k { 1.0 } else { -1.0 },
            false => 0.0,
        });
        combine(s.as_ref(), &products, y, false)
    }

    /// `∇θ Tr(H C) = Σ_i μ_i ∇³L[u_i, u_i, ·]` with `C = Σ_i μ_i u_i u_iᵀ` held fixed, for k vectors u_i of `space` on the
    /// device, in k products: to `y`, a block of one vector.
    ///
    /// # Errors
    /// [`Error::Shape`] where the blocks are not of such vectors, `weights` (μ) are not k, or `y` is not one vector, and the
    /// device's errors.
    pub fn trace_gradient(&self, space: &Subspace, weights: &[f64], u: &Block, y: &Block) -> Result<()> {
        let thirds = self.thirds(space)?;
        check_vectors(self.gpu(), space.stride, &[("U", u)], weights.len())?;
        check_vectors(self.gpu(), space.stride, &[("Y", y)], 1)?;
        y.clear()?;
        let at_once = thirds.fitted(weights.len().max(1))?.0.k;
        for first in (0..weights.len()).step_by(at_once) {
            let some = first..weights.len().min(first + at_once);
            let own = || Block::zeros(self.gpu(), space.stride, some.len());
            let (directions, products) = (own()?, own()?);
            copy((u, some.clone()), &directions)?;
            thirds.apply(&directions, &products)?;
            let mu = faer::Mat::from_fn(some.len(), 1, |i, _| weights[some.start + i]);
            combine(mu.as_ref(), &products, y, true)?;
        }
        Ok(())
    }
}
