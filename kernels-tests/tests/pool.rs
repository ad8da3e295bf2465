//! Pooling and its adjoint against plain loops in f64, over windows that overlap, touch, leave gaps and leave out
//! the image's end. Outputs are poisoned with NaN beforehand: what no window reaches has to be written as zero.
//!
//! Values are whole numbers and c a power of two, so that everything but the means is exact.

use std::ops::Range;

use curvkit::gpu::Gpu;
use curvkit::kernels::Write;
use curvkit::kernels::pool::{Windows, pool};
use kernels_tests::cases::{assert_close, random};
use kernels_tests::device::{GRID_ROW, POISON, gpu, read, run, upload};
use kernels_tests::f64s;
use kernels_tests::reference::layers::{Window, adaptive_ranges};
use kernels_tests::twins::pool::pool_terms;

/// Windows, the planes that decide a maximum (samples times channels), and K.
#[derive(Clone, Debug)]
struct Case {
    input: [usize; 2],
    /// Size and stride, or the numbers of adaptive windows.
    windows: Result<(usize, usize), [usize; 2]>,
    planes0: usize,
    k: usize,
}

fn fixed(size: usize, stride: usize, input: [usize; 2], planes0: usize, k: usize) -> Case {
    Case { input, windows: Ok((size, stride)), planes0, k }
}

fn adaptive(output: [usize; 2], input: [usize; 2], planes0: usize, k: usize) -> Case {
    Case { input, windows: Err(output), planes0, k }
}

/// Sizes and strides, all with all, on images that they cover, that they do not, and that are one window.
fn every_fixed_window() -> Vec<Case> {
    let images = |size: usize| [[size, size], [7, 5], [5, 11], [13, 8], [size, 9]];
    let mut cases = Vec::new();
    for size in 1..=5 {
        for stride in 1..=6 {
            for input in images(size) {
                let at = cases.len();
                cases.push(fixed(size, stride, input, 1 + at % 5, 1 + at % 3));
            }
        }
    }
    cases
}

fn other_cases() -> Vec<Case> {
    vec![
        fixed(1, 1, [1, 1], 67, 3),
        fixed(1, 2, [1, 13], 3, 2),
        fixed(1, 7, [5, 5], 2, 2),  // one window, and one cell, of one pixel
        fixed(2, 9, [5, 7], 3, 1),  // a stride beyond the image
        fixed(3, 4, [15, 3], 2, 5), // whole cells, then one that is a window and no gap
        adaptive([1, 1], [1, 1], 5, 3),
        adaptive([1, 1], [7, 5], 5, 3),
        adaptive([2, 2], [4, 6], 3, 2), // even
        adaptive([2, 2], [5, 7], 3, 2), // overlapping
        adaptive([5, 3], [7, 11], 2, 3),
        adaptive([3, 4], [13, 5], 7, 1),
        adaptive([4, 6], [4, 6], 3, 1), // the identity
        adaptive([5, 7], [3, 2], 2, 2), // more windows than pixels
    ]
}

/// More invocations than one row of the grid has, of each entry point.
fn large_cases() -> Vec<Case> {
    vec![fixed(1, 1, [1, 1], GRID_ROW + 67, 1), fixed(2, 1, [2, 2], GRID_ROW / 4 + 17, 1)]
}

impl Case {
    /// Rows and columns of every window.
    fn ranges(&self) -> [Vec<Range<usize>>; 2] {
        let axis = |axis: usize| match self.windows {
            Ok((size, stride)) => Window { size, stride, padding: 0 }.ranges(self.input[axis]),
            Err(counts) => adaptive_ranges(counts[axis], self.input[axis]),
        };
        [axis(0), axis(1)]
    }

