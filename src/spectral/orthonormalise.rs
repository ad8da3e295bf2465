//! Orthonormalisation of a block against a basis and within itself.

use faer::{Mat, MatRef, Side};

use super::basis::Basis;
use super::random::RandomVectors;
use crate::operators::{Block, SymmetricOperator, combine};
use crate::{Error, Result};

/// A block `Y = V C + Q R`, taken apart by [`orthonormalise`].
pub struct Orthonormal {
    /// Orthonormal, and orthogonal to V.
    pub q: Block,
    /// `[vectors of V, vectors of Y]`
    pub c: Mat<f64>,
    /// `[vectors of Q, vectors of Y]`
    pub r: Mat<f64>,
}

/// Passes that a block gets at the most; two are the rule, a third where columns are nearly dependent or V leaves little
/// of them, and two more for each time that random vectors come in.
const MOST_PASSES: usize = 16;

/// What V has to leave of a column, as a share of its square, for `YᵀY − CᵀC` to say how much: less is made of the
/// rounding of inner products.
const MEASURED: f64 = 1e-3;

/// How far a block may be from orthonormal for one more pass to make it so to rounding.
const NEARLY: f64 = 1e-3;

/// Orthonormalises Y against V and within itself: `Y = V C + Q R`.
///
/// Q has `width` vectors, or as many as V leaves of the space. Where Y has fewer independent ones, random
/// ones complete it; a vector of Y of which V leaves no more than the length `floor` counts as nothing.
///
/// Each pass measures `C = VᵀY` and `YᵀY`, removes V by block Gram–Schmidt, and whitens what remains, whose Gram matrix is
/// `YᵀY − CᵀC`, by that matrix's eigenvectors (Stathopoulos & Wu 2002, SVQB): one read-back and one combination. Where V
/// leaves too little of a column for the difference to be one, the pass removes V alone. Passes go on until one finds
/// the block nearly orthonormal: it leaves it so to single precision.
///
/// # Errors
/// [`Error::NotFinite`] where Y is not finite, and the device's errors.
pub fn orthonormalise(
    operator: &dyn SymmetricOperator,
    basis: &Basis,
    y: Block,
    width: usize,
    floor: f64,
    random: &mut RandomVectors,
) -> Result<Orthonormal> {
    orthonormalise_measured(operator, (basis, 0), y, width, &mut |_| Ok(floor), random)
}

