//! Plots as SVG text: point and line charts on linear or logarithmic axes, and heat maps.

use std::fmt::{Display, Write as _};
use std::ops::Range;

use faer::MatRef;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;
use plotters::style::colors::colormaps::ViridisRGB;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{Error, Result};

/// How values are laid along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal distances for equal differences.
    Linear,
    /// Base 10; values that are not positive are left out.
    Log,
}

/// One axis of a chart.
#[derive(Clone, Copy, Debug)]
pub struct Axis<'a> {
    /// What stands beside the axis.
    pub label: &'a str,
    /// How its values are laid along it.
    pub scale: Scale,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A dot for each point.
    Points,
    /// A line from point to point.
    Line,
    /// A thin pale line, one of many.
    Thin,
    /// A thin grey dashed line, for guides to the eye.
    Guide,
}

/// A named series of points.
#[derive(Clone, Debug)]
pub struct Series {
    /// Stands in the legend unless empty.
    pub name: String,
    /// How the points are drawn.
    pub mark: Mark,
    /// Which colour of the palette; points and the line fitted to them share one.
    pub colour: usize,
    /// The points `(x, y)`, a line's in the order that it goes through them.
    pub points: Vec<(f64, f64)>,
}

const INK: RGBColor = RGBColor(45, 55, 72);
const GRID: RGBColor = RGBColor(226, 232, 240);
const GUIDE: RGBColor = RGBColor(130, 140, 155);
const PALETTE: [RGBColor; 9] = [
    RGBColor(43, 108, 176),
    RGBColor(221, 107, 32),
    RGBColor(47, 133, 90),
    RGBColor(151, 38, 109),
    RGBColor(107, 70, 193),
    RGBColor(116, 66, 16),
    RGBColor(197, 48, 48),
    RGBColor(49, 151, 149),
    RGBColor(74, 85, 104),
];
const CHART_SIZE: (u32, u32) = (680, 460);
const HEAT_MAP_SIZE: (u32, u32) = (LEFT as u32 + CELLS + 10 + COLOUR_BAR_WIDTH, 506);
/// The side of the square of cells, in pixels: a whole number of them for each of 100 directions.
const CELLS: u32 = 400;
/// The pixels left of and above the cells.
const LEFT: i32 = 70;
const TOP: u32 = 44;
const COLOUR_BAR_WIDTH: u32 = 116;
/// Levels of a heat map's colour scale.
const SHADES: usize = 64;

/// Draws `series` over common axes that hold all their points (guides are cut off at the edges).
///
/// # Errors
/// [`Error::Undefined`] where no series has a point that the axes can show.
pub fn chart(title: &str, x: Axis<'_>, y: Axis<'_>, series: &[Series]) -> Result<String> {
    let place = |point: &(f64, f64)| {
        let placed = (x.scale.place(point.0), y.scale.place(point.1));
        (placed.0.is_finite() && placed.1.is_finite()).then_some(placed)
    };
    let shown =
        || series.iter().filter(|s| s.mark != Mark::Guide).flat_map(|s| s.points.iter().filter_map(place));
    let (Some(x_range), Some(y_range)) = (span(shown().map(|p| p.0)), span(shown().map(|p| p.1))) else {
        return Err(Error::undefined(format!("the plot “{title}”"), "it has no points"));
    };

    let mut svg = String::new();
    {
        let root = canvas(&mut svg, CHART_SIZE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 20).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(54)
            .y_label_area_size(76)
            .build_cartesian_2d(
                Span::new(&x_range, x.scale.ticks(&x_range)),
                Span::new(&y_range, y.scale.ticks(&y_range)),
            )
            .map_err(undrawn)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .x_desc(x.label)
            .y_desc(y.label)
            .x_label_formatter(&|value| x.scale.label(*value))
            .y_label_formatter(&|value| y.scale.label(*value))
            .axis_desc_style(("sans-serif", 18).into_font().color(&INK))
            .label_style(("sans-serif", 15).into_font().color(&INK))
            .draw()
            .map_err(undrawn)?;
        for series in series {
            let colour = PALETTE[series.colour % PALETTE.len()];
            let points: Vec<(f64, f64)> = series.points.iter().filter_map(place).collect();
            let drawn = match series.mark {
                Mark::Points => {
                    let dots =
                        points.into_iter().map(|point| Circle::new(point, 2, colour.mix(0.45).filled()));
                    chart.draw_series(dots).map_err(undrawn)?
                }
                Mark::Line => {
                    chart.draw_series(LineSeries::new(points, colour.stroke_width(2))).map_err(undrawn)?
                }
                Mark::Thin => {
                    let pale = colour.mix(0.35).stroke_width(1);
                    chart.draw_series(LineSeries::new(points, pale)).map_err(undrawn)?
                }
                Mark::Guide => {
                    let inside = cut(&points, &x_range, &y_range);
                    chart
                        .draw_series(DashedLineSeries::new(inside, 5, 4, GUIDE.stroke_width(1)))
                        .map_err(undrawn)?
                }
            };
            if !series.name.is_empty() {
                let mark = series.mark;
                drawn.label(&series.name).legend(move |(x, y)| match mark {
                    Mark::Points => Circle::new((x + 10, y), 4, colour.filled()).into_dyn(),
                    Mark::Line | Mark::Thin => {
                        PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)).into_dyn()
                    }
                    Mark::Guide => PathElement::new([(x, y), (x + 20, y)], GUIDE.stroke_width(1)).into_dyn(),
                });
            }
        }
        if series.iter().any(|series| !series.name.is_empty()) {
            chart
                .configure_series_labels()
                .position(emptiest_corner(shown(), &x_range, &y_range))
                .margin(12)
                .legend_area_size(26)
                .background_style(WHITE.mix(0.85))
                .border_style(GRID)
                .label_font(("sans-serif", 15).into_font().color(&INK))
                .draw()
                .map_err(undrawn)?;
        }
        root.present().map_err(undrawn)?;
    }
    Ok(svg)
}

