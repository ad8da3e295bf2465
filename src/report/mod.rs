//! One self-contained HTML page: text, tables, plots and findings in sections.

pub mod plots;

use std::path::Path;

use serde::Serialize;

use crate::files::write_atomically;
use crate::{Error, Result};

/// Writes `records` to `path` as CSV under the names of their fields.
///
/// # Errors
/// [`Error::Io`] where it cannot be written.
pub fn write_csv<R: Serialize>(path: impl AsRef<Path>, records: impl IntoIterator<Item = R>) -> Result<()> {
    write_atomically(path, |file| {
        let mut csv = csv::Writer::from_writer(file);
        for record in records {
            csv.serialize(record)?;
        }
        csv.flush()
    })
}

/// Writes rows of numbers to `path` as CSV under the names `columns`, as many as a row has.
///
/// # Errors
/// [`Error::Io`] where it cannot be written.
pub fn write_columns(
    path: impl AsRef<Path>,
    columns: &[&str],
    rows: impl IntoIterator<Item = Vec<f64>>,
) -> Result<()> {
    write_atomically(path, |file| {
        let mut csv = csv::Writer::from_writer(file);
        csv.write_record(columns)?;
        for row in rows {
            csv.serialize(row)?;
        }
        csv.flush()
    })
}

/// Writes `value` to `path` as indented JSON.
///
/// # Errors
/// [`Error::Io`] where it cannot be written.
pub fn write_json(path: impl AsRef<Path>, value: &impl Serialize) -> Result<()> {
    write_atomically(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

/// Writes `text` to `path`.
///
/// # Errors
/// [`Error::Io`] where it cannot be written.
pub fn write_text(path: impl AsRef<Path>, text: &str) -> Result<()> {
    write_atomically(path, |file| file.write_all(text.as_bytes()))
}

/// A page, from its title down to how it was made.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// The heading of the page, and its name in the browser.
    pub title: String,
    /// What the page is about, a paragraph each.
    pub lead: Vec<String>,
    /// The sections between the lead and how it was made.
    pub sections: Vec<Section>,
    /// Name and value of everything that determined the results.
    pub how_made: Vec<(String, String)>,
}

/// A heading and what stands under it.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// The section's title, in plain text.
    pub heading: String,
    /// What stands under the heading, from top to bottom.
    pub blocks: Vec<Block>,
}

/// A piece of a section. Text is plain: it is escaped where it is set.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Block {
    /// One paragraph.
    Text {
        /// The paragraph, without markup.
        text: String,
    },
    /// A table with its caption.
    Table(Table),
    /// Plots side by side, as SVG text.
    Figures {
        /// The plots, an SVG element each, which is set unescaped.
        svgs: Vec<String>,
        /// What stands below the plots.
        caption: String,
    },
    /// Comparisons that the measurements decided.
    Findings {
        /// The comparisons, a line each.
        findings: Vec<Finding>,
    },
}

/// A table; cells of numbers are set flush right.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The cells of each row, one for each column.
    pub rows: Vec<Vec<String>>,
    /// What stands below the table; nothing does where it is empty.
    pub caption: String,
}

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// What was expected holds.
    Agrees,
    /// What was expected does not hold.
    Differs,
    /// There is nothing to compare.
    Undefined,
}

/// What was compared with what, in a sentence, and whether they agree.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Whether they agree.
    pub verdict: Verdict,
    /// What was compared and what came of it, in a full sentence.
    pub sentence: String,
}

impl Finding {
    /// Of what could be compared.
    pub fn new(agrees: bool, sentence: impl Into<String>) -> Finding {
        let verdict = if agrees { Verdict::Agrees } else { Verdict::Differs };
        Finding { verdict, sentence: sentence.into() }
    }

    /// Of what could not.
    pub fn undefined(sentence: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Undefined, sentence: sentence.into() }
    }

    /// The one that `compared` makes, or that `what` is undefined, with the reason, where that is why it makes none.
    ///
    /// # Errors
    /// Whatever else has gone wrong.
    pub fn of(what: &str, compared: Result<Finding>) -> Result<Finding> {
        match compared {
            Err(Error::Undefined { quantity, reason }) => {
                Ok(Finding::undefined(format!("{what}: {quantity} is undefined: {reason}.")))
            }
            other => other,
        }
    }
}

/// A number as a cell or a sentence has it: `undefined` where there is none.
pub fn told<T>(value: Option<T>, set: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "undefined".into(), set)
}

impl Page {
    /// The page as HTML that refers to nothing outside itself.
    ///
    /// # Errors
    /// [`Error::Argument`] where the template cannot be filled in.
    pub fn render(&self) -> Result<String> {
        let unfilled = |error: minijinja::Error| Error::argument("report", format!("{error:#}"), "a page");
        let mut environment = minijinja::Environment::new();
        environment.add_test("number_cell", |cell: &str| is_number(cell));
        environment.add_template("report.html", include_str!("report.html")).map_err(unfilled)?;
        environment
            .get_template("report.html")
            .and_then(|page| page.render(minijinja::value::Serde(self)))
            .map_err(unfilled)
    }
}

impl Table {
    /// The table in aligned columns of plain text, without its caption.
    pub fn to_text(&self) -> String {
        let lines = || std::iter::once(&self.columns).chain(&self.rows);
        let columns: Vec<(usize, bool)> = (0..self.columns.len())
            .map(|j| {
                let width = lines().map(|line| line[j].chars().count()).max().unwrap_or(0);
                (width, self.rows.first().is_some_and(|row| is_number(&row[j])))
            })
            .collect();
        let set = |line: &Vec<String>| {
            let cells: Vec<String> = line
                .iter()
                .zip(&columns)
                .map(|(cell, &(width, right))| match right {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                })
                .collect();
            cells.join("  ").trim_end().to_string() + "\n"
        };
        lines().map(set).collect()
    }
}

/// Whether a cell is set flush right.
fn is_number(cell: &str) -> bool {
    cell.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '−'))
}
