//! Figures 2 and 10–12: the diagonals of C, by each of its estimates, against those of H on logarithmic axes.

use std::path::Path;

use faer::Mat;
use serde::Serialize;

use super::claims::Claims;
use super::measures::{Exponent, curved_pairs, told_interval};
use super::members::{Member, Members, diagonal};
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{Block, Finding, Table, told, write_columns, write_csv, write_text};
use crate::stats::{LineFit, logarithmically_spaced, mean};
use crate::{Error, Result};

/// The directions of each estimate that are drawn where there are six, logarithmically spaced.
const SHOWN: usize = 400;
/// How far outside [1, 2] a fitted exponent may be and still count as within the bounds.
const SLACK: f64 = 0.05;
/// The share by which an exponent may differ from that of the tables.
const LIKE_TABLE: f64 = 0.05;
/// How far the exponent of a member of the chain may be from the empirical one to count as explaining it.
const EXPLAINED: f64 = 0.1;

/// An estimate's diagonal, and its exponent.
struct Scaling {
    member: Member,
    diagonal: Vec<f64>,
    exponent: Exponent,
}

impl Scaling {
    /// The fitted line.
    ///
    /// # Errors
    /// [`Error::Undefined`] where there is none.
    fn line(&self) -> Result<LineFit> {
        self.exponent.line(&format!("γ of {}", self.member.symbol()))
    }
}

/// A row of `exponents.csv`.
#[derive(Serialize)]
struct Record {
    estimate: &'static str,
    gamma: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    standard_error: Option<f64>,
    directions: Option<usize>,
}

impl Record {
    fn of(s: &Scaling) -> Record {
        let Exponent { fit, interval, .. } = s.exponent;
        Record {
            estimate: s.member.key(),
            gamma: fit.map(|fit| fit.slope),
            low: interval.map(|interval| interval.low),
            high: interval.map(|interval| interval.high),
            standard_error: fit.map(|fit| fit.slope_error),
            directions: fit.map(|fit| fit.points),
        }
    }
}

/// Writes `scaling.csv`, all D rows in descending order of H_ii (index from 1), `exponents.csv`, `scaling.svg`, C and
/// `½ σ_w² E[h²]` over the leading `top` directions (Figure 2), and `scaling_members.svg`, every estimate over as many, or
/// as many as Figures 10–12 have, into the folder `out`; gives what the report shows of them. An estimate that no line
/// can be fitted to has an empty row and no points in the figures.
///
/// # Errors
/// [`Error::Io`] where they cannot be written; [`Error::Undefined`] where no line can be fitted to C.
pub fn write(
    out: &Path,
    title: &str,
    members: &Members,
    claims: &Claims,
    top: usize,
    seed: u64,
) -> Result<Vec<Block>> {
    let hessian = &members.basis.values;
    let wide = claims.scaling_top.unwrap_or(top).min(hessian.len());
    let over = |top: usize| -> Result<Vec<Scaling>> {
        let of = |(member, covariance): &(Member, Mat<f64>)| {
            let diagonal = diagonal(covariance);
            let exponent = Exponent::of(hessian, &diagonal, top, seed)?;
            Ok(Scaling { member: *member, diagonal, exponent })
        };
        members.covariances.iter().map(of).collect()
    };
    let scalings = over(top)?;
    scalings[Member::Empirical as usize].line()?;
    let widely = if wide == top { vec![] } else { over(wide)? };
    let both: Vec<&Scaling> =
        scalings.iter().filter(|s| matches!(s.member, Member::Empirical | Member::Li)).collect();
    let drawn: Vec<&Scaling> = if wide == top { &scalings } else { &widely }.iter().collect();
    let svgs = vec![
        plot(title, hessian, &both, top, false)?,
        plot(&format!("{title}: all estimates"), hessian, &drawn, wide, true)?,
    ];
    std::fs::create_dir_all(out).map_err(Error::io(out, "create folder"))?;
    let mut columns = vec!["index", "hessian", "curvature_second_moment"];
    columns.extend(scalings.iter().map(|s| s.member.key()));
    let rows = (0..hessian.len()).map(|i| {
        let mut row = vec![(i + 1) as f64, hessian[i], members.curvature_second_moment[i]];
        row.extend(scalings.iter().map(|s| s.diagonal[i]));
        row
    });
    write_columns(out.join("scaling.csv"), &columns, rows)?;
    write_csv(out.join("exponents.csv"), scalings.iter().chain(&widely).map(Record::of))?;
    write_text(out.join("scaling.svg"), &svgs[0])?;
    write_text(out.join("scaling_members.svg"), &svgs[1])?;
    let table = exponents(scalings.iter().chain(&widely));
    Ok(vec![
        Block::Figures {
            svgs,
            caption: format!(
                "C_ii against H_ii for the leading {top} directions of H, with least-squares lines in log–log (the paper’s Figure 2). Right: every estimate for the leading {wide}, each mean-centred and shifted by a decade (Figures 10–12).",
            ),
        },
        Block::Table(table),
        Block::Findings { findings: findings(&scalings, claims)? },
    ])
}

fn exponents<'a>(scalings: impl Iterator<Item = &'a Scaling>) -> Table {
    let row = |s: &Scaling| {
        vec![
            s.member.symbol().into(),
            told(s.exponent.fit, |fit| format!("{:.3}", fit.slope)),
            told_interval(s.exponent.interval, " to "),
            told(s.exponent.fit, |fit| format!("{:.3}", fit.slope_error)),
            told(s.exponent.fit, |fit| fit.points.to_string()),
        ]
    };
    Table {
        columns: ["estimate", "γ", "95 % interval", "standard error", "directions"].map(String::from).into(),
        rows: scalings.map(row).collect(),
        caption: "γ is the slope; its interval is a bootstrap over directions, of which it takes five."
            .into(),
    }
}

