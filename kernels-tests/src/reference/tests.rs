//! The oracle against what shares no code with it: central differences and closed forms; and how near f32 can
//! come to it.

use curvkit::net::{FeedForwardActivation, Layer};

use super::scalar::sum;
use super::*;
use crate::cases::{Case, TIES, assert_close, cases, op_cases, random};

fn all_cases() -> impl Iterator<Item = Case> {
    cases().into_iter().chain(op_cases())
}

/// Whether the layer has kinks.
fn branches(layer: &Layer) -> bool {
    match layer {
        Layer::Residual { body, shortcut } => body.iter().chain(shortcut).any(branches),
        Layer::TransformerEncoderLayer { activation, .. } => *activation == FeedForwardActivation::Relu,
        Layer::Relu | Layer::LeakyRelu { .. } | Layer::MaxPool2d { .. } => true,
        _ => false,
    }
}

/// `(f(θ + hv) − f(θ − hv)) / 2h`
fn central_difference(case: &Case, v: &[f64], h: f64, f: impl Fn(&Problem) -> Vec<f64>) -> Vec<f64> {
    let moved = |h: f64| {
        let mut problem = case.problem();
        problem.parameters = zip(&problem.parameters, v, |theta, v| theta + h * v);
        f(&problem)
    };
    zip(&moved(h), &moved(-h), |plus, minus| (plus - minus) / (2.0 * h))
}

/// Each order of derivative is the difference of the order below. Near a kink of a (leaky) ReLU or a maximum a
/// difference straddles it, hence the small step there.
#[test]
fn derivatives_are_central_differences() {
    for case in all_cases().filter(|case| !case.name.starts_with(TIES)) {
        let (problem, name) = (case.problem(), &case.name);
        let kinks = case.model.layers.iter().any(branches);
        let (h, tolerance) = if kinks { (1e-7, 1e-5) } else { (1e-5, 1e-6) };
        let v = f64s(&case.v[..problem.parameters.len()]);
        let slope: f64 = problem.gradient().iter().zip(&v).map(|(g, v)| g * v).sum();
        let difference = central_difference(&case, &v, h, |moved| vec![moved.loss()]);
        assert_close(&format!("{name}: gradient · v"), &difference, &[slope], tolerance, 1.0);
        let difference = central_difference(&case, &v, h, Problem::gradient);
        assert_close(&format!("{name}: hvp"), &difference, &problem.hvp(&v), tolerance, 1.0);
        let difference = central_difference(&case, &v, h, |moved| moved.hvp(&v));
        assert_close(&format!("{name}: third"), &difference, &problem.third(&v), tolerance, 1.0);
    }
}

/// On samples of shape `[positions, width]` a linear layer serves each position, and its gradient is their sum.
#[test]
fn linear_acts_on_the_last_axis() {
    let model = Model {
        input: vec![3, 2],
        layers: vec![
            Layer::Linear { out_features: 4, bias: true },
            Layer::Tanh,
            Layer::Flatten,
            Layer::Linear { out_features: 2, bias: true },
        ],
        ..Model::default()
    };
    let (samples, parameters) = (5, 4 * 3 + 2 * 13);
    let targets = Targets::Classes(vec![0, 1, 1, 0, 1]);
    let data = Dataset::new(random(1, samples * 6), vec![3, 2], targets).expect("shapes agree");
    let problem = Problem::new(&model, Loss::CrossEntropy, &random(2, parameters), &data);
    // the same network, fully connected: the first layer's weight is I ⊗ W
    let (theta, (w, b)) = (&problem.parameters, problem.parameters.split_at(8));
    let wide = DMatrix::identity(3, 3).kronecker(&DMatrix::from_row_slice(4, 2, w)).transpose();
    let parameters = [wide.as_slice(), &b[..4].repeat(3), &theta[12..]].concat();
    let data = Dataset { shape: vec![6], ..data };
    let full =
        Problem::new(&Model::mlp(&[6, 12, 2], Layer::Tanh, true), Loss::CrossEntropy, &parameters, &data);
    assert_close("outputs", &problem.outputs(), &full.outputs(), 1e-14, 1.0);
    let g = full.gradient();
    let shared = DMatrix::from_fn(2, 4, |i, o| (0..3).map(|t| g[(4 * t + o) * 6 + 2 * t + i]).sum::<f64>());
    let bias: Vec<f64> = (0..4).map(|o| (0..3).map(|t| g[72 + 4 * t + o]).sum()).collect();
    let expected = [shared.as_slice(), &bias, &g[84..]].concat();
    assert_close("gradient", &problem.gradient(), &expected, 1e-14, 1.0);
}

