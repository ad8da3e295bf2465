//! Digits drawn here, for tests, benchmarks and first steps without a download.

use std::f32::consts::PI;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Dataset, Targets};
use crate::{Error, Result};

/// Pixels along an edge.
const SIDE: usize = 28;

/// A point in the glyph's box: x to the right, y downwards, both in [-1, 1].
type Point = [f32; 2];

/// `per_class` drawings of each of the digits 0 to 9: samples `[1, 28, 28]` in [0, 1] (multiples of
/// 1/255; strokes bright on black, as in MNIST), classes in the order 0, 1, …, 9, 0, 1, ….
///
/// Every drawing is a digit's strokes, bent, sheared, turned, scaled and moved at random, with a random
/// pen width and a little noise. The same seed gives the same drawings, and fewer of them are the first
/// of more.
///
/// # Errors
/// [`Error::Argument`] where `per_class` is 0, or more than 100,000.
pub fn synthetic_digits(per_class: usize, seed: u64) -> Result<Dataset> {
    const MOST: usize = 100_000;
    if per_class > MOST {
        return Err(Error::argument("per_class", per_class, format!("at most {MOST} drawn digits")));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let classes: Vec<u32> = (0..per_class).flat_map(|_| 0..10).collect();
    let inputs = classes.iter().flat_map(|&digit| draw(digit, &mut rng)).collect();
    Dataset::new(inputs, vec![1, SIDE, SIDE], Targets::Classes(classes))
}

/// The strokes of a digit, each a polyline.
fn strokes(digit: u32) -> Vec<Vec<Point>> {
    match digit {
        0 => vec![arc([0.0, 0.0], [0.62, 1.0], 0.0, 2.0)],
        1 => vec![vec![[-0.35, -0.6], [0.1, -1.0], [0.1, 1.0]]],
        2 => vec![[arc([0.0, -0.45], [0.6, 0.55], -1.0, 0.2), vec![[-0.62, 1.0], [0.65, 1.0]]].concat()],
        3 => vec![arc([-0.05, -0.5], [0.55, 0.5], -0.85, 0.5), arc([-0.05, 0.5], [0.65, 0.5], -0.5, 0.85)],
        4 => vec![vec![[0.1, -1.0], [-0.65, 0.35], [0.7, 0.35]], vec![[0.35, -0.35], [0.35, 1.0]]],
        5 => vec![
            [vec![[0.55, -1.0], [-0.45, -1.0], [-0.5, -0.1]], arc([-0.05, 0.37], [0.62, 0.6], -0.7, 0.8)]
                .concat(),
        ],
        6 => vec![
            [vec![[0.4, -1.0], [-0.2, -0.5], [-0.5, 0.05]], arc([0.0, 0.45], [0.55, 0.55], -1.1, 1.0)]
                .concat(),
        ],
        7 => vec![vec![[-0.6, -1.0], [0.6, -1.0], [0.1, 0.0], [-0.15, 1.0]]],
        8 => vec![arc([0.0, -0.5], [0.48, 0.48], 0.0, 2.0), arc([0.0, 0.5], [0.58, 0.5], 0.0, 2.0)],
        _ => vec![[arc([0.0, -0.45], [0.52, 0.55], 0.0, 2.0), vec![[0.5, 0.1], [0.3, 1.0]]].concat()],
    }
}

/// Part of an ellipse, from angle `from` π to angle `to` π: 0 is to the right, ½ downwards.
fn arc(centre: Point, radii: Point, from: f32, to: f32) -> Vec<Point> {
    const SEGMENTS: usize = 12;
    let point = |i: usize| {
        let angle = PI * (from + (to - from) * i as f32 / SEGMENTS as f32);
        [centre[0] + radii[0] * angle.cos(), centre[1] + radii[1] * angle.sin()]
    };
    (0..=SEGMENTS).map(point).collect()
}

/// One drawing, pixels in row-major order.
fn draw(digit: u32, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut within = |bound: f32| rng.random_range(-bound..=bound);
    let turn = within(0.2);
    let shear = within(0.25);
    let scale = [8.0 + within(1.5), 9.0 + within(1.0)];
    let centre = [13.5 + within(2.0), 13.5 + within(2.0)];
    let pen = 1.25 + within(0.4);
    let bend = [within(0.12), within(0.12)];
    let phase = [within(PI), within(PI)];

    let pixel = |[x, y]: Point| {
        let (x, y) = (x + bend[0] * (2.5 * y + phase[0]).sin(), y + bend[1] * (2.5 * x + phase[1]).sin());
        let (x, y) = (scale[0] * (x - shear * y), scale[1] * y);
        [centre[0] + turn.cos() * x - turn.sin() * y, centre[1] + turn.sin() * x + turn.cos() * y]
    };
    let mut segments = Vec::new();
    for stroke in strokes(digit) {
        let points: Vec<Point> = stroke.into_iter().map(pixel).collect();
        segments.extend(points.windows(2).map(|ends| (ends[0], ends[1])));
    }

    let mut image = Vec::with_capacity(SIDE * SIDE);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let here = [column as f32, row as f32];
            let to_pen = segments.iter().map(|&ends| distance(here, ends)).fold(f32::INFINITY, f32::min);
            // Opaque within the pen's radius, fading over one pixel at its edge.
            let ink = (pen + 0.5 - to_pen).clamp(0.0, 1.0) * (1.0 + within(0.1)) + within(0.04);
            image.push((ink.clamp(0.0, 1.0) * 255.0).round() / 255.0);
        }
    }
    image
}

/// From a point to the nearest point of a segment.
fn distance([x, y]: Point, ([x0, y0], [x1, y1]): (Point, Point)) -> f32 {
    let (dx, dy) = (x1 - x0, y1 - y0);
    let along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy).max(1e-12)).clamp(0.0, 1.0);
    (x - x0 - along * dx).hypot(y - y0 - along * dy)
}
