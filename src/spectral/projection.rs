//! The projected matrix of a Krylov space, its Ritz pairs, and what a fresh Krylov sequence says of missed
//! ones.

use faer::{Mat, MatRef, Side};

use super::Which;
use crate::{Error, Result};

/// `A V = V T + P S`: V are the vectors that A was applied to, P the *pending* ones behind them in the basis.
///
/// All of `T = VᵀAV` is kept, because orthogonalising A's products makes all of it: a restart needs no
/// special shape, and converged vectors go on being improved by what the later ones couple to them.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    /// `[n, n]`
    pub t: Mat<f64>,
    /// `[pending, n]`
    pub s: Mat<f64>,
}

/// Ritz pairs `(θ, V q)`, the wanted end of the spectrum first.
pub(super) struct Ritz {
    pub values: Vec<f64>,
    /// q as columns, `[n, n]`
    pub vectors: Mat<f64>,
    /// `‖A V q − θ V q‖ = ‖S q‖`
    pub residuals: Vec<f64>,
}

impl Projection {
    /// No vectors.
    pub fn new() -> Projection {
        Projection { t: Mat::zeros(0, 0), s: Mat::zeros(0, 0) }
    }

    /// n, the number of vectors that A was applied to.
    pub fn len(&self) -> usize {
        self.t.nrows()
    }

    pub fn pending(&self) -> usize {
        self.s.nrows()
    }

    /// The pending vectors were multiplied: `A P = [V P] C + Q R`, and Q is pending now.
    ///
    /// `c`: `[n + pending, pending]`. `r`: `[pending from now on, pending]`.
    pub fn extend(&mut self, c: MatRef<'_, f64>, r: MatRef<'_, f64>) {
        let (n, grown) = (self.len(), c.nrows());
        assert_eq!((grown, c.ncols(), r.ncols()), (n + self.pending(), self.pending(), self.pending()));
        // in place: only the new rows and columns are made
        self.t.resize_with(grown, grown, |i, j| match (i < n, j < n) {
            (false, true) => c[(j, i - n)],
            (true, _) => c[(i, j - n)],
            (false, false) => 0.5 * (c[(i, j - n)] + c[(j, i - n)]),
        });
        self.s = Mat::from_fn(r.nrows(), grown, |i, j| if j < n { 0.0 } else { r[(i, j - n)] });
    }

    /// The Ritz pairs of the vectors from `first` on by themselves.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where the eigensolver does not converge.
    pub fn ritz(&self, first: usize, which: Which) -> Result<Ritz> {
        let n = self.len() - first;
        let (values, u) = eigenpairs(self.t.submatrix(first, first, n, n))?;
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| which.rank(values[j]).total_cmp(&which.rank(values[i])));
        let vectors = Mat::from_fn(n, n, |i, m| u[(i, order[m])]);
        let coupled = self.s.subcols(first, n) * &vectors; // [pending, n]
        let residuals = (0..n).map(|m| coupled.col(m).norm_l2()).collect();
        Ok(Ritz { values: order.iter().map(|&m| values[m]).collect(), vectors, residuals })
    }

    /// Keeps the first `keep` Ritz vectors of the whole space in V's place; returns Q, by which the basis is
    /// to be rotated, the pending vectors as they are: `[n + pending, keep + pending]`.
    pub fn restart(&mut self, ritz: &Ritz, keep: usize) -> Mat<f64> {
        let n = self.len();
        let q = Mat::from_fn(n + self.pending(), keep + self.pending(), |i, j| match (i < n, j < keep) {
            (true, true) => ritz.vectors[(i, j)],
            (false, false) if i - n == j - keep => 1.0,
            _ => 0.0,
        });
        self.s = &self.s * ritz.vectors.subcols(0, keep);
        self.t = Mat::from_fn(keep, keep, |i, j| if i == j { ritz.values[i] } else { 0.0 });
        q
    }

    /// Keeps the first `len` vectors as they are, and nothing pending.
    pub fn truncate(&mut self, len: usize) {
        self.t = self.t.submatrix(0, 0, len, len).to_owned();
        self.s = Mat::zeros(0, len);
    }

    /// The first of V with which the pending vectors are coupled: `SᵀS`'s columns before it are 0, and with them what A makes
    /// of the pending ones has of the vectors.
    pub fn first_coupled(&self) -> usize {
        let coupled = |&j: &usize| self.s.col(j).iter().any(|&s| s != 0.0);
        (0..self.len()).find(coupled).unwrap_or(self.len())
    }

    /// Vectors that nothing is known of become pending.
    pub fn add_pending(&mut self, count: usize) {
        let s = &self.s;
        self.s =
            Mat::from_fn(s.nrows() + count, s.ncols(), |i, j| if i < s.nrows() { s[(i, j)] } else { 0.0 });
    }
}

