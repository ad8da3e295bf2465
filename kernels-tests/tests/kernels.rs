//! Every kernel against its f64 twin: one table a kernel, outputs poisoned with NaN beforehand, and whatever
//! a kernel has no business writing has to be that NaN still.

use curvkit::gpu::{Gpu, View};

use curvkit::kernels::Write;
use curvkit::kernels::broadcast::{Axes, Strided, reduce};
use curvkit::kernels::gemm::{self, Family, Gemm, Layout, Matrix, Shape};
use curvkit::kernels::pack::{Rows, packed_len};
use curvkit::kernels::pointwise::Pointwise;
use curvkit::kernels::{Step, block, gather, loss, pack, pointwise, sgd, vector};
use curvkit::net::{Layer, Loss};
use kernels_tests::cases::{assert_close, random};
use kernels_tests::device::{GRID_ROW, POISON, gpu, own_device, poisoned, read, run, run_step, upload};
use kernels_tests::reference::one_hot;
use kernels_tests::{f64s, twins};

#[track_caller]
fn assert_untouched(what: &str, found: &[f32], mut written: impl FnMut(usize) -> bool) {
    for (i, x) in found.iter().enumerate() {
        assert!(written(i) || x.to_bits() == POISON.to_bits(), "{what}: {x} written at {i}, a gap");
    }
}

/// Row after row of `values` (each `width` long, `rows` a matrix), `row` words apart, matrices `batch` words
/// apart, with poison between.
fn spread(values: &[f32], (rows, width): (usize, usize), (row, batch): (usize, usize)) -> Vec<f32> {
    let count = values.len() / width;
    let at = |r: usize| r / rows * batch + r % rows * row;
    let mut out = vec![POISON; if count == 0 { 0 } else { at(count - 1) + width }];
    for (r, values) in values.chunks(width).enumerate() {
        out[at(r)..at(r) + width].copy_from_slice(values);
    }
    out
}

/// The other way round; asserts that the gaps are poison.
#[track_caller]
fn gathered(
    what: &str,
    found: &[f32],
    count: usize,
    (rows, width): (usize, usize),
    (row, batch): (usize, usize),
) -> Vec<f32> {
    let mut written = vec![false; found.len()];
    let mut values = Vec::new();
    for r in 0..count {
        let at = r / rows * batch + r % rows * row;
        written[at..at + width].fill(true);
        values.extend_from_slice(&found[at..at + width]);
    }
    assert_untouched(what, found, |i| written[i]);
    values
}

/// A product to test: its sizes, how many words longer than a row its rows are, how many words lie between
/// two matrices (`None`: one serves the whole batch), and the bias.
#[derive(Clone, Copy, Debug)]
struct Product {
    shape: [usize; 4],
    gaps: [usize; 3],
    between: [Option<usize>; 2],
    bias: Bias,
    alpha: f32,
    add: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bias {
    None,
    Shared,
    Own,
}

impl Product {
    /// batch, m, n, k; everything contiguous.
    fn plain(shape: [usize; 4]) -> Product {
        let [alpha, add] = [1.0, 0.0];
        Product { shape, gaps: [0; 3], between: [Some(0); 2], bias: Bias::None, alpha, add: add > 0.0 }
    }

