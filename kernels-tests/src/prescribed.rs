//! Symmetric operators of prescribed spectrum, multiplied in f64 on the host, and such that break.

use std::sync::atomic::{AtomicUsize, Ordering};

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

    /// f(A): the same eigenvectors with other eigenvalues.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Prescribed {
        let eigenvalues = self.eigenvalues.iter().map(|&value| f(value)).collect();
        Prescribed { gpu: self.gpu.clone(), eigenvalues, reflections: self.reflections.clone() }
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
        let flat = self.unpad(&x.download()?)?;
        let product: Vec<f32> =
            flat.chunks(self.dim()).flat_map(|x| self.times(&f64s(x))).map(|y| y as f32).collect();
        let padded = self.pad(&product)?;
        for (first, run) in y.runs(0, y.len()) {
            self.gpu.write(&run, &padded[first * self.stride()..][..run.len()])?;
        }
        Ok(())
    }
}

/// An operator whose products hold a NaN once that many were made.
pub struct Breaks {
    operator: Prescribed,
    after: usize,
    made: AtomicUsize,
}

impl Breaks {
    pub fn after(products: usize, operator: Prescribed) -> Breaks {
        Breaks { operator, after: products, made: AtomicUsize::new(0) }
    }
}

impl SymmetricOperator for Breaks {
    fn gpu(&self) -> &Gpu {
        self.operator.gpu()
    }

    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn stride(&self) -> usize {
        self.operator.stride()
    }

    fn apply(&self, x: &Block, y: &Block) -> curvkit::Result<()> {
        self.operator.apply(x, y)?;
        for (at, run) in y.runs(0, y.len()) {
            let mut values: Vec<f32> = self.gpu().read(&run)?;
            for (i, vector) in values.chunks_mut(self.stride()).enumerate() {
                if self.made.load(Ordering::Relaxed) + at + i >= self.after {
                    vector[7] = f32::NAN;
                }
            }
            self.gpu().write(&run, &values)?;
        }
        self.made.fetch_add(x.len(), Ordering::Relaxed);
        Ok(())
    }
}
