//! Figures 4–6: how C, by each of its estimates, and H go together over training.

use std::path::Path;

use faer::Mat;
use serde::{Deserialize, Serialize};

use super::claims::{Claims, departing};
use super::measures::{commutativity_error, eigen_alignment, exponent};
use super::members::{Member, Members, diagonal};
use super::records::Epoch;
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{Block, Finding, told, write_columns, write_csv, write_text};
use crate::stats::{logarithmically_spaced, spearman};
use crate::{Error, Result, Undefined};

/// The indices that the diagonals are drawn at, logarithmically spaced.
const SHOWN: usize = 400;
/// The share by which quantities that should be equal may differ.
const CLOSE: f64 = 0.25;
/// The training accuracy from which cross-entropy counts as converged.
const CONVERGED: f64 = 1.0;

/// What one estimate of C is like at one epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The estimate of C that was measured.
    pub member: Member,
    /// The exponent over the leading 𝒩 directions.
    pub gamma: Option<f64>,
    /// `‖CH − HC‖_F / ‖CH‖_F` (Figure 4 b)
    pub commutativity_error: Option<f64>,
    /// `‖diag C‖_F / ‖C‖_F` in H's eigenbasis, in [0, 1] (Figure 4 c)
    pub eigen_alignment: Option<f64>,
    /// Spearman's ρ over the leading 𝒩 directions.
    pub spearman: Option<f64>,
    /// `‖C‖_F`
    pub norm: f64,
    /// Why a measure has no value, where it has none.
    pub undefined: Undefined,
}

impl State {
    /// Of `covariance` in the basis of H's eigenvalues `hessian`.
    fn of(member: Member, covariance: &Mat<f64>, hessian: &[f64], top: usize) -> Result<State> {
        let (diagonal, top) = (diagonal(covariance), top.min(hessian.len()));
        let mut undefined = Undefined::default();
        let line = undefined.or_value("gamma", exponent(hessian, &diagonal, top))?;
        let error = commutativity_error(covariance.as_ref(), hessian);
        Ok(State {
            member,
            gamma: line.map(|line| line.slope),
            commutativity_error: undefined.or_value("commutativity_error", error)?,
            eigen_alignment: undefined.or_value("eigen_alignment", eigen_alignment(covariance.as_ref()))?,
            spearman: undefined.or_value("spearman", spearman(&hessian[..top], &diagonal[..top]))?,
            norm: covariance.norm_l2(),
            undefined,
        })
    }
}

/// A checkpoint of a run, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The epochs that had been run at the checkpoint.
    pub epoch: u64,
    /// Over the whole training set.
    pub loss: f64,
    /// The share of the training set that is classified rightly, in [0, 1].
    pub accuracy: f64,
    /// σ_w², see [`Chain::sigma_w2`](super::duality::Chain::sigma_w2).
    pub sigma_w2: Option<f64>,
    /// In the order of [`Member::ALL`].
    pub states: Vec<State>,
    /// Of `C − g gᵀ`, the noise covariance, which away from a minimum is not C.
    pub centred: State,
    /// `‖C^hg‖_F` and `‖C^gg‖_F`
    pub gradient_norms: [f64; 2],
}

impl Snapshot {
    /// Of `members`, measured after `epoch` epochs, over the leading `top` directions, and of the noise covariance
    /// `centred` in their basis.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where a measure is.
    pub fn of(
        epoch: u64,
        (loss, accuracy): (f64, f64),
        members: &Members,
        centred: &Mat<f64>,
        top: usize,
    ) -> Result<Snapshot> {
        let hessian = &members.basis.values;
        let state = |(member, covariance): &(Member, Mat<f64>)| State::of(*member, covariance, hessian, top);
        Ok(Snapshot {
            epoch,
            loss,
            accuracy,
            sigma_w2: members.sigma_w2,
            states: members.covariances.iter().map(state).collect::<Result<_>>()?,
            centred: State::of(Member::Empirical, centred, hessian, top)?,
            gradient_norms: members.gradient_terms.each_ref().map(|matrix| matrix.norm_l2()),
        })
    }

    /// The state of one estimate.
    fn state(&self, member: Member) -> &State {
        &self.states[member as usize]
    }

    /// `‖C^hg‖/‖C^hh‖` and `‖C^gg‖/‖C^hh‖`.
    ///
    /// # Errors
    /// [`Error::Undefined`] where C^hh is 0.
    fn gradient_shares(&self) -> Result<[f64; 2]> {
        let whole = self.state(Member::Hh).norm;
        match whole > 0.0 {
            true => Ok(self.gradient_norms.map(|norm| norm / whole)),
            false => {
                let quantity = format!("their share at epoch {}", self.epoch);
                Err(Error::undefined(quantity, "C^hh is 0"))
            }
        }
    }
}