    fn check(self, gpu: &Gpu, family: Family, layout: Layout) {
        let [batch, m, n, k] = self.shape;
        let what = format!("{family:?} {layout:?} {self:?}");
        let a_shape = if layout == Layout::TN { (k, m) } else { (m, k) };
        let b_shape = if layout == Layout::NT { (n, k) } else { (k, n) };
        let operand = |which: usize, (rows, width): (usize, usize)| {
            let row = width + self.gaps[which];
            let (matrices, stride) = match self.between[which] {
                Some(gap) => (batch, rows * row + gap),
                None => (1, 0),
            };
            let values = random(which as u64 + 1, matrices * rows * width);
            (spread(&values, (rows, width), (row, stride)), twins::Strides { row, batch: stride })
        };
        let ((a, strides_a), (b, strides_b)) = (operand(0, a_shape), operand(1, b_shape));
        let strides_c =
            twins::Strides { row: n + self.gaps[2], batch: m * (n + self.gaps[2]) + 3 * self.gaps[2] };
        let layout_c = (strides_c.row, strides_c.batch);
        let before = match self.add {
            true => random(3, batch * m * n),
            false => vec![POISON; batch * m * n],
        };
        let c = spread(&before, (m, n), layout_c);
        let bias_batch = if self.bias == Bias::Own { n + 5 } else { 0 };
        let bias = (self.bias != Bias::None).then(|| random(4, (batch - 1) * bias_batch + n));

        let twin = twins::Gemm {
            layout: match layout {
                Layout::NT => twins::Layout::Nt,
                Layout::NN => twins::Layout::Nn,
                Layout::TN => twins::Layout::Tn,
            },
            m,
            n,
            k,
            alpha: self.alpha.into(),
            accumulate: self.add,
            batches: batch,
            a: strides_a,
            b: strides_b,
            out: twins::Strides { row: n, batch: m * n },
            bias_batch,
        };
        let mut expected = f64s(&before);
        twins::gemm(&twin, &a, &b, bias.as_deref(), &mut expected);

        let [a, b, c] = [a, b, c].map(|x| upload(gpu, &x));
        let bias = bias.map(|bias| upload(gpu, &bias));
        let matrix = |view, strides: twins::Strides| Matrix {
            view,
            row: strides.row,
            batch: strides.batch,
            period: 0,
        };
        let product = Gemm { layout, shape: Shape { batch, m, n, k }, alpha: self.alpha, add: self.add };
        run(gpu, |rec| {
            let bias = bias.as_ref().map(|bias| (bias, bias_batch));
            let (a, b) = (matrix(&a, strides_a), matrix(&b, strides_b));
            gemm::gemm_with(rec, family, product, a, b, bias, matrix(&c, strides_c))
        });
        let found = gathered(&what, &read(gpu, &c), batch * m, (m, n), layout_c);
        assert_close(&what, &found, &expected, 2e-6, 1.0);
    }
}

const FAMILIES: [Family; 2] = [Family::Register, Family::Workgroup];
const LAYOUTS: [Layout; 3] = [Layout::NT, Layout::NN, Layout::TN];

#[test]
fn gemm_of_every_size() {
    let sizes = [
        [1, 1, 1, 1],
        [1, 2, 3, 5],
        [2, 13, 1, 7],
        [3, 1, 17, 2],
        [1, 67, 61, 31],
        [2, 65, 129, 33], // beyond a tile of either family in n
        [1, 131, 9, 8],
        // all of them multiples of four: vec4 loads
        [1, 4, 4, 1],
        [3, 8, 12, 3],
        [2, 132, 68, 20],
        [1, 4, 200, 9],
        // many samples' outer products
        [131, 7, 65, 1],
        [67, 4, 12, 1],
        // few elements, a long contraction: split along k
        [1, 5, 7, 1500],
        [1, 4, 8, 2111],
        [2, 3, 2, 1031],
    ];
    for family in FAMILIES {
        for layout in LAYOUTS {
            for shape in sizes {
                Product::plain(shape).check(gpu(), family, layout);
            }
        }
    }
}

#[test]
fn gemm_of_every_stride_with_bias_and_sum() {
    let plain = Product::plain;
    let products = [
        Product { gaps: [1, 2, 3], bias: Bias::Shared, ..plain([2, 5, 9, 11]) },
        Product { gaps: [3, 1, 2], between: [None, Some(7)], bias: Bias::Own, ..plain([3, 6, 10, 9]) },
        Product { between: [Some(2), None], alpha: -0.75, bias: Bias::Own, ..plain([3, 17, 3, 19]) },
        Product { between: [None, None], alpha: 0.5, add: true, ..plain([2, 9, 5, 4]) },
        Product { alpha: -2.0, add: true, bias: Bias::Shared, gaps: [0, 0, 5], ..plain([1, 70, 3, 66]) },
        // multiples of four
        Product { gaps: [4, 8, 1], between: [Some(4), Some(8)], ..plain([2, 12, 16, 10]) },
        Product { gaps: [4, 4, 4], between: [None, Some(4)], bias: Bias::Own, ..plain([3, 8, 20, 7]) },
        Product { gaps: [0, 4, 2], between: [Some(0), None], alpha: 3.0, add: true, ..plain([2, 36, 4, 5]) },
        // split
        Product { alpha: 0.25, add: true, bias: Bias::Own, gaps: [1, 0, 1], ..plain([2, 3, 5, 1200]) },
        Product { alpha: -1.0, add: true, bias: Bias::Shared, gaps: [4, 4, 7], ..plain([1, 8, 4, 1200]) },
        Product { alpha: 2.0, bias: Bias::Shared, between: [None, Some(0)], ..plain([2, 4, 4, 1600]) },
        // large enough for registers to copy one operand or both: ragged, shared, with gaps, and in parts
        Product { gaps: [1, 2, 3], bias: Bias::Own, between: [Some(5), Some(3)], ..plain([3, 70, 129, 33]) },
        Product { between: [None, Some(7)], alpha: -0.5, add: true, ..plain([4, 66, 70, 31]) },
        Product { between: [Some(1), None], gaps: [0, 3, 1], bias: Bias::Shared, ..plain([5, 30, 67, 65]) },
        Product { between: [None, Some(2)], ..plain([9, 130, 9, 70]) },
        Product { gaps: [2, 2, 0], ..plain([1, 67, 66, 33_001]) },
        // rows of whole quads that are not full
        Product { gaps: [2, 1, 0], between: [Some(8), Some(4)], ..plain([2, 70, 71, 64]) },
    ];
    for family in FAMILIES {
        for layout in LAYOUTS {
            for product in products {
                product.check(gpu(), family, layout);
            }
        }
    }
}

/// Operands that are copied first make the same bits as those that there is no memory to copy: matrices that begin again
/// after some, views that begin within a buffer, and one product after another in one recording.
#[test]
fn gemm_by_copies_makes_the_same_bits() {
    let small = own_device(wgpu::Limits::default(), Some(1 << 20));
    // batch, m, n, k, and after how many matrices A and B begin again
    let products = [([6, 70, 66, 41], [0, 2]), ([4, 131, 67, 35], [2, 0]), ([8, 65, 99, 17], [0, 0])];
    for layout in LAYOUTS {
        let of = |gpu: &Gpu| -> Vec<Vec<f32>> {
            let mut made = Vec::new();
            let operands: Vec<_> = products
                .iter()
                .map(|&([batch, m, n, k], periods)| {
                    let matrices = |period: usize| if period == 0 { batch } else { period };
                    let a = upload(gpu, &random(1, 64 + matrices(periods[0]) * m * k));
                    let b = upload(gpu, &random(2, 64 + matrices(periods[1]) * n * k));
                    let [a, b] = [a, b].map(|all| all.slice(64, all.len() - 64));
                    (a, b, poisoned(gpu, batch * m * n))
                })
                .collect();
            run(gpu, |rec| {
                for (&([batch, m, n, k], periods), (a, b, c)) in products.iter().zip(&operands) {
                    let product = Gemm { layout, shape: Shape { batch, m, n, k }, alpha: 1.0, add: false };
                    let row_a = if layout == Layout::TN { m } else { k };
                    let row_b = if layout == Layout::NT { k } else { n };
                    let matrix = |view, row, batch, period| Matrix { view, row, batch, period };
                    let a = matrix(a, row_a, m * k, periods[0]);
                    let b = matrix(b, row_b, n * k, periods[1]);
                    let c = matrix(c, n, m * n, 0);
                    gemm::gemm_with(rec, Family::Register, product, a, b, None, c)?;
                }
                Ok(())
            });
            operands.iter().for_each(|(_, _, c)| made.push(read(gpu, c)));
            made
        };
        assert!(of(gpu()) == of(&small), "{layout:?}");
    }
}

/// With nothing to contract, what is left is the bias, or what C held.
#[test]
fn gemm_over_nothing() {
    let gpu = gpu();
    let [a, b] = [(); 2].map(|()| poisoned(gpu, 64));
    for family in FAMILIES {
        for layout in LAYOUTS {
            let c = upload(gpu, &[1.0f32, 2.0, 3.0, 4.0]);
            let bias = upload(gpu, &[10.0f32, 20.0]);
            run(gpu, |rec| {
                let shape = Shape { batch: 1, m: 2, n: 2, k: 0 };
                let product = Gemm { layout, shape, alpha: 1.0, add: true };
                let matrix = |view| Matrix { view, row: 2, batch: 0, period: 0 };
                gemm::gemm_with(rec, family, product, matrix(&a), matrix(&b), Some((&bias, 0)), matrix(&c))
            });
            assert_eq!(read(gpu, &c), [11.0, 22.0, 13.0, 24.0], "{family:?} {layout:?}");
        }
    }
}

/// More tiles than one row of the grid holds.
#[test]
fn gemm_over_two_rows_of_the_grid() {
    Product::plain([1, 32_768 * 64 + 65, 1, 1]).check(gpu(), Family::Register, Layout::NT);
    Product::plain([1, 32_768 * 128 + 129, 1, 1]).check(gpu(), Family::Workgroup, Layout::TN);
}

#[test]
fn gather_from_several_shards() {
    let gpu = gpu();
    // samples, width, rows of the batch, samples of a shard
    for (samples, width, batch, shard) in [
        (1, 1, 1, 1),
        (7, 3, 5, 3),
        (67, 13, 131, 23),
        (129, 1, 65, 64),
        (11, 33, 2, 11),
        (5, 1031, GRID_ROW / 1031 + 1, 2),
    ] {
        let what = format!("gather of {batch} rows of {width} from {samples} in shards of {shard}");
        let data = random(1, samples * width);
        let first = 3;
        // the batch's last sample is one past the last shard
        let drawn = |i: usize| ((i * 7919 + 3) % samples) as u32;
        let mut indices: Vec<u32> = (0..first + batch).map(drawn).collect();
        let missing = samples as u32;
        if batch > 1 {
            indices[first + batch - 1] = missing;
        }
        let x = poisoned(gpu, batch * width);
        let on_device = upload(gpu, &indices);
        run_step(gpu, Step { first: first as u32, ..Step::default() }, |rec| {
            for (i, piece) in data.chunks(shard * width).enumerate() {
                let piece = upload(gpu, piece);
                gather::gather(rec, &piece, i * shard, &on_device, (batch, width), &x)?;
            }
            Ok(())
        });
        let rows = &indices[first..];
        let held = rows.iter().position(|&i| i == missing).unwrap_or(batch);
        let found = read(gpu, &x);
        let expected = twins::gather_rows(&data, width, &rows[..held]);
        assert_close(&what, &found[..held * width], &expected, 0.0, 1.0);
        assert_untouched(&what, &found, |i| i < held * width);
    }
}

fn sigmas() -> [(Pointwise, Layer); 5] {
    let leaky = |slope| (Pointwise::LeakyRelu { slope }, Layer::LeakyRelu { negative_slope: slope });
    [
        (Pointwise::Relu, Layer::Relu),
        leaky(0.125),
        leaky(-0.3),
        (Pointwise::Tanh, Layer::Tanh),
        (Pointwise::Gelu, Layer::Gelu),
    ]
}

/// Elements and directions.
const POINTWISE_SIZES: [(usize, usize); 5] = [(1, 1), (2, 3), (63, 2), (257, 5), (4_099, 1)];

/// Uniform in [−4, 4), and 0 in the first place: where the slope is a matter of agreement.
fn arguments(elements: usize) -> Vec<f32> {
    let mut x: Vec<f32> = random(1, elements).into_iter().map(|x| 4.0 * x).collect();
    x[0] = 0.0;
    x
}

#[test]
fn pointwise_jets() {
    let gpu = gpu();
    for (sigma, layer) in sigmas() {
        for (e, k) in POINTWISE_SIZES {
            let x = [arguments(e), random(2, k * e), random(3, k * e)];
            let on_device = x.each_ref().map(|x| upload(gpu, x));
            // orders of y, and whether x has a second order
            for (order, curved) in [(0, false), (1, false), (2, false), (2, true)] {
                let what = format!("{sigma:?} of order {order}, x2 {curved}, [{k}, {e}]");
                let y = [e, k * e, k * e].map(|len| poisoned(gpu, len));
                let some = |there, view| if there { Some(view) } else { None };
                run(gpu, |rec| {
                    let [x, x1, x2] = &on_device;
                    let x = (x, some(order > 0, x1), some(curved, x2));
                    let y = (&y[0], some(order > 0, &y[1]), some(order > 1, &y[2]));
                    pointwise::jet(rec, sigma, (e, k), x, y)
                });
                let second: &[f32] = if curved { &x[2] } else { &[] };
                let expected = twins::pointwise(&layer, [&x[0], &x[1], second]);
                for (at, (y, expected)) in y.iter().zip(&expected).enumerate() {
                    let (found, what) = (read(gpu, y), format!("y{at} of {what}"));
                    if at <= order {
                        assert_close(&what, &found, expected, 1e-6, 1e-3);
                    } else {
                        assert_untouched(&what, &found, |_| false);
                    }
                }
            }
        }
    }
}

#[test]
fn pointwise_adjoints() {
    let gpu = gpu();
    for (sigma, layer) in sigmas() {
        for (e, k) in POINTWISE_SIZES {
            let x = [arguments(e), random(2, k * e), random(3, k * e)];
            let d = [random(4, e), random(5, k * e), random(6, k * e)];
            let (still, before) = (vec![0.0; k * e], random(7, k * e));
            let [x_, d_] = [&x, &d].map(|jet| jet.each_ref().map(|x| upload(gpu, x)));
            let some = |there, view| if there { Some(view) } else { None };
            let part = |there, x| if there { x } else { &[] as &[f32] };
            // the order of g, and which of x2, d1 and d2 there are
            let mut table = vec![(0, [false, true, false])];
            table.extend([false, true].map(|d1| (1, [false, d1, false])));
            table.extend((0..8).map(|has| (2, [has & 1 > 0, has & 2 > 0, has & 4 > 0])));
            for (order, [has_x2, has_d1, has_d2]) in table {
                for add in [false, true] {
                    let what = format!(
                        "{sigma:?}: adjoint {order}, x2 {has_x2}, d1 {has_d1}, d2 {has_d2}, add {add}, [{k}, {e}]"
                    );
                    let g = if add { upload(gpu, &before) } else { poisoned(gpu, k * e) };
                    run(gpu, |rec| {
                        let ([x, x1, x2], [d, d1, d2]) = (&x_, &d_);
                        let (x2, d1, d2) = (some(has_x2, x2), some(has_d1, d1), some(has_d2, d2));
                        match order {
                            0 => pointwise::adjoint_block(rec, sigma, (e, k), x, d1.unwrap(), &g, add),
                            1 => pointwise::adjoint1(rec, sigma, (e, k), (x, x1), (d, d1), &g, add),
                            _ => pointwise::adjoint2(rec, sigma, (e, k), (x, x1, x2), (d, d1, d2), &g, add),
                        }
                    });
                    // a block of plain adjoints is the first order where x stands still
                    let x1 = if order == 0 { &still } else { &x[1] };
                    let jets = twins::pointwise_adjoint(
                        &layer,
                        [&x[0], x1, part(has_x2, &x[2])],
                        [&d[0], part(has_d1, &d[1]), part(has_d2, &d[2])],
                    );
                    let mut expected = jets[order.max(1)].clone();
                    if add {
                        expected.iter_mut().zip(&before).for_each(|(g, &b)| *g += f64::from(b));
                    }
                    assert_close(&what, &read(gpu, &g), &expected, 1e-6, 1e-3);
                }
            }
        }
    }
}

/// Relative to each value alone: where a unit saturates, its derivatives are small but not wrong.
#[test]
fn saturated_tanh_keeps_its_relative_accuracy() {
    let gpu = gpu();
    let x: Vec<f32> = (-2_000..=2_000).map(|i| i as f32 * 0.005).collect();
    let e = x.len();
    let [ones, zeros] = [1.0, 0.0].map(|value| vec![value; e]);
    let [x_, x1, y, y1, y2] = [&x, &ones, &zeros, &zeros, &zeros].map(|x| upload(gpu, x));
    run(gpu, |rec| {
        pointwise::jet(rec, Pointwise::Tanh, (e, 1), (&x_, Some(&x1), None), (&y, Some(&y1), Some(&y2)))
    });
    let expected = twins::pointwise(&Layer::Tanh, [&x, &ones, &[]]);
    for (order, (y, expected)) in [y, y1, y2].iter().zip(&expected).enumerate() {
        for (i, (found, &expected)) in f64s(&read(gpu, y)).into_iter().zip(expected).enumerate() {
            let error = (found - expected).abs();
            assert!(
                error <= 1e-5 * expected.abs() + 1e-30,
                "order {order} at {}: {found:e}, expected {expected:e}",
                x[i]
            );
        }
    }
}

#[test]
fn pointwise_over_two_rows_of_the_grid() {
    let gpu = gpu();
    let e = GRID_ROW + 67;
    let (x, d) = (random(1, e), random(2, e));
    let [x_, d_] = [&x, &d].map(|x| upload(gpu, x));
    let [y, g, g1, g2, y1, z] = [(); 6].map(|()| poisoned(gpu, e));
    let [y2, z1, z2] = [(); 3].map(|()| poisoned(gpu, e));
    let (relu, shape) = (Pointwise::Relu, (e, 1));
    run(gpu, |rec| {
        pointwise::jet(rec, relu, shape, (&x_, None, None), (&y, None, None))?;
        pointwise::jet(rec, relu, shape, (&x_, Some(&d_), None), (&z, Some(&y1), None))?;
        pointwise::jet(rec, relu, shape, (&x_, Some(&d_), Some(&d_)), (&z1, Some(&z2), Some(&y2)))?;
        pointwise::adjoint_block(rec, relu, shape, &x_, &d_, &g, false)?;
        pointwise::adjoint1(rec, relu, shape, (&x_, &d_), (&d_, Some(&d_)), &g1, false)?;
        pointwise::adjoint2(rec, relu, shape, (&x_, &d_, None), (&d_, None, Some(&d_)), &g2, false)
    });
    let relu = |(&x, &d): (&f32, &f32)| if x > 0.0 { [x, d] } else { [0.0, 0.0] };
    let expected: Vec<[f32; 2]> = x.iter().zip(&d).map(relu).collect();
    for (what, view, which) in
        [("y", y, 0), ("y1", y1, 1), ("y2", y2, 1), ("g", g, 1), ("g1", g1, 1), ("g2", g2, 1)]
    {
        let wrong = read(gpu, &view).iter().zip(&expected).position(|(found, e)| *found != e[which]);
        assert_eq!(wrong, None, "{what}");
    }
}

/// Targets of `samples` samples: on the device, and as `[N, L]`.
fn targets_of(gpu: &Gpu, classes: bool, samples: usize, outputs: usize) -> (View, Vec<f64>) {
    if classes {
        let classes: Vec<u32> = (0..samples).map(|p| ((p * 5 + 2) % outputs) as u32).collect();
        return (upload(gpu, &classes), one_hot(&classes, outputs));
    }
    // they sum to one, as cross-entropy wants it
    let mut values: Vec<f32> = random(9, samples * outputs).into_iter().map(|x| x + 1.01).collect();
    for row in values.chunks_mut(outputs) {
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|x| *x /= sum);
    }
    (upload(gpu, &values), f64s(&values))
}