/// Points and lines; `centred` moves each estimate's to a mean of zero and a decade below the one before it.
fn plot(title: &str, hessian: &[f64], scalings: &[&Scaling], top: usize, centred: bool) -> Result<String> {
    let mut series = Vec::new();
    let mut middle = None;
    for (colour, scaling) in scalings.iter().enumerate() {
        let Some(fit) = scaling.exponent.fit else { continue };
        let logs: Vec<(f64, f64)> =
            curved_pairs(hessian, &scaling.diagonal, top).map(|(h, c)| (h.log10(), c.log10())).collect();
        let middle_of = |of: fn(&(f64, f64)) -> f64| mean(&logs.iter().map(of).collect::<Vec<_>>());
        let (x, y) = (middle_of(|p| p.0)?, middle_of(|p| p.1)?);
        let most = if centred { SHOWN } else { usize::MAX };
        let shown = match logs.len() > most {
            true => logarithmically_spaced(logs.len() as u64, most),
            false => (1..=logs.len() as u64).collect(),
        };
        let shift = if centred { (-x, -y - colour as f64) } else { (0.0, 0.0) };
        let place = |(x, y): (f64, f64)| (10f64.powf(x + shift.0), 10f64.powf(y + shift.1));
        let ends = [logs[0].0, logs[logs.len() - 1].0];
        series.push(Series {
            name: scaling.member.symbol().into(),
            mark: Mark::Points,
            colour,
            points: shown.iter().map(|&i| place(logs[i as usize - 1])).collect(),
        });
        series.push(Series {
            name: format!("γ = {:.3}", fit.slope),
            mark: Mark::Line,
            colour,
            points: ends.map(|x| place((x, fit.at(x)))).to_vec(),
        });
        middle.get_or_insert((x + shift.0, y + shift.1, ends.map(|end| end + shift.0)));
    }
    // slopes 1 and 2 through the middle of the first estimate's points
    let (x, y, ends) = middle.expect("a line was fitted to C");
    for slope in [1.0, 2.0] {
        series.push(Series {
            name: if slope == 1.0 { "slopes 1 and 2".into() } else { String::new() },
            mark: Mark::Guide,
            colour: 0,
            points: ends.map(|end| (10f64.powf(end), 10f64.powf(y + slope * (end - x)))).to_vec(),
        });
    }
    let [x, y] =
        if centred { ["Hᵢᵢ, centred", "Cᵢᵢ, centred and shifted"] } else { ["Hᵢᵢ", "Cᵢᵢ"] };
    chart(title, Axis { label: x, scale: Scale::Log }, Axis { label: y, scale: Scale::Log }, &series)
}

/// Whether the exponents are within the bounds of Theorem 5.1 (eq. 20) and as published, and whether the chain explains
/// the first.
fn findings(scalings: &[Scaling], claims: &Claims) -> Result<Vec<Finding>> {
    let bounded = |s: &Scaling| -> Result<Finding> {
        let LineFit { slope, points, .. } = s.line()?;
        let agrees = (1.0 - SLACK..=2.0 + SLACK).contains(&slope);
        let sentence = format!(
            "γ of {} = {slope:.3} (95 % interval {}, {points} directions) is {} the bounds 1 ≤ γ ≤ 2 of eq. 20, {SLACK} being allowed for.",
            s.member.symbol(),
            told_interval(s.exponent.interval, " to "),
            if agrees { "within" } else { "outside" },
        );
        Ok(Finding::new(agrees, sentence))
    };
    let mut findings = Vec::new();
    for s in scalings.iter().filter(|s| matches!(s.member, Member::Empirical | Member::Li)) {
        findings.push(Finding::of("The bounds 1 ≤ γ ≤ 2 of eq. 20", bounded(s))?);
    }
    if let Some(published) = claims.exponents {
        let published = [
            (Member::Empirical, Some(published.emp)),
            (Member::Raw, published.awd_raw),
            (Member::Li, Some(published.awd)),
        ];
        for (member, published) in published {
            let Some(published) = published else { continue };
            let what = format!("γ of {}", member.symbol());
            let line = scalings[member as usize].line();
            let compared = line.map(|line| claims.compare(&what, line.slope, published.mean, LIKE_TABLE));
            findings.push(Finding::of(&format!("{} published", published.mean), compared)?);
        }
    }
    let chain = "Each member of the chain should scale as the empirical covariance does";
    findings.push(Finding::of(chain, explained(scalings))?);
    Ok(findings)
}

/// Whether every member of the chain scales as C does.
fn explained(scalings: &[Scaling]) -> Result<Finding> {
    let empirical = scalings[0].line()?.slope;
    let off = |s: &Scaling| Ok((s.member, s.line()?.slope - empirical));
    let off = scalings[1..].iter().map(off).collect::<Result<Vec<_>>>()?;
    let worst = off.into_iter().max_by(|x, y| x.1.abs().total_cmp(&y.1.abs()));
    let (worst, off) = worst.expect("there is a chain");
    Ok(Finding::new(
        off.abs() <= EXPLAINED,
        format!(
            "Each member of the chain should scale as the empirical covariance does: the exponent that is furthest off is that of {}, by {off:+.3}; {EXPLAINED} is allowed for.",
            worst.symbol(),
        ),
    ))
}
