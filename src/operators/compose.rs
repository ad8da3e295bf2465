//! Operators made of others: sums, multiples, shifts, projections, restrictions.
//!
//! Each says once, in [`Composition::compose`], what it makes of its members' products; whether that is run or recorded
//! is the business of [`Steps`].

use super::algebra::Vectors;
use super::{Block, SymmetricOperator, check_blocks, check_vectors};
use crate::gpu::{Gpu, Recorder, View};
use crate::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm};
use crate::kernels::vector;
use crate::net::Subspace;
use crate::{Error, Result};

/// Runs or records the steps of a product.
trait Steps {
    /// Makes `Y = A X`.
    fn product(&mut self, a: &dyn SymmetricOperator, x: &Block, y: &Block) -> Result<()>;

    /// Makes what `record` records.
    fn then(&mut self, record: &mut dyn FnMut(&mut Recorder) -> Result<()>) -> Result<()>;
}

/// Runs each step at once, so that members whose products are made on the host serve too.
struct Running<'a>(&'a Gpu);

impl Steps for Running<'_> {
    fn product(&mut self, a: &dyn SymmetricOperator, x: &Block, y: &Block) -> Result<()> {
        a.apply(x, y)
    }

    fn then(&mut self, record: &mut dyn FnMut(&mut Recorder) -> Result<()>) -> Result<()> {
        let mut rec = Recorder::new(self.0);
        record(&mut rec)?;
        rec.run()
    }
}

impl Steps for Recorder<'_> {
    fn product(&mut self, a: &dyn SymmetricOperator, x: &Block, y: &Block) -> Result<()> {
        a.record(self, x, y)
    }

    fn then(&mut self, record: &mut dyn FnMut(&mut Recorder) -> Result<()>) -> Result<()> {
        record(self)
    }
}

/// What an operator makes of the products of others.
trait Composition: Send + Sync {
    /// The operators that it is made of, at least one; the first one's vectors are its own unless it says otherwise.
    fn members(&self) -> Vec<&dyn SymmetricOperator>;

    /// Makes Y of X, which have been checked.
    fn compose(&self, steps: &mut dyn Steps, x: &Block, y: &Block) -> Result<()>;

    /// The coordinates of its vectors, where they are not its first member's.
    fn space(&self) -> Option<&Subspace> {
        None
    }
}

macro_rules! operators {
    ($($name:ident),*) => {$(
        impl<A: SymmetricOperator> SymmetricOperator for $name<A> {
            fn gpu(&self) -> &Gpu {
                // not of `members`, whose list would not outlive the call
                self.first().gpu()
            }

            fn dim(&self) -> usize {
                self.space().map_or(self.first().dim(), |space| space.dim)
            }

            fn stride(&self) -> usize {
                self.space().map_or(self.first().stride(), |space| space.stride)
            }

            fn apply(&self, x: &Block, y: &Block) -> Result<()> {
                check_blocks(self, x, y)?;
                self.compose(&mut Running(self.gpu()), x, y)
            }

            fn record(&self, rec: &mut Recorder, x: &Block, y: &Block) -> Result<()> {
                check_blocks(self, x, y)?;
                self.compose(rec, x, y)
            }

            fn leave_room(&self, bytes: u64) {
                self.members().iter().for_each(|member| member.leave_room(bytes));
            }

            fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
                self.space().map_or_else(|| self.first().pad(flat), |space| space.pad(flat))
            }

            fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
                self.space().map_or_else(|| self.first().unpad(padded), |space| space.unpad(padded))
            }
        }
    )*};
}

operators!(Sum, Scaled, Shifted, Projected, Restricted);

/// `y = α x + β y`, vector by vector.
fn add(rec: &mut Recorder, alpha: f64, x: &Block, beta: f64, y: &Block) -> Result<()> {
    for ((_, x), (_, y)) in Vectors::from(x).pieces(1).iter().zip(Vectors::from(y).pieces(1)) {
        vector::combine(rec, alpha as f32, x, beta as f32, &y)?;
    }
    Ok(())
}

/// A block of vectors like those of `x`.
fn like(x: &Block) -> Result<Block> {
    Block::uninitialized(x.gpu(), x.stride(), x.len())
}

/// `Σ_i c_i A_i`, of operators on the same vectors.
#[derive(Debug)]
pub struct Sum<A> {
    terms: Vec<(f64, A)>,
}