/// Logits of a batch along K directions, with what a loss's kernels make of them and what they should.
struct LossRun {
    found: [Vec<f32>; 6],
    expected: [Vec<f64>; 6],
}

/// What [`LossRun`]'s vectors are, each with the number of its values in one row of the batch over L.
const LOSS_RESULTS: [&str; 6] = ["ℓ", "correct", "z̄", "ℓ1", "z̄1", "z̄2"];

/// Runs `primal` and `tangent` on `rows` rows of `outputs` logits, of which `count` count; `z` holds the
/// logits and their first and second orders, an empty second order is not given.
fn run_loss(
    gpu: &Gpu,
    (kind, classes): (Loss, bool),
    (rows, outputs, count): (usize, usize, usize),
    z: [&[f32]; 3],
    second: bool,
) -> LossRun {
    let what = format!("{kind} classes {classes} [{rows}, {outputs}], {count} count, second order {second}");
    let directions = z[1].len() / (rows * outputs);
    let (first, samples) = (2, rows + 3);
    let positions = first + rows + 2;
    let indices: Vec<u32> = (0..positions).map(|i| ((i * 3 + 1) % samples) as u32).collect();
    let step = Step { first: first as u32, count: count as u32, weight: 0.375, ..Step::default() };
    let (targets, values) = targets_of(gpu, classes, samples, outputs);
    let batch = twins::gather_rows(&values, outputs, &indices[first..first + rows]);
    let to = loss::Targets { loss: kind, indices: upload(gpu, &indices), targets, classes };
    let z_ = z.map(|z| if z.is_empty() { poisoned(gpu, 1) } else { upload(gpu, z) });
    let slope_stride = positions + 1;
    let long = rows * outputs * directions;
    let lens = [positions, positions, rows * outputs, slope_stride * directions, long, long];
    let [losses, correct, g, slopes, g1, g2] = lens.map(|len| poisoned(gpu, len));
    let spare = poisoned(gpu, 1);
    run_step(gpu, step, |rec| {
        loss::primal(rec, &to, (rows, outputs), &z_[0], (&losses, &correct), &g)?;
        let second = second.then_some(((!z[2].is_empty()).then_some(&z_[2]), &g2));
        let shape = (rows, outputs, directions);
        loss::tangent(rec, &to, shape, (&z_[0], &z_[1]), (&slopes, slope_stride), (&g1, &spare), second)
    });
    assert_untouched(&what, &read(gpu, &spare), |_| false);

    let weights: Vec<f64> = (0..rows).map(|n| if n < count { 0.375 } else { 0.0 }).collect();
    let jet = twins::loss_jet(kind, z, &batch, &weights);
    let largest = |x: &[f64]| (0..x.len()).rev().max_by(|&i, &j| x[i].total_cmp(&x[j])).unwrap();
    let z0 = f64s(z[0]);
    let right = |(z, t): (&[f64], &[f64])| f64::from(u8::from(largest(z) == largest(t)));
    let right = z0.chunks(outputs).zip(batch.chunks(outputs)).map(right).take(count).collect();
    // per-sample results stand at the sample's position, and those that count for nothing nowhere
    let here = (positions, first, count);
    let per_sample = |view: &View, stride: usize, directions: usize| {
        let (found, (_, first, count)) = (read(gpu, view), here);
        let written = |i: usize| (first..first + count).contains(&(i % stride));
        assert_untouched(&what, &found, written);
        let row = |k: usize| &found[k * stride + first..k * stride + first + count];
        (0..directions).flat_map(row).copied().collect::<Vec<_>>()
    };
    let slopes_expected = jet.slope.chunks(rows).flat_map(|slopes| &slopes[..count]).copied().collect();
    let [adjoint, adjoint1, adjoint2] = jet.adjoint;
    let g2 = read(gpu, &g2);
    if !second {
        assert_untouched(&what, &g2, |_| false);
    }
    LossRun {
        found: [
            per_sample(&losses, positions, 1),
            per_sample(&correct, positions, 1),
            read(gpu, &g),
            per_sample(&slopes, slope_stride, directions),
            read(gpu, &g1),
            if second { g2 } else { vec![] },
        ],
        expected: [
            jet.loss[..count].to_vec(),
            right,
            adjoint,
            slopes_expected,
            adjoint1,
            if second { adjoint2 } else { vec![] },
        ],
    }
}

