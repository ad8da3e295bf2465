//! Convolution, its adjoints and its per-sample weight gradients against plain loops in f64, over every kernel
//! size, stride and padding; outputs poisoned with NaN beforehand, which has to be there still between them.

use curvkit::gpu::Gpu;
use curvkit::kernels::Write;
use curvkit::kernels::conv::{self, Conv};
use curvkit::kernels::gemm::Family;
use kernels_tests::cases::assert_close;
use kernels_tests::device::{gpu, run};
use kernels_tests::reference::layers::Window;
use kernels_tests::tensors::{OnDevice, Tensors};
use kernels_tests::twins;

/// Words between the tensors of two directions.
const GAP: usize = 64;

/// A convolution to test: its sizes, the batch of directions, and which operands each direction has of its own.
#[derive(Clone, Copy, Debug)]
struct Case {
    channels: [usize; 2],
    input: [usize; 2],
    window: Window,
    samples: usize,
    batch: usize,
    /// w, and x or ȳ; in the weights' adjoint ȳ and x.
    own: [bool; 2],
    /// None, one for all directions, or one for each.
    bias: Option<bool>,
    alpha: f32,
    add: bool,
}

impl Case {
    /// One direction, α = 1, nothing added.
    fn plain(
        channels: [usize; 2],
        input: [usize; 2],
        [size, stride, padding]: [usize; 3],
        samples: usize,
    ) -> Case {
        let window = Window { size, stride, padding };
        let (own, bias) = ([false; 2], None);
        Case { channels, input, window, samples, batch: 1, own, bias, alpha: 1.0, add: false }
    }

    fn sizes(&self) -> Conv {
        Conv {
            channels: self.channels,
            input: self.input,
            output: self.input.map(|len| self.window.count(len)),
            kernel: self.window.size,
            stride: self.window.stride,
            padding: self.window.padding,
        }
    }

    /// The tensors of all directions, or one for all.
    fn operand(&self, seed: u64, len: usize, own: bool) -> Tensors {
        Tensors::random(seed, self.batch, len, own.then_some(GAP))
    }

    fn output(&self, len: usize) -> Tensors {
        Tensors::output(self.batch, len, GAP, self.add)
    }

    /// The value and the adjoint with respect to x.
    fn check_conv(&self, gpu: &Gpu, family: Family, transposed: bool) {
        let c = self.sizes();
        let what = format!("{family:?} {} {self:?}", if transposed { "adjoint" } else { "value" });
        let [x_len, y_len] = c.lens();
        let (in_len, out_len) = if transposed { (y_len, x_len) } else { (x_len, y_len) };
        let w = self.operand(1, c.weights(), self.own[0]);
        let operand = self.operand(2, self.samples * in_len, self.own[1]);
        let bias = self.bias.filter(|_| !transposed).map(|own| self.operand(3, self.channels[1], own));
        let out = self.output(self.samples * out_len);
        let mut expected = out.before(self.add);
        for z in 0..self.batch {
            let (w, operand) = (w.of(z), operand.of(z));
            for n in 0..self.samples {
                let (operand, out) =
                    (&operand[n * in_len..], &mut expected[(z * self.samples + n) * out_len..]);
                twins::conv_terms(self.channels, self.input, self.window, |y, at, x| {
                    let (from, to) = if transposed { (y, x) } else { (x, y) };
                    out[to] += f64::from(self.alpha) * f64::from(w[at]) * f64::from(operand[from]);
                });
                if let Some(bias) = &bias {
                    let plane = out_len / self.channels[1];
                    out[..out_len]
                        .iter_mut()
                        .enumerate()
                        .for_each(|(i, y)| *y += f64::from(bias.of(z)[i / plane]));
                }
            }
        }
        let (w, operand, into) = (w.upload(gpu), operand.upload(gpu), out.upload(gpu));
        let bias = bias.map(|bias| bias.upload(gpu));
        run(gpu, |rec| {
            let bias = bias.as_ref().map(OnDevice::strided);
            let batch = (self.batch, self.samples);
            let (w, operand, into) = (w.strided(), operand.strided(), into.strided());
            let write = Write { c: self.alpha, add: self.add };
            conv::conv(rec, c, (transposed, Some(family)), batch, (w, operand, bias), into, write)
        });
        assert_close(&what, &out.found(&what, gpu, &into), &expected, 2e-6, 1.0);
    }

    /// The adjoint with respect to the weights.
    fn check_weight(&self, gpu: &Gpu, family: Family) {
        let c = self.sizes();
        let what = format!("{family:?} weight {self:?}");
        let [x_len, y_len] = c.lens();
        let y = self.operand(1, self.samples * y_len, self.own[0]);
        let x = self.operand(2, self.samples * x_len, self.own[1]);
        let out = self.output(c.weights());
        let mut expected = out.before(self.add);
        for z in 0..self.batch {
            for n in 0..self.samples {
                let into = &mut expected[z * c.weights()..];
                self.add_weight(&y.of(z)[n * y_len..], &x.of(z)[n * x_len..], into);
            }
        }
        let (y, x, into) = (y.upload(gpu), x.upload(gpu), out.upload(gpu));
        run(gpu, |rec| {
            let batch = (self.batch, self.samples);
            let (operands, write) = ((y.strided(), x.strided()), Write { c: self.alpha, add: self.add });
            conv::weight(rec, c, Some(family), batch, operands, into.strided(), write)
        });
        assert_close(&what, &out.found(&what, gpu, &into), &expected, 2e-6, 1.0);
    }