impl<A: SymmetricOperator> Sum<A> {
    /// The sum of coefficients times operators.
    ///
    /// # Errors
    /// [`Error::Argument`] where there are none, [`Error::Shape`] or [`Error::OtherDevice`] naming the first whose vectors
    /// are not like those of the first operator.
    pub fn new(terms: Vec<(f64, A)>) -> Result<Sum<A>> {
        let Some((_, first)) = terms.first() else {
            return Err(Error::argument("terms", "none", "at least one"));
        };
        for (i, (_, operator)) in terms.iter().enumerate() {
            let [expected, found] = [first, operator].map(|operator| [operator.dim(), operator.stride()]);
            if found != expected {
                return Err(Error::shape(format!("coordinates and words of term {i}"), found, expected));
            }
            if !operator.gpu().is(first.gpu()) {
                return Err(first.gpu().refuses(format!("term {i}"), Some(operator.gpu())));
            }
        }
        Ok(Sum { terms })
    }

    fn first(&self) -> &A {
        &self.terms[0].1
    }
}

impl<A: SymmetricOperator> Composition for Sum<A> {
    fn members(&self) -> Vec<&dyn SymmetricOperator> {
        self.terms.iter().map(|(_, operator)| operator as &dyn SymmetricOperator).collect()
    }

    fn compose(&self, steps: &mut dyn Steps, x: &Block, y: &Block) -> Result<()> {
        let product = like(x)?;
        for (i, (c, operator)) in self.terms.iter().enumerate() {
            steps.product(operator, x, &product)?;
            steps.then(&mut |rec| add(rec, *c, &product, if i == 0 { 0.0 } else { 1.0 }, y))?;
        }
        Ok(())
    }
}

/// `c A`.
#[derive(Debug)]
pub struct Scaled<A> {
    factor: f64,
    operator: A,
}

impl<A: SymmetricOperator> Scaled<A> {
    /// `factor` times `operator`.
    pub fn new(factor: f64, operator: A) -> Scaled<A> {
        Scaled { factor, operator }
    }

    fn first(&self) -> &A {
        &self.operator
    }
}

impl<A: SymmetricOperator> Composition for Scaled<A> {
    fn members(&self) -> Vec<&dyn SymmetricOperator> {
        vec![&self.operator]
    }

    fn compose(&self, steps: &mut dyn Steps, x: &Block, y: &Block) -> Result<()> {
        let product = like(x)?;
        steps.product(&self.operator, x, &product)?;
        steps.then(&mut |rec| add(rec, self.factor, &product, 0.0, y))
    }
}

/// `A + s I`.
#[derive(Debug)]
pub struct Shifted<A> {
    operator: A,
    shift: f64,
}

impl<A: SymmetricOperator> Shifted<A> {
    /// `operator` plus `shift` times the identity.
    pub fn new(operator: A, shift: f64) -> Shifted<A> {
        Shifted { operator, shift }
    }

    fn first(&self) -> &A {
        &self.operator
    }
}

impl<A: SymmetricOperator> Composition for Shifted<A> {
    fn members(&self) -> Vec<&dyn SymmetricOperator> {
        vec![&self.operator]
    }

    fn compose(&self, steps: &mut dyn Steps, x: &Block, y: &Block) -> Result<()> {
        steps.product(&self.operator, x, y)?;
        steps.then(&mut |rec| add(rec, self.shift, x, 1.0, y))
    }
}

/// `P A P`, with P the orthogonal projection onto the span of orthonormal vectors E, `E Eᵀ`, or off it, `I − E Eᵀ`.
#[derive(Debug)]
pub struct Projected<A> {
    operator: A,
    basis: Block,
    onto: bool,
}

impl<A: SymmetricOperator> Projected<A> {
    /// `operator` between projections onto the span of `basis`, `[m, stride]` orthonormal.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::OtherDevice`] where these are not the operator's vectors.
    pub fn onto(operator: A, basis: Block) -> Result<Projected<A>> {
        check_vectors(operator.gpu(), operator.stride(), &[("E", &basis)], basis.len())?;
        Ok(Projected { operator, basis, onto: true })
    }

    /// `operator` between projections off the span of `basis`, `[m, stride]` orthonormal.
    ///
    /// # Errors
    /// As [`Projected::onto`].
    pub fn off(operator: A, basis: Block) -> Result<Projected<A>> {
        Ok(Projected { onto: false, ..Projected::onto(operator, basis)? })
    }

    fn first(&self) -> &A {
        &self.operator
    }
}

impl<A: SymmetricOperator> Composition for Projected<A> {
    fn members(&self) -> Vec<&dyn SymmetricOperator> {
        vec![&self.operator]
    }

    fn compose(&self, steps: &mut dyn Steps, x: &Block, y: &Block) -> Result<()> {
        let (projected, product) = (like(x)?, like(x)?);
        steps.then(&mut |rec| project(rec, &self.basis, self.onto, x, &projected))?;
        steps.product(&self.operator, &projected, &product)?;
        steps.then(&mut |rec| project(rec, &self.basis, self.onto, &product, y))
    }
}

