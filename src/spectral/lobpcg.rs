//! Eigenpairs at one end of the spectrum by locally optimal block preconditioned conjugate gradients.
//!
//! ```text
//! S = [X P W]      X: Ritz vectors      W = T (A X − X Θ): preconditioned residuals      P: the step before
//! ```
//!
//! Each iteration takes the best vectors of the span of S (Knyazev 2001). Three things keep it stable in single
//! precision. S is orthonormal: W is orthonormalised against X and P, and its directions without length are
//! dropped; P is what the old X leaves outside of the new one, made orthonormal by its coordinates in double
//! precision (Hetmaniuk & Lehoucq 2006), so that span [X P] = span [X, X before]. The Gram matrices SᵀS and SᵀAS are
//! made anew each time and solved in double precision on the host, so that what S loses of its orthonormality does
//! not add up. And the products A X and A P, which are combinations of earlier products, are made afresh when SᵀAS
//! is no longer symmetric, which with true products it would be, or when a pair that seems to have converged turns
//! out not to have.
//!
//! A pair that has converged stays in X, without a direction in W (soft locking); an iteration costs as many products
//! as there are pairs left. X holds some vectors more than are wanted, which get no directions either: they gather
//! what the wanted ones are to be told from, and convergence depends on the gap behind the last of them.

use faer::{Mat, MatRef};

use super::options::check_wanted;
use super::orthonormalise::whiten;
use super::products::Products;
use super::projection::{Projection, Ritz};
use super::random::{Distribution, RandomVectors};
use super::{Basis, Eigenpairs, Observer, Progress, Start, Which, orthonormalise};
use crate::operators::{Block, SymmetricOperator, combine, combine_each, dots};
use crate::{Error, Result};

/// The share of the tolerance that a residual from carried products has to reach: the fresh one has rounding on top.
const ESTIMATE: f64 = 0.7;

/// The share of the tolerance that the error of carried products may have, and the iterations for which products
/// last: where the operator itself is no more symmetric than that, fresh ones would not help.
const CARRIED: f64 = 0.3;
const LASTING: usize = 10;

/// The tolerance below which none is chased: where residuals are rounding, so are the directions W, and S is led astray
/// (with all of 25 pairs active, they stayed between 1e-5 and 8e-5).
const CHASED: f64 = 1e-6;

/// Vectors of X beyond those that are wanted. Without them, ten pairs in front of a dense spectrum took 1,157
/// products, with four 697, with twenty 572; easier spectra take as many with as without.
const GUARD: usize = 4;

/// Bases that are held at a time: S, A S, and the pairs that are measured.
const BASES: usize = 3;

/// What [`lobpcg`] is to find.
#[derive(Clone, Debug)]
pub struct LobpcgOptions {
    /// K, the number of eigenpairs.
    pub count: usize,
    /// The largest or the smallest.
    pub which: Which,
    /// A pair has converged when `‖A v − λ v‖ ≤ tolerance · |λ₁|`, λ₁ being the eigenvalue of largest
    /// magnitude seen. Where single precision does not reach it, the iteration ends nevertheless, and
    /// [`Eigenpairs::floor`] says what it reaches.
    pub tolerance: f64,
    /// The most products that are spent, those that measure the residuals at the end included; `None` stands
    /// for `20 K + 2,000`.
    pub max_products: Option<usize>,
    /// Of the random vectors.
    pub seed: u64,
    /// At most K vectors to start from, such as the eigenvectors of a matrix nearby; random ones complete them.
    pub start: Start,
}

impl LobpcgOptions {
    /// The `count` largest eigenvalues to 1e-4.
    pub fn new(count: usize) -> LobpcgOptions {
        LobpcgOptions {
            count,
            which: Which::Largest,
            tolerance: 1e-4,
            max_products: None,
            seed: 0,
            start: Start::Random,
        }
    }

    fn check(&self, operator: &dyn SymmetricOperator) -> Result<()> {
        check_wanted(self.count, self.tolerance, operator.dim())?;
        if self.which == Which::Magnitude {
            return Err(Error::argument("which", "magnitude", "largest or smallest"));
        }
        self.start.check(operator, self.count).map(|_| ())
    }
}

/// `Y = T X`, an approximation T of `(A − λ₁)⁻¹`, symmetric and definite.
pub type Preconditioner<'a> = dyn Fn(&Block, &Block) -> Result<()> + 'a;

