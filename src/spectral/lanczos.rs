//! Block Lanczos with thick restart.
//!
//! ```text
//! A V = V T + P S      T = VᵀAV      θ, q: eigenpairs of T      ‖A V q − θ V q‖ = ‖S q‖
//! ```
//!
//! A step multiplies the pending block P, takes the basis out of the products and makes what remains the next
//! pending block. When the basis is full, the best Ritz vectors are kept in its place, and P goes on (Wu &
//! Simon 2000); converged ones stay among them, so that none comes up twice and all go on being improved.
//!
//! A Krylov space holds one copy of an eigenvalue for each vector that it starts from, and none to which
//! these are orthogonal. Once the wanted pairs have converged, the Krylov sequence of a fresh random vector
//! orthogonal to the basis therefore has to show that nothing beyond the last of them is left; if it finds
//! something, it is taken in with a fresh block, and the iteration goes on.

use faer::Mat;

use super::options::chased;
use super::orthonormalise::orthonormalise_measured;
use super::products::Products;
use super::projection::{Projection, Ritz, Verdict, judge};
use super::random::{Distribution, RandomVectors};
use super::{Basis, Eigenpairs, LanczosOptions, Observer, Progress, orthonormalise, width};
use crate::Result;
use crate::operators::{Block, SymmetricOperator};

/// Below this share of |λ₁|, what a product leaves outside of the basis is rounding.
const ROUNDING: f64 = 1e-6;

/// The share of the tolerance that the recurrence's residual has to reach: the fresh one has rounding on top.
const ESTIMATE: f64 = 0.7;

/// The iteration, between two of its steps.
///
/// It owns its operator, or borrows it: a reference, a box and an `Arc` of an operator are operators.
pub struct Lanczos<A> {
    pub(super) operator: A,
    pub(super) options: LanczosOptions,
    /// b.
    pub(super) width: usize,
    pub(super) random: RandomVectors,
    /// `[V P]`.
    pub(super) basis: Basis,
    pub(super) projection: Projection,
    pub(super) products: Products,
    /// V's vectors when the Ritz pairs were last looked at, and how many wanted ones had converged then.
    pub(super) examined: usize,
    pub(super) converged: usize,
    /// The wanted Ritz values as they were then, the most wanted first.
    values: Vec<f64>,
    /// Whether S no longer holds all that A makes of V outside of V.
    pub(super) forgotten: bool,
    /// The first vector of the sequence that looks for missed pairs, while it runs.
    pub(super) sequence: Option<usize>,
    /// Whether the iteration has ended, and if so, whether nothing is missed.
    pub(super) ended: Option<bool>,
}

impl<A: SymmetricOperator> Lanczos<A> {
    /// Prepares the start block; no product is made.
    ///
    /// # Errors
    /// [`crate::Error::Argument`], [`crate::Error::Shape`] or [`crate::Error::NotFinite`] naming the option that
    /// cannot be used, and the device's errors.
    pub fn new(operator: A, mut options: LanczosOptions) -> Result<Lanczos<A>> {
        let started = options.check(&operator)?;
        let width =
            options.block.unwrap_or_else(|| width::cheapest_block(&operator, options.count).max(started));
        let width = width.min(operator.dim());
        let start = std::mem::take(&mut options.start);
        let mut lanczos = Lanczos::empty(operator, options, width)?;
        let start = start.block(&lanczos.operator)?;
        lanczos.add_pending(start, width)?;
        Ok(lanczos)
    }

    /// Without any vectors.
    pub(super) fn empty(operator: A, options: LanczosOptions, width: usize) -> Result<Lanczos<A>> {
        let (gpu, stride) = (operator.gpu(), operator.stride());
        let capacity = capacity(&operator, options.count, width);
        // beside the basis: a block, its products, what remains of them and what is drawn at random
        let blocks = 4 * (4 * width * stride) as u64;
        operator.leave_room(Basis::bytes(gpu, stride, capacity, 1) + blocks);
        let basis = Basis::new(gpu, stride, capacity)?;
        Ok(Lanczos {
            operator,
            width,
            random: RandomVectors::new(Distribution::Gaussian, options.seed),
            basis,
            projection: Projection::new(),
            products: Products::new("the Lanczos iteration"),
            examined: 0,
            converged: 0,
            values: Vec::new(),
            forgotten: false,
            sequence: None,
            ended: None,
            options,
        })
    }

