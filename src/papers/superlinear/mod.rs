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
//! ## Measures
//! | measure | definition | in the paper |
//! |---|---|---|
//! | C | `(1/N) Σ ∇ℓ_p ∇ℓ_pᵀ`, uncentred; a batch's is that over B | eq. 2 |
//! | `E[h²]` | `E_p[Σ_m κ_m² u_m u_mᵀ]`, eq. 15 without its prefactor | eqs. 15, 17, 71 |
//! | C_AWD,raw, C^hh, C^hh,SD, C^hh,SD,WD, C^hh,SD,WD,LI, σ_w² | the Activity–Weight Duality, step by step ([`duality`]) | eqs. 9–14, 55–71 |
//! | γ_emp, γ_AWD, γ′_AWD | slope of log C_ii, log `E[h²]_ii`, log (C_AWD,raw)_ii against log H_ii over the top 𝒩 | eq. 18, Tables 1, 3 |
//! | R | `C_ij / √\|C_ii C_jj\|` in H's eigenbasis, beside a Haar-rotated C | eq. 6, Figs. 1, 7–9 |
//! | μ, σ² | mean and variance of the off-diagonal \|R_ij\| | eq. 7 |
//! | M | effective number of spikes, the participation ratio of C's spectrum | App. C |
//! | Z, log₁₀ p | μ against its expectation `√(2/π)/√M` under chance | App. D, eqs. 43–46 |
//! | commutativity error | `‖CH − HC‖_F / ‖CH‖_F` | Fig. 4 b |
//! | eigen-alignment | `‖diag C‖_F / ‖C‖_F` in H's eigenbasis | Fig. 4 c |
//! | rank correlation | Spearman's ρ of C_ii and H_ii | Fig. 4 d |
//! | suppression | H and C of samples whose spectra are cut down to κ₁, and κ₁ made equal ([`suppression`]) | eqs. 23–27, Figs. 3, 13–15 |
//! | bounds | `H_ii² ≤ E[h²]_ii ≤ κ_max H_ii` ([`bounds`]) | Theorem 5.1 |
//!
//! All of them on one fully connected layer, over the whole training set, at the end of training and, for Figures
//! 4–6, at logarithmically spaced epochs. Section 5.2's limiting cases are made without a network ([`synthetic`]).
//!
//! ## Hyper-parameters ([`settings`])
//! Plain SGD, learning rate 0.1, no momentum, no weight decay, ten outputs however many classes the data has. Images a
//! class, batch size, epochs and 𝒩 of every dataset × model × loss × classes stand in one table. “MSE” in the paper is
//! the squared error of a softmax: the loss `softmax-mse`.
//!
//! ## Where the paper leaves a choice
//! Batches are drawn without replacement, weights begin as PyTorch's do, MNIST's pixels are in [0, 1] and CIFAR-10's in
//! [−1, 1]: not said, but so MNIST's MLP fits all of its images at the epoch that Figure 4 e has, and CIFAR-10's at all
//! ([`settings::ImageSet::scale`]). C is eq. 2's second line, uncentred; over training
//! `C − g gᵀ`, its first, stands beside it. The class count of Figure 13's network is not said: ten is assumed, although
//! its γ is nearer to that of six in Table 1.
//!
//! Eq. 59 counts C^hg once, eq. 58 twice: C^hg here is both of its halves, so that the three terms add up to the
//! second moment that eq. 57 gives. The duality's batches hold every class by its share, for each sample to have a
//! partner; a partner is the nearest one, so that several samples may share it. A sample whose a_p is 0 has no ΔW*: its
//! Term I is 0, its Term II stays. σ_w² is one number for all modes, each weighted by the κ² that it multiplies, all
//! samples alike. v_i in the suppression experiment are H's eigenvectors over the whole training set. 𝒩 is Table 2's
//! for every figure but 10–12, which take 1,500 with ten classes, as the paper's do. Figure 2 does not say which networks
//! it is of: those that are asked for.
//!
//! ## What is written
//! | part | files |
//! |---|---|
//! | [`tables`] | `table1.csv` (a row a run), `table1_summary.csv` (mean ± sd beside the published values) |
//! | [`scaling`] | `scaling.csv` (all D diagonals), `exponents.csv`, `scaling.svg`, `scaling_members.svg` |
//! | [`alignment`] | `alignment.json`, `alignment.csv`, heat maps of C, R and R_rand for each estimate, of R over all directions too |
//! | [`evolution`] | `evolution.csv`, `diagonals.csv`, `evolution_a.svg` … `evolution_h.svg` |
//! | [`suppression`], [`bounds`], [`synthetic`] | `suppression*.csv`, `bounds*.csv`, `synthetic.csv`, and their figures |
//!
//! and with each of them `report.html` and `run.json`. Every run is kept in `runs/`: training goes on where it
//! stopped, and nothing is trained or put into a table twice whose settings have not changed. What cannot be measured
//! (an exponent of fewer than three directions) is said to be undefined, and loses no other figure and no other network;
//! what could not be made stands in the report, in `run.json` and in [`run::Summary::missing`].

pub mod alignment;
pub mod bounds;
pub mod claims;
pub mod duality;
pub mod evolution;
pub mod measures;
pub mod members;
pub mod page;
pub mod pairs;
pub mod records;
pub mod run;
pub mod scaling;
pub mod settings;
pub mod study;
pub mod suppression;
pub mod synthetic;
pub mod tables;
pub mod target;

/// What is going on, for whoever is waiting.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A run that is complete on record.
    Kept {
        /// The run's name: that of its case, and its seed.
        run: &'a str,
    },
    /// An epoch of `epochs` has ended.
    Trained {
        /// The run's name: that of its case, and its seed.
        run: &'a str,
        /// The number, loss and accuracy of the epoch.
        epoch: records::Epoch,
        /// The epochs of the whole run.
        epochs: u64,
    },
    /// H, C and the duality's chain are being computed, then diagonalised.
    Measuring {
        /// The name of the run, or of the study whose weights were given.
        run: &'a str,
    },
    /// The same for a checkpoint of the run, `at` of `of`.
    Snapshot {
        /// The run's name: that of its case, and its seed.
        run: &'a str,
        /// Which of the checkpoints it is, from 1.
        at: usize,
        /// The number of checkpoints.
        of: usize,
    },
    /// The figures are being made.
    Drawing {
        /// The name of the run, or of the study whose weights were given.
        run: &'a str,
    },
}
