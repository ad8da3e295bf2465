//! Numbers that carry derivatives.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// What a network is evaluated in: a float, or a [`Dual`] over one of these.
pub trait Scalar:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    fn constant(c: f64) -> Self;
    /// The number without its infinitesimal parts: what branches look at.
    fn real(self) -> f64;
    /// Whether the number is above `b`, which decides what branches do.
    fn exceeds(self, b: Self) -> bool {
        self.real() > b.real()
    }
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;
    /// `Φ(x) = ½ erfc(−x/√2)`
    fn normal_cdf(self) -> Self;
    /// `Σ a b` over the pairs.
    fn dot(pairs: impl IntoIterator<Item = (Self, Self)>) -> Self {
        sum(pairs.into_iter().map(|(a, b)| a * b))
    }
}

/// `Σ terms`
pub fn sum<S: Scalar>(terms: impl IntoIterator<Item = S>) -> S {
    terms.into_iter().fold(S::constant(0.0), |total, term| total + term)
}

impl Scalar for f64 {
    fn constant(c: f64) -> f64 {
        c
    }
    fn real(self) -> f64 {
        self
    }
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    fn normal_cdf(self) -> f64 {
        0.5 * libm::erfc(-self * std::f64::consts::FRAC_1_SQRT_2)
    }
}

/// `value + slope·ε` with `ε² = 0`: `f(x + x′ε) = f(x) + f′(x) x′ ε`.
///
/// Duals nest. Each level has an ε of its own, and the slope of the slope is a second derivative. A slope along K
/// directions at once is of the type [`Slopes`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dual<S, T = S> {
    pub value: S,
    pub slope: T,
}

/// What is linear over scalars, as slopes are: a scalar, or several.
pub trait Slope<S>: Copy + Add<Output = Self> + Sub<Output = Self> + Neg<Output = Self> {
    fn zero() -> Self;
    fn times(self, factor: S) -> Self;
    fn over(self, divisor: S) -> Self;
}

impl<S: Scalar> Slope<S> for S {
    fn zero() -> S {
        S::constant(0.0)
    }
    fn times(self, factor: S) -> S {
        self * factor
    }
    fn over(self, divisor: S) -> S {
        self / divisor
    }
}

/// Slopes along K directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slopes<const K: usize>(pub [f64; K]);

impl<const K: usize> Slope<f64> for Slopes<K> {
    fn zero() -> Self {
        Slopes([0.0; K])
    }
    fn times(self, factor: f64) -> Self {
        Slopes(self.0.map(|slope| slope * factor))
    }
    fn over(self, divisor: f64) -> Self {
        Slopes(self.0.map(|slope| slope / divisor))
    }
}

impl<const K: usize> Add for Slopes<K> {
    type Output = Self;
    fn add(mut self, b: Self) -> Self {
        self.0.iter_mut().zip(b.0).for_each(|(a, b)| *a += b);
        self
    }
}

impl<const K: usize> Sub for Slopes<K> {
    type Output = Self;
    fn sub(self, b: Self) -> Self {
        self + -b
    }
}

impl<const K: usize> Neg for Slopes<K> {
    type Output = Self;
    fn neg(self) -> Self {
        Slopes(self.0.map(|slope| -slope))
    }
}

impl<S: Scalar> Dual<S> {
    /// The number `x + 1·ε`, whose images carry derivatives with respect to x.
    pub fn variable(x: S) -> Self {
        Dual { value: x, slope: S::constant(1.0) }
    }
}

impl<S: Scalar, T: Slope<S>> Dual<S, T> {
    /// The number x, which does not move.
    pub fn constant_in(x: S) -> Self {
        Dual { value: x, slope: T::zero() }
    }
}

impl<S: Scalar, T: Slope<S>> Add for Dual<S, T> {
    type Output = Self;
    fn add(self, b: Self) -> Self {
        Dual { value: self.value + b.value, slope: self.slope + b.slope }
    }
}

impl<S: Scalar, T: Slope<S>> Sub for Dual<S, T> {
    type Output = Self;
    fn sub(self, b: Self) -> Self {
        Dual { value: self.value - b.value, slope: self.slope - b.slope }
    }
}

impl<S: Scalar, T: Slope<S>> Mul for Dual<S, T> {
    type Output = Self;
    fn mul(self, b: Self) -> Self {
        Dual { value: self.value * b.value, slope: self.slope.times(b.value) + b.slope.times(self.value) }
    }
}

