//! Pooling over windows of images.

use std::ops::Range;

/// The terms `s x[i]` that the outputs `y[o]` of one plane are sums of: `term` is given o, i and s. The adjoint
/// is made of `s y[o]` at i.
///
/// `y [rows, columns]`, `x [height, width]`: window `(r, s)` is the range r of rows and the range s of columns.
/// Its mean; or, where `x0 [height, width]` decides, the first of its largest in row-major order.
pub fn pool_terms(
    width: usize,
    [rows, columns]: [&[Range<usize>]; 2],
    x0: Option<&[f32]>,
    mut term: impl FnMut(usize, usize, f64),
) {
    for (r, of_rows) in rows.iter().enumerate() {
        for (s, of_columns) in columns.iter().enumerate() {
            let o = r * columns.len() + s;
            let line = |row: usize| of_columns.clone().map(move |column| row * width + column);
            let places: Vec<usize> = of_rows.clone().flat_map(line).collect();
            match x0 {
                None => places.iter().for_each(|&i| term(o, i, 1.0 / places.len() as f64)),
                Some(x0) => {
                    let largest = places.iter().map(|&i| x0[i]).fold(f32::NEG_INFINITY, f32::max);
                    let first = places.iter().find(|&&i| x0[i] == largest).expect("a place in the window");
                    term(o, *first, 1.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{assert_close, random};
    use crate::f64s;
    use crate::reference::layers::{Window, adaptive_ranges, first_largest, mean, pool2d};

    fn pooled(x: &[f32], width: usize, windows: [&[Range<usize>]; 2], x0: Option<&[f32]>) -> Vec<f64> {
        let mut y = vec![0.0; windows[0].len() * windows[1].len()];
        pool_terms(width, windows, x0, |o, i, s| y[o] += s * f64::from(x[i]));
        y
    }

    #[test]
    fn pooling_is_that_of_the_layers() {
        let image = [5, 7];
        for (size, stride) in [(1, 1), (3, 1), (2, 2), (2, 3)] {
            let windows = image.map(|len| Window { size, stride, padding: 0 }.ranges(len));
            agrees(image, windows);
        }
        agrees(image, [adaptive_ranges(3, 5), adaptive_ranges(4, 7)]);
    }

    #[track_caller]
    fn agrees([height, width]: [usize; 2], [rows, columns]: [Vec<Range<usize>>; 2]) {
        let x = random(1, height * width);
        let layer = |pool: fn(&[f64]) -> f64| pool2d(&f64s(&x), [1, height, width], &rows, &columns, pool);
        let windows = [&rows[..], &columns[..]];
        assert_close("means", &pooled(&x, width, windows, None), &layer(mean), 1e-14, 1.0);
        assert_close("maxima", &pooled(&x, width, windows, Some(&x)), &layer(first_largest), 0.0, 1.0);
    }

    #[test]
    fn the_first_of_equal_maxima_is_taken() {
        let x0 = [1.0, 2.0, 0.0, 2.0, -0.0, 2.0];
        let all: [&[Range<usize>]; 2] = [std::slice::from_ref(&(0..2)), std::slice::from_ref(&(0..3))];
        assert_eq!(pooled(&[10.0, 20.0, 30.0, 40.0, 50.0, 60.0], 3, all, Some(&x0)), [20.0]);
    }
}