#[test]
fn the_gradient_is_the_mean_of_the_per_sample_gradients() {
    for case in all_cases() {
        let problem = case.problem();
        let (n, p) = (problem.samples(), problem.parameters.len());
        let mean = DMatrix::from_row_slice(n, p, &problem.per_sample_gradient()).row_mean();
        assert_close(&case.name, mean.as_slice(), &problem.gradient(), 1e-13, 1.0);
    }
}

#[test]
fn matrices_have_the_products_of_the_operators() {
    for case in all_cases().filter(|case| case.parameters.len() < 400) {
        let problem = case.problem();
        let p = problem.parameters.len();
        let v = DMatrix::from_column_slice(p, case.directions, &f64s(&case.v));
        for (name, matrix, products) in [
            ("H", problem.hessian(), problem.hvp(&case.v)),
            ("G", problem.ggn(), problem.ggnvp(&case.v)),
            ("C", problem.noise_covariance(), problem.noise_covariance_vp(&case.v)),
        ] {
            assert_close(
                &format!("{name} of {}", case.name),
                (matrix * &v).as_slice(),
                &products,
                1e-12,
                1.0,
            );
        }
    }
}

/// A linear network `f = W x + b`, with the design matrix `X̃ = [x, 1] [N, d+1]`.
struct Linear {
    problem: Problem,
    design: DMatrix<f64>,
    v: Vec<f64>,
}

/// `θ` is ordered W then b; this makes `[L, d+1]` of it.
fn rows_of(theta: &[f64], inputs: usize, outputs: usize) -> DMatrix<f64> {
    DMatrix::from_fn(outputs, inputs + 1, |l, i| {
        if i < inputs { theta[l * inputs + i] } else { theta[outputs * inputs + l] }
    })
}

fn flat(rows: &DMatrix<f64>) -> Vec<f64> {
    let weight = rows.columns(0, rows.ncols() - 1).transpose();
    weight.iter().chain(rows.column(rows.ncols() - 1).iter()).copied().collect()
}

fn linear(loss: Loss, inputs: usize, outputs: usize, samples: usize) -> Linear {
    let model = Model::mlp(&[inputs, outputs], Layer::Tanh, true);
    let x = random(1, samples * inputs);
    let targets = Targets::Classes((0..samples).map(|p| (p * p % outputs) as u32).collect());
    let data = Dataset::new(x.clone(), vec![inputs], targets).expect("shapes agree");
    let size = outputs * (inputs + 1);
    Linear {
        problem: Problem::new(&model, loss, &random(2, size), &data),
        design: DMatrix::from_fn(samples, inputs + 1, |p, i| {
            if i < inputs { x[p * inputs + i].into() } else { 1.0 }
        }),
        v: f64s(&random(3, size)),
    }
}

/// `H = I ⊗ X̃ᵀX̃/N`, `∇L = RᵀX̃/N` with the residuals `R [N, L]`, and no third derivative.
#[test]
fn linear_regression_in_closed_form() {
    let (d, l, n) = (4, 3, 9);
    let Linear { problem, design, v } = linear(Loss::SquaredError, d, l, n);
    let theta = rows_of(&problem.parameters, d, l);
    let residuals = &design * theta.transpose() - DMatrix::from_row_slice(n, l, &problem.targets); // [N, L]
    let count = n as f64;
    assert_close("loss", &[problem.loss()], &[residuals.norm_squared() / (2.0 * count)], 1e-14, 1.0);
    let gradient = residuals.tr_mul(&design) / count; // [L, d+1]
    assert_close("gradient", &problem.gradient(), &flat(&gradient), 1e-14, 1.0);
    let hv = flat(&(rows_of(&v, d, l) * design.tr_mul(&design) / count));
    assert_close("hvp", &problem.hvp(&v), &hv, 1e-14, 1.0);
    assert_close("ggnvp", &problem.ggnvp(&v), &hv, 1e-14, 1.0);
    assert_close("third", &problem.third(&v), &vec![0.0; v.len()], 1e-14, 1.0);
    // C v = E[g (g·v)] − ḡ (ḡ·v) with g_p = r_p ⊗ x̃_p
    let along = (&design * rows_of(&v, d, l).transpose()).component_mul(&residuals).column_sum() / count; // g_p·v / N
    let weighted = DMatrix::from_fn(n, l, |p, o| residuals[(p, o)] * along[p]);
    let cv = weighted.tr_mul(&design) - &gradient * gradient.dot(&rows_of(&v, d, l));
    assert_close("noise covariance", &problem.noise_covariance_vp(&v), &flat(&cv), 1e-13, 1.0);
}

