//! The report: each table and figure beside the published values, and whether they agree.

use serde_json::Value;

use super::claims::departing;
use super::records::{Epoch, Training};
use super::settings::Setting;
use super::study::Figures;
use super::tables::{self, Cell, Run, tolerance};
use crate::Result;
use crate::net::Loss;
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{Block, Finding, Page, Section};

/// Puts the page together; `networks` says what they are, `studies` are the blocks of the synthetic ones, `missing` says
/// what could not be made and why, `how_made` is an object, each of its members a line.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where a plot has nothing to show.
pub fn page(
    networks: Option<&str>,
    (cells, runs): (&[Cell], &[Run]),
    figures: &[Figures],
    studies: Option<&[Block]>,
    missing: &[String],
    how_made: &Value,
) -> Result<Page> {
    let mut sections = Vec::new();
    if !missing.is_empty() {
        let blocks = missing.iter().map(|what| Block::Text { text: format!("{what}.") }).collect();
        sections.push(Section { heading: "Missing".into(), blocks });
    }
    if !cells.is_empty() {
        sections.push(exponents(cells));
        sections.push(training(runs)?);
    }
    for figures in figures {
        let source = Block::Text { text: figures.source.clone() };
        let heading = |part: &str| format!("{}: {}", part, figures.title);
        for (n, (part, blocks)) in figures.parts.iter().enumerate() {
            let source = (n == 0).then(|| source.clone());
            let blocks = source.into_iter().chain(blocks.iter().cloned()).collect();
            sections.push(Section { heading: heading(part), blocks });
        }
    }
    sections.extend(studies.map(|blocks| Section {
        heading: "Synthetic studies: the limits of γ".into(),
        blocks: blocks.to_vec(),
    }));
    let mut lead = vec![
        "Zhang, Yang and Tu (2026) hold that the covariance C of SGD’s gradient noise follows the second moment of the per-sample Hessians, not their mean H; that C and H nearly commute; and that their diagonals in H’s eigenbasis obey C_ii ∝ H_ii^γ with 1 ≤ γ ≤ 2.".into(),
    ];
    if let Some(networks) = networks {
        lead.extend([
            "Here H, C and E[h²] of one fully connected layer are measured in full over the training set, with every approximation between C and ½ σ_w² E[h²]. γ_emp is the exponent of C, γ_AWD that of E[h²], γ′_AWD that of C_AWD,raw.".into(),
            networks.into(),
        ]);
    }
    Ok(Page {
        title: "Superlinear: gradient noise against curvature".into(),
        lead,
        sections,
        how_made: members(how_made),
    })
}

fn exponents(cells: &[Cell]) -> Section {
    let mut table = tables::table(cells);
    table.caption = format!(
        "Mean ± standard deviation over seeds; published: mean ± standard deviation over four runs. Sizes: {}.",
        cells.iter().map(sizes).collect::<Vec<_>>().join("; "),
    );
    let mut findings: Vec<Finding> = cells.iter().flat_map(Cell::findings).collect();
    findings.extend(losses_compared(cells));
    findings.extend(cells.iter().filter_map(gradient_terms_help));
    Section {
        heading: "Tables 1 and 3: the exponent γ".into(),
        blocks: vec![
            Block::Table(table),
            Block::Text {
                text: format!(
                    "A mean within {} (cross-entropy) or {} (softmax-mse) of the published one counts as agreeing.",
                    tolerance(Loss::CrossEntropy),
                    tolerance(Loss::SoftmaxMse),
                ),
            },
            Block::Findings { findings },
        ],
    }
}

fn sizes(cell: &Cell) -> String {
    let Setting { dataset, model, classes, loss, per_class, batch_size, epochs, top, .. } = cell.setting;
    format!(
        "{dataset} {model}, {classes} classes, {loss}: {per_class} images a class, B = {batch_size}, {epochs} epochs, 𝒩 = {top}"
    )
}

