//! Embeddings, heads and what masks make, against plain loops in f64; outputs poisoned with NaN beforehand, which
//! has to be there still between one direction's table and the next's.

use curvkit::gpu::{Gpu, View};
use curvkit::kernels::Write;
use curvkit::kernels::broadcast::Strided;
use curvkit::kernels::sequence::{self, Heads, Sequences, embed};
use kernels_tests::cases::{assert_close, random};
use kernels_tests::device::{GRID_ROW, POISON, gpu, read, run, upload};
use kernels_tests::f64s;
use kernels_tests::reference::layers::sinusoids;
use kernels_tests::tensors::Tensors;
use kernels_tests::twins::sequence::{embed_terms, heads_terms, kept, row_shift, token_weights};

/// c, and whether what is there already is added to.
const SCALES: [(f32, bool); 2] = [(1.0, false), (-0.375, true)];

/// Samples `[n, 2, T]` with ids below seven tenths of `ids`, and masks that keep all tokens of the first sample,
/// the last token alone of the second, and some of the others.
fn tokens(n: usize, length: usize, ids: usize) -> Vec<f32> {
    let draws = random(7, 2 * n * length);
    let sample = |(p, draws): (usize, &[f32])| {
        let (words, mask) = draws.split_at(length);
        let ids = words.iter().map(|x| ((x + 1.0) * 0.35 * ids as f32).floor());
        let keep = mask.iter().enumerate().map(move |(t, &x)| match p {
            0 => 1.0,
            1 => f32::from(u8::from(t == length - 1)),
            _ => f32::from(u8::from(x > 0.0 || t == p % length)),
        });
        ids.chain(keep).collect::<Vec<_>>()
    };
    draws.chunks(2 * length).enumerate().flat_map(sample).collect()
}

/// An embedding to test; W of one direction is `gap` words from the next's, or one serves all.
#[derive(Clone, Copy, Debug)]
struct Table {
    n: usize,
    length: usize,
    ids: usize,
    width: usize,
    k: usize,
    gap: Option<usize>,
}

fn table([n, length, ids, width]: [usize; 4], k: usize, gap: Option<usize>) -> Table {
    Table { n, length, ids, width, k, gap }
}

/// The last has more elements of y, and of W, than one row of the grid has invocations.
fn tables() -> Vec<Table> {
    vec![
        table([1, 1, 1, 1], 1, Some(0)),
        table([1, 1, 5, 3], 2, Some(1)),
        table([2, 7, 3, 1], 3, Some(64)), // ids that occur often
        table([3, 5, 11, 6], 3, Some(0)),
        table([5, 3, 67, 7], 2, None), // ids that do not occur
        table([67, 2, 131, 5], 1, Some(3)),
        table([7, 13, 2, 65], 2, None),
        table([1031, 3, 3001, 701], 1, Some(0)),
    ]
}

impl Table {
    fn tokens(&self) -> Vec<f32> {
        tokens(self.n, self.length, self.ids)
    }

    /// The terms of all samples: the sample, and the places in its y and in W.
    fn terms(&self, mut term: impl FnMut(usize, usize, usize)) {
        for (p, sample) in self.tokens().chunks(2 * self.length).enumerate() {
            embed_terms(sample, self.width, |y, w| term(p, y, w));
        }
    }

    /// Directions, and how many tables they have: one each or, `per_sample`, one for each sample.
    fn tables(&self, per_sample: bool) -> (usize, usize) {
        if per_sample { (1, self.n) } else { (self.k, self.k) }
    }