/// Writes `evolution.csv` (a row an epoch and estimate), `diagonals.csv` (of the last one's terms) and the panels a to
/// h of the figure, `evolution_a.svg` to `evolution_h.svg` (but for those of which nothing is defined), into the folder `out`; gives what the report shows of them.
///
/// `members` are those of the last snapshot.
///
/// # Errors
/// [`Error::Io`] where they cannot be written.
pub fn write(
    out: &Path,
    snapshots: &[Snapshot],
    history: &[Epoch],
    members: &Members,
    claims: &Claims,
) -> Result<Vec<Block>> {
    std::fs::create_dir_all(out).map_err(Error::io(out, "create folder"))?;
    write_csv(out.join("evolution.csv"), snapshots.iter().flat_map(rows))?;
    let [hg, gg] = members.gradient_terms.each_ref().map(diagonal);
    let diagonals: Vec<Vec<f64>> = members.covariances.iter().map(|(_, c)| diagonal(c)).collect();
    let mut columns = vec!["index"];
    columns.extend(Member::ALL.map(Member::key));
    columns.extend(["hg", "gg"]);
    let row = |i: usize| {
        let mut row = vec![(i + 1) as f64];
        row.extend(diagonals.iter().map(|diagonal| diagonal[i]));
        row.extend([hg[i], gg[i]]);
        row
    };
    write_columns(out.join("diagonals.csv"), &columns, (0..hg.len()).map(row))?;
    let panels = panels(snapshots, history, members, &[hg, gg]);
    let mut svgs = Vec::new();
    for (letter, panel) in ('a'..).zip(panels) {
        match panel {
            // of this panel alone
            Err(Error::Undefined { .. }) => {}
            drawn => {
                let svg = drawn?;
                write_text(out.join(format!("evolution_{letter}.svg")), &svg)?;
                svgs.push(svg);
            }
        }
    }
    Ok(vec![
        Block::Figures {
            svgs,
            caption: "Over training, at logarithmically spaced epochs (the paper’s Figures 4–6): γ of each estimate; the commutativity error and the eigen-alignment; Spearman’s ρ over the leading directions; loss and accuracy; Frobenius norms; and at the end of training the diagonals of the chain’s terms by index. A panel of which nothing is defined is left out.".into(),
        },
        Block::Findings { findings: findings(snapshots, history, members, claims)? },
    ])
}

/// A row of `evolution.csv`.
#[derive(Serialize)]
struct Row {
    epoch: u64,
    estimate: &'static str,
    gamma: Option<f64>,
    commutativity_error: Option<f64>,
    eigen_alignment: Option<f64>,
    spearman: Option<f64>,
    norm: f64,
    loss: f64,
    accuracy: f64,
    sigma_w2: Option<f64>,
}

fn rows(snapshot: &Snapshot) -> impl Iterator<Item = Row> {
    let &Snapshot { epoch, loss, accuracy, sigma_w2, gradient_norms, .. } = snapshot;
    let of_state = move |(estimate, state): (&'static str, &State)| Row {
        epoch,
        estimate,
        gamma: state.gamma,
        commutativity_error: state.commutativity_error,
        eigen_alignment: state.eigen_alignment,
        spearman: state.spearman,
        norm: state.norm,
        loss,
        accuracy,
        sigma_w2,
    };
    let of_term = move |(estimate, norm): (&'static str, f64)| Row {
        epoch,
        estimate,
        gamma: None,
        commutativity_error: None,
        eigen_alignment: None,
        spearman: None,
        norm,
        loss,
        accuracy,
        sigma_w2,
    };
    let states = snapshot.states.iter().map(|state| (state.member.key(), state));
    let states = states.chain([("covariance_centred", &snapshot.centred)]).map(of_state);
    states.chain(["hg", "gg"].into_iter().zip(gradient_norms).map(of_term))
}