/// Eigenvalues and eigenvectors of T; of a diagonal one, as a restart leaves it, unit vectors: then the basis need not be
/// rotated.
fn eigenpairs(t: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    let n = t.nrows();
    if (0..n).all(|j| (0..n).all(|i| i == j || t[(i, j)] == 0.0)) {
        return Ok(((0..n).map(|i| t[(i, i)]).collect(), Mat::identity(n, n)));
    }
    let pairs = t.self_adjoint_eigen(Side::Lower).map_err(|error| Error::NotFinite {
        quantity: "the projected matrix's eigenvalues".into(),
        detail: format!("{error:?}"),
    })?;
    Ok((pairs.S().column_vector().iter().copied().collect(), pairs.U().to_owned()))
}

/// What a Krylov sequence from a random vector says of eigenvalues beyond a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is one.
    Missed,
    /// There is none.
    Complete,
    Open,
}

/// Judges by the Ritz pairs of `sequence` whether its operator, of dimension `dim`, has eigenvalues beyond
/// `limit` by more than `slack`, at the end (or the ends) of the spectrum that is wanted.
///
/// After j steps from a random vector, the largest Ritz value θ is short of the largest eigenvalue λ by more
/// than a share ε of the spectrum's width with probability at most `1.648 √dim exp(−√ε (2j − 1))` (Kuczyński
/// & Woźniakowski 1992, theorem 3). An eigenvalue beyond the limit with θ still below it is such a case.
pub(super) fn judge(sequence: &Ritz, dim: usize, which: Which, limit: f64, slack: f64) -> Verdict {
    const DOUBT: f64 = 1e-3;
    let steps = sequence.values.len() as f64;
    let improbable =
        |share: f64| 1.648 * (dim as f64).sqrt() * (-share.sqrt() * (2.0 * steps - 1.0)).exp() <= DOUBT;
    let (ends, limit): (&[f64], f64) = match which {
        Which::Largest => (&[1.0], limit),
        Which::Smallest => (&[-1.0], -limit),
        Which::Magnitude => (&[1.0, -1.0], limit.abs()),
    };
    let limit = limit + slack.max(f64::MIN_POSITIVE);
    let mut verdict = Verdict::Complete;
    for end in ends {
        let towards = |m: &usize| end * sequence.values[*m];
        let ascending = |i: &usize, j: &usize| towards(i).total_cmp(&towards(j));
        let extreme = (0..sequence.values.len()).max_by(ascending).expect("the sequence has a step");
        let opposite = (0..sequence.values.len()).min_by(ascending).expect("the sequence has a step");
        if towards(&extreme) > limit {
            return Verdict::Missed;
        }
        let share = (limit - towards(&extreme)) / (limit - towards(&opposite));
        // or the extreme has converged, after as many steps as would have shown an eigenvalue far beyond
        let settled = sequence.residuals[extreme] <= slack && improbable(1.0);
        if !settled && !improbable(share) {
            verdict = Verdict::Open;
        }
    }
    verdict
}
