//! Random vectors, each from a numbered stream of its own.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};
use rayon::prelude::*;

use crate::Result;
use crate::operators::{Block, SymmetricOperator};

/// What the coordinates of random vectors are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Standard normal.
    Gaussian,
    /// 1 or −1.
    Rademacher,
}

/// A sequence of random vectors. The n-th depends on the distribution, the seed and n alone, however many are
/// drawn at a time.
#[derive(Clone, Debug)]
pub struct RandomVectors {
    /// What coordinates are drawn from.
    pub distribution: Distribution,
    /// Of all of the sequence's streams.
    pub seed: u64,
    /// How many were drawn so far: n of the next one.
    pub drawn: u64,
}

impl RandomVectors {
    /// The sequence from its start.
    pub fn new(distribution: Distribution, seed: u64) -> RandomVectors {
        RandomVectors { distribution, seed, drawn: 0 }
    }

    /// The next `count` vectors of the operator's space, independent in each coordinate, zero elsewhere.
    ///
    /// # Errors
    /// The device's.
    pub fn draw(&mut self, operator: &dyn SymmetricOperator, count: usize) -> Result<Block> {
        let flat = self.coordinates(operator.dim(), count);
        Block::upload(operator.gpu(), operator.stride(), &operator.pad(&flat)?)
    }

    /// The coordinates of the next `count`, `[count, dim]`.
    pub(super) fn coordinates(&mut self, dim: usize, count: usize) -> Vec<f32> {
        let (distribution, seed, drawn) = (self.distribution, self.seed, self.drawn);
        let mut values = vec![0.0; count * dim];
        values.par_chunks_exact_mut(dim).enumerate().for_each(|(i, vector)| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(drawn + i as u64);
            vector.fill_with(|| match distribution {
                Distribution::Gaussian => StandardNormal.sample(&mut rng),
                Distribution::Rademacher => 1.0 - 2.0 * (rng.next_u32() >> 31) as f32,
            });
        });
        self.drawn += count as u64;
        values
    }
}