fn panels(
    snapshots: &[Snapshot],
    history: &[Epoch],
    members: &Members,
    [hg, gg]: &[Vec<f64>; 2],
) -> Vec<Result<String>> {
    let line = |name: &str, colour: usize, points: Vec<(f64, f64)>| Series {
        name: name.into(),
        mark: Mark::Line,
        colour,
        points,
    };
    let over = |value: &dyn Fn(&State) -> Option<f64>| -> Vec<Series> {
        let points = |state: &dyn Fn(&Snapshot) -> &State| {
            snapshots.iter().filter_map(|s| Some((s.epoch as f64, value(state(s))?))).collect()
        };
        let members = Member::ALL.iter().enumerate();
        let mut series: Vec<Series> =
            members.map(|(at, member)| line(member.symbol(), at, points(&|s| s.state(*member)))).collect();
        // the colours between are those of C^hg and C^gg
        series.push(line("C − g gᵀ", Member::ALL.len() + 2, points(&|s| &s.centred)));
        series
    };
    let guide = |name: &str, y: f64| Series {
        name: name.into(),
        mark: Mark::Guide,
        colour: 0,
        points: [snapshots[0].epoch, snapshots[snapshots.len() - 1].epoch].map(|e| (e as f64, y)).to_vec(),
    };
    let axis = |label, scale| Axis { label, scale };
    let epochs = axis("epoch", Scale::Log);
    let linear = |label| axis(label, Scale::Linear);
    let log = |label| axis(label, Scale::Log);

    let mut gammas = over(&|s| s.gamma);
    gammas.extend([guide("the bounds 1 and 2", 1.0), guide("", 2.0)]);
    let mut errors = over(&|s| s.commutativity_error);
    errors.push(guide("unrelated matrices, √2", std::f64::consts::SQRT_2));
    let curve = |value: fn(&Epoch) -> f64| history.iter().map(|e| (e.epoch as f64, value(e))).collect();
    let training = [line("loss", 0, curve(|e| e.loss)), line("1 − accuracy", 1, curve(|e| 1.0 - e.accuracy))];
    let mut norms = over(&|s| Some(s.norm));
    for (which, name) in ["C^hg", "C^gg"].into_iter().enumerate() {
        let points = snapshots.iter().map(|s| (s.epoch as f64, s.gradient_norms[which])).collect();
        norms.push(line(name, Member::ALL.len() + which, points));
    }
    let by_index = |name: &str, colour: usize, values: &[f64]| Series {
        name: name.into(),
        mark: Mark::Points,
        colour,
        points: logarithmically_spaced(values.len() as u64, SHOWN)
            .into_iter()
            .map(|i| (i as f64, values[i as usize - 1].abs()))
            .collect(),
    };
    let of = |member: Member, colour: usize| {
        by_index(member.symbol(), colour, &diagonal(members.covariance(member)))
    };
    let index = log("index");
    let terms = [of(Member::Raw, 1), of(Member::Hh, 2), by_index("C^hg", 6, hg), by_index("C^gg", 7, gg)];
    let approximations = [of(Member::Hh, 2), of(Member::Sd, 3), of(Member::Wd, 4)];
    vec![
        chart("a. The exponent", epochs, linear("γ"), &gammas),
        chart("b. Commutativity", epochs, linear("‖CH − HC‖ / ‖CH‖"), &errors),
        chart("c. Eigen-alignment", epochs, linear("‖diag C‖ / ‖C‖"), &over(&|s| s.eigen_alignment)),
        chart("d. Rank correlation", epochs, linear("Spearman’s ρ"), &over(&|s| s.spearman)),
        chart("e. Training", epochs, log("loss, 1 − accuracy"), &training),
        chart("f. Norms", epochs, log("Frobenius norm"), &norms),
        chart("g. The terms of C_AWD,raw", index, log("|Cᵢᵢ|"), &terms),
        chart("h. Approximations of C^hh", index, log("|Cᵢᵢ|"), &approximations),
    ]
}

fn findings(
    snapshots: &[Snapshot],
    history: &[Epoch],
    members: &Members,
    claims: &Claims,
) -> Result<Vec<Finding>> {
    let mut findings = vec![
        within_bounds(snapshots),
        Finding::of("C and H should nearly commute throughout", commuting(snapshots))?,
        Finding::of("Near a minimum the gradient terms should vanish", gradient_terms(snapshots))?,
        Finding::of("Distinct samples should be independent (eq. 63)", independent(members))?,
        Finding::of("ΔW* should be uncorrelated along h_p’s axes (eq. 67)", uncorrelated(members))?,
    ];
    let converged = history.iter().find(|epoch| epoch.accuracy >= CONVERGED).map(|epoch| epoch.epoch);
    findings.extend(claims.converged.map(|published| match converged {
        Some(epoch) => {
            let what = "The first epoch in which every training image was classified rightly";
            claims.compare(what, epoch as f64, published as f64, 0.5)
        }
        None => Finding::new(
            false,
            format!(
                "Every training image should be classified rightly from about epoch {published} on: in no epoch all were{}.",
                departing(claims.departure.as_slice()),
            ),
        ),
    }));
    Ok(findings)
}