#[test]
fn losses_and_their_jets() {
    for kind in Loss::ALL {
        for classes in [true, false] {
            // rows, outputs, those that count, K
            for (rows, outputs, count, k) in
                [(1, 1, 1, 1), (2, 2, 1, 3), (7, 10, 7, 2), (67, 3, 61, 5), (5, 33, 0, 1), (131, 10, 130, 1)]
            {
                let [z, z1, z2] = [1, k, k].map(|k| random(k as u64 + 20, k * rows * outputs));
                let z: Vec<f32> = z.into_iter().map(|z| 3.0 * z).collect();
                for (second, curved) in [(false, false), (true, false), (true, true)] {
                    let z2: &[f32] = if curved { &z2 } else { &[] };
                    let shape = (rows, outputs, count);
                    let run = run_loss(gpu(), (kind, classes), shape, [&z, &z1, z2], second);
                    for (name, (found, expected)) in
                        LOSS_RESULTS.iter().zip(run.found.iter().zip(&run.expected))
                    {
                        let what =
                            format!("{kind}, classes {classes}, {shape:?}, K = {k}, z2 {curved}: {name}");
                        assert_close(&what, found, expected, 2e-6, 1.0);
                    }
                }
            }
        }
    }
}

/// Logits that overflow an exponential, and samples that the network is sure of, rightly or wrongly: nothing
/// is NaN, and each row is right to its own size.
#[test]
fn losses_of_extreme_logits() {
    let outputs = 3;
    let mut z = Vec::new();
    for height in [0.5, 2.0, 5.0, 10.0, 20.0, 30.0, 80.0, 1e4, 1e30] {
        for sign in [1.0, -1.0] {
            for at in 0..outputs {
                let near = [0.3 * sign, -0.2, 0.1];
                z.extend((0..outputs).map(|l| if l == at { sign * height } else { near[l] }));
            }
        }
    }
    z.extend([80.0, -80.0, 79.0, 1e4, 1e4, -1e4, -1e4, -1e4, -1e4, 1e4, -1e4, 9999.0, 60.0, 40.0, 20.0]);
    let rows = z.len() / outputs;
    let (z1, z2) = (random(31, 2 * z.len()), random(32, 2 * z.len()));
    for kind in Loss::ALL {
        let quadratic = matches!(kind, Loss::Mse | Loss::SquaredError);
        for classes in [true, false] {
            let run = run_loss(gpu(), (kind, classes), (rows, outputs, rows), [&z, &z1, &z2], true);
            for (which, (found, expected)) in run.found.iter().zip(&run.expected).enumerate() {
                let name = LOSS_RESULTS[which];
                let width = if [0, 1, 3].contains(&which) { 1 } else { outputs };
                for (r, (found, expected)) in found.chunks(width).zip(expected.chunks(width)).enumerate() {
                    let n = r % rows;
                    let logits = &z[n * outputs..(n + 1) * outputs];
                    let what = format!("{kind}, classes {classes}: {name} at logits {logits:?}");
                    // 1e30² is beyond single precision, and so is what it is differenced with
                    if logits.iter().any(|z| z.abs() > 1e29) && (quadratic || !classes) {
                        continue;
                    }
                    assert!(found.iter().all(|x| x.is_finite()), "{what}: {found:?}, expected {expected:?}");
                    // where two outputs contend, or targets are values, differences cancel as they have to; a
                    // slope is a sum of either sign
                    let confident = classes && which != 3 && lead(logits) > 4.0;
                    if confident {
                        // what underflows single precision is as good as zero
                        let size = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
                        if size > 1e-30 {
                            assert_close(&what, found, expected, 2e-5, 1.0);
                        }
                    }
                    let error =
                        f64s(found).iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f64::max);
                    let scale = expected.iter().fold(1.0f64, |m, e| m.max(e.abs()));
                    assert!(error <= 2e-6 * scale, "{what}: {found:?}, expected {expected:?}");
                }
            }
        }
    }
}