    /// Sizes, and the tokens, of each sample alone where it has a table.
    fn laid_out<'a>(&self, per_sample: bool, tokens: &'a View) -> (Sequences, Strided<'a>) {
        let (samples, stride) = if per_sample { (1, 2 * self.length) } else { (self.n, 0) };
        let (_, directions) = self.tables(per_sample);
        (Sequences { directions, samples, tokens: self.length }, Strided { view: tokens, stride })
    }

    /// Every direction's samples look up a table of its own; or, `per_sample`, every sample does.
    fn check_value(&self, gpu: &Gpu, per_sample: bool, (c, add): (f32, bool)) {
        let what = format!("value, per sample {per_sample}, c {c}, add {add}, {self:?}");
        let len = self.length * self.width;
        let (k, tables) = self.tables(per_sample);
        let w = Tensors::random(1, tables, self.ids * self.width, self.gap);
        let y = Tensors::output(k * self.n, len, 0, add);
        let mut expected = y.before(add);
        for k in 0..k {
            self.terms(|p, to, at| {
                let table = w.of(if per_sample { p } else { k });
                expected[(k * self.n + p) * len + to] += f64::from(c) * f64::from(table[at]);
            });
        }
        let (w, tokens, into) = (w.upload(gpu), upload(gpu, &self.tokens()), y.upload(gpu));
        run(gpu, |rec| {
            let (s, tokens) = self.laid_out(per_sample, &tokens);
            embed(
                rec,
                s,
                (self.ids, self.width, w.stride),
                false,
                (&w.view, tokens),
                &into.view,
                Write { c, add },
            )
        });
        assert_close(&what, &y.found(&what, gpu, &into), &expected, 2e-7, 1.0);
    }

    /// Every direction's samples are summed in a table of its own; or, `per_sample`, every sample has one.
    fn check_adjoint(&self, gpu: &Gpu, per_sample: bool, gap: usize, (c, add): (f32, bool)) {
        let what = format!("adjoint, per sample {per_sample}, c {c}, add {add}, {self:?}");
        let (len, size) = (self.length * self.width, self.ids * self.width);
        let (k, tables) = self.tables(per_sample);
        let y = random(1, k * self.n * len);
        let w = Tensors::output(tables, size, gap, add);
        let mut expected = w.before(add);
        for k in 0..k {
            self.terms(|p, from, at| {
                let table = if per_sample { p } else { k };
                expected[table * size + at] += f64::from(c) * f64::from(y[(k * self.n + p) * len + from]);
            });
        }
        let (y, tokens, into) = (upload(gpu, &y), upload(gpu, &self.tokens()), w.upload(gpu));
        run(gpu, |rec| {
            let (s, tokens) = self.laid_out(per_sample, &tokens);
            embed(
                rec,
                s,
                (self.ids, self.width, into.stride),
                true,
                (&y, tokens),
                &into.view,
                Write { c, add },
            )
        });
        assert_close(&what, &w.found(&what, gpu, &into), &expected, 1e-6, 1.0);
    }
}

#[test]
fn embeddings() {
    for table in tables() {
        SCALES.into_iter().for_each(|how| table.check_value(gpu(), false, how));
    }
}

#[test]
fn embeddings_per_sample() {
    for table in tables().into_iter().filter(|table| table.n < 1000) {
        SCALES.into_iter().for_each(|how| table.check_value(gpu(), true, how));
    }
}

#[test]
fn embedding_adjoints() {
    for table in tables() {
        let Some(gap) = table.gap else { continue };
        SCALES.into_iter().for_each(|how| table.check_adjoint(gpu(), false, gap, how));
    }
}

#[test]
fn embedding_adjoints_per_sample() {
    for table in tables().into_iter().filter(|table| table.n < 1000) {
        let Some(gap) = table.gap else { continue };
        SCALES.into_iter().for_each(|how| table.check_adjoint(gpu(), true, gap, how));
    }
}

/// One list of positions after another in the same scratch memory: each adjoint follows its own.
#[test]
fn two_embedding_adjoints_in_one_program() {
    let gpu = gpu();
    let (short, long) = (table([2, 3, 5, 2], 1, Some(0)), table([3, 11, 7, 3], 1, Some(0)));
    let made = [short, long, short].map(|table| {
        let len = table.length * table.width;
        let (y, w) = (random(1, table.n * len), vec![POISON; table.ids * table.width]);
        let mut expected = vec![0.0; w.len()];
        table.terms(|p, from, at| expected[at] += f64::from(y[p * len + from]));
        (table, [&y, &table.tokens(), &w].map(|x| upload(gpu, x)), expected)
    });
    run(gpu, |rec| {
        made.iter().try_for_each(|(table, [y, tokens, w], _)| {
            let (s, tokens) = table.laid_out(false, tokens);
            embed(rec, s, (table.ids, table.width, 0), true, (y, tokens), w, Write::NEW)
        })
    });
    for (table, [.., w], expected) in &made {
        assert_close(&format!("{table:?}"), &read(gpu, w), expected, 1e-6, 1.0);
    }
}

#[test]
fn heads_of_each_part() {
    let gpu = gpu();
    // k, n, T, heads, width, parts
    for [k, n, tokens, heads, width, parts] in [
        [1, 1, 1, 1, 1, 1],
        [1, 2, 5, 3, 7, 1],
        [3, 2, 7, 2, 3, 3],
        [2, 67, 3, 1, 5, 2],
        [1, 5, 13, 8, 8, 3],
        [1, 1031, 17, 3, 41, 1], // more than one row of the grid
    ] {
        let (y_len, x_len) = (heads * tokens * width, parts * heads * tokens * width);
        let (x, y) = (random(1, k * n * x_len), random(2, k * n * y_len));
        let s = Sequences { directions: k, samples: n, tokens };
        for part in 0..parts {
            for (c, add) in SCALES {
                let what = format!(
                    "heads of part {part} of {parts}: [{k}, {n}, {heads}, {tokens}, {width}], c {c}, add {add}"
                );
                let [y_out, x_out] = [y_len, x_len].map(|len| Tensors::output(k * n, len, 0, add));
                let [mut y_expected, mut x_expected] = [&y_out, &x_out].map(|out| out.before(add));
                for sample in 0..k * n {
                    heads_terms(tokens, [parts, part], [heads, width], |to, from| {
                        let (to, from) = (sample * y_len + to, sample * x_len + from);
                        y_expected[to] += f64::from(c) * f64::from(x[from]);
                        x_expected[from] += f64::from(c) * f64::from(y[to]);
                    });
                }
                let made = |transposed: bool, from: &[f32], into: &[f32]| {
                    let [from, into] = [from, into].map(|x| upload(gpu, x));
                    let h = Heads { heads, width, parts, part };
                    run(gpu, |rec| sequence::heads(rec, s, h, transposed, &from, &into, Write { c, add }));
                    read(gpu, &into)
                };
                assert_close(&what, &made(false, &x, &y_out.values), &y_expected, 2e-7, 1.0);
                assert_close(
                    &format!("adjoint: {what}"),
                    &made(true, &y, &x_out.values),
                    &x_expected,
                    2e-7,
                    1.0,
                );
            }
        }
    }
}