/// The eigenpairs that `options` ask for; as they stand where the observer stops it.
///
/// # Errors
/// [`Error::Argument`], [`Error::Shape`] or [`Error::NotFinite`] naming the option that cannot be used,
/// [`Error::NotFinite`] naming the product that is not finite, the preconditioner's errors and the device's.
pub fn lobpcg(
    operator: &dyn SymmetricOperator,
    options: &LobpcgOptions,
    preconditioner: Option<&Preconditioner>,
    observer: &mut Observer,
) -> Result<Eigenpairs> {
    options.check(operator)?;
    let mut lobpcg = Lobpcg::new(operator, options)?;
    let most = options.max_products.unwrap_or(20 * options.count + 2000);
    loop {
        let (residuals, lengths) = lobpcg.residuals()?;
        let enough = options.tolerance.max(CHASED) * lobpcg.products.largest;
        let active: Vec<usize> = (0..options.count).filter(|&i| lengths[i] > ESTIMATE * enough).collect();
        // a basis of the whole space holds the pairs but for what the carried products are off
        let spans = lobpcg.s.len() == operator.dim();
        let exhausted = lobpcg.age == 0 && (active.is_empty() || spans);
        let progress = lobpcg.progress(options.count - active.len());
        let stopped = observer(&progress).is_break();
        let over = stopped || lobpcg.products.made + active.len() + options.count > most;
        if active.is_empty() || spans || over {
            let pairs = lobpcg.measured()?;
            let done = pairs.converged.iter().all(|&converged| converged);
            if done || exhausted || over || pairs.products + lobpcg.s.len() + options.count > most {
                return Ok(pairs.with_floor(exhausted));
            }
            lobpcg.refresh()?;
        } else {
            lobpcg.extend(residuals, &lengths, &active, preconditioner)?;
            lobpcg.rayleigh_ritz(&active)?;
            if lobpcg.age >= LASTING && lobpcg.asymmetry > CARRIED * enough {
                lobpcg.refresh()?;
            }
        }
    }
}

/// The iteration. Between two of its steps, S is `[X P]`.
struct Lobpcg<'a> {
    operator: &'a dyn SymmetricOperator,
    options: &'a LobpcgOptions,
    products: Products,
    random: RandomVectors,
    /// The number of X's vectors.
    width: usize,
    s: Basis,
    /// `A S`
    a: Basis,
    /// Θ's diagonal: `[width]`
    values: Vec<f64>,
    /// The largest of `‖(SᵀAS − (SᵀAS)ᵀ) e_j‖` over the columns j of X.
    asymmetry: f64,
    /// Iterations since A S was made.
    age: usize,
    /// Whether S spanned the space when Ritz vectors were last taken from it.
    spanned: bool,
}