/// By how much the largest of `x` exceeds the second largest.
fn lead(x: &[f32]) -> f32 {
    let mut sorted = x.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted[0] - sorted[1]
}

#[test]
fn losses_over_two_rows_of_the_grid() {
    let rows = GRID_ROW + 3;
    let (z, z1) = (random(1, rows), random(2, rows));
    let shape = (rows, 1, rows - 1);
    let run = run_loss(gpu(), (Loss::SquaredError, false), shape, [&z, &z1, &[]], false);
    for (name, (found, expected)) in LOSS_RESULTS.iter().zip(run.found.iter().zip(&run.expected)) {
        assert_close(name, found, expected, 1e-6, 1.0);
    }
}

#[test]
fn noise_seeds() {
    let gpu = gpu();
    // rows, outputs, those that count, K
    for (rows, outputs, count, k) in
        [(1, 1, 1, 1), (7, 3, 5, 2), (67, 10, 67, 5), (3, 131, 0, 3), (GRID_ROW + 1, 1, GRID_ROW, 1)]
    {
        let what = format!("noise seeds [{k}, {rows}, {outputs}], {count} count");
        let (first, stride) = (4, rows + 6);
        let (slopes, centre, g) = (random(1, k * stride), random(2, k), random(3, rows * outputs));
        let (centred, g1) = (upload(gpu, &slopes), poisoned(gpu, k * rows * outputs));
        let step = Step { first: first as u32, count: count as u32, weight: 99.0, ..Step::default() };
        run_step(gpu, step, |rec| {
            loss::centre(rec, (rows, k), &upload(gpu, &centre), (&centred, stride))?;
            loss::noise_seed(rec, (rows, outputs, k), (&centred, stride), &upload(gpu, &g), &g1)
        });
        let counts = |e: usize| (first..first + count).contains(&(e % stride));
        let centred = read(gpu, &centred);
        for (e, (&found, &before)) in centred.iter().zip(&slopes).enumerate() {
            let expected = if counts(e) { before - centre[e / stride] } else { before };
            assert_eq!(found, expected, "{what}: slope {e}");
        }
        let seed = |e: usize| {
            let (k, n, l) = (e / outputs / rows, e / outputs % rows, e % outputs);
            let slope = f64::from(slopes[k * stride + first + n]) - f64::from(centre[k]);
            if n < count { slope * f64::from(g[n * outputs + l]) } else { 0.0 }
        };
        let expected: Vec<f64> = (0..k * rows * outputs).map(seed).collect();
        assert_close(&what, &read(gpu, &g1), &expected, 1e-6, 1.0);
    }
}

