//! Linear algebra on blocks of vectors against f64: inner products, combinations, random vectors, bases on the
//! device and on the host, orthonormalisation.

use curvkit::gpu::Gpu;
use curvkit::net::Network;
use curvkit::operators::{
    Block, Curvature, Session, SymmetricOperator, combine, combine_each, copy, dots, gram,
};
use curvkit::spectral::{Basis, Distribution, Orthonormal, RandomVectors, orthonormalise};
use kernels_tests::cases::{assert_close, cases, random};
use kernels_tests::device::{POISON, bindings_of, gpu, own_device};
use kernels_tests::f64s;
use kernels_tests::prescribed::Prescribed;
use nalgebra::DMatrix;

/// A device whose bindings hold 40,960 words.
fn cramped() -> Gpu {
    own_device(bindings_of(160 << 10), None)
}

/// Vectors `[K, stride]` as columns.
fn columns(values: &[f32], stride: usize) -> DMatrix<f64> {
    DMatrix::from_column_slice(stride, values.len() / stride, &f64s(values))
}

fn downloaded(block: &Block) -> DMatrix<f64> {
    columns(&block.download().unwrap(), block.stride())
}

fn host(x: &faer::Mat<f64>) -> DMatrix<f64> {
    DMatrix::from_fn(x.nrows(), x.ncols(), |i, j| x[(i, j)])
}

fn device(x: &DMatrix<f64>) -> faer::Mat<f64> {
    faer::Mat::from_fn(x.nrows(), x.ncols(), |i, j| x[(i, j)])
}

/// S with entries an f32 holds.
fn small(seed: u64, rows: usize, columns: usize) -> DMatrix<f64> {
    DMatrix::from_column_slice(rows, columns, &f64s(&random(seed, rows * columns)))
}

#[test]
fn inner_products_of_ranges_agree_with_f64() {
    let cramped = cramped();
    let sizes =
        [(64, 1, 1), (192, 3, 70), (4096, 5, 2), (4160, 2, 9), (8192, 33, 4), (8256, 17, 12), (40_960, 3, 2)];
    for (stride, kx, ky) in sizes {
        for gpu in [gpu(), &cramped] {
            let (x, y) = (random(1, stride * kx), random(2, stride * ky));
            let expected = columns(&x, stride).transpose() * columns(&y, stride);
            let (x, y) = (Block::upload(gpu, stride, &x).unwrap(), Block::upload(gpu, stride, &y).unwrap());
            let found = host(&gram(&x, &y).unwrap());
            let what = format!("XᵀY [{kx}, {ky}] of {stride} words");
            // as a share of the vectors' lengths, ‖x‖ ‖y‖ ≈ stride / 3
            assert!((&found - &expected).amax() < 2e-7 * stride as f64, "{what}");
            assert_eq!(found, host(&gram(&x, &y).unwrap()), "{what}: the same bits");
            let (rows, cols) = (kx / 2..kx, 0..ky / 2 + 1);
            let part = host(&gram((&x, rows.clone()), (&y, cols.clone())).unwrap());
            let expected = expected.view((rows.start, cols.start), (rows.len(), cols.len())).into_owned();
            assert!((part - expected).amax() < 2e-7 * stride as f64, "{what}: ranges");
        }
    }
    let x = Block::upload(gpu(), 64, &random(3, 64 * 2)).unwrap();
    let empty = gram((&x, 1..1), &x).unwrap();
    assert_eq!((empty.nrows(), empty.ncols()), (0, 2));
}

#[test]
fn long_inner_products_keep_orthogonality() {
    // 2²⁰ coordinates: one sum in single precision would be off by some 1e-5
    let stride = 1 << 20;
    let values: Vec<f32> = random(5, stride).into_iter().map(|x| 1.0 + 0.1 * x).collect();
    let expected: f64 = f64s(&values).iter().map(|x| x * x).sum();
    let x = Block::upload(gpu(), stride, &values).unwrap();
    let found = gram(&x, &x).unwrap()[(0, 0)];
    assert!((found - expected).abs() < 3e-7 * expected, "{found} against {expected}");
}