/// With two classes, `H = XᵀDX/N ⊗ [[1, −1], [−1, 1]]` and `D = σ(1 − σ)` at the difference of the logits.
#[test]
fn logistic_regression_in_closed_form() {
    let (d, n) = (4, 9);
    let Linear { problem, design, v } = linear(Loss::CrossEntropy, d, 2, n);
    let theta = rows_of(&problem.parameters, d, 2);
    let margin = &design * (theta.row(0) - theta.row(1)).transpose(); // [N]
    let sigma = margin.map(|z| 1.0 / (1.0 + (-z).exp()));
    let class_0 = DVector::from_iterator(n, problem.targets.chunks(2).map(|y| y[0]));
    let count = n as f64;
    let both = |row: DVector<f64>| flat(&DMatrix::from_rows(&[row.transpose(), -row.transpose()]));
    let gradient = both(design.tr_mul(&(&sigma - class_0)) / count);
    assert_close("gradient", &problem.gradient(), &gradient, 1e-14, 1.0);
    let v_rows = rows_of(&v, d, 2);
    let along = &design * (v_rows.row(0) - v_rows.row(1)).transpose(); // [N]
    let pull =
        |slope: &dyn Fn(usize) -> f64| both(design.tr_mul(&DVector::from_fn(n, |p, _| slope(p))) / count);
    let hv = pull(&|p| sigma[p] * (1.0 - sigma[p]) * along[p]);
    assert_close("hvp", &problem.hvp(&v), &hv, 1e-14, 1.0);
    assert_close("ggnvp", &problem.ggnvp(&v), &hv, 1e-14, 1.0);
    let third = pull(&|p| sigma[p] * (1.0 - sigma[p]) * (1.0 - 2.0 * sigma[p]) * along[p].powi(2));
    assert_close("third", &problem.third(&v), &third, 1e-14, 1.0);
}

/// The softmax q of a linear network: `∇ℓ = (2/L) (diag q − qqᵀ)(q − y)`.
#[test]
fn softmax_mse_in_closed_form() {
    let (d, l, n) = (4, 3, 9);
    let Linear { problem, design, .. } = linear(Loss::SoftmaxMse, d, l, n);
    let z = &design * rows_of(&problem.parameters, d, l).transpose();
    let mut adjoint = DMatrix::zeros(n, l);
    let mut loss = 0.0;
    for p in 0..n {
        let e = z.row(p).map(f64::exp).transpose();
        let q = &e / e.sum();
        let r = &q - DVector::from_row_slice(&problem.targets[p * l..(p + 1) * l]);
        loss += r.norm_squared() / (l * n) as f64;
        let z_bar = (DMatrix::from_diagonal(&q) - &q * q.transpose()) * r * (2.0 / l as f64);
        adjoint.set_row(p, &z_bar.transpose());
    }
    assert_close("loss", &[problem.loss()], &[loss], 1e-14, 1.0);
    assert_close("gradient", &problem.gradient(), &flat(&(adjoint.tr_mul(&design) / n as f64)), 1e-14, 1.0);
}