#[test]
fn packed_factors() {
    let gpu = gpu();
    // samples, d, width of the scale, gap between packed rows
    for (samples, d, width, gap) in
        [(1, 1, 1, 0), (3, 2, 0, 0), (7, 5, 3, 2), (67, 11, 65, 0), (2, 67, 7, 64), (GRID_ROW + 1, 1, 1, 0)]
    {
        let what = format!("{samples} packed factors of {d}, scaled by {width}, gap {gap}");
        let (a, b) = (random(1, samples * d * d), random(2, samples * width));
        let scale: Vec<f64> = match width {
            0 => vec![1.0; samples],
            _ => twins::norms(&b, width).iter().map(|norm| norm * norm).collect(),
        };
        let expected = twins::packed_matrices(&a, d, &scale);
        let (len, stride) = (packed_len(d), packed_len(d) + gap);
        let b_ = (width > 0).then(|| upload(gpu, &b));
        // samples one after the other; and rows of all samples one after the other
        let turned: Vec<f32> = (0..samples * d * d)
            .map(|e| a[e / d % samples * d * d + e / (d * samples) * d + e % d])
            .collect();
        for (what, a, sample_stride, row_stride) in [
            (format!("{what}, by sample"), &a, d * d, d),
            (format!("{what}, by row"), &turned, d, samples * d),
        ] {
            let out = poisoned(gpu, (samples - 1) * stride + len);
            run(gpu, |rec| {
                let scale = b_.as_ref().map(|b| (b, width));
                let rows = Rows { view: &out, stride };
                pack::matrix(rec, (samples, d), (&upload(gpu, a), sample_stride, row_stride), scale, rows)
            });
            let found = gathered(&what, &read(gpu, &out), samples, (1, len), (len, stride));
            assert_close(&what, &found, &expected, 1e-6, 1.0);
        }
        let x = &a[..samples * d];
        let out = poisoned(gpu, (samples - 1) * stride + len);
        run(gpu, |rec| pack::square(rec, (samples, d), &upload(gpu, x), Rows { view: &out, stride }));
        let found = gathered(&what, &read(gpu, &out), samples, (1, len), (len, stride));
        assert_close(&format!("{what}, squares"), &found, &twins::packed_squares(x, d), 1e-6, 1.0);
    }
}

