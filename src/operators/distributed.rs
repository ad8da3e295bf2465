//! One operator over several devices, each with some of the samples.

use super::{Block, Curvature, CurvatureOperator, Session, SymmetricOperator, check_blocks};
use crate::gpu::Gpu;
use crate::net::Subspace;
use crate::{Error, Result};

/// `A = Σ_i w_i A_i` of operators on several devices: each multiplies the same vectors on its own device and in its own
/// thread, and the products are added on the host in double precision and in their order.
///
/// Vectors lie on the first operator's device.
pub struct Distributed<A> {
    members: Vec<(f64, A)>,
    /// What returns a member's ḡ, `[stride]`, where members are covariances.
    mean: Option<Mean<A>>,
}

type Mean<A> = fn(&A) -> Result<Vec<f32>>;

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
        Ok(Distributed { members, mean: None })
    }

    fn first(&self) -> &A {
        &self.members[0].1
    }

    /// `√w_i (ḡ_i − ḡ)` for each member, `[stride]`: none where members are no covariances.
    fn between(&self) -> Result<Vec<Vec<f64>>> {
        let Some(of) = self.mean else { return Ok(vec![]) };
        let means: Vec<Vec<f32>> =
            self.members.iter().map(|(_, member)| of(member)).collect::<Result<_>>()?;
        let weighted =
            |e: usize| std::iter::zip(&self.members, &means).map(move |((w, _), g)| w * g[e] as f64);
        let mean: Vec<f64> = (0..self.stride()).map(|e| weighted(e).sum()).collect();
        let differences = std::iter::zip(&self.members, &means).map(|((w, _), g)| {
            std::iter::zip(g, &mean).map(|(&g, mean)| w.sqrt() * (g as f64 - mean)).collect()
        });
        Ok(differences.collect())
    }
}

impl<A: std::fmt::Debug> std::fmt::Debug for Distributed<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Distributed").field("members", &self.members).finish_non_exhaustive()
    }
}

impl Distributed<CurvatureOperator> {
    /// A curvature of all samples of several sessions of one network at one θ, each with some of the data set. Of the noise
    /// covariance, what the sessions' mean gradients add, `Σ_i w_i (ḡ_i − ḡ)(ḡ_i − ḡ)ᵀ`, is added on the host too.
    ///
    /// # Errors
    /// As [`Session::operator`] and [`Distributed::new`].
    pub fn of_sessions(
        which: Curvature,
        space: &Subspace,
        sessions: &[Session],
    ) -> Result<Distributed<CurvatureOperator>> {
        let samples: usize = sessions.iter().map(|session| session.samples().len()).sum();
        let members = sessions.iter().map(|session| {
            Ok((session.samples().len() as f64 / samples as f64, session.operator(which, space)?))
        });
        let sum = Distributed::new(members.collect::<Result<_>>()?)?;
        let covariance = which == Curvature::NoiseCovariance;
        let mean: Mean<CurvatureOperator> =
            |member| Ok(member.products().mean()?.expect("products with a covariance are centred"));
        Ok(Distributed { mean: covariance.then_some(mean), ..sum })
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
        if x.is_empty() {
            return Ok(());
        }
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
        let stride = self.stride();
        for difference in self.between()? {
            for (sum, x) in sums.chunks_exact_mut(stride).zip(vectors.chunks_exact(stride)) {
                let along: f64 = std::iter::zip(&difference, x).map(|(d, &x)| d * x as f64).sum();
                std::iter::zip(sum, &difference).for_each(|(sum, d)| *sum += along * d);
            }
        }
        let sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
        for (first, run) in y.runs(0, y.len()) {
            self.gpu().write(&run, &sums[first * stride..][..run.len()])?;
        }
        Ok(())
    }

    fn leave_room(&self, bytes: u64) {
        self.members.iter().for_each(|(_, operator)| operator.leave_room(bytes));
    }

    /// That of the members together.
    fn rounding(&self) -> Result<f64> {
        self.members.iter().map(|(weight, member)| Ok(weight.abs() * member.rounding()?)).sum()
    }

    fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
        self.first().pad(flat)
    }

    fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
        self.first().unpad(padded)
    }
}