    /// `x0`: what decides the maxima; the means are taken without.
    fn check(&self, gpu: &Gpu, x0: Option<&[f32]>, c: f32, add: bool) {
        let what = format!("{}, c {c}, add {add}, {self:?}", if x0.is_some() { "maxima" } else { "means" });
        let [rows, columns] = self.ranges();
        let windows =
            Windows { input: self.input, output: [rows.len(), columns.len()], fixed: self.windows.ok() };
        let (x_len, y_len) = (self.input[0] * self.input[1], rows.len() * columns.len());
        let planes = self.k * self.planes0;
        let (x, y) = (whole(1, planes * x_len), whole(2, planes * y_len));
        let before = |seed, len| if add { whole(seed, planes * len) } else { vec![POISON; planes * len] };
        let (y_before, x_before) = (before(3, y_len), before(4, x_len));

        let [mut y_expected, mut x_expected] = [&y_before, &x_before].map(|before| match add {
            true => f64s(before),
            false => vec![0.0; before.len()],
        });
        for plane in 0..planes {
            let x0 = x0.map(|x0| &x0[plane % self.planes0 * x_len..][..x_len]);
            pool_terms(self.input[1], [&rows, &columns], x0, |o, i, s| {
                let (o, i) = (plane * y_len + o, plane * x_len + i);
                y_expected[o] += f64::from(c) * s * f64::from(x[i]);
                x_expected[i] += f64::from(c) * s * f64::from(y[o]);
            });
        }
        let x0_ = x0.map(|x0| upload(gpu, x0));
        let deciding = x0_.as_ref().map(|x0| (x0, self.planes0));
        let pooled = |transposed: bool, from: &[f32], before: &[f32]| {
            let (from, into) = (upload(gpu, from), upload(gpu, before));
            run(gpu, |rec| {
                pool(rec, windows, transposed, planes, (&from, deciding), &into, Write { c, add })
            });
            read(gpu, &into)
        };
        let (found, transposed) = (pooled(false, &x, &y_before), pooled(true, &y, &x_before));
        let tolerance = if x0.is_some() { 0.0 } else { 1e-6 };
        assert_close(&what, &found, &y_expected, tolerance, 1.0);
        assert_close(&format!("adjoint of {what}"), &transposed, &x_expected, tolerance, 1.0);
        if !add {
            // ⟨A x, y⟩ = ⟨x, Aᵀ y⟩
            let dot = |a: &[f32], b: &[f32]| f64s(a).iter().zip(f64s(b)).map(|(a, b)| a * b).sum::<f64>();
            let (left, right) = (dot(&found, &y), dot(&x, &transposed));
            let size = (dot(&found, &found) * dot(&y, &y)).sqrt();
            assert!(
                (left - right).abs() <= tolerance * size,
                "{what}: ⟨A x, y⟩ = {left}, ⟨x, Aᵀ y⟩ = {right}"
            );
        }
    }
}

/// Whole numbers from −8 to 8.
fn whole(seed: u64, len: usize) -> Vec<f32> {
    random(seed, len).into_iter().map(|x| (8.0 * x).round()).collect()
}

/// Runs `check` on every case and on `more`, alone and added to what is there.
fn for_all(more: Vec<Case>, check: impl Fn(&Case, f32, bool)) {
    for case in [every_fixed_window(), other_cases(), more].concat() {
        for (c, add) in [(1.0, false), (-0.5, true)] {
            check(&case, c, add);
        }
    }
}

#[test]
fn means() {
    for_all(large_cases(), |case, c, add| case.check(gpu(), None, c, add));
}

#[test]
fn maxima() {
    for_all(large_cases(), |case, c, add| {
        let x0 = random(5, case.planes0 * case.input[0] * case.input[1]);
        case.check(gpu(), Some(&x0), c, add);
    });
}

/// Of equal maxima the first is taken: here there are three different values (−0 and 0 are equal), then one.
#[test]
fn maxima_among_ties() {
    for_all(vec![], |case, c, add| {
        let x0 = random(5, case.planes0 * case.input[0] * case.input[1]);
        let few: Vec<f32> = x0.iter().map(|x| x.round()).collect();
        case.check(gpu(), Some(&few), c, add);
        case.check(gpu(), Some(&vec![-7.0; x0.len()]), c, add);
    });
}

/// What the engine does at order 0: the values decide which of themselves are taken.
#[test]
fn maxima_of_the_values_that_decide() {
    let gpu = gpu();
    let (x, windows) = (random(1, 3 * 7 * 9), Windows { input: [7, 9], output: [3, 4], fixed: Some((3, 2)) });
    let (x_, y_) = (upload(gpu, &x), upload(gpu, &[POISON; 3 * 3 * 4]));
    run(gpu, |rec| pool(rec, windows, false, 3, (&x_, Some((&x_, 3))), &y_, Write::NEW));
    let largest = |at: usize| {
        let (plane, row, column) = (at / 12, at / 4 % 3 * 2, at % 4 * 2);
        let places = (0..9).map(|i| x[plane * 63 + (row + i / 3) * 9 + column + i % 3]);
        places.fold(f32::NEG_INFINITY, f32::max)
    };
    assert_eq!(read(gpu, &y_), (0..36).map(largest).collect::<Vec<_>>());
}
