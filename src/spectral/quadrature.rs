//! Spectral densities by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017).
//!
//! S steps of Lanczos from a random vector make a tridiagonal T, whose eigenvalues θ and squared first components w
//! of eigenvectors are the nodes and weights of Gauss's quadrature for that vector (Golub & Welsch 1969):
//! `Σ w f(θ)` estimates `tr f(A) / D`, exactly for polynomials up to degree 2 S − 1 but for what the vector is.

use faer::{Mat, Side};

use super::algebra::{Distribution, RandomVectors, combine_each, copy, dots};
use super::products::Products;
use crate::operators::{Block, SymmetricOperator};
use crate::{Error, Result};

/// Below this share of |λ₁|, what a step leaves is rounding, and an eigenvalue counts as zero.
const ROUNDING: f64 = 1e-6;

/// What [`quadrature`] is to make.
#[derive(Clone, Debug, PartialEq)]
pub struct QuadratureOptions {
    /// M, the random vectors, which are advanced together.
    pub probes: usize,
    /// S, the products that each gets.
    pub steps: usize,
    pub seed: u64,
}

/// Nodes and weights of Gauss's quadrature, for each of M random vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Quadrature {
    /// `(θ, w)` of each probe, θ ascending; `Σ w = 1`.
    pub rules: Vec<Vec<(f64, f64)>>,
    /// Products spent.
    pub products: usize,
}

/// A density on a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Density {
    /// λ
    pub at: Vec<f64>,
    /// Its mean over the probes.
    pub density: Vec<f64>,
    /// The mean's standard error.
    pub standard_error: Vec<f64>,
}

/// The Lanczos vectors of all probes, step after step, as many on the device as half of the memory budget holds, the
/// others on the host.
struct Vectors {
    probes: usize,
    device: Block,
    host: Vec<Vec<f32>>,
    steps: usize,
}

impl Vectors {
    fn new(operator: &dyn SymmetricOperator, options: &QuadratureOptions) -> Result<Vectors> {
        let bytes = (4 * operator.stride() * options.probes) as u64;
        let fit = (operator.gpu().memory_budget() / 2 / bytes).clamp(1, options.steps as u64) as usize;
        let device = Block::zeros(operator.gpu(), operator.stride(), fit * options.probes)?;
        Ok(Vectors { probes: options.probes, device, host: Vec::new(), steps: 0 })
    }

    fn push(&mut self, v: &Block) -> Result<()> {
        let at = self.steps * self.probes;
        if at < self.device.len() {
            copy(v, (&self.device, at..at + self.probes))?;
        } else {
            self.host.push(v.download()?);
        }
        self.steps += 1;
        Ok(())
    }

    /// Takes what each probe's vectors have of its own w out of it; adds the components to `c`, `[steps, M]`.
    fn remove_from(&self, w: &Block, c: &mut [f64]) -> Result<()> {
        let mut remove = |v: (&Block, std::ops::Range<usize>), first: usize| -> Result<()> {
            let part = dots(v.clone(), w)?;
            let minus: Vec<f64> = part.iter().map(|c| -c).collect();
            c[first..first + part.len()].iter_mut().zip(&part).for_each(|(c, part)| *c += part);
            combine_each(&minus, v, w, true)
        };
        let held = self.device.len().min(self.steps * self.probes);
        remove((&self.device, 0..held), 0)?;
        for (i, values) in self.host.iter().enumerate() {
            let block = Block::upload(w.gpu(), w.stride(), values)?;
            remove((&block, 0..self.probes), held + i * self.probes)?;
        }
        Ok(())
    }
}

/// Nodes and weights from `options.probes` random vectors (±1 in each coordinate), all in one block.
///
/// Each is kept orthogonal to its own earlier vectors by two passes against all of them. One whose space is
/// exhausted before the last step stops there; its rule is exact then.
///
/// # Errors
/// [`Error::Argument`] for no probes or steps, [`Error::NotFinite`] where a product is not finite, and the
/// device's errors.
pub fn quadrature(operator: &dyn SymmetricOperator, options: &QuadratureOptions) -> Result<Quadrature> {
    let QuadratureOptions { probes, steps, seed } = *options;
    for (name, value) in [("probes", probes), ("steps", steps)] {
        if value == 0 {
            return Err(Error::argument(name, 0, "at least 1"));
        }
    }
    let steps = steps.min(operator.dim());
    let mut products = Products::new(operator, "stochastic Lanczos quadrature");
    let mut vectors = Vectors::new(operator, &QuadratureOptions { steps, ..*options })?;
    let drawn = RandomVectors::new(Distribution::Rademacher, seed).draw(operator, probes)?;
    let mut v = scaled(&drawn, &vec![1.0 / (operator.dim() as f64).sqrt(); probes])?;
    let mut diagonal = vec![Vec::new(); probes]; // of T, each probe's
    let mut beside = vec![Vec::new(); probes];
    let mut going = vec![true; probes];
    for step in 0..steps {
        vectors.push(&v)?;
        let w = products.make(&v)?;
        let mut c = vec![0.0; (step + 1) * probes];
        vectors.remove_from(&w, &mut c)?;
        vectors.remove_from(&w, &mut c)?;
        let lengths: Vec<f64> = dots(&w, &w)?.into_iter().map(f64::sqrt).collect();
        let mut scales = vec![0.0; probes];
        for p in 0..probes {
            if !going[p] {
                continue;
            }
            diagonal[p].push(c[step * probes + p]);
            going[p] = lengths[p] > ROUNDING * products.largest && step + 1 < steps;
            if going[p] {
                beside[p].push(lengths[p]);
                scales[p] = 1.0 / lengths[p];
            }
        }
        if !going.contains(&true) {
            break;
        }
        v = scaled(&w, &scales)?;
    }
    let rules = diagonal.iter().zip(&beside).map(|(diagonal, beside)| rule(diagonal, beside));
    Ok(Quadrature { rules: rules.collect::<Result<_>>()?, products: products.made })
}