impl<'a> Lobpcg<'a> {
    /// The Ritz vectors of the start block.
    fn new(operator: &'a dyn SymmetricOperator, options: &'a LobpcgOptions) -> Result<Lobpcg<'a>> {
        let (gpu, dim, stride, count) = (operator.gpu(), operator.dim(), operator.stride(), options.count);
        let width = (count + GUARD).min(dim);
        let capacity = (width + 2 * count).min(dim);
        let bytes = |capacity| Basis::bytes(gpu, stride, capacity, BASES);
        // beside the bases: residuals, W, what is preconditioned, its products and what is drawn at random
        let blocks = 4 * (5 * width * stride) as u64;
        operator.leave_room(2 * bytes(capacity) + bytes(count) + blocks);
        let mut random = RandomVectors::new(Distribution::Gaussian, options.seed);
        let mut s = Basis::sharing(gpu, stride, capacity, BASES)?;
        let start = options.start.block(operator)?;
        s.append(&orthonormalise(operator, &s, start, width, 0.0, &mut random)?.q)?;
        let mut lobpcg = Lobpcg {
            operator,
            options,
            products: Products::new("LOBPCG"),
            random,
            width,
            s,
            a: Basis::sharing(gpu, stride, capacity, BASES)?,
            values: Vec::new(),
            asymmetry: 0.0,
            age: 0,
            spanned: false,
        };
        lobpcg.refresh()?;
        Ok(lobpcg)
    }

    /// How far it has come, with so many pairs that seem to have converged.
    fn progress(&self, done: usize) -> Progress {
        let (total, products) = (self.options.count, self.products.made);
        let remaining = (products * (total - done)).checked_div(done).map(|products| products + total);
        let values = self.values.iter().take(total).copied().collect();
        Progress { done, total, products, remaining, values }
    }

    /// `A S` by fresh products, and the Ritz vectors by them.
    fn refresh(&mut self) -> Result<()> {
        self.a.truncate(0);
        for first in (0..self.s.len()).step_by(self.width) {
            let x = self.s.block(first..self.s.len().min(first + self.width))?;
            self.a.append(&self.products.make(self.operator, &x)?)?;
        }
        self.rayleigh_ritz(&(0..self.s.len()).collect::<Vec<_>>())?;
        self.age = 0;
        Ok(())
    }

    /// `A X − X Θ` for the wanted pairs, and its lengths.
    fn residuals(&self) -> Result<(Block, Vec<f64>)> {
        let wanted = 0..self.options.count;
        let (x, r) = (self.s.block(wanted.clone())?, self.a.block(wanted)?);
        let minus: Vec<f64> = self.values[..x.len()].iter().map(|value| -value).collect();
        combine_each(&minus, &x, &r, true)?;
        let lengths = dots(&r, &r)?.into_iter().map(f64::sqrt).collect();
        Ok((r, lengths))
    }

    /// Adds W for the active pairs behind X and P.
    fn extend(
        &mut self,
        residuals: Block,
        lengths: &[f64],
        active: &[usize],
        preconditioner: Option<&Preconditioner>,
    ) -> Result<()> {
        // what X and P leave of a vector of length 1 that counts as nothing
        const FLOOR: f64 = 1e-5;
        let operator = self.operator;
        let block = || Block::zeros(operator.gpu(), operator.stride(), active.len());
        let mut w = block()?;
        let taken =
            Mat::from_fn(
                residuals.len(),
                active.len(),
                |i, j| {
                    if i == active[j] { 1.0 / lengths[i] } else { 0.0 }
                },
            );
        combine(taken.as_ref(), &residuals, &w, false)?;
        if let Some(preconditioner) = preconditioner {
            let (t, scaled) = (block()?, block()?);
            preconditioner(&w, &t)?;
            let lengths = dots(&t, &t)?;
            let unit: Vec<f64> =
                lengths.iter().map(|&square| if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 }).collect();
            combine_each(&unit, &t, &scaled, false)?;
            w = scaled;
        }
        let w = orthonormalise(operator, &self.s, w, active.len(), FLOOR, &mut self.random)?.q;
        self.a.append(&self.products.make(self.operator, &w)?)?;
        self.s.append(&w)
    }

    /// `S = [X P]`: the best Ritz vectors X of the span of S, and P, what those vectors of S that are named in `before`
    /// leave outside of X.
    fn rayleigh_ritz(&mut self, before: &[usize]) -> Result<()> {
        let n = self.s.len();
        let g = self.s.gram()?;
        let h = self.s.project_all(&self.a)?;
        let column = |j: usize| (0..n).map(|i| (h[(i, j)] - h[(j, i)]).powi(2)).sum::<f64>().sqrt();
        self.asymmetry = (0..self.width).map(column).fold(0.0, f64::max);
        // E = S e is orthonormal, S = E s
        let (e, s) = whiten(g.as_ref(), &vec![0.0; n], n)?;
        let t = e.transpose() * (&h + h.transpose()) * &e * faer::Scale(0.5);
        let Ritz { values, vectors: u, .. } =
            Projection { t, s: Mat::zeros(0, n) }.ritz(0, self.options.which)?;
        let (x, rest) = (u.subcols(0, self.width), u.subcols(self.width, n - self.width));
        let named = Mat::from_fn(n, before.len(), |i, j| s[(i, before[j])]);
        let p = rest * orthonormal_columns((rest.transpose() * named).as_ref())?;
        let q = Mat::from_fn(n, self.width + p.ncols(), |i, j| {
            if j < self.width { x[(i, j)] } else { p[(i, j - self.width)] }
        });
        let q = e * q;
        self.s.rotate(q.as_ref())?;
        self.a.rotate(q.as_ref())?;
        self.values = values[..self.width].to_vec();
        self.products.largest = values.iter().fold(self.products.largest, |m, value| m.max(value.abs()));
        self.age += 1;
        self.spanned = n == self.operator.dim();
        Ok(())
    }

    /// The wanted pairs, measured by fresh products.
    fn measured(&mut self) -> Result<Eigenpairs> {
        let operator = self.operator;
        let LobpcgOptions { count, which, tolerance, .. } = *self.options;
        let mut vectors = Basis::sharing(operator.gpu(), operator.stride(), count, BASES)?;
        vectors.append(&self.s.block(0..count)?)?;
        let pairs = self.products.measure(operator, vectors, self.width, which, tolerance)?;
        Ok(Eigenpairs { complete: self.spanned, ..pairs })
    }
}

/// An orthonormal basis of the columns' span, without directions that are as good as dependent.
fn orthonormal_columns(m: MatRef<'_, f64>) -> Result<Mat<f64>> {
    const DEPENDENT: f64 = 1e-6;
    let lengths: Vec<f64> = m.col_iter().map(|column| column.norm_l2()).collect();
    let kept: Vec<usize> = (0..m.ncols()).filter(|&j| lengths[j] > 0.0).collect();
    if kept.is_empty() || m.nrows() == 0 {
        return Ok(Mat::zeros(m.nrows(), 0));
    }
    let unit = Mat::from_fn(m.nrows(), kept.len(), |i, j| m[(i, kept[j])] / lengths[kept[j]]);
    let svd = unit.thin_svd().map_err(|error| Error::NotFinite {
        quantity: "the coordinates of the step before".into(),
        detail: format!("{error:?}"),
    })?;
    let sigma = svd.S().column_vector();
    let rank = (0..sigma.nrows()).filter(|&i| sigma[i] > DEPENDENT * sigma[0]).count();
    Ok(svd.U().subcols(0, rank).to_owned())
}