/// Charts in rows of `columns`, as one SVG that shows each at half its size.
///
/// # Panics
/// If `columns` is zero.
pub fn grid(charts: &[String], columns: usize) -> String {
    let (width, height) = (CHART_SIZE.0 / 2, CHART_SIZE.1 / 2);
    let across = width as usize * columns.min(charts.len());
    let down = height as usize * charts.len().div_ceil(columns);
    let mut svg = format!(
        r#"<svg width="{across}" height="{down}" viewBox="0 0 {across} {down}" xmlns="http://www.w3.org/2000/svg">"#
    );
    for (n, chart) in charts.iter().enumerate() {
        let (x, y) = (width as usize * (n % columns), height as usize * (n / columns));
        let drawn = chart.split_once('>').and_then(|(_, rest)| rest.rsplit_once("</svg>"));
        let (drawn, _) = drawn.expect("a chart is an SVG");
        write!(svg, r#"<g transform="translate({x} {y}) scale(0.5)">{drawn}</g>"#)
            .expect("a String takes any text");
    }
    svg.push_str("</svg>");
    svg
}

/// Draws the entries of a matrix as coloured cells, row 1 at the top, beside their scale; entries outside
/// `range` take the colour of its nearer end, entries that are not finite stay white.
///
/// # Errors
/// [`Error::Argument`] where the matrix is empty or `range` is.
pub fn heat_map(
    title: &str,
    matrix: MatRef<'_, f64>,
    range: Range<f64>,
    scale_label: &str,
) -> Result<String> {
    let (rows, columns) = (matrix.nrows(), matrix.ncols());
    if rows * columns == 0 || range.is_empty() {
        let found = format!("{rows} × {columns} cells over {range:?}");
        return Err(Error::argument(format!("plot “{title}”"), found, "cells and a range of values"));
    }
    let shade = |value: f64| {
        let level = (value - range.start) / (range.end - range.start) * SHADES as f64;
        (level.max(0.0) as usize).min(SHADES - 1)
    };
    let colour = |shade: usize| ViridisRGB::get_color((shade as f64 + 0.5) / SHADES as f64);

    let mut svg = String::new();
    let (x_pixels, y_pixels) = {
        let root = canvas(&mut svg, HEAT_MAP_SIZE)?;
        let (map, bar) = root.split_horizontally(HEAT_MAP_SIZE.0 - COLOUR_BAR_WIDTH);
        let (x_range, y_range) = (0.5..columns as f64 + 0.5, rows as f64 + 0.5..0.5);
        let centred = ("sans-serif", 20).into_font().color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
        root.draw(&Text::new(title, (LEFT + CELLS as i32 / 2, 12), centred)).map_err(undrawn)?;
        let mut chart = ChartBuilder::on(&map)
            .margin_top(TOP)
            .margin_left(8)
            .margin_right(10)
            .margin_bottom(HEAT_MAP_SIZE.1 - TOP - CELLS - 54)
            .x_label_area_size(54)
            .y_label_area_size(LEFT - 8)
            .build_cartesian_2d(
                Span::new(&x_range, index_ticks(columns)),
                Span::new(&y_range, index_ticks(rows)),
            )
            .map_err(undrawn)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .axis_style(INK)
            .x_desc("direction j")
            .y_desc("direction i")
            .x_label_formatter(&|value| format!("{value}"))
            .y_label_formatter(&|value| format!("{value}"))
            .axis_desc_style(("sans-serif", 17).into_font().color(&INK))
            .label_style(("sans-serif", 15).into_font().color(&INK))
            .draw()
            .map_err(undrawn)?;
        let pixels = chart.plotting_area().get_pixel_range();

        let mut scale = ChartBuilder::on(&bar)
            .margin_top(TOP)
            .margin_bottom(HEAT_MAP_SIZE.1 - TOP - CELLS)
            .margin_right(24)
            .y_label_area_size(66)
            .build_cartesian_2d(0.0..1.0, Span::new(&range, Scale::Linear.ticks(&range)))
            .map_err(undrawn)?;
        scale
            .configure_mesh()
            .disable_mesh()
            .disable_x_axis()
            .set_all_tick_mark_size(5)
            .axis_style(INK)
            .y_desc(scale_label)
            .y_label_formatter(&|value| Scale::Linear.label(*value))
            .axis_desc_style(("sans-serif", 17).into_font().color(&INK))
            .label_style(("sans-serif", 15).into_font().color(&INK))
            .draw()
            .map_err(undrawn)?;
        let step = (range.end - range.start) / SHADES as f64;
        let swatches = (0..SHADES).map(|shade| {
            let bottom = range.start + step * shade as f64;
            Rectangle::new([(0.0, bottom), (1.0, bottom + step)], colour(shade).filled())
        });
        scale.draw_series(swatches).map_err(undrawn)?;
        root.present().map_err(undrawn)?;
        pixels
    };

    // a path a shade, of strokes one cell high: a twentieth of what a rectangle a cell takes
    let mut paths = vec![String::new(); SHADES];
    for i in 0..rows {
        let finite: Vec<(usize, usize)> = (0..columns)
            .filter(|&j| matrix[(i, j)].is_finite())
            .map(|j| (j, shade(matrix[(i, j)])))
            .collect();
        for run in finite.chunk_by(|left, right| left.0 + 1 == right.0 && left.1 == right.1) {
            let (start, shade) = run[0];
            write!(paths[shade], "M{start} {i}.5h{}.04", run.len()).expect("a String takes any text");
        }
    }
    let mut cells = format!(
        r#"<g transform="translate({} {}) scale({} {})" stroke-width="1.04" fill="none" shape-rendering="crispEdges">"#,
        x_pixels.start,
        y_pixels.start,
        f64::from(x_pixels.end - x_pixels.start) / columns as f64,
        f64::from(y_pixels.end - y_pixels.start) / rows as f64,
    );
    for (shade, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
        let RGBColor(red, green, blue) = colour(shade);
        writeln!(cells, r##"<path stroke="#{red:02x}{green:02x}{blue:02x}" d="{path}"/>"##)
            .expect("a String takes any text");
    }
    cells.push_str("</g>\n</svg>");
    Ok(svg.replace("</svg>", &cells))
}

impl Scale {
    /// Where along the axis `value` stands; not finite where it cannot.
    fn place(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        }
    }

    /// At most eight places within `range` at a round distance: 1, 2 or 5 times a power of ten, for
    /// logarithms whole decades where there are at least two.
    fn ticks(self, range: &Range<f64>) -> Vec<f64> {
        let least = (range.end - range.start) / 8.0;
        let magnitude = 10f64.powf(least.log10().floor());
        let round = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude);
        let mut step = round.into_iter().find(|&step| step >= least).unwrap_or(least);
        if self == Scale::Log && range.end - range.start >= 2.0 {
            step = step.ceil();
        }
        let first = (range.start / step).ceil() as i64;
        let last = (range.end / step).floor() as i64;
        (first..=last).map(|n| n as f64 * step).collect()
    }

    fn label(self, place: f64) -> String {
        match self {
            Scale::Log if place.fract().abs() < 1e-9 => format!("10{}", superscript(place.round() as i64)),
            Scale::Log => format!("{:.3e}", 10f64.powf(place)),
            Scale::Linear => {
                let rounded = (place * 1e9).round() / 1e9;
                if rounded != 0.0 && rounded.abs() < 1e-4 {
                    format!("{place:.1e}")
                } else {
                    format!("{rounded}")
                }
            }
        }
    }
}

