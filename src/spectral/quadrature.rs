//! The density of a spectrum, and integrals over it, by stochastic Lanczos quadrature.
//!
//! ```text
//! ∫ f dμ = (1/D) tr f(A) ≈ (1/M) Σ_i Σ_j w_ij f(θ_ij)      θ_i, w_i: Gauss nodes and weights of probe i
//! ```
//!
//! S steps of Lanczos from a unit vector z make a tridiagonal T, whose eigenvalues are the nodes, and the squares of
//! whose eigenvectors' first coordinates are the weights, of a quadrature that gives `zᵀ f(A) z` exactly for
//! polynomials f of degree 2 S − 1 (Golub & Meurant 1994; for traces, Bai, Fahey & Golub 1996 and Ubaru, Chen & Saad
//! 2017; for networks' Hessians, Ghorbani, Krishnan & Xiao 2019). The mean over random z is the mean over the spectrum.

use std::f64::consts::PI;
use std::ops::Range;

use super::random::Distribution;
use super::recurrence::{Recurrences, bytes, groups};
use super::{Estimate, Observer, Progress, Which};
use crate::gpu::Gpu;
use crate::operators::{Block, OperatorFamily, SymmetricOperator};
use crate::{Error, Result};

/// What [`quadrature`] makes.
#[derive(Clone, Debug, PartialEq)]
pub struct QuadratureOptions {
    /// M, random vectors with entries ±1/√D.
    pub probes: usize,
    /// S, Lanczos steps from each.
    pub steps: usize,
    /// Of the random vectors.
    pub seed: u64,
}

/// One probe's Gauss quadrature.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// θ, in ascending order: `[S]`, or `[D]` where that is less.
    pub nodes: Vec<f64>,
    /// w, which sum to 1.
    pub weights: Vec<f64>,
}

/// The spectrum's measure μ, in which each of D eigenvalues weighs 1/D, as M quadratures.
#[derive(Clone, Debug, PartialEq)]
pub struct Quadrature {
    /// The probes' quadratures: `[M]`.
    pub rules: Vec<Rule>,
    /// Products spent.
    pub products: usize,
}

/// A density on equidistant points.
#[derive(Clone, Debug, PartialEq)]
pub struct Density {
    /// Equidistant places on the axis, in ascending order.
    pub points: Vec<f64>,
    /// The mean over the probes at each point, per unit of the axis.
    pub values: Vec<f64>,
    /// Of the values.
    pub standard_errors: Vec<f64>,
}

/// A density over the logarithm of the eigenvalues' magnitude, by their sign.
#[derive(Clone, Debug, PartialEq)]
pub struct LogDensity {
    /// Of the positive eigenvalues, over log₁₀ λ.
    pub positive: Density,
    /// Of the negative ones, over log₁₀ |λ|.
    pub negative: Density,
    /// The share of the spectrum that is too small for the axis.
    pub below: Estimate,
}

/// One operator as that many.
struct Repeated<'a> {
    operator: &'a dyn SymmetricOperator,
    count: usize,
}

impl OperatorFamily for Repeated<'_> {
    fn gpu(&self) -> &Gpu {
        self.operator.gpu()
    }

    fn count(&self) -> usize {
        self.count
    }

    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn stride(&self) -> usize {
        self.operator.stride()
    }

    fn apply(&self, _: Range<usize>, x: &Block, y: &Block) -> Result<()> {
        self.operator.apply(x, y)
    }

    fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
        self.operator.pad(flat)
    }

    fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
        self.operator.unpad(padded)
    }
}

/// The quadratures of M probes, whose products are made together as far as the memory budget has room for their bases.
///
/// Where the observer stops it, probes have the quadratures of as many steps as were made, and those that were not begun
/// have none.
///
/// # Errors
/// [`Error::Argument`] where an option is 0, [`Error::NotFinite`] where a product is not finite, and the device's
/// errors.
pub fn quadrature(
    operator: &dyn SymmetricOperator,
    options: &QuadratureOptions,
    observer: &mut Observer,
) -> Result<Quadrature> {
    for (name, value) in [("probes", options.probes), ("steps", options.steps)] {
        if value == 0 {
            return Err(Error::argument(name, value, "at least 1"));
        }
    }
    let steps = options.steps.min(operator.dim());
    let family = Repeated { operator, count: options.probes };
    let mut rules = Vec::with_capacity(options.probes);
    let groups = groups(&family, steps);
    operator.leave_room(groups.first().map_or(0, |members| bytes(&family, steps, members.len())));
    let (mut products, mut stopped) = (0, false);
    for members in groups {
        let count = members.len();
        let mut recurrences =
            Recurrences::new(&family, members, steps, Distribution::Rademacher, options.seed)?;
        while recurrences.len < steps && !stopped {
            recurrences.step()?;
            products += count;
            stopped = observer(&Progress::of_products(products, options.probes * steps)).is_break();
        }
        for i in 0..count {
            let ritz = recurrences.ritz(i, Which::Smallest)?;
            let weights = ritz.vectors.row(0).iter().map(|first| first * first).collect();
            rules.push(Rule { nodes: ritz.values, weights });
        }
        if stopped {
            break;
        }
    }
    Ok(Quadrature { rules, products })
}