    /// One block of products, with the restart or the look at the Ritz pairs that is due then. Returns
    /// whether there is more to do.
    ///
    /// # Errors
    /// [`crate::Error::NotFinite`] naming the step where a product is not finite, and the device's errors.
    pub fn step(&mut self) -> Result<bool> {
        if self.ended.is_none() {
            self.multiply()?;
            match self.sequence {
                Some(first) => self.follow(first)?,
                None => self.examine()?,
            }
            if self.ended.is_none() && !self.affords_more() {
                self.ended = Some(false);
                if self.sequence.is_some() {
                    self.leave_sequence();
                }
            }
        }
        Ok(self.ended.is_none())
    }

    /// Whether the budget has room for the next block, and the residuals after it.
    fn affords_more(&self) -> bool {
        self.products.made + self.projection.pending() + self.options.count <= self.options.max_products()
    }

    /// Goes on where a budget was spent, if there is a larger one now.
    pub(super) fn go_on(&mut self) -> Result<()> {
        if self.ended == Some(false) && self.affords_more() {
            self.ended = None;
            // a sequence that was cut off took the pending block with it
            if self.projection.pending() == 0 {
                self.add_pending(self.no_vectors()?, self.width)?;
            }
        }
        Ok(())
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        let count = self.options.count;
        let left = count - self.converged.min(count);
        let remaining = match self.ended {
            Some(_) => Some(count),
            None => (self.products.made * left).checked_div(self.converged).map(|products| products + count),
        };
        let values = self.values.clone();
        let products = self.products.made;
        Progress { done: self.converged.min(count), total: count, products, remaining, values }
    }

    /// The number of vectors that the basis holds.
    pub fn basis_len(&self) -> usize {
        self.basis.len()
    }

    /// The eigenpairs as they stand, with residuals by fresh products.
    ///
    /// # Errors
    /// [`crate::Error::NotFinite`] where a product is not finite, and the device's errors.
    pub fn finish(mut self) -> Result<Eigenpairs> {
        let ritz = self.projection.ritz(0, self.options.which)?;
        let count = self.options.count.min(ritz.values.len());
        let q = self.projection.restart(&ritz, count);
        self.basis.rotate(q.as_ref())?;
        self.basis.truncate(count);
        let LanczosOptions { which, tolerance, .. } = self.options;
        let pairs = self.products.measure(&self.operator, self.basis, self.width, which, tolerance)?;
        let complete = self.ended == Some(true);
        Ok(Eigenpairs { complete, ..pairs }.with_floor(complete))
    }

    /// Multiplies the pending block; what the products leave outside of the basis is the next one.
    fn multiply(&mut self) -> Result<()> {
        let width = if self.sequence.is_some() { 1 } else { self.width };
        let Lanczos { operator, basis, products, random, .. } = self;
        let x = basis.lent(self.projection.len()..basis.len())?;
        let y = products.begin(operator, &x)?;
        let mut floor = |squares: &[f64]| {
            products.note(squares)?;
            Ok(ROUNDING * products.largest)
        };
        let first = if self.forgotten { 0 } else { self.projection.first_coupled() };
        let made = orthonormalise_measured(operator, (basis, first), y, width, &mut floor, random)?;
        self.projection.extend(made.c.as_ref(), made.r.as_ref());
        self.basis.append(&made.q)
    }

    /// Makes `start` pending, completed by random vectors to `width`.
    fn add_pending(&mut self, start: Block, width: usize) -> Result<()> {
        let made = orthonormalise(&self.operator, &self.basis, start, width, 0.0, &mut self.random)?;
        self.projection.add_pending(made.q.len());
        self.basis.append(&made.q)
    }

    /// Whether the next block would not find room.
    fn full(&self, width: usize) -> bool {
        let next = width.min(self.operator.dim() - self.basis.len());
        self.basis.len() + next > self.basis.capacity()
    }