    /// `w += α` the adjoint of one sample.
    fn add_weight(&self, y: &[f32], x: &[f32], w: &mut [f64]) {
        twins::conv_terms(self.channels, self.input, self.window, |at_y, at_w, at_x| {
            w[at_w] += f64::from(self.alpha) * f64::from(y[at_y]) * f64::from(x[at_x]);
        });
    }
}

/// Kernel sizes, strides and paddings, all with all; channels and odd images in turn.
fn every_window() -> Vec<Case> {
    let channels = [[1, 1], [3, 5], [5, 3], [17, 1], [1, 17], [5, 17], [3, 3], [17, 5]];
    let images = [[7, 9], [8, 7], [11, 7], [7, 12], [9, 16]];
    let mut cases = Vec::new();
    for size in [1, 2, 3, 5, 7] {
        for stride in [1, 2, 3] {
            for padding in 0..=3 {
                let at = cases.len();
                let (channels, input) = (channels[at % channels.len()], images[at % images.len()]);
                cases.push(Case::plain(channels, input, [size, stride, padding], 1 + at % 3));
            }
        }
    }
    cases
}

/// What else matters: directions, bias, α, sums, images of one pixel, and more than one tile of anything.
fn other_cases() -> Vec<Case> {
    let plain = Case::plain;
    vec![
        // directions
        Case { batch: 3, own: [true, true], ..plain([3, 5], [7, 6], [3, 1, 1], 2) },
        Case { batch: 3, own: [true, false], bias: Some(true), ..plain([5, 3], [6, 5], [3, 2, 1], 3) },
        Case { batch: 2, own: [false, true], bias: Some(false), ..plain([3, 17], [5, 9], [5, 1, 2], 1) },
        Case { batch: 2, own: [false, false], bias: Some(true), ..plain([1, 5], [5, 9], [2, 1, 0], 5) },
        // samples as directions
        Case {
            batch: 67,
            own: [true; 2],
            bias: Some(true),
            add: true,
            ..plain([5, 3], [6, 7], [3, 1, 1], 1)
        },
        Case { batch: 131, own: [true; 2], ..plain([6, 16], [8, 9], [5, 2, 2], 1) },
        // α, bias and sums
        Case { alpha: -0.75, ..plain([3, 5], [9, 7], [3, 1, 0], 2) },
        Case { alpha: 0.5, add: true, bias: Some(false), ..plain([5, 17], [6, 7], [3, 1, 1], 2) },
        Case { batch: 2, own: [true; 2], add: true, ..plain([3, 6], [8, 8], [3, 2, 1], 3) },
        Case { batch: 2, own: [true; 2], alpha: 2.0, add: true, ..plain([2, 3], [4, 4], [1, 2, 0], 2) },
        // one pixel comes out, or goes in
        plain([5, 3], [3, 3], [3, 1, 0], 7),
        plain([17, 3], [5, 5], [5, 3, 0], 3),
        plain([3, 5], [1, 1], [3, 1, 1], 11),
        plain([3, 5], [1, 13], [5, 1, 2], 3),
        // rows of taps, and of pixels, that are cut into pieces
        plain([2, 3], [19, 21], [11, 4, 2], 2),
        plain([1, 2], [20, 22], [18, 1, 1], 2),
        plain([1, 2], [34, 36], [35, 1, 2], 1),
        plain([2, 3], [3, 261], [3, 1, 1], 2),
        // many samples, several tiles of channels, of pixels and of weights, sums in parts
        plain([3, 6], [16, 15], [5, 1, 2], 127),
        plain([17, 33], [4, 4], [3, 1, 1], 131),
        plain([6, 16], [16, 16], [5, 1, 2], 67),
        Case { batch: 2, own: [true; 2], add: true, alpha: 0.25, ..plain([5, 65], [9, 8], [3, 1, 1], 61) },
        Case { batch: 2, own: [true, false], ..plain([16, 32], [16, 16], [3, 2, 1], 67) },
        plain([70, 20], [3, 3], [3, 1, 1], 23),
    ]
}

/// Runs `check` on every case with either family.
fn for_all(check: impl Fn(&Case, Family)) {
    for case in every_window().into_iter().chain(other_cases()) {
        for family in [Family::Register, Family::Workgroup] {
            check(&case, family);
        }
    }
}

#[test]
fn values() {
    for_all(|case, family| case.check_conv(gpu(), family, false));
}

#[test]
fn adjoints() {
    for_all(|case, family| case.check_conv(gpu(), family, true));
}

#[test]
fn weights() {
    for_all(|case, family| case.check_weight(gpu(), family));
}