/// Of a linear layer under cross-entropy, `h_p = M_p ⊗ x xᵀ` and `g_p = (q − y) ⊗ x` with `M = diag q − qqᵀ`,
/// hence `h_p² = ‖x‖² M_p² ⊗ x xᵀ`.
#[test]
fn layer_moments_of_softmax_regression_are_kronecker_products() {
    let (d, l, n) = (3, 4, 5);
    let Linear { problem, .. } = linear(Loss::CrossEntropy, d, l, n);
    let moments = problem.layer_moments("0.weight");
    let zero = DMatrix::zeros(l * d, l * d);
    let (mut hessian, mut gradient_moment, mut squared_hessian) = (zero.clone(), zero.clone(), zero);
    for ((z, x), y) in
        problem.outputs().chunks(l).zip(problem.inputs.chunks(d)).zip(problem.targets.chunks(l))
    {
        let e = DVector::from_row_slice(z).map(f64::exp);
        let q = &e / e.sum();
        let m = DMatrix::from_diagonal(&q) - &q * q.transpose();
        let r = &q - DVector::from_row_slice(y);
        let x = DVector::from_row_slice(x);
        let xx = &x * x.transpose() / n as f64;
        hessian += m.kronecker(&xx);
        gradient_moment += (&r * r.transpose()).kronecker(&xx);
        squared_hessian += x.norm_squared() * (&m * &m).kronecker(&xx);
    }
    approx::assert_relative_eq!(moments.hessian, hessian, epsilon = 1e-15);
    approx::assert_relative_eq!(moments.gradient_moment, gradient_moment, epsilon = 1e-15);
    approx::assert_relative_eq!(moments.squared_hessian, squared_hessian, epsilon = 1e-15);
}

/// In mid-network, the layer's Hessian is the block of the whole one.
#[test]
fn a_layer_hessian_is_a_block_of_the_hessian() {
    let case = &cases()[7]; // [3, 5, 2] with biases
    let problem = case.problem();
    let range = problem.network.range("2.weight");
    let moments = problem.layer_moments("2.weight");
    for (j, column) in range.clone().zip(moments.hessian.column_iter()) {
        let mut v = vec![0.0; problem.parameters.len()];
        v[j] = 1.0;
        assert_close("column", &problem.hvp(&v)[range.clone()], column.as_slice(), 1e-14, 1.0);
    }
}

impl Scalar for f32 {
    fn constant(c: f64) -> f32 {
        c as f32
    }
    fn real(self) -> f64 {
        self.into()
    }
    fn exp(self) -> f32 {
        f32::exp(self)
    }
    fn ln(self) -> f32 {
        f32::ln(self)
    }
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    fn tanh(self) -> f32 {
        f32::tanh(self)
    }
    fn normal_cdf(self) -> f32 {
        0.5 * libm::erfcf(-self * std::f32::consts::FRAC_1_SQRT_2)
    }
}

/// The same formulas in f32, summed plainly, err by some units of rounding: no case asks of an engine what f32
/// cannot do.
#[test]
fn f32_comes_within_3e_6_on_every_case() {
    for case in all_cases() {
        let problem = case.problem();
        let theta = &case.parameters;
        let v = &case.v[..theta.len()];
        let dual = zip(theta, v, |value, slope| Dual { value, slope });
        let curve = zip(theta, v, |theta, v| Curve::new([theta, v, 0.0]));
        // C v = (1/N) Σ (ℓ′_p − mean ℓ′) g_p
        let g: Vec<Vec<f32>> = (0..problem.samples()).map(|p| problem.sample_gradient(p, theta)).collect();
        let along: Vec<f32> = g.iter().map(|g| sum(zip(g, v, |g, v| g * v))).collect();
        let mean = sum(along.iter().copied()) / along.len() as f32;
        let noise = problem.mean(|p| g[p].iter().map(|g| (along[p] - mean) * g).collect());
        let quantities = [
            ("gradient", problem.mean_gradient(theta), problem.gradient()),
            ("hvp", problem.mean_gradient(&dual).iter().map(|g| g.slope).collect(), problem.hvp(v)),
            ("ggnvp", problem.mean_curvature(theta, v), problem.ggnvp(v)),
            ("noise covariance", noise, problem.noise_covariance_vp(v)),
            (
                "third",
                problem.mean_gradient(&curve).iter().map(|g| g.derivatives()[2]).collect(),
                problem.third(v),
            ),
        ];
        for (quantity, found, expected) in quantities {
            assert_close(&format!("{}: {quantity}", case.name), &found, &expected, 3e-6, 1.0);
        }
    }
}