/// `c_i x_i`.
fn scaled(x: &Block, c: &[f64]) -> Result<Block> {
    let y = Block::zeros(x.gpu(), x.stride(), x.len())?;
    combine_each(c, x, &y, false)?;
    Ok(y)
}

/// The rule of a tridiagonal matrix.
fn rule(diagonal: &[f64], beside: &[f64]) -> Result<Vec<(f64, f64)>> {
    let t = Mat::from_fn(diagonal.len(), diagonal.len(), |i, j| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => beside[i.min(j)],
        _ => 0.0,
    });
    let pairs = t.self_adjoint_eigen(Side::Lower).map_err(|error| Error::NotFinite {
        quantity: "a tridiagonal matrix's eigenvalues".into(),
        detail: format!("{error:?}"),
    })?;
    let (u, theta) = (pairs.U(), pairs.S().column_vector());
    Ok((0..diagonal.len()).map(|i| (theta[i], u[(0, i)].powi(2))).collect())
}

/// Mean and its standard error; none of the latter from a single value.
pub(super) fn mean_with_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, if values.len() > 1 { (variance / n).sqrt() } else { 0.0 })
}

impl Quadrature {
    /// `tr f(A) / D` with its standard error over the probes (0 for one probe).
    pub fn integrate(&self, f: impl Fn(f64) -> f64) -> (f64, f64) {
        let of_rule = |rule: &Vec<(f64, f64)>| rule.iter().map(|&(theta, w)| w * f(theta)).sum();
        mean_with_error(&self.rules.iter().map(of_rule).collect::<Vec<f64>>())
    }

    /// The smallest and the largest node.
    pub fn range(&self) -> (f64, f64) {
        let nodes = || self.rules.iter().flatten().map(|node| node.0);
        (nodes().fold(f64::INFINITY, f64::min), nodes().fold(f64::NEG_INFINITY, f64::max))
    }

    /// The density of eigenvalues, its integral 1, on `points` values of λ, each node broadened to a normal
    /// distribution whose deviation is `broadening` of the nodes' range.
    ///
    /// # Errors
    /// [`Error::Argument`] for fewer than two points or a broadening that is not positive.
    pub fn density(&self, points: usize, broadening: f64) -> Result<Density> {
        let (low, high) = self.range();
        let span = if high > low { high - low } else { high.abs().max(1.0) };
        self.broadened(points, broadening * span, (low, high), Some, |at| at)
    }

    /// The density of log₁₀ |λ| of the eigenvalues that have the sign of `sign`, on a grid of |λ|, with `broadening`
    /// in decades. Its integral over log₁₀ |λ| is the share of such eigenvalues; those below 1e-6 |λ₁|, which are
    /// rounding, are left out.
    ///
    /// # Errors
    /// [`Error::Argument`] as by [`Quadrature::density`], and where no node has that sign.
    pub fn log_density(&self, sign: f64, points: usize, broadening: f64) -> Result<Density> {
        let (low, high) = self.range();
        let floor = ROUNDING * low.abs().max(high.abs());
        let place = |theta: f64| (theta * sign.signum() > floor).then(|| theta.abs().log10());
        let places = || self.rules.iter().flatten().filter_map(|node| place(node.0));
        let range = (places().fold(f64::INFINITY, f64::min), places().fold(f64::NEG_INFINITY, f64::max));
        if range.0 > range.1 {
            let found = format!("no eigenvalue with the sign of {sign}");
            return Err(Error::argument("logarithmic density", found, "at least one"));
        }
        self.broadened(points, broadening, range, place, |at| 10f64.powf(at))
    }

    fn broadened(
        &self,
        points: usize,
        deviation: f64,
        (low, high): (f64, f64),
        place: impl Fn(f64) -> Option<f64>,
        back: impl Fn(f64) -> f64,
    ) -> Result<Density> {
        if points < 2 {
            return Err(Error::argument("points", points, "at least 2"));
        }
        // also false for NaN
        let positive = deviation > 0.0 && deviation.is_finite();
        if !positive {
            return Err(Error::argument("broadening", deviation, "a number above 0"));
        }
        // beyond five deviations there is nothing to see
        let (low, high) = (low - 5.0 * deviation, high + 5.0 * deviation);
        let mut density = Density { at: vec![], density: vec![], standard_error: vec![] };
        for i in 0..points {
            let at = low + (high - low) * i as f64 / (points - 1) as f64;
            let normal = |theta: f64| {
                let z = (at - theta) / deviation;
                (-0.5 * z * z).exp() / (deviation * (2.0 * std::f64::consts::PI).sqrt())
            };
            let (mean, error) = self.integrate(|theta| place(theta).map_or(0.0, normal));
            density.at.push(back(at));
            density.density.push(mean);
            density.standard_error.push(error);
        }
        Ok(density)
    }
}