#[test]
fn combinations_agree_with_f64() {
    let cramped = cramped();
    for (stride, kx, ky) in [(64, 1, 1), (192, 70, 3), (4160, 2, 9), (8192, 33, 4), (8256, 13, 12)] {
        for gpu in [gpu(), &cramped] {
            let (x, y) = (random(1, stride * (kx + 1)), random(2, stride * (ky + 2)));
            let s = small(3, kx, ky);
            let product = columns(&x, stride).columns(1, kx) * &s;
            let from = Block::upload(gpu, stride, &x).unwrap();
            for add in [false, true] {
                let mut before = if add { y.clone() } else { vec![POISON; y.len()] };
                before[..stride].fill(7.0);
                before[stride * (ky + 1)..].fill(9.0);
                let to = Block::upload(gpu, stride, &before).unwrap();
                combine(device(&s).as_ref(), (&from, 1..kx + 1), (&to, 1..ky + 1), add).unwrap();
                let what = format!("S [{kx}, {ky}], {stride} words, add: {add}");
                let mut expected = product.clone();
                if add {
                    expected += columns(&y, stride).columns(1, ky);
                }
                let found = to.download().unwrap();
                assert!(found[..stride].iter().all(|&v| v == 7.0), "{what}: before");
                assert!(found[stride * (ky + 1)..].iter().all(|&v| v == 9.0), "{what}: behind");
                assert_close(&what, &found[stride..stride * (ky + 1)], expected.as_slice(), 1e-6, 1.0);
            }
        }
    }
    // no vectors combine to zeros, and add nothing
    let (x, y) = (Block::zeros(gpu(), 64, 0).unwrap(), Block::upload(gpu(), 64, &random(1, 128)).unwrap());
    let before = y.download().unwrap();
    combine(faer::Mat::zeros(0, 2).as_ref(), &x, &y, true).unwrap();
    assert_eq!(y.download().unwrap(), before);
    combine(faer::Mat::zeros(0, 2).as_ref(), &x, &y, false).unwrap();
    assert_eq!(y.download().unwrap(), [0.0; 128]);
}

/// Vector by vector, where both lie in one buffer and where neither does.
#[test]
fn each_vector_with_its_own() {
    let cramped = cramped();
    // words, vectors of Y, as many times more of X
    for (stride, m, times) in
        [(64, 1, 1), (192, 5, 7), (4160, 3, 2), (8256, 3, 3), (8256, 9, 1), (8256, 7, 3)]
    {
        for gpu in [gpu(), &cramped] {
            let what = format!("{times} times {m} of {stride} words");
            let (x, y) = (random(1, stride * (m * times + 1)), random(2, stride * m));
            let c = f64s(&random(3, m * times));
            let (columns_x, columns_y) = (columns(&x[stride..], stride), columns(&y, stride));
            let from = Block::upload(gpu, stride, &x).unwrap();
            let held = 1..m * times + 1;
            let to = Block::upload(gpu, stride, &y).unwrap();
            let found = dots((&from, held.clone()), &to).unwrap();
            for (j, found) in found.iter().enumerate() {
                let expected = columns_x.column(j).dot(&columns_y.column(j % m));
                assert!((found - expected).abs() < 2e-7 * stride as f64, "{what}: {found}, not {expected}");
            }
            for add in [false, true] {
                let start = if add { y.clone() } else { vec![POISON; y.len()] };
                let to = Block::upload(gpu, stride, &start).unwrap();
                combine_each(&c, (&from, held.clone()), &to, add).unwrap();
                let mut expected = if add { columns_y.clone() } else { DMatrix::zeros(stride, m) };
                for (j, &c) in c.iter().enumerate() {
                    let mut column = expected.column_mut(j % m);
                    column += c * columns_x.column(j);
                }
                assert_close(&what, &to.download().unwrap(), expected.as_slice(), 1e-6, 1.0);
            }
        }
    }
}

#[test]
fn vectors_are_copied_across_shards() {
    let gpu = cramped();
    let stride = 8256; // four to a buffer
    let values = random(4, stride * 11);
    let (x, y) = (Block::upload(&gpu, stride, &values).unwrap(), Block::zeros(&gpu, stride, 9).unwrap());
    copy((&x, 1..8), (&y, 2..9)).unwrap();
    let found = y.download().unwrap();
    assert_eq!(found[..2 * stride], vec![0.0; 2 * stride]);
    assert_eq!(found[2 * stride..], values[stride..8 * stride]);
}

