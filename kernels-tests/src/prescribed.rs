//! A symmetric operator of prescribed spectrum, multiplied in f64 on the host.

use curvkit::gpu::{ALIGN, Gpu};
use curvkit::operators::{Block, SymmetricOperator};

use crate::f64s;

/// `A = H₁ … H_r Λ H_r … H₁` with Householder reflections `H = 1 − 2 u uᵀ`; diagonal where there are none.
pub struct Prescribed {
    gpu: Gpu,
    /// Λ's diagonal, `[D]`.
    pub eigenvalues: Vec<f64>,
    /// Unit vectors u, `[r][D]`.
    reflections: Vec<Vec<f64>>,
}

impl Prescribed {
    /// With as many random reflections.
    pub fn new(gpu: &Gpu, eigenvalues: Vec<f64>, reflections: u64) -> Prescribed {
        let unit = |seed| {
            let u = f64s(&crate::cases::random(1000 + seed, eigenvalues.len()));
            let length = u.iter().map(|x| x * x).sum::<f64>().sqrt();
            u.into_iter().map(|x| x / length).collect()
        };
        let reflections = (0..reflections).map(unit).collect();
        Prescribed { gpu: gpu.clone(), eigenvalues, reflections }
    }

    /// `A x`, `[D]`.
    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        let mut y = x.to_vec();
        self.reflections.iter().for_each(|u| reflect(u, &mut y));
        y.iter_mut().zip(&self.eigenvalues).for_each(|(y, lambda)| *y *= lambda);
        self.reflections.iter().rev().for_each(|u| reflect(u, &mut y));
        y
    }
}

fn reflect(u: &[f64], x: &mut [f64]) {
    let along: f64 = u.iter().zip(&*x).map(|(u, x)| u * x).sum();
    x.iter_mut().zip(u).for_each(|(x, u)| *x -= 2.0 * along * u);
}

impl SymmetricOperator for Prescribed {
    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn dim(&self) -> usize {
        self.eigenvalues.len()
    }

    fn stride(&self) -> usize {
        self.dim().next_multiple_of(ALIGN)
    }

    fn apply(&self, x: &Block, y: &Block) -> curvkit::Result<()> {
        let flat = self.unpad(&x.download()?);
        let product: Vec<f32> =
            flat.chunks(self.dim()).flat_map(|x| self.times(&f64s(x))).map(|y| y as f32).collect();
        let padded = self.pad(&product);
        for (first, run) in y.runs(0, y.len()) {
            self.gpu.write(&run, &padded[first * self.stride()..][..run.len()])?;
        }
        Ok(())
    }
}