/// [`orthonormalise`], with the floor that `floor` makes of the squares of the lengths of Y's vectors, which the first pass
/// measures. That pass goes by the vectors from `first` on alone: what Y has of those before them is rounding.
pub(super) fn orthonormalise_measured(
    operator: &dyn SymmetricOperator,
    (basis, first): (&Basis, usize),
    y: Block,
    width: usize,
    floor: &mut dyn FnMut(&[f64]) -> Result<f64>,
    random: &mut RandomVectors,
) -> Result<Orthonormal> {
    // what is left of a column that was drawn at random, or whitened before, and counts as nothing
    const RANDOM_FLOOR: f64 = 1e-5;
    const WHITENED_FLOOR: f64 = 1e-2;
    let (dim, stride) = (operator.dim(), operator.stride());
    let width = width.min(dim - basis.len());
    let mut c = Mat::zeros(basis.len(), y.len());
    let mut r = Mat::identity(y.len(), y.len());
    let mut floors = Vec::new();
    let mut q = y;
    // whether the pass before removed V alone
    let mut bare = false;
    for pass in 0..MOST_PASSES {
        let range = if pass == 0 { first } else { 0 }..basis.len();
        let [removed, g] = basis.grams(range.clone(), &q)?; // [range, k], [k, k]
        if pass == 0 {
            let squares: Vec<f64> = g.diagonal().column_vector().iter().copied().collect();
            floors = vec![floor(&squares)?; q.len()];
        }
        if !removed.is_all_finite() || !g.is_all_finite() {
            return Err(Error::NotFinite {
                quantity: "a block to orthonormalise".into(),
                detail: "it holds what is no number, or is too large".into(),
            });
        }
        let left = &g - removed.transpose() * &removed;
        let measured = |i: usize| g[(i, i)] <= floors[i] * floors[i] || left[(i, i)] >= MEASURED * g[(i, i)];
        let mut of_range = c.subrows_mut(range.start, range.len());
        of_range += &removed * &r;
        if !bare && !(0..q.len()).all(measured) {
            bare = true;
            let next = Block::uninitialized(operator.gpu(), stride, q.len())?;
            let identity = Mat::<f64>::identity(q.len(), q.len());
            basis.combine_with(
                (range, (-1.0 * &removed).as_ref()),
                (identity.as_ref(), &q),
                (&next).into(),
            )?;
            q = next;
            continue;
        }
        // what V holds once more is nothing but rounding
        let left =
            Mat::from_fn(
                q.len(),
                q.len(),
                |i, j| if measured(i) && measured(j) { left[(i, j)] } else { 0.0 },
            );
        bare = false;
        let identity = Mat::<f64>::identity(g.nrows(), g.nrows());
        let nearly =
            range.start == 0 && removed.norm_max() <= NEARLY && (&left - identity).norm_max() <= NEARLY;
        let (s, inverse) = whiten(left.as_ref(), &floors, width)?; // [k, rank], [rank, k]
        let rank = s.ncols();
        let whitened = inverse * &r;
        r = Mat::from_fn(width, r.ncols(), |i, j| if i < rank { whitened[(i, j)] } else { 0.0 });
        let next = Block::uninitialized(operator.gpu(), stride, width)?;
        let of_basis = -1.0 * (&removed * &s);
        basis.combine_with((range, of_basis.as_ref()), (s.as_ref(), &q), (&next, 0..rank).into())?;
        if rank < width {
            let fresh = random.draw(operator, width - rank)?;
            let unit =
                Mat::<f64>::identity(fresh.len(), fresh.len()) * faer::Scale(1.0 / (dim as f64).sqrt());
            combine(unit.as_ref(), &fresh, (&next, rank..width), false)?;
        }
        floors = (0..width).map(|i| if i < rank { WHITENED_FLOOR } else { RANDOM_FLOOR }).collect();
        q = next;
        if nearly && rank == width {
            break;
        }
    }
    Ok(Orthonormal { q, c, r })
}

/// S with `SᵀGS = I`, `[k, rank]`, and its left inverse `[rank, k]`, for at most `width` of the directions in
/// which the columns of Gram matrix G have length.
///
/// Columns shorter than their floor are dropped. The others are brought to length 1 before the eigenvectors
/// are taken, so that a short column is not lost in a long one's rounding.
pub(super) fn whiten(g: MatRef<'_, f64>, floors: &[f64], width: usize) -> Result<(Mat<f64>, Mat<f64>)> {
    // eigenvalues of a Gram matrix of unit vectors below this are the rounding of its entries: the next pass
    // tells what there is of them
    const ROUNDING: f64 = 1e-7;
    let k = g.nrows();
    let kept: Vec<usize> = (0..k).filter(|&i| g[(i, i)] > floors[i] * floors[i]).collect();
    let length = |i: usize| g[(i, i)].sqrt();
    let unit = Mat::from_fn(kept.len(), kept.len(), |i, j| {
        let (i, j) = (kept[i], kept[j]);
        0.5 * (g[(i, j)] + g[(j, i)]) / (length(i) * length(j))
    });
    let pairs = unit.self_adjoint_eigen(Side::Lower).map_err(|error| Error::NotFinite {
        quantity: "a Gram matrix's eigenvalues".into(),
        detail: format!("{error:?}"),
    })?;
    let rank = width.min(kept.len());
    let (u, ascending) = (pairs.U(), pairs.S().column_vector());
    let root = |m: usize| ascending[kept.len() - 1 - m].max(ROUNDING * kept.len() as f64).sqrt();
    let entry = |i: usize, m: usize| u[(i, kept.len() - 1 - m)];
    let mut s = Mat::zeros(k, rank);
    let mut inverse = Mat::zeros(rank, k);
    for (i, &column) in kept.iter().enumerate() {
        for m in 0..rank {
            s[(column, m)] = entry(i, m) / (root(m) * length(column));
            inverse[(m, column)] = entry(i, m) * root(m) * length(column);
        }
    }
    Ok((s, inverse))
}