#[test]
fn random_vectors_depend_on_seed_and_number_alone() {
    let case = &cases()[6];
    let network = Network::new(&case.model).unwrap();
    let problem = Session::new(gpu(), &network, &case.parameters, &case.data, case.loss).unwrap();
    let operator = problem.operator(Curvature::Hessian, &network.all()).unwrap();
    assert!(operator.stride() > operator.dim(), "there is padding");
    for distribution in [Distribution::Gaussian, Distribution::Rademacher] {
        let draw =
            |random: &mut RandomVectors, count| random.draw(&operator, count).unwrap().download().unwrap();
        let mut random = RandomVectors::new(distribution, 3);
        let seven = draw(&mut random, 7);
        assert_eq!(random.drawn, 7);
        let mut again = RandomVectors::new(distribution, 3);
        assert_eq!([draw(&mut again, 2), draw(&mut again, 5)].concat(), seven);
        let mut later = RandomVectors { drawn: 4, ..RandomVectors::new(distribution, 3) };
        assert_eq!(draw(&mut later, 1), seven[4 * operator.stride()..5 * operator.stride()]);
        assert_ne!(draw(&mut RandomVectors::new(distribution, 4), 7), seven);
        // zero wherever there is no coordinate
        let flat = operator.unpad(&seven).unwrap();
        assert_eq!(operator.pad(&flat).unwrap(), seven);
        if distribution == Distribution::Rademacher {
            assert!(flat.iter().all(|x| x.abs() == 1.0));
        }
    }
    let wide = Prescribed::new(gpu(), vec![0.0; 40_000], 0);
    for distribution in [Distribution::Gaussian, Distribution::Rademacher] {
        let x = RandomVectors::new(distribution, 0).draw(&wide, 2).unwrap().download().unwrap();
        let mean = |f: &dyn Fn(f64) -> f64| f64s(&x).into_iter().map(f).sum::<f64>() / 80_000.0;
        let fourth = if distribution == Distribution::Gaussian { 3.0 } else { 1.0 };
        assert!(mean(&|x| x).abs() < 0.02, "{distribution:?}: mean");
        assert!((mean(&|x| x * x) - 1.0).abs() < 0.03, "{distribution:?}: variance");
        assert!((mean(&|x| x.powi(4)) - fourth).abs() < 0.2, "{distribution:?}: fourth moment");
        let (a, b) = x.split_at(wide.stride());
        let along: f64 = a.iter().zip(b).map(|(&a, &b)| (a * b) as f64).sum();
        assert!(along.abs() < 0.02 * 40_000.0, "{distribution:?}: one vector is not the next");
    }
}

/// A basis on the device, and one that streams two or three vectors at a time through it.
fn residences(stride: usize, capacity: usize) -> [Basis; 2] {
    let tiny = own_device(wgpu::Limits::default(), Some((stride * 4 * 8 * 4 * 5 / 2) as u64));
    let [near, far] = [gpu(), &tiny].map(|gpu| Basis::new(gpu, stride, capacity).unwrap());
    assert!(near.on_device() && !far.on_device());
    [near, far]
}

#[test]
fn a_basis_does_the_same_on_either_side() {
    let (stride, capacity, len, k) = (320, 83, 71, 3);
    let values = random(1, stride * len);
    let v = columns(&values, stride);
    let y = random(2, stride * k);
    let s = small(3, len, k);
    let q = small(4, len, 29);
    for mut basis in residences(stride, capacity) {
        let what = format!("on the device: {}", basis.on_device());
        let gpu = basis.block(0..0).unwrap().gpu().clone();
        assert_eq!((basis.len(), basis.capacity(), basis.is_empty()), (0, capacity, true));
        for piece in [&values[..stride], &values[stride..10 * stride], &values[10 * stride..]] {
            basis.append(&Block::upload(&gpu, stride, piece).unwrap()).unwrap();
        }
        assert_eq!(basis.len(), len);
        assert_eq!(
            basis.block(9..12).unwrap().download().unwrap(),
            values[9 * stride..12 * stride],
            "{what}"
        );
        let block = || Block::upload(&gpu, stride, &y).unwrap();
        let y0 = columns(&y, stride);
        let c = host(&basis.project(&block()).unwrap());
        assert_close(&format!("VᵀY, {what}"), c.as_slice(), (v.transpose() * &y0).as_slice(), 1e-6, 1.0);
        for add in [false, true] {
            let to = block();
            basis.combine(device(&s).as_ref(), &to, add).unwrap();
            let expected = if add { &v * &s + &y0 } else { &v * &s };
            assert_close(&format!("V S, {what}"), downloaded(&to).as_slice(), expected.as_slice(), 1e-6, 1.0);
        }
        basis.rotate(device(&q).as_ref()).unwrap();
        assert_eq!(basis.len(), 29);
        let rotated = downloaded(&basis.block(0..29).unwrap());
        assert_close(&format!("V Q, {what}"), rotated.as_slice(), (&v * &q).as_slice(), 1e-6, 1.0);
        basis.truncate(5);
        assert_eq!(basis.len(), 5);
        assert_eq!(downloaded(&basis.block(0..5).unwrap()), rotated.columns(0, 5).into_owned(), "{what}");
        // after a truncation, vectors are appended where the basis ends now
        basis.append(&Block::upload(&gpu, stride, &values[..stride]).unwrap()).unwrap();
        assert_eq!(basis.block(5..6).unwrap().download().unwrap(), values[..stride], "{what}");
    }
}

