//! One operator over several devices, each with some of the samples.

use super::{Block, Curvature, CurvatureOperator, Session, SymmetricOperator, check_blocks};
use crate::gpu::Gpu;
use crate::net::Subspace;
use crate::{Error, Result};

/// `A = Σ_i w_i A_i` of operators on several devices: each multiplies the same vectors on its own device and in its own
/// thread, and the products are added on the host in double precision and in their order.
///
/// Vectors lie on the first operator's device.
#[derive(Debug)]
pub struct Distributed<A> {
    members: Vec<(f64, A)>,
}

impl<A: SymmetricOperator> Distributed<A> {
    /// The sum of weights times operators.
    ///
    /// # Errors
    /// [`Error::Argument`] where there are none, [`Error::Shape`] naming the first whose vectors are not like those of the
    /// first operator.
    pub fn new(members: Vec<(f64, A)>) -> Result<Distributed<A>> {
        let Some((_, first)) = members.first() else {
            return Err(Error::argument("members", "none", "at least one"));
        };
        for (i, (_, operator)) in members.iter().enumerate() {
            let [expected, found] = [first, operator].map(|operator| [operator.dim(), operator.stride()]);
            if found != expected {
                return Err(Error::shape(format!("coordinates and words of member {i}"), found, expected));
            }
        }
        Ok(Distributed { members })
    }

    fn first(&self) -> &A {
        &self.members[0].1
    }
}

impl Distributed<CurvatureOperator> {
    /// A curvature of all samples of several sessions of one network at one θ, each with some of the data set.
    ///
    /// # Errors
    /// [`Error::Argument`] for the noise covariance, which is no mean of the parts' (the second moment is), and as
    /// [`Distributed::new`].
    pub fn of_sessions(
        which: Curvature,
        space: &Subspace,
        sessions: &[Session],
    ) -> Result<Distributed<CurvatureOperator>> {
        if which == Curvature::NoiseCovariance {
            let expected = "a curvature that is a mean over samples, such as the second moment";
            return Err(Error::argument("curvature", "the noise covariance", expected));
        }
        let samples: usize = sessions.iter().map(|session| session.samples().len()).sum();
        let members = sessions.iter().map(|session| {
            Ok((session.samples().len() as f64 / samples as f64, session.operator(which, space)?))
        });
        Distributed::new(members.collect::<Result<_>>()?)
    }
}

impl<A: SymmetricOperator> SymmetricOperator for Distributed<A> {
    fn gpu(&self) -> &Gpu {
        self.first().gpu()
    }

    fn dim(&self) -> usize {
        self.first().dim()
    }

    fn stride(&self) -> usize {
        self.first().stride()
    }

    /// Makes the products and waits for them.
    fn apply(&self, x: &Block, y: &Block) -> Result<()> {
        check_blocks(self, x, y)?;
        let vectors = x.download()?;
        let product = |operator: &A| -> Result<Vec<f32>> {
            let x = Block::upload(operator.gpu(), operator.stride(), &vectors)?;
            let y = Block::uninitialized(operator.gpu(), operator.stride(), x.len())?;
            operator.apply(&x, &y)?;
            y.download()
        };
        let products: Vec<Result<Vec<f32>>> = std::thread::scope(|scope| {
            let started: Vec<_> =
                self.members.iter().map(|(_, operator)| scope.spawn(|| product(operator))).collect();
            let joined = started.into_iter().map(|thread| thread.join());
            joined.map(|made| made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let mut sums = vec![0.0_f64; vectors.len()];
        for ((weight, _), product) in self.members.iter().zip(products) {
            sums.iter_mut().zip(product?).for_each(|(sum, value)| *sum += weight * value as f64);
        }
        let sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
        for (first, run) in y.runs(0, y.len()) {
            self.gpu().write(&run, &sums[first * self.stride()..][..run.len()])?;
        }
        Ok(())
    }

    fn leave_room(&self, bytes: u64) {
        self.members.iter().for_each(|(_, operator)| operator.leave_room(bytes));
    }

    fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
        self.first().pad(flat)
    }

    fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
        self.first().unpad(padded)
    }
}