impl Rule {
    /// `Σ_j w_j f(θ_j)`
    fn integral(&self, f: impl Fn(f64) -> f64) -> f64 {
        self.nodes.iter().zip(&self.weights).map(|(&node, &weight)| weight * f(node)).sum()
    }
}

impl Quadrature {
    /// `∫ f dμ`, the mean of f over the spectrum; D times it is tr f(A).
    pub fn integral(&self, f: impl Fn(f64) -> f64) -> Estimate {
        let samples: Vec<f64> = self.rules.iter().map(|rule| rule.integral(&f)).collect();
        Estimate::of(&samples, self.products)
    }

    /// `∫ λ^j dμ`, exact but for the choice of probes up to j = 2 S − 1.
    pub fn moment(&self, j: u32) -> Estimate {
        self.integral(|node| node.powi(j as i32))
    }

    /// Smallest and largest node.
    pub fn range(&self) -> (f64, f64) {
        let nodes = || self.rules.iter().flat_map(|rule| rule.nodes.iter().copied());
        (nodes().fold(f64::INFINITY, f64::min), nodes().fold(f64::NEG_INFINITY, f64::max))
    }

    /// μ, broadened by a Gaussian of standard deviation `sigma`, on that many points from five sigma below the smallest
    /// node to five above the largest. Times the distance of the points, its values sum to 1.
    ///
    /// # Errors
    /// [`Error::Argument`] where sigma is not positive, or smaller than the distance of the points.
    pub fn density(&self, points: usize, sigma: f64) -> Result<Density> {
        let axis = axis(self.range(), points, sigma)?;
        Ok(self.broadened(axis, sigma, Some))
    }

    /// μ over log₁₀ |λ|, broadened by a Gaussian of standard deviation `sigma` decades, on that many points from five
    /// sigma below `smallest` to five above the largest node's magnitude. What is smaller in magnitude than `smallest`
    /// is left out. Times the distance of the points, the values of both signs and `below` sum to 1.
    ///
    /// # Errors
    /// [`Error::Argument`] where `smallest` or sigma is not positive, or sigma smaller than the distance of the points.
    pub fn log_density(&self, points: usize, sigma: f64, smallest: f64) -> Result<LogDensity> {
        let positive = smallest > 0.0 && smallest.is_finite();
        if !positive {
            return Err(Error::argument("smallest", smallest, "a number above 0"));
        }
        let (low, high) = self.range();
        let ends = (smallest.log10(), high.abs().max(low.abs()).max(smallest).log10());
        let axis = axis(ends, points, sigma)?;
        let end = |sign: f64| move |node: f64| (sign * node >= smallest).then(|| (sign * node).log10());
        Ok(LogDensity {
            positive: self.broadened(axis.clone(), sigma, end(1.0)),
            negative: self.broadened(axis, sigma, end(-1.0)),
            below: self.integral(|node| if node.abs() < smallest { 1.0 } else { 0.0 }),
        })
    }

    /// The density of the nodes at the places that `place` gives them.
    fn broadened(&self, points: Vec<f64>, sigma: f64, place: impl Fn(f64) -> Option<f64>) -> Density {
        let height = 1.0 / (sigma * (2.0 * PI).sqrt());
        let at = |point: f64| {
            self.integral(|node| {
                let from_node = |place: f64| height * (-0.5 * ((point - place) / sigma).powi(2)).exp();
                place(node).map_or(0.0, from_node)
            })
        };
        let (values, standard_errors) =
            points.iter().map(|&point| at(point)).map(|e| (e.value, e.standard_error)).unzip();
        Density { points, values, standard_errors }
    }
}

/// Points from five sigma before the first to five behind the last.
fn axis((first, last): (f64, f64), points: usize, sigma: f64) -> Result<Vec<f64>> {
    let positive = sigma > 0.0 && sigma.is_finite();
    if !positive {
        return Err(Error::argument("sigma", sigma, "a number above 0"));
    }
    let (first, last) = (first - 5.0 * sigma, last + 5.0 * sigma);
    let distance = (last - first) / (points.max(2) - 1) as f64;
    // of points further apart than that, the sum of a Gaussian depends on where they lie
    if distance > sigma {
        return Err(Error::argument(
            "sigma",
            sigma,
            format!("at least {distance}, the distance of {points} points"),
        ));
    }
    Ok((0..points).map(|i| first + i as f64 * distance).collect())
}