/// `Σ_p A_p ⊗ B_p` is one product of packed factors.
#[test]
fn kronecker_gram_of_packed_factors() {
    let gpu = gpu();
    for (samples, i, j) in [(1, 1, 1), (5, 3, 2), (67, 4, 7), (1031, 2, 5)] {
        let symmetric = |seed, size| {
            let x = random(seed, samples * size);
            twins::outer_products(&x, &x, [size, size]).into_iter().map(|x| x as f32).collect::<Vec<_>>()
        };
        let (a, b) = (symmetric(1, i), symmetric(2, j));
        let (rows_a, rows_b) = (packed_len(i), packed_len(j));
        let [left, right, gram] =
            [samples * rows_a, samples * rows_b, rows_a * rows_b].map(|len| poisoned(gpu, len));
        run(gpu, |rec| {
            for (size, x, view, stride) in [(i, &a, &left, rows_a), (j, &b, &right, rows_b)] {
                let x = upload(gpu, x);
                pack::matrix(rec, (samples, size), (&x, size * size, size), None, Rows { view, stride })?;
            }
            let shape = Shape { batch: 1, m: rows_a, n: rows_b, k: samples };
            let product = Gemm { layout: Layout::TN, shape, alpha: 1.0, add: false };
            let matrix = |view, row| Matrix { view, row, batch: 0, period: 0 };
            gemm::gemm(
                rec,
                product,
                matrix(&left, rows_a),
                matrix(&right, rows_b),
                None,
                matrix(&gram, rows_b),
            )
        });
        let expected = twins::kronecker_gram(&a, i, &b, j);
        assert_close(&format!("{samples}, {i}, {j}"), &read(gpu, &gram), &expected, 2e-6, 1.0);
    }
}

#[test]
fn sgd_steps() {
    let gpu = gpu();
    for len in [4, 68, 1_032, 4 * (GRID_ROW + 13)] {
        for (momentum, weight_decay) in [(0.0, 0.0), (0.0, 0.25), (0.75, 0.0), (0.75, 0.125)] {
            let what = format!("sgd of {len}, momentum {momentum}, weight decay {weight_decay}");
            let (theta, buf, g) = (random(1, len), random(2, len), random(3, len));
            let step = Step { learning_rate: 0.5, momentum, weight_decay, ..Step::default() };
            let [theta_, g_] = [&theta, &g].map(|x| upload(gpu, x));
            let buf_ = if momentum == 0.0 { poisoned(gpu, len) } else { upload(gpu, &buf) };
            run_step(gpu, step, |rec| sgd::sgd(rec, &g_, &theta_, &buf_));
            let (mut theta, mut buf) = (f64s(&theta), f64s(&buf));
            twins::sgd_step(&mut theta, &mut buf, &g, 0.5, momentum.into(), weight_decay.into());
            assert_close(&format!("{what}: θ"), &read(gpu, &theta_), &theta, 2e-7, 1.0);
            let found = read(gpu, &buf_);
            match momentum {
                0.0 => assert_untouched(&what, &found, |_| false),
                _ => assert_close(&format!("{what}: momentum"), &found, &buf, 2e-7, 1.0),
            }
        }
    }
}

const LENGTHS: [usize; 6] = [1, 2, 67, 4_096, 10_007, GRID_ROW + 31];

#[test]
fn combinations_of_vectors() {
    let gpu = gpu();
    for len in LENGTHS {
        let (x, y) = (random(1, len), random(2, len));
        for (alpha, beta) in [(1.0, 0.0), (-0.5, 1.0), (2.0, -0.25), (0.0, 3.0)] {
            let y_ = if beta == 0.0 { poisoned(gpu, len) } else { upload(gpu, &y) };
            run(gpu, |rec| vector::combine(rec, alpha, &upload(gpu, &x), beta, &y_));
            let value = |(&x, &y): (&f32, &f32)| f64::from(alpha * x) + f64::from(beta) * f64::from(y);
            let expected: Vec<f64> = x.iter().zip(&y).map(value).collect();
            assert_close(&format!("{alpha} x + {beta} y of {len}"), &read(gpu, &y_), &expected, 2e-7, 1.0);
        }
    }
}

#[test]
fn outer_products_added() {
    let gpu = gpu();
    for (vectors, len) in [(1, 1), (3, 67), (7, 1031), (2, GRID_ROW / 2 + 5), (131, 1)] {
        let (x, c, y) = (random(1, len), random(2, vectors), random(3, vectors * len));
        let y_ = upload(gpu, &y);
        run(gpu, |rec| vector::add_outer(rec, -0.5, &upload(gpu, &c), &upload(gpu, &x), &y_));
        let mut expected = f64s(&y);
        let c: Vec<f32> = c.into_iter().map(|c| -0.5 * c).collect();
        twins::axpy(&c, &x, &mut expected, len);
        assert_close(&format!("{vectors} of {len}"), &read(gpu, &y_), &expected, 1e-6, 1.0);
    }
}

#[test]
fn unit_directions() {
    let gpu = gpu();
    // first, K, N, width
    for (first, vectors, samples, width) in
        [(0, 1, 1, 1), (0, 5, 3, 5), (2, 3, 67, 7), (6, 1, 2, 7), (0, 67, 131, 241)]
    {
        let y = poisoned(gpu, vectors * samples * width);
        run(gpu, |rec| vector::units(rec, first, vectors, width, &y));
        let unit = |e: usize| f64::from(u8::from(e % width == first + e / (samples * width)));
        let expected: Vec<f64> = (0..vectors * samples * width).map(unit).collect();
        let what = format!("{vectors} units from {first} on, {samples} samples of {width}");
        assert_close(&what, &read(gpu, &y), &expected, 0.0, 1.0);
    }
}