#[test]
fn vectors_that_a_rotation_only_chooses_are_the_same_bits() {
    let (stride, len) = (320, 71);
    let values = random(1, stride * len);
    // rings and chains of several lengths, fixed places, and those behind the last that stays
    let orders: [Vec<usize>; 6] = [
        (0..len).collect(),
        (0..5).collect(),
        (0..len).map(|i| i * 10 % len).collect(),
        (0..len).map(|i| i * 10 % len).take(30).collect(),
        [1, 0, 2, 4, 5, 3, 70, 7, 6, 9, 10, 11].to_vec(),
        [].to_vec(),
    ];
    for order in orders {
        let q = DMatrix::from_fn(len, order.len(), |i, j| if order[j] == i { 1.0 } else { 0.0 });
        let expected: Vec<f32> =
            order.iter().flat_map(|&i| &values[i * stride..(i + 1) * stride]).copied().collect();
        for mut basis in residences(stride, 83) {
            let gpu = basis.block(0..0).unwrap().gpu().clone();
            basis.append(&Block::upload(&gpu, stride, &values).unwrap()).unwrap();
            basis.rotate(device(&q).as_ref()).unwrap();
            assert_eq!(basis.len(), order.len());
            assert_eq!(basis.block(0..order.len()).unwrap().download().unwrap(), expected, "{order:?}");
        }
    }
}

/// An operator that is nothing but a space of that many coordinates.
fn space(gpu: &Gpu, dim: usize) -> Prescribed {
    Prescribed::new(gpu, vec![0.0; dim], 0)
}

/// Asserts `Y = V C + Q R`, `QᵀQ = 1` and `VᵀQ = 0`, the first relative to Y's largest column.
#[track_caller]
fn check(what: &str, v: &DMatrix<f64>, y: &DMatrix<f64>, found: &Orthonormal, exact: f64) {
    let q = downloaded(&found.q);
    let unit = DMatrix::<f64>::identity(q.ncols(), q.ncols());
    let within = (q.transpose() * &q - unit).amax();
    assert!(within < 1e-6, "{what}: QᵀQ is off by {within:e}");
    if v.ncols() > 0 {
        let against = (v.transpose() * &q).amax();
        assert!(against < 1e-6, "{what}: VᵀQ is {against:e}");
    }
    let rest = y - v * host(&found.c) - &q * host(&found.r);
    let largest = y.column_iter().map(|y| y.norm()).fold(0.0, f64::max);
    assert!(rest.amax() <= exact * largest, "{what}: Y − V C − Q R is {:e}", rest.amax() / largest);
}