/// Whether γ_emp keeps to the bounds at every epoch.
fn within_bounds(snapshots: &[Snapshot]) -> Finding {
    let gamma = |s: &Snapshot| s.state(Member::Empirical).gamma;
    let measured = snapshots.iter().filter_map(|s| Some((s, gamma(s)?)));
    let outside: Vec<String> = measured
        .clone()
        .filter(|(_, gamma)| !(0.95..=2.05).contains(gamma))
        .map(|(s, gamma)| {
            let share = s.gradient_shares().ok().map(|[_, gg]| gg);
            format!(
                "{gamma:.2} at epoch {} ({} for C − g gᵀ; {:.0} % classified rightly, ‖C^gg‖/‖C^hh‖ = {})",
                s.epoch,
                told(s.centred.gamma, |gamma| format!("{gamma:.2}")),
                100.0 * s.accuracy,
                told(share, |share| format!("{share:.2}")),
            )
        })
        .collect();
    let what = "γ_emp should stay within [1, 2] (0.05 allowed for) throughout";
    let undefined: Vec<String> =
        snapshots.iter().filter(|s| gamma(s).is_none()).map(|s| s.epoch.to_string()).collect();
    if undefined.len() == snapshots.len() {
        return Finding::undefined(format!("{what}: it is undefined at every epoch that was measured."));
    }
    let mut sentence = match outside.is_empty() {
        true => format!("{what}, and does at every epoch that was measured"),
        false => format!("{what}: it is {}", outside.join(", ")),
    };
    if !undefined.is_empty() {
        sentence += &format!("; it is undefined at epoch {}", undefined.join(", "));
    }
    sentence += ". The bounds are of networks near a minimum, where g and the gradient term C^gg vanish.";
    Finding::new(outside.is_empty(), sentence)
}

/// Whether the commutativity error stays small.
fn commuting(snapshots: &[Snapshot]) -> Result<Finding> {
    let error = |s: &Snapshot| s.state(Member::Empirical).commutativity_error;
    let measured = snapshots.iter().filter_map(|s| Some((s, error(s)?)));
    let (snapshot, error) = measured
        .max_by(|x, y| x.1.total_cmp(&y.1))
        .ok_or_else(|| Error::undefined("the commutativity error", "C H is 0 at every epoch"))?;
    Ok(Finding::new(
        error < std::f64::consts::FRAC_1_SQRT_2,
        format!(
            "C and H should nearly commute throughout: the error is largest at epoch {}, {error:.3} ({} for C − g gᵀ), and less than half of unrelated matrices’ √2 counts.",
            snapshot.epoch,
            told(snapshot.centred.commutativity_error, |error| format!("{error:.3}")),
        ),
    ))
}

/// Whether C^gg vanishes beside C^hh.
fn gradient_terms(snapshots: &[Snapshot]) -> Result<Finding> {
    let (first, last) = (&snapshots[0], &snapshots[snapshots.len() - 1]);
    let ([_, before], [hg, gg]) = (first.gradient_shares()?, last.gradient_shares()?);
    Ok(Finding::new(
        gg < 0.1 && gg <= before,
        format!(
            "Near a minimum the gradient terms should vanish beside C^hh: ‖C^gg‖/‖C^hh‖ is {before:.3} at epoch {} and {gg:.3} at epoch {}, ‖C^hg‖/‖C^hh‖ {hg:.3} at the end; a final share below 0.1 that has not grown counts. Training accuracy is {:.2} % then{}.",
            first.epoch,
            last.epoch,
            100.0 * last.accuracy,
            if last.accuracy < CONVERGED {
                ": gradients do not vanish where some samples are wrong"
            } else {
                ""
            },
        ),
    ))
}

/// Whether leaving out what distinct samples have in common leaves C^hh's trace.
fn independent(members: &Members) -> Result<Finding> {
    let trace = |member| diagonal(members.covariance(member)).iter().sum::<f64>();
    let whole = trace(Member::Hh);
    if whole <= 0.0 {
        return Err(Error::undefined("the share of the trace of C^hh", "C^hh is 0"));
    }
    let share = trace(Member::Sd) / whole;
    Ok(Finding::new(
        (share - 1.0).abs() < CLOSE,
        format!(
            "Distinct samples should be independent (eq. 63): the trace of C^hh,SD is {share:.2} of that of C^hh; within {CLOSE} of 1 counts."
        ),
    ))
}

/// Whether leaving out what couples h_p's axes changes little.
fn uncorrelated(members: &Members) -> Result<Finding> {
    // their traces are the same whatever ΔW* is
    let [sd, wd] = [Member::Sd, Member::Wd].map(|member| members.covariance(member));
    let whole = sd.norm_l2();
    if whole <= 0.0 {
        return Err(Error::undefined("the change of C^hh,SD", "C^hh,SD is 0"));
    }
    let coupled = (sd - wd).norm_l2() / whole;
    Ok(Finding::new(
        coupled < CLOSE,
        format!(
            "ΔW* should be uncorrelated along h_p’s axes (eq. 67): ‖C^hh,SD − C^hh,SD,WD‖ / ‖C^hh,SD‖ is {coupled:.3}; less than {CLOSE} counts. σ_w² = {}.",
            told(members.sigma_w2, |sigma_w2| format!("{sigma_w2:.3e}")),
        ),
    ))
}