#[test]
fn dot_products() {
    let gpu = gpu();
    for len in LENGTHS {
        for (period, first, vectors) in [(1, 0, 1), (3, 0, 3), (1, 0, 2), (3, 2, 5), (2, 1, 1)] {
            let what = format!("{vectors} dot products of {len} with {period} from {first} on");
            let chunks = len.div_ceil(vector::CHUNK);
            let (x, y) = (random(1, period * len), random(2, vectors * len));
            let [partial, total] = [vectors * chunks + 1, vectors + 1].map(|len| poisoned(gpu, len));
            run(gpu, |rec| {
                vector::dot(rec, len, (&upload(gpu, &x), first), &upload(gpu, &y), &partial)?;
                let [partial, total] = [&partial, &total].map(|view| Strided { view, stride: 0 });
                let axes = Axes { outer: 1, m: vectors, inner: chunks };
                reduce(rec, 1, axes, partial, None, total, Write::NEW)
            });
            let mut expected = Vec::new();
            for (j, y) in y.chunks(len).enumerate() {
                let x = &x[(first + j) % period * len..][..len];
                let part = |(x, y): (&[f32], &[f32])| twins::dots(x, y, x.len())[0];
                expected.extend(x.chunks(vector::CHUNK).zip(y.chunks(vector::CHUNK)).map(part));
            }
            let scale = (len as f64).sqrt();
            let found = read(gpu, &partial);
            assert_untouched(&what, &found, |i| i < vectors * chunks);
            assert_close(&what, &found[..vectors * chunks], &expected, 2e-6, scale);
            let found = read(gpu, &total);
            assert_untouched(&what, &found, |i| i < vectors);
            // cancelling sums are judged by what they are made of
            for (j, sum) in twins::row_sums(&expected, chunks).into_iter().enumerate() {
                assert!((f64::from(found[j]) - sum).abs() <= 1e-6 * scale, "{what}: {}, not {sum}", found[j]);
            }
        }
    }
}

/// More vectors than a dispatch has workgroups along one dimension.
#[test]
fn many_short_dot_products() {
    let gpu = gpu();
    let (x, y) = (random(1, 3), random(2, 70_001));
    let s = poisoned(gpu, y.len() + 1);
    run(gpu, |rec| vector::dot(rec, 1, (&upload(gpu, &x), 1), &upload(gpu, &y), &s));
    let found = read(gpu, &s);
    let expected: Vec<f64> = (0..y.len()).map(|j| f64::from(y[j]) * f64::from(x[(1 + j) % 3])).collect();
    assert_close("products", &found[..y.len()], &expected, 2e-7, 1.0);
    assert_untouched("products", &found, |i| i < y.len());
}

#[test]
fn each_combined_from_its_own() {
    let gpu = gpu();
    // I, first, J, E
    for (period, first, vectors, len) in
        [(1, 0, 1, 1), (1, 0, 5, 67), (3, 0, 12, 1031), (7, 5, 3, 67), (5, 4, 23, 131), (2, 1, 3, GRID_ROW)]
    {
        let (c, x, y) = (random(1, vectors), random(2, vectors * len), random(3, period * len));
        let y_ = upload(gpu, &y);
        let from = (&upload(gpu, &c), &upload(gpu, &x), first);
        run(gpu, |rec| vector::combine_each(rec, len, from, &y_));
        let mut expected = f64s(&y);
        twins::combine_each(&c, &x, first, &mut expected, len);
        let what = format!("{vectors} of {len} into {period} from {first} on");
        assert_close(&what, &read(gpu, &y_), &expected, 1e-6, 1.0);
    }
}

/// Blocks of vectors: whole and ragged tiles, one chunk and several, with a rest or without.
#[test]
fn products_and_combinations_of_blocks() {
    let gpu = gpu();
    // vectors of X and Y, words of a vector, coordinates of a chunk
    for (i, j, stride, chunk) in [
        (1, 1, 64, 64),
        (3, 2, 64, 256),
        (4, 4, 192, 64),
        (13, 5, 320, 128),
        (67, 4, 1_088, 256),
        (300, 3, 128, 64),
    ] {
        let what = format!("{i} and {j} vectors of {stride}, {chunk} at a time");
        let (x, y, s) = (random(1, i * stride), random(2, j * stride), random(3, i * j));
        let (x_, y_) = (upload(gpu, &x), upload(gpu, &y));
        let chunks = block::chunks(stride, chunk);
        let partial = poisoned(gpu, chunks * i * j + 1);
        run(gpu, |rec| block::gram(rec, stride, chunk, &x_, &y_, &partial));
        let found = read(gpu, &partial);
        assert_untouched(&what, &found, |at| at < chunks * i * j);
        for (at, (x, y)) in x.chunks(stride).flat_map(|x| y.chunks(stride).map(move |y| (x, y))).enumerate() {
            let sum: f64 = (0..chunks).map(|c| f64::from(found[c * i * j + at])).sum();
            let expected = twins::dots(x, y, stride)[0];
            assert!((sum - expected).abs() <= 1e-6 * stride as f64, "{what}: {sum}, not {expected}");
        }
        // Y = S X, S being [J, I]
        for add in [false, true] {
            let to = if add { upload(gpu, &y) } else { poisoned(gpu, j * stride) };
            run(gpu, |rec| block::combine(rec, stride, &upload(gpu, &s), &x_, &to, add));
            let expected: Vec<f64> = (0..j * stride)
                .map(|at| {
                    let terms = (0..i)
                        .map(|k| f64::from(s[at / stride * i + k]) * f64::from(x[k * stride + at % stride]));
                    terms.sum::<f64>() + if add { f64::from(y[at]) } else { 0.0 }
                })
                .collect();
            assert_close(&what, &read(gpu, &to), &expected, 2e-6, (i as f64).sqrt());
        }
    }
}
