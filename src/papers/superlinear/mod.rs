//! # Superlinear: the noise of SGD against the curvature of the loss
//!
//! Zhang, Yang and Tu (2026), *On the Superlinear Relationship between SGD Noise Covariance and Loss
//! Landscape Curvature*.
//!
//! ## Claim
//! Near a minimum, the covariance C of SGD's gradient noise follows the second moment of the per-sample
//! Hessians, `C ∝ E[h_p²]`, where the Hessian `H = E[h_p]` is their first moment. C and H then nearly
//! commute, and their diagonals in H's eigenbasis obey `C_ii ∝ H_ii^γ` with 1 ≤ γ ≤ 2: clearly above 1
//! for the cross-entropy, close to 1 for the squared error of a softmax.
//!
//! ## Measures ([`measures`])
//! | measure | definition | in the paper |
//! |---|---|---|
//! | C | `(1/N) Σ ∇ℓ_p ∇ℓ_pᵀ`, uncentred; a batch's is that over B | eq. 2 |
//! | `E[h²]` | `E_p[Σ_m κ_m² u_m u_mᵀ]`, eq. 15 without its prefactor | eqs. 15, 17, 71 |
//! | γ_emp, γ_AWD | slope of log C_ii, log `E[h²]_ii` against log H_ii over the top 𝒩 | eq. 18, Table 1 |
//! | R | `C_ij / √\|C_ii C_jj\|` in H's eigenbasis, beside a Haar-rotated C | eq. 6, Figs. 1, 7–9 |
//! | μ, σ² | mean and variance of the off-diagonal \|R_ij\| | eq. 7 |
//! | M | effective number of spikes, the participation ratio of C's spectrum | App. C |
//! | Z, log₁₀ p | μ against its expectation `√(2/π)/√M` under chance | App. D, eqs. 43–46 |
//! | commutativity error | `‖CH − HC‖_F / ‖CH‖_F` | Fig. 4 b |
//! | eigen-alignment | `‖diag C‖_F / ‖C‖_F` in H's eigenbasis | Fig. 4 c |
//! | rank correlation | Spearman's ρ of C_ii and H_ii | Fig. 4 d |
//! | H̃_ii, C̃_ii | the same sums with other per-sample eigenvalues ([`suppression`]) | eqs. 23–27, Figs. 3, 13–15 |
//! | bounds | `H_ii² ≤ E[h²]_ii ≤ κ_max H_ii` ([`bounds`]) | Theorem 5.1, eqs. 19, 72–79 |
//!
//! All of them on one fully connected layer, over the whole training set, at the end of training.
//!
//! ## Hyper-parameters ([`settings`])
//! Plain SGD, learning rate 0.1, no momentum, no weight decay, batches without replacement, PyTorch's
//! initialisation, inputs in [0, 1], ten outputs however many classes the data has. Images a class,
//! batch size, epochs and 𝒩 of every dataset × model × loss × classes stand in one table. “MSE” in the
//! paper is the squared error of a softmax: the loss `softmax-mse`.
//!
//! ## What is written
//! | target | files |
//! |---|---|
//! | [`table1`] | `table1.csv` (a row a run), `table1_summary.csv` (mean ± sd beside the published values) |
//! | [`scaling`] | `scaling.csv` (all D diagonals), `scaling.svg` |
//! | [`alignment`] | `alignment.json`, `alignment.csv`, `covariance.svg`, `correlation.svg`, `correlation_random.svg` |
//! | [`suppression`] | `suppression.csv`, `suppression_spectra.csv`, `suppression.svg`, `suppression_first_modes.svg`, `suppression_equal.svg` |
//! | [`bounds`] | `bounds.csv`, `bounds.svg` |
//! | [`synthetic`] | `synthetic.csv`, `synthetic_random_shifts.svg`, `synthetic_perfect_alignment.svg`, `synthetic_spectral_degeneracy.svg` |
//!
//! and with each of them `report.html` and `run.json`. Every run is kept in `runs/`, and none is
//! repeated whose settings have not changed.

pub mod alignment;
pub mod bounds;
pub mod measures;
pub mod page;
pub mod run;
pub mod scaling;
pub mod settings;
pub mod suppression;
pub mod synthetic;
pub mod table1;