    /// Looks at the Ritz pairs when the basis is full or has grown by a quarter since the last time.
    fn examine(&mut self) -> Result<()> {
        let exhausted = self.projection.pending() == 0;
        let full = self.full(self.width);
        let due = self.options.count.max(self.examined + self.examined / 4);
        if !exhausted && !full && self.projection.len() < due {
            return Ok(());
        }
        let ritz = self.projection.ritz(0, self.options.which)?;
        self.products.largest =
            ritz.values.iter().fold(self.products.largest, |largest, value| largest.max(value.abs()));
        let enough = ESTIMATE * chased(self.options.tolerance) * self.products.largest;
        let wanted = ritz.residuals.iter().take(self.options.count);
        self.converged = wanted.filter(|&&residual| residual <= enough).count();
        self.values = ritz.values.iter().take(self.options.count).copied().collect();
        self.examined = self.projection.len();
        if exhausted {
            self.ended = Some(true);
        } else if self.converged == self.options.count {
            self.restart(&ritz)?;
            self.truncate(self.projection.len());
            self.sequence = Some(self.projection.len());
            self.add_pending(self.no_vectors()?, 1)?;
            // the converged vectors span the space
            if self.projection.pending() == 0 {
                self.ended = Some(true);
            }
        } else if full {
            self.restart(&ritz)?;
        }
        Ok(())
    }

    /// Keeps the wanted Ritz vectors, and some of the next: theirs is what the wanted ones are to be told
    /// from.
    fn restart(&mut self, ritz: &Ritz) -> Result<()> {
        let (count, capacity) = (self.options.count, self.basis.capacity());
        // a basis with room for the whole space never has to make any
        let whole = capacity == self.operator.dim();
        let enough = if whole { capacity } else { count + (capacity - count) * 2 / 5 };
        let keep = enough.min(self.projection.len());
        let q = self.projection.restart(ritz, keep);
        self.basis.rotate(q.as_ref())?;
        self.examined = keep;
        Ok(())
    }

    /// Judges by the sequence that starts at vector `first` whether a pair was missed.
    fn follow(&mut self, first: usize) -> Result<()> {
        if self.projection.pending() == 0 {
            self.ended = Some(true); // the basis spans the space
            return Ok(());
        }
        let which = self.options.which;
        let last = self.options.count - 1;
        let limit = self.projection.t[(last, last)]; // the restart left Ritz values on T's diagonal
        let slack = chased(self.options.tolerance) * self.products.largest;
        let sequence = self.projection.ritz(first, which)?;
        let verdict = judge(&sequence, self.operator.dim(), which, limit, slack);
        // without room, the sequence has had as many steps as the pairs themselves
        if verdict == Verdict::Open && !self.full(1) {
            return Ok(());
        }
        let n = self.projection.len();
        let q = Mat::from_fn(self.basis.len(), 1, |i, _| {
            if (first..n).contains(&i) { sequence.vectors[(i - first, 0)] } else { 0.0 }
        });
        let extreme = Block::zeros(self.operator.gpu(), self.operator.stride(), 1)?;
        self.basis.combine(q.as_ref(), &extreme, false)?;
        self.leave_sequence();
        if verdict == Verdict::Missed {
            self.add_pending(extreme, self.width)?;
        } else {
            self.ended = Some(true);
        }
        Ok(())
    }

    /// Keeps the wanted pairs alone. The others did not converge, and what they leave outside of the basis
    /// was forgotten when the sequence began: beside them, S would say too little of pairs that are still to
    /// come.
    fn leave_sequence(&mut self) {
        self.truncate(self.options.count);
        self.examined = self.options.count;
        self.sequence = None;
    }

    fn truncate(&mut self, len: usize) {
        self.forgotten = true;
        self.projection.truncate(len);
        self.basis.truncate(len);
    }

    fn no_vectors(&self) -> Result<Block> {
        Block::zeros(self.operator.gpu(), self.operator.stride(), 0)
    }
}

/// Vectors of the basis: as many again as are wanted or eight blocks more, and two blocks that are pending;
/// more, which saves products, where 512 take no more than half of the memory budget.
fn capacity(operator: &dyn SymmetricOperator, count: usize, width: usize) -> usize {
    const ROOMY: usize = 512;
    let fits = operator.gpu().memory_budget() / 2 / (4 * operator.stride() as u64);
    let needed = (2 * count).max(count + 8 * width).saturating_add(2 * width);
    needed.max(ROOMY.min(fits as usize)).min(operator.dim())
}

/// The eigenpairs that `options` ask for, in one call; as they stand where the observer stops it.
///
/// # Errors
/// As [`Lanczos::new`] and [`Lanczos::step`].
pub fn eigenpairs(
    operator: &dyn SymmetricOperator,
    options: LanczosOptions,
    observer: &mut Observer,
) -> Result<Eigenpairs> {
    let mut lanczos = Lanczos::new(operator, options)?;
    while lanczos.step()? && observer(&lanczos.progress()).is_continue() {}
    lanczos.finish()
}
