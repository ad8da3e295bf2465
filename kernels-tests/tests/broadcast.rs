//! A short tensor over a long one and its adjoint, against plain loops in f64; outputs poisoned with NaN
//! beforehand, which has to be there still between one direction's tensor and the next's.

use curvkit::kernels::Write;
use curvkit::kernels::broadcast::{Axes, expand, reduce};
use kernels_tests::cases::assert_close;
use kernels_tests::device::{GRID_ROW, gpu, run};
use kernels_tests::tensors::{OnDevice, Tensors};

/// K, the axes (outer, m, inner) and the gap between one direction's short tensor and the next's; `None`: one
/// serves all.
const AXES: [(usize, [usize; 3], Option<usize>); 24] = [
    (1, [1, 1, 1], Some(0)),
    (3, [2, 5, 1], Some(2)),
    (2, [17, 16, 1], Some(0)),
    (5, [131, 17, 1], Some(63)),
    (1, [1031, 3, 1], None),
    (4, [7, 67, 1], None),
    (1, [3, GRID_ROW / 2, 1], Some(0)),
    (67, [1, 1, 1], Some(5)),
    (2, [3, 7, 5], Some(1)),
    (1, [2, 1, 1031], None),
    (3, [1, 129, 7], Some(0)),
    // in fours: inner a multiple of 4, or 1 and m one; a of one element, of less than four, of more
    (1, [1, 1, 4], Some(0)),
    (3, [5, 1, 12], Some(2)),
    (3, [1, 3, 8], None),
    (2, [7, 5, 68], Some(3)),
    (3, [13, 20, 1], Some(1)),
    (5, [2, 4, 1], None),
    // not in fours, though there is a multiple of four of them
    (2, [4, 3, 1], Some(1)),
    (2, [2, 2, 6], Some(0)),
    // sums in slices that end within a row of i, the last of them short or empty
    (2, [3, 5, 67], Some(1)),
    (3, [5, 37, 29], Some(2)),
    // sums that are made in parts, the last of them short
    (1, [1, 1, 10_007], Some(0)),
    (2, [4_099, 3, 5], Some(1)),
    (3, [8_193, 17, 1], Some(2)),
];

/// How a tensor is broadcast or reduced: c, whether the sum is added to, the words between the long tensors of
/// two directions, and the factor b: none, one of each direction, or one for all.
const FORMS: [(f32, bool, usize, Option<bool>); 6] = [
    (1.0, false, 0, None),
    (-0.375, true, 0, None),
    (0.5, false, 0, Some(true)),
    (-1.5, true, 4, Some(false)),
    (2.0, false, 8, Some(true)),
    (0.75, true, 1, Some(true)),
];

/// `(k, e)` of each element of the long tensors `[K, outer, m, inner]`, and its element of the short one.
fn elements(k: usize, [outer, m, inner]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    let len = outer * m * inner;
    (0..k * len).map(move |at| (at / len, at % len, (at % len) / inner % m))
}

/// `b[k, e]`, or one.
fn factor_of(b: &Option<Tensors>, k: usize, e: usize) -> f64 {
    b.as_ref().map_or(1.0, |b| b.of(k)[e].into())
}

#[test]
fn broadcasts() {
    let gpu = gpu();
    for (k, shape, gap) in AXES {
        let [outer, m, inner] = shape;
        let len = outer * m * inner;
        for (c, add, between, factor) in FORMS {
            let what =
                format!("expand {shape:?} × {k}, gap {gap:?}, c {c}, add {add}, {between}, {factor:?}");
            let a = Tensors::random(1, k, m, gap);
            let b = factor.map(|own| Tensors::random(3, k, len, own.then_some(between)));
            let y = Tensors::output(k, len, between, add);
            let mut expected = y.before(add);
            for (k, e, q) in elements(k, shape) {
                expected[k * len + e] += f64::from(c) * f64::from(a.of(k)[q]) * factor_of(&b, k, e);
            }
            let (a, b, into) = (a.upload(gpu), b.map(|b| b.upload(gpu)), y.upload(gpu));
            run(gpu, |rec| {
                let (a, b) = (a.strided(), b.as_ref().map(OnDevice::strided));
                expand(rec, k, Axes { outer, m, inner }, a, b, into.strided(), Write { c, add })
            });
            assert_close(&what, &y.found(&what, gpu, &into), &expected, 1e-6, 1.0);
        }
    }
}

/// In fours, too.
#[test]
fn a_broadcast_over_two_rows_of_the_grid() {
    let gpu = gpu();
    let (m, outer) = (20, GRID_ROW / 5 + 3);
    let a = Tensors::random(1, 1, m, None);
    let y = Tensors::output(1, outer * m, 0, false);
    let (from, into) = (a.upload(gpu), y.upload(gpu));
    run(gpu, |rec| {
        expand(
            rec,
            1,
            Axes { outer, m, inner: 1 },
            from.strided(),
            None,
            into.strided(),
            Write { c: 0.5, add: false },
        )
    });
    let found = y.found("two rows of the grid", gpu, &into);
    let wrong = found.iter().enumerate().position(|(e, &y)| y != 0.5 * a.values[e % m]);
    assert_eq!(wrong, None);
}

#[test]
fn reductions() {
    let gpu = gpu();
    for (k, shape, gap) in AXES {
        let [outer, m, inner] = shape;
        let (Some(gap), true) = (gap, m < GRID_ROW / 2) else { continue };
        let len = outer * m * inner;
        for (c, add, between, factor) in FORMS {
            let what = format!("reduce {shape:?} × {k}, gap {gap}, c {c}, add {add}, {between}, {factor:?}");
            let b = factor.map(|own| Tensors::random(3, k, len, own.then_some(between)));
            let y = Tensors::random(1, k, len, Some(between));
            let a = Tensors::output(k, m, gap, add);
            let mut expected = a.before(add);
            for (k, e, q) in elements(k, shape) {
                expected[k * m + q] += f64::from(c) * f64::from(y.of(k)[e]) * factor_of(&b, k, e);
            }
            let (y, b, into) = (y.upload(gpu), b.map(|b| b.upload(gpu)), a.upload(gpu));
            run(gpu, |rec| {
                let (y, b) = (y.strided(), b.as_ref().map(OnDevice::strided));
                reduce(rec, k, Axes { outer, m, inner }, y, b, into.strided(), Write { c, add })
            });
            assert_close(&what, &a.found(&what, gpu, &into), &expected, 2e-6, 1.0);
        }
    }
}