impl<S: Scalar, T: Slope<S>> Div for Dual<S, T> {
    type Output = Self;
    fn div(self, b: Self) -> Self {
        let value = self.value / b.value;
        Dual { value, slope: (self.slope - b.slope.times(value)).over(b.value) }
    }
}

impl<S: Scalar, T: Slope<S>> Neg for Dual<S, T> {
    type Output = Self;
    fn neg(self) -> Self {
        Dual { value: -self.value, slope: -self.slope }
    }
}

impl<S: Scalar, T: Slope<S>> Scalar for Dual<S, T> {
    fn constant(c: f64) -> Self {
        Dual::constant_in(S::constant(c))
    }
    fn real(self) -> f64 {
        self.value.real()
    }
    fn exceeds(self, b: Self) -> bool {
        self.value.exceeds(b.value)
    }
    fn exp(self) -> Self {
        let value = self.value.exp();
        Dual { value, slope: self.slope.times(value) }
    }
    fn ln(self) -> Self {
        Dual { value: self.value.ln(), slope: self.slope.over(self.value) }
    }
    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        Dual { value, slope: self.slope.times(S::constant(0.5)).over(value) }
    }
    fn tanh(self) -> Self {
        let value = self.value.tanh();
        Dual { value, slope: self.slope.times(S::constant(1.0) - value * value) }
    }
    /// `Φ′(x) = exp(−x²/2) / √(2π)`
    fn normal_cdf(self) -> Self {
        let x = self.value;
        let density = (S::constant(-0.5) * x * x).exp() / S::constant(std::f64::consts::TAU.sqrt());
        Dual { value: x.normal_cdf(), slope: self.slope.times(density) }
    }
}

/// A curve `x(ε) = x + ε x′ + ½ ε² x″`, as the dual of a dual: with two infinitesimals
/// `x(ε₁ + ε₂) = x + (ε₁ + ε₂) x′ + ε₁ ε₂ x″`, since `(ε₁ + ε₂)² = 2 ε₁ ε₂`.
pub type Curve<S> = Dual<Dual<S>>;

impl<S: Scalar> Curve<S> {
    /// The curve with the derivatives `[x, x′, x″]` at 0.
    pub fn new([x, x1, x2]: [S; 3]) -> Self {
        Dual { value: Dual { value: x, slope: x1 }, slope: Dual { value: x1, slope: x2 } }
    }

    /// `[x, x′, x″]`
    pub fn derivatives(self) -> [S; 3] {
        [self.value.value, self.value.slope, self.slope.slope]
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    /// `f, f′, f″` along `x(ε) = x + ε`.
    fn derivatives(f: impl Fn(Curve<f64>) -> Curve<f64>, x: f64) -> [f64; 3] {
        f(Curve::new([x, 1.0, 0.0])).derivatives()
    }

    #[test]
    fn derivatives_are_those_of_calculus() {
        for x in [-1.7f64, -0.3, 0.4, 2.9] {
            let t = x.tanh();
            let c = libm::cosh(x).powi(-2);
            let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let cdf = 0.5 * (1.0 + libm::erf(x / 2f64.sqrt()));
            let all = [
                (derivatives(|x| x * x * x, x), [x.powi(3), 3.0 * x * x, 6.0 * x]),
                (derivatives(|x| Curve::constant(1.0) / x, x), [1.0 / x, -1.0 / (x * x), 2.0 / x.powi(3)]),
                (derivatives(|x| -x.exp(), x), [-x.exp(); 3]),
                (derivatives(|x| (x * x).ln(), x), [(x * x).ln(), 2.0 / x, -2.0 / (x * x)]),
                (derivatives(|x| (x * x * x * x).sqrt(), x), [x * x, 2.0 * x, 2.0]),
                (derivatives(Scalar::tanh, x), [t, c, -2.0 * t * c]),
                (derivatives(Scalar::normal_cdf, x), [cdf, density, -x * density]),
            ];
            for (found, expected) in all {
                for (found, expected) in found.into_iter().zip(expected) {
                    assert_relative_eq!(found, expected, max_relative = 1e-13, epsilon = 1e-15);
                }
            }
        }
    }

    #[test]
    fn a_curve_composes_as_faa_di_bruno_says() {
        let (x, x1, x2) = (0.6f64, -1.3, 2.1);
        let [y, y1, y2] = Curve::new([x, x1, x2]).exp().derivatives();
        assert_relative_eq!(y, x.exp());
        assert_relative_eq!(y1, x.exp() * x1);
        assert_relative_eq!(y2, x.exp() * (x2 + x1 * x1), max_relative = 1e-14);
    }
}