#[test]
fn blocks_are_orthonormalised() {
    for (dim, len, k) in [(1, 0, 1), (5, 2, 3), (67, 20, 7), (300, 131, 16), (5000, 40, 33)] {
        let operator = space(gpu(), dim);
        let stride = operator.stride();
        let mut random = RandomVectors::new(Distribution::Gaussian, 1);
        let mut basis = Basis::new(gpu(), stride, len + 1).unwrap();
        let empty = || Block::zeros(gpu(), stride, 0).unwrap();
        let first = orthonormalise(&operator, &basis, empty(), len, 0.0, &mut random).unwrap();
        basis.append(&first.q).unwrap();
        let v = downloaded(&first.q);
        check(
            &format!("{len} random vectors of {dim}"),
            &DMatrix::zeros(stride, 0),
            &DMatrix::zeros(stride, 0),
            &first,
            0.0,
        );
        // generic; almost in V's span; columns of very different length; nearly dependent ones
        let noise = downloaded(&random.draw(&operator, k).unwrap()) / (dim as f64).sqrt();
        let along = &v * small(3, len, k);
        let lengths =
            DMatrix::from_fn(k, k, |i, j| if i == j { 10f64.powf(-5.0 * i as f64 / k as f64) } else { 0.0 });
        let dependent =
            DMatrix::from_fn(k, k, |i, j| if i == j { 1e-4 } else { 0.0 } + if i == 0 { 1.0 } else { 0.0 });
        let blocks = [
            ("generic", noise.clone()),
            ("almost in V", 1e-3 * &noise + &along),
            ("of many lengths", &noise * lengths),
            ("nearly dependent", &noise * dependent),
        ];
        for (name, y) in blocks {
            let what = format!("{k} vectors of {dim}, {len} in V, {name}");
            let y32: Vec<f32> = y.iter().map(|&y| y as f32).collect();
            let y = columns(&y32, stride);
            let block = Block::upload(gpu(), stride, &y32).unwrap();
            let drawn = random.drawn;
            let found = orthonormalise(&operator, &basis, block, k, 1e-9, &mut random).unwrap();
            assert_eq!((found.q.len(), found.c.nrows(), found.r.nrows(), found.r.ncols()), (k, len, k, k));
            assert_eq!(random.drawn, drawn, "{what}: nothing had to be replaced");
            check(&what, &v, &y, &found, 2e-6);
        }
    }
}

#[test]
fn dependent_vectors_are_replaced_until_the_space_is_exhausted() {
    let (dim, len) = (67, 20);
    let operator = space(gpu(), dim);
    let stride = operator.stride();
    let mut random = RandomVectors::new(Distribution::Gaussian, 1);
    let mut basis = Basis::new(gpu(), stride, dim).unwrap();
    let empty = || Block::zeros(gpu(), stride, 0).unwrap();
    let first = orthonormalise(&operator, &basis, empty(), len, 0.0, &mut random).unwrap().q;
    basis.append(&first).unwrap();
    let v = downloaded(&first);
    let noise = downloaded(&random.draw(&operator, 2).unwrap());
    // two independent vectors among six: zero, in V, twice the same, their sum, and one too short
    let y = DMatrix::from_columns(&[
        0.0 * noise.column(0),
        noise.column(0).into_owned(),
        v.column(3).into_owned(),
        noise.column(1).into_owned(),
        noise.column(0) + noise.column(1),
        1e-9 * noise.column(1),
    ]);
    let y32: Vec<f32> = y.iter().map(|&y| y as f32).collect();
    let y = columns(&y32, stride);
    for width in [6, 9] {
        let drawn = random.drawn;
        let block = Block::upload(gpu(), stride, &y32).unwrap();
        let found = orthonormalise(&operator, &basis, block, width, 1e-6, &mut random).unwrap();
        assert_eq!(found.q.len(), width);
        assert_eq!(random.drawn - drawn, width as u64 - 2, "all but two are random");
        check("dependent vectors", &v, &y, &found, 1e-6);
    }
    // more than the space has left
    let block = Block::upload(gpu(), stride, &y32).unwrap();
    let last = orthonormalise(&operator, &basis, block, 60, 1e-6, &mut random).unwrap();
    assert_eq!(last.q.len(), dim - len);
    check("the rest of the space", &v, &y, &last, 1e-6);
    basis.append(&last.q).unwrap();
    let nothing = orthonormalise(&operator, &basis, empty(), 3, 1e-6, &mut random).unwrap();
    assert_eq!(nothing.q.len(), 0);
}

#[test]
fn what_is_not_finite_is_not_orthonormalised() {
    let operator = space(gpu(), 67);
    let basis = Basis::new(gpu(), operator.stride(), 3).unwrap();
    for bad in [f32::NAN, f32::INFINITY] {
        let mut y = random(1, operator.stride() * 2);
        y[130] = bad;
        let block = Block::upload(gpu(), operator.stride(), &y).unwrap();
        let mut random = RandomVectors::new(Distribution::Gaussian, 1);
        let error = orthonormalise(&operator, &basis, block, 2, 0.0, &mut random).err().unwrap();
        let expected = "a block to orthonormalise is not finite: it holds what is no number, or is too large";
        assert_eq!(error.to_string(), expected);
    }
}