/// Records `Y = E Eᵀ X`, or `Y = X − E Eᵀ X` where not `onto`, of orthonormal vectors E.
///
/// Twice off, as one pass leaves a rounding of X behind.
fn project(rec: &mut Recorder, e: &Block, onto: bool, x: &Block, y: &Block) -> Result<()> {
    if onto {
        y.record_clear(rec);
        return add_projection(rec, e, 1.0, x, y);
    }
    add(rec, 1.0, x, 0.0, y)?;
    let once = like(y)?;
    add_projection(rec, e, -1.0, x, y)?;
    add(rec, 1.0, y, 0.0, &once)?;
    add_projection(rec, e, -1.0, &once, y)
}

/// Records `Y += α E Eᵀ X`.
fn add_projection(rec: &mut Recorder, e: &Block, alpha: f32, x: &Block, y: &Block) -> Result<()> {
    fn matrix(view: &View, row: usize) -> Matrix<'_> {
        Matrix { view, row, batch: 0, period: 0 }
    }
    let stride = x.stride();
    for (_, e) in e.runs(0, e.len()) {
        let m = e.len() / stride;
        for (vectors, x) in Vectors::from(x).pieces(x.len()) {
            let k = vectors.len();
            let c = rec.gpu().buffer(k * m)?.slice(0, k * m); // c[j, i] = x_j · e_i
            let shape = Shape { batch: 1, m: k, n: m, k: stride };
            let product = Gemm { layout: Layout::NT, shape, alpha: 1.0, add: false };
            gemm(rec, product, matrix(&x, stride), matrix(&e, stride), None, matrix(&c, m))?;
            let shape = Shape { batch: 1, m: k, n: stride, k: m };
            let product = Gemm { layout: Layout::NN, shape, alpha, add: true };
            for (_, y) in Vectors::from((y, vectors.clone())).pieces(k) {
                debug_assert_eq!(y.len(), k * stride, "blocks of one length are cut alike");
                gemm(rec, product, matrix(&c, m), matrix(&e, stride), None, matrix(&y, stride))?;
            }
        }
    }
    Ok(())
}

/// Rows and columns of an operator on a subspace of a network's parameters: `R A Rᵀ`, with R taking the coordinates of
/// fewer parameters.
///
/// A [`Session`](super::Session)'s own operators are restricted more cheaply by asking for them on the subspace.
#[derive(Debug)]
pub struct Restricted<A> {
    operator: A,
    /// The operator's coordinates, and those that are left.
    from: Subspace,
    to: Subspace,
}

impl<A: SymmetricOperator> Restricted<A> {
    /// `operator`, whose vectors have the coordinates of `from`, restricted to those of `to`.
    ///
    /// # Errors
    /// [`Error::Shape`] where the operator's vectors are not those of `from`, [`Error::Argument`] where a parameter of `to`
    /// is not one of `from`.
    pub fn new(operator: A, from: &Subspace, to: &Subspace) -> Result<Restricted<A>> {
        let (found, expected) = ([operator.dim(), operator.stride()], [from.dim, from.stride]);
        if found != expected {
            return Err(Error::shape("coordinates and words of the operator", found, expected));
        }
        if let Some(part) = to.parts.iter().find(|part| from.part(part.parameter).is_none()) {
            let found = format!("parameter {}", part.parameter);
            return Err(Error::argument("subspace", found, "parameters of the operator's subspace"));
        }
        Ok(Restricted { operator, from: from.clone(), to: to.clone() })
    }

    fn first(&self) -> &A {
        &self.operator
    }

    /// Records copies of the coordinates of `to` between blocks of both spaces.
    fn copy(&self, rec: &mut Recorder, large: &Block, small: &Block, shrink: bool) {
        for (i, (_, small)) in Vectors::from(small).pieces(1).iter().enumerate() {
            let (_, large) = large.runs(i, 1).remove(0);
            for part in &self.to.parts {
                let at = self.from.part(part.parameter).expect("checked when it was made").padded;
                let (large, small) = (large.slice(at, part.len), small.slice(part.padded, part.len));
                if shrink { rec.copy(&large, &small) } else { rec.copy(&small, &large) }
            }
        }
    }
}

impl<A: SymmetricOperator> Composition for Restricted<A> {
    fn members(&self) -> Vec<&dyn SymmetricOperator> {
        vec![&self.operator]
    }

    fn space(&self) -> Option<&Subspace> {
        Some(&self.to)
    }

    fn compose(&self, steps: &mut dyn Steps, x: &Block, y: &Block) -> Result<()> {
        let large = || Block::uninitialized(self.gpu(), self.from.stride, x.len());
        let (whole, product) = (large()?, large()?);
        steps.then(&mut |rec| {
            whole.record_clear(rec);
            self.copy(rec, &whole, x, false);
            Ok(())
        })?;
        steps.product(&self.operator, &whole, &product)?;
        steps.then(&mut |rec| {
            y.record_clear(rec);
            self.copy(rec, &product, y, true);
            Ok(())
        })
    }
}