/// The values along an axis, from its start to its end (downwards where it starts at the larger one), and
/// where its ticks stand.
struct Span {
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Span {
    fn new(range: &Range<f64>, ticks: Vec<f64>) -> Span {
        Span { range: range.clone(), ticks }
    }
}

impl Ranged for Span {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        first + (share * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

fn superscript(number: i64) -> String {
    let raise = |c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32('⁰' as u32 + (digit as u32 - '0' as u32)).unwrap_or(digit),
    };
    number.to_string().chars().map(raise).collect()
}

/// 1 and then multiples of a round number up to `count`.
fn index_ticks(count: usize) -> Vec<f64> {
    let mut ticks = Scale::Linear.ticks(&(0.0..count as f64));
    ticks.retain(|tick| *tick >= 1.0 && tick.fract() == 0.0);
    ticks.insert(0, 1.0);
    ticks.dedup();
    ticks
}

/// The range of `values` with a margin of 4 % on both sides.
fn span(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    let margin = if high > low { (high - low) * 0.04 } else { 0.5 };
    (low <= high).then_some(low - margin..high + margin)
}

/// The corner of the axes with the fewest points in it.
fn emptiest_corner(
    points: impl Iterator<Item = (f64, f64)>,
    x: &Range<f64>,
    y: &Range<f64>,
) -> SeriesLabelPosition {
    let share = |value: f64, range: &Range<f64>| (value - range.start) / (range.end - range.start);
    let mut counts = [0; 4]; // upper left, upper right, lower right, lower left
    for (u, v) in points.map(|point| (share(point.0, x), share(point.1, y))) {
        let (left, right, lower, upper) = (u < 0.45, u > 0.55, v < 0.35, v > 0.65);
        let inside = [left && upper, right && upper, right && lower, left && lower];
        counts.iter_mut().zip(inside).for_each(|(count, inside)| *count += usize::from(inside));
    }
    let corner = (0..4).min_by_key(|&corner| counts[corner]).unwrap_or(0);
    [
        SeriesLabelPosition::UpperLeft,
        SeriesLabelPosition::UpperRight,
        SeriesLabelPosition::LowerRight,
        SeriesLabelPosition::LowerLeft,
    ][corner]
        .clone()
}

/// The part of a straight line within the axes, as its two ends; nothing where it passes them by.
fn cut(points: &[(f64, f64)], x: &Range<f64>, y: &Range<f64>) -> Vec<(f64, f64)> {
    let &[(x0, y0), .., (x1, y1)] = points else { return Vec::new() };
    let (mut from, mut to) = (0.0f64, 1.0f64);
    for (start, delta, range) in [(x0, x1 - x0, x), (y0, y1 - y0, y)] {
        if delta != 0.0 {
            let (a, b) = ((range.start - start) / delta, (range.end - start) / delta);
            from = from.max(a.min(b));
            to = to.min(a.max(b));
        } else if !range.contains(&start) {
            return Vec::new();
        }
    }
    let at = |t: f64| (x0 + t * (x1 - x0), y0 + t * (y1 - y0));
    if from < to { vec![at(from), at(to)] } else { Vec::new() }
}

fn canvas(svg: &mut String, size: (u32, u32)) -> Result<DrawingArea<SVGBackend<'_>, Shift>> {
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE).map_err(undrawn)?;
    Ok(root)
}

fn undrawn(error: impl Display) -> Error {
    Error::argument("plot", error, "something that can be drawn")
}