/// Angles are as accurate as an f32 of their size.
#[test]
fn sinusoidal_encodings() {
    let gpu = gpu();
    // n, T, width
    for [n, tokens, width] in [[1, 1, 1], [2, 7, 5], [3, 67, 6], [2, 64, 64], [1031, 64, 33]] {
        for add in [false, true] {
            let out = Tensors::output(1, n * tokens * width, 0, add);
            let mut expected = out.before(add);
            let encoding = sinusoids(tokens, width);
            expected.iter_mut().enumerate().for_each(|(at, y)| *y += encoding[at % encoding.len()]);
            let y = upload(gpu, &out.values);
            let s = Sequences { directions: 1, samples: n, tokens };
            run(gpu, |rec| sequence::sinusoid(rec, s, width, &y, add));
            for (at, (found, expected)) in f64s(&read(gpu, &y)).into_iter().zip(expected).enumerate() {
                let (t, e) = (at / width % tokens, at % width);
                let error = (found - expected).abs();
                let allowed = f64::from(f32::EPSILON) * (4.0 + 2.0 * t as f64);
                assert!(
                    error <= allowed,
                    "token {t}, feature {e} of {width}, add {add}: {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn weights_of_tokens() {
    let gpu = gpu();
    for [n, length] in [[1, 1], [2, 5], [67, 13], [5, 131], [GRID_ROW / 2 + 3, 2]] {
        let tokens = tokens(n, length, 3);
        for (masked, add) in [(true, false), (true, true), (false, false), (false, true)] {
            let out = Tensors::output(1, n * length, 0, add);
            let mut expected = out.before(add);
            for (sample, expected) in tokens.chunks(2 * length).zip(expected.chunks_mut(length)) {
                let keep = if masked { kept(sample) } else { vec![true; length] };
                expected.iter_mut().zip(token_weights(&keep)).for_each(|(y, weight)| *y += weight);
            }
            let [tokens, y] = [&tokens, &out.values].map(|x| upload(gpu, x));
            let s = Sequences { directions: 1, samples: n, tokens: length };
            run(gpu, |rec| sequence::token_weight(rec, s, masked.then_some(&tokens), &y, add));
            let what = format!("{n} samples of {length} tokens, masked {masked}, add {add}");
            assert_close(&what, &read(gpu, &y), &expected, 2e-7, 1.0);
        }
    }
}

/// Maxima, and sums of two numbers, are exact.
#[test]
fn shifts_of_rows() {
    let gpu = gpu();
    // n, heads, T
    for [n, heads, length] in [[1, 1, 1], [2, 3, 5], [5, 2, 13], [67, 1, 3], [3, 1, 67]] {
        let tokens = tokens(n, length, 3);
        // scores of padding are the largest, and must not be taken
        let row = |row: usize, masked: bool| match masked {
            true => kept(&tokens[row / (heads * length) * 2 * length..][..2 * length]),
            false => vec![true; length],
        };
        let mut x = random(1, n * heads * length * length);
        for (r, x) in x.chunks_mut(length).enumerate() {
            x.iter_mut().zip(row(r, true)).filter(|(_, keep)| !keep).for_each(|(x, _)| *x += 5.0);
        }
        for (masked, add) in [(true, false), (true, true), (false, false), (false, true)] {
            let out = Tensors::output(1, x.len(), 0, add);
            let mut expected = out.before(add);
            for (r, (x, y)) in x.chunks(length).zip(expected.chunks_mut(length)).enumerate() {
                y.iter_mut().zip(row_shift(x, &row(r, masked))).for_each(|(y, shift)| *y += shift);
            }
            let [x, tokens, y] = [&x, &tokens, &out.values].map(|x| upload(gpu, x));
            let s = Sequences { directions: 1, samples: n, tokens: length };
            run(gpu, |rec| sequence::row_shift(rec, s, heads, &x, masked.then_some(&tokens), &y, add));
            let expected: Vec<f32> = expected.into_iter().map(|y| y as f32).collect();
            assert_eq!(read(gpu, &y), expected, "[{n}, {heads}, {length}], masked {masked}, add {add}");
        }
    }
}