/// Section 5.3's distinction: cross-entropy has the larger exponent.
fn losses_compared(cells: &[Cell]) -> Vec<Finding> {
    let of = |loss| cells.iter().filter(move |cell| cell.setting.loss == loss);
    of(Loss::CrossEntropy)
        .filter_map(|ce| {
            let task = |cell: &Cell| (cell.setting.dataset, cell.setting.model, cell.setting.classes);
            let mse = of(Loss::SoftmaxMse).find(|mse| task(mse) == task(ce))?;
            let (dataset, model, classes) = task(ce);
            let what = format!("Cross-entropy should have the larger exponent: on {dataset}, {model}, {classes} classes, γ_emp is");
            let Some((of_ce, of_mse)) = ce.emp.mean.zip(mse.emp.mean) else {
                return Some(Finding::undefined(format!("{what} undefined for one of the losses.")));
            };
            let mut departures = departures(ce);
            departures.extend(self::departures(mse));
            departures.dedup();
            let departing = departing(&departures);
            Some(Finding::new(
                of_ce > of_mse,
                format!("{what} {of_ce:.2} for cross-entropy and {of_mse:.2} for softmax-mse{departing}."),
            ))
        })
        .collect()
}

/// Appendix B.2.2: for the squared error, whose gradients do not vanish, C_AWD,raw is closer to C than E[h²] is.
fn gradient_terms_help(cell: &Cell) -> Option<Finding> {
    let Setting { dataset, model, loss, classes, .. } = cell.setting;
    if loss != Loss::SoftmaxMse {
        return None;
    }
    let what = format!(
        "With the gradient terms the duality should come closer to γ_emp: on {dataset}, {model}, {classes} classes"
    );
    let (Some(emp), Some(awd), Some(raw)) = (cell.emp.mean, cell.awd.mean, cell.awd_raw.mean) else {
        return Some(Finding::undefined(format!("{what}, an exponent is undefined.")));
    };
    let [with, without] = [raw - emp, awd - emp];
    let departing = departing(&departures(cell));
    Some(Finding::new(
        with.abs() <= without.abs(),
        format!("{what}, γ′_AWD is {with:+.3} from it, γ_AWD {without:+.3}{departing}."),
    ))
}

/// How the networks of a cell depart from the paper's.
fn departures(cell: &Cell) -> Vec<String> {
    cell.setting.departures(cell.train_accuracy)
}

fn training(runs: &[Run]) -> Result<Section> {
    let curves = |value: fn(&Epoch) -> f64| -> Vec<Series> {
        let mut cases: Vec<String> = Vec::new();
        let mut series = Vec::new();
        for run in runs {
            let Training { dataset, model, loss, classes, .. } = &run.training;
            let case = format!("{dataset} {model}, {loss}, {classes} classes");
            let known = cases.iter().position(|known| *known == case);
            let colour = known.unwrap_or(cases.len());
            series.push(Series {
                name: if known.is_some() { String::new() } else { case.clone() },
                mark: Mark::Line,
                colour,
                points: run.history.iter().map(|epoch| (epoch.epoch as f64, value(epoch))).collect(),
            });
            if known.is_none() {
                cases.push(case);
            }
        }
        series
    };
    let axis = |label, scale| Axis { label, scale };
    let epochs = axis("epoch", Scale::Linear);
    let accuracy = curves(|epoch| 100.0 * epoch.accuracy);
    let svgs = vec![
        chart("Training loss", epochs, axis("loss", Scale::Log), &curves(|epoch| epoch.loss))?,
        chart("Training accuracy", epochs, axis("accuracy, %", Scale::Linear), &accuracy)?,
    ];
    Ok(Section {
        heading: "Training".into(),
        blocks: vec![Block::Figures {
            svgs,
            caption:
                "Means over the batches of each epoch, as they were seen; a line a run, seeds in one colour."
                    .into(),
        }],
    })
}

/// The members of an object as text, nested ones by their path.
fn members(value: &Value) -> Vec<(String, String)> {
    let Value::Object(object) = value else { return Vec::new() };
    let mut lines = Vec::new();
    for (name, value) in object {
        match value {
            Value::Object(_) => {
                lines.extend(
                    members(value).into_iter().map(|(inner, text)| (format!("{name} · {inner}"), text)),
                );
            }
            Value::Array(items) => {
                lines.push((name.clone(), items.iter().map(plain).collect::<Vec<_>>().join(", ")));
            }
            _ => lines.push((name.clone(), plain(value))),
        }
    }
    lines
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}
