//! Operators on device-resident blocks: dense matrices and blocks over several buffers, curvature applied to
//! them, and a layer's moments, all against f64.

use curvkit::data::{Dataset, Targets};
use curvkit::gpu::{Gpu, GpuOptions};
use curvkit::net::{Layer, Loss, Model, Network};
use curvkit::operators::{Block, Curvature, DenseMatrix, LayerMoments, Session, SymmetricOperator};
use kernels_tests::cases::{assert_close, random};
use kernels_tests::device::{bindings_of, gpu, own_device};
use kernels_tests::{f64s, reference};
use nalgebra::DMatrix;

/// A device whose bindings hold 10,240 words.
fn cramped() -> Gpu {
    let gpu = own_device(bindings_of(40 << 10), None);
    assert_eq!(gpu.max_binding_len(), 10 << 10);
    gpu
}

/// A random symmetric matrix, `[dim, dim]`.
fn symmetric(dim: usize) -> Vec<f32> {
    let x = random(dim as u64, dim * dim);
    (0..dim * dim).map(|e| x[e / dim * dim + e % dim] + x[e % dim * dim + e / dim]).collect()
}

/// Flat vectors `[K, dim]` with zeros after each up to `stride`.
fn padded(flat: &[f32], dim: usize, stride: usize) -> Vec<f32> {
    let mut out = vec![0.0; flat.len() / dim * stride];
    for (from, to) in flat.chunks(dim).zip(out.chunks_mut(stride)) {
        to[..dim].copy_from_slice(from);
    }
    out
}

#[test]
fn blocks_hold_what_they_are_given() {
    for (gpu, shards_expected) in [(gpu(), 1), (&cramped(), 4)] {
        // 53 vectors of 192 words to a buffer of the cramped device
        let (stride, len) = (192, 200);
        let values = random(1, stride * len);
        let block = Block::upload(gpu, stride, &values).unwrap();
        assert_eq!((block.len(), block.stride(), block.is_empty()), (len, stride, false));
        assert!(block.download().unwrap() == values);
        assert_eq!(block.runs(0, len).len(), shards_expected);
        for (first, count) in [(0, len), (0, 1), (52, 2), (53, 106), (199, 1), (77, 0), (31, 150)] {
            let runs = block.runs(first, count);
            let mut next = first;
            for (at, run) in &runs {
                assert_eq!(*at, next, "runs of {first}, {count}");
                let vectors = run.len() / stride;
                let expected = &values[at * stride..(at + vectors) * stride];
                assert!(gpu.read::<f32>(run).unwrap() == expected, "runs of {first}, {count}, from {at} on");
                next += vectors;
            }
            assert_eq!(next, first + count, "runs of {first}, {count}");
        }
        let zeros = Block::zeros(gpu, stride, len).unwrap().download().unwrap();
        assert_eq!((zeros.len(), zeros.iter().find(|x| x.to_bits() != 0)), (stride * len, None));
        let empty = Block::zeros(gpu, stride, 0).unwrap();
        assert!(empty.is_empty() && empty.download().unwrap().is_empty() && empty.runs(0, 0).is_empty());
    }
}

#[test]
fn a_block_in_a_buffer_of_the_callers() {
    let gpu = cramped();
    let values = random(2, 64 * 3);
    let buffer = gpu.upload(&values).unwrap();
    let block = Block::from_buffer(&gpu, 64, 3, buffer.clone()).unwrap();
    assert!(block.download().unwrap() == values);
    // it is that buffer, not a copy
    gpu.write(&buffer.slice(64, 64), &[7.0f32; 64]).unwrap();
    assert_eq!(block.download().unwrap()[64..128], [7.0; 64]);
    let error = Block::from_buffer(&gpu, 64, 4, buffer).err().unwrap();
    assert_eq!(error.to_string(), "buffer of a block: found shape [192], expected [4, 64]");
    let long = gpu.buffer(64 * 161).unwrap();
    let error = Block::from_buffer(&gpu, 64, 161, long).err().unwrap();
    assert_eq!(error.to_string(), "buffer of a block: found shape [10304], expected [161, 64]");
    let error = Block::zeros(&gpu, 10_304, 1).err().unwrap();
    assert_eq!(
        error.to_string(),
        "out of device memory while making a block of vectors: a vector has 10304 words, a binding holds 10240"
    );
}

#[test]
fn dense_matrices_agree_with_f64() {
    let cramped = cramped();
    // the last two lie in three buffers of the cramped device, their blocks in two and more
    for (dim, k) in [(1, 1), (2, 3), (63, 2), (64, 5), (67, 1), (131, 70), (159, 107)] {
        let a = symmetric(dim);
        let x = random(7, k * dim);
        let product =
            DMatrix::from_row_slice(k, dim, &f64s(&x)) * DMatrix::from_row_slice(dim, dim, &f64s(&a));
        let expected: Vec<f64> = (0..k * dim).map(|e| product[(e / dim, e % dim)]).collect();
        for gpu in [gpu(), &cramped] {
            let what = format!("{k} products of dimension {dim}");
            let operator = DenseMatrix::new(gpu, dim, &a).unwrap();
            let stride = operator.stride();
            assert_eq!((operator.dim(), stride), (dim, dim.next_multiple_of(64)));
            let block = Block::upload(gpu, stride, &padded(&x, dim, stride)).unwrap();
            let product = Block::zeros(gpu, stride, k).unwrap();
            operator.apply(&block, &product).unwrap();
            operator.apply(&block, &product).unwrap(); // it replaces, it does not add
            let found = product.download().unwrap();
            let flat: Vec<f32> = found.chunks(stride).flat_map(|row| &row[..dim]).copied().collect();
            assert_close(&what, &flat, &expected, 2e-6, 1.0);
            assert!(found.chunks(stride).all(|row| row[dim..].iter().all(|&x| x == 0.0)), "{what}: the rest");
        }
    }
}

#[test]
fn what_is_no_symmetric_matrix_is_refused() {
    let refused = |dim, values: &[f32]| DenseMatrix::new(gpu(), dim, values).err().unwrap().to_string();
    assert_eq!(refused(2, &[1.0; 3]), "matrix: found shape [3], expected [2, 2]");
    assert_eq!(refused(0, &[]), "matrix: found shape [0], expected [0, 0]");
    let expected = "matrix: found 2 at (1, 0) and 3 at (0, 1), expected a symmetric matrix";
    assert_eq!(refused(2, &[1.0, 3.0, 2.0, 1.0]), expected);
    let expected = "matrix: found NaN at (1, 0) and 3 at (0, 1), expected a symmetric matrix";
    assert_eq!(refused(2, &[1.0, 3.0, f32::NAN, 1.0]), expected);
    let error = DenseMatrix::new(&cramped(), 161, &symmetric(161)).err().unwrap().to_string();
    assert_eq!(
        error,
        "out of device memory while uploading a matrix: 64 rows of 161 do not fit into one binding"
    );
    let operator = DenseMatrix::new(gpu(), 2, &[1.0, 0.0, 0.0, 1.0]).unwrap();
    let [two, three] = [2, 3].map(|k| Block::zeros(gpu(), 64, k).unwrap());
    let wide = Block::zeros(gpu(), 128, 2).unwrap();
    let refused = |x, y| operator.apply(x, y).unwrap_err().to_string();
    assert_eq!(refused(&two, &three), "block Y: found shape [3, 64], expected [2, 64]");
    assert_eq!(refused(&wide, &two), "block X: found shape [2, 128], expected [2, 64]");
}

/// A perceptron on random samples, uploaded and as f64 has it.
struct Net {
    name: String,
    network: Network,
    loss: Loss,
    theta: Vec<f32>,
    data: Dataset,
}

impl Net {
    fn new(widths: &[usize], sigma: Layer, bias: bool, loss: Loss, samples: usize) -> Net {
        let network = Network::new(&Model::mlp(widths, sigma.clone(), bias)).unwrap();
        let outputs = network.outputs();
        let classes = (0..samples).map(|p| (p * p % 11 % outputs) as u32).collect();
        let data = Dataset::new(random(3, samples * widths[0]), vec![widths[0]], Targets::Classes(classes));
        Net {
            name: format!("{widths:?} {sigma:?} {loss}, {samples} samples"),
            theta: random(5, network.dim()).into_iter().map(|x| 0.7 * x).collect(),
            loss,
            data: data.unwrap(),
            network,
        }
    }

    fn problem(&self, gpu: &Gpu) -> Session {
        Session::new(gpu, &self.network, &self.theta, &self.data, self.loss).unwrap()
    }

    fn reference(&self) -> reference::Problem {
        reference::Problem::new(self.network.model().unwrap(), self.loss, &self.theta, &self.data)
    }
}

/// Blocks over several buffers, and more directions than the memory budget takes at a time.
#[test]
fn curvature_applies_to_blocks_over_several_buffers() {
    let net = Net::new(&[5, 9, 4], Layer::Tanh, true, Loss::CrossEntropy, 37);
    let reference = net.reference();
    let all = net.network.all();
    let k = 61; // 40 vectors of 256 words to a buffer
    let v = random(8, k * all.dim);
    let gpu = own_device(bindings_of(40 << 10), Some(300_000));
    let problem = net.problem(&gpu);
    let block = Block::upload(&gpu, all.stride, &all.pad(&v).unwrap()).unwrap();
    assert_eq!((all.stride, block.runs(0, k).len()), (256, 2));
    for (which, expected) in [
        (Curvature::Hessian, reference.hvp(&v)),
        (Curvature::Ggn, reference.ggnvp(&v)),
        (Curvature::NoiseCovariance, reference.noise_covariance_vp(&v)),
    ] {
        let operator = problem.operator(which, &all).unwrap();
        assert_eq!((operator.dim(), operator.stride()), (all.dim, all.stride));
        assert!(operator.cost(k).unwrap().2.k < k, "{which:?}: the block should be cut");
        let product = Block::zeros(&gpu, all.stride, k).unwrap();
        operator.apply(&block, &product).unwrap();
        operator.apply(&block, &product).unwrap();
        let found = product.download().unwrap();
        assert_close(&format!("{which:?}"), &all.unpad(&found).unwrap(), &expected, 5e-6, 1e-3);
        let again = all.pad(&all.unpad(&found).unwrap()).unwrap();
        assert!(again == found, "{which:?}: words between the parameters are zero");
        // nothing of nothing
        let empty = Block::zeros(&gpu, all.stride, 0).unwrap();
        operator.apply(&empty, &empty).unwrap();
        let narrow = Block::zeros(&gpu, 64, k).unwrap();
        let error = operator.apply(&block, &narrow).unwrap_err().to_string();
        assert_eq!(error, "block Y: found shape [61, 64], expected [61, 256]");
    }
}

/// The parameters move, and the products of operators made since with them.
#[test]
fn operators_are_of_the_parameters_of_now() {
    let mut net = Net::new(&[3, 5, 2], Layer::Gelu, true, Loss::SquaredError, 9);
    let all = net.network.all();
    let v = random(8, all.dim);
    let problem = net.problem(gpu());
    let block = Block::upload(gpu(), all.stride, &all.pad(&v).unwrap()).unwrap();
    let product = Block::zeros(gpu(), all.stride, 1).unwrap();
    for scale in [1.0, -0.5] {
        net.theta.iter_mut().for_each(|x| *x *= scale);
        problem.set_parameters(&net.theta).unwrap();
        let operator = problem.operator(Curvature::Hessian, &all).unwrap();
        operator.apply(&block, &product).unwrap();
        let found = all.unpad(&product.download().unwrap()).unwrap();
        assert_close("H v", &found, &net.reference().hvp(&v), 5e-6, 1e-3);
    }
}

fn check_moments(net: &Net, gpu: &Gpu, layer: &str) {
    let moments = LayerMoments::measure(&net.problem(gpu), layer).unwrap();
    let expected = net.reference().layer_moments(layer);
    let shape = &net.network.parameters().iter().find(|p| p.name == layer).unwrap().shape;
    assert_eq!([moments.d_out, moments.d_in], shape[..], "{layer} of {}", net.name);
    assert_eq!(moments.samples, net.data.len());
    for (name, found, expected) in [
        ("H", &moments.hessian, &expected.hessian),
        ("C", &moments.covariance, &expected.gradient_moment),
        ("E[h²]", &moments.curvature_second_moment, &expected.squared_hessian),
    ] {
        let what = format!("{name} of {layer} of {}", net.name);
        let d = expected.nrows();
        assert_eq!((found.nrows(), found.ncols()), (d, d), "{what}");
        let found = DMatrix::from_fn(d, d, |i, j| found[(i, j)]);
        assert_eq!(found, found.transpose(), "{what} is symmetric to the last bit");
        assert_close(&what, found.as_slice(), expected.as_slice(), 2e-6, 1e-3);
        let top = |matrix: &DMatrix<f64>| {
            let mut values = matrix.symmetric_eigenvalues().as_slice().to_vec();
            values.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
            values.truncate(5);
            values
        };
        assert_close(&format!("eigenvalues of {what}"), &top(&found), &top(expected), 2e-6, 1e-3);
    }
}

#[test]
fn moments_of_a_layer_agree_with_explicit_hessians() {
    for loss in Loss::ALL {
        let net = Net::new(&[5, 7, 3, 4], Layer::Tanh, true, loss, 23);
        for layer in ["0.weight", "2.weight", "4.weight"] {
            check_moments(&net, gpu(), layer);
        }
    }
    for (widths, sigma, bias, samples) in [
        (&[1usize, 1, 1][..], Layer::Gelu, false, 1),
        (&[6, 5], Layer::Relu, false, 67),
        (&[4, 11, 6, 3], Layer::Relu, false, 131),
        (&[3, 8, 5, 2], Layer::Gelu, true, 7),
        (&[3, 4, 9, 2], Layer::LeakyRelu { negative_slope: 0.2 }, true, 11),
    ] {
        let net = Net::new(widths, sigma, bias, Loss::CrossEntropy, samples);
        for parameter in net.network.parameters().iter().filter(|p| p.name.ends_with("weight")) {
            check_moments(&net, gpu(), &parameter.name);
        }
    }
}

/// Batches that the budget cuts, the last of them ragged; and more samples than one batch takes.
#[test]
fn moments_of_a_layer_over_batches() {
    let net = Net::new(&[5, 7, 3, 4], Layer::Gelu, true, Loss::SoftmaxMse, 131);
    for budget in [30_000, 15_000, 12_000] {
        let gpu = Gpu::new(&GpuOptions { memory_budget: Some(budget), ..GpuOptions::from_env() }).unwrap();
        check_moments(&net, &gpu, "2.weight");
    }
    let gpu = Gpu::new(&GpuOptions { memory_budget: Some(7_000), ..GpuOptions::from_env() }).unwrap();
    let error = LayerMoments::measure(&net.problem(&gpu), "2.weight").unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("out of device memory while planning a sweep over one sample"), "{message}");
    assert!(message.contains("; the budget is 7000 and a binding holds "), "{message}");
    // a wide layer's directions have to stay together
    let net = Net::new(&[2, 3, 150, 2], Layer::Gelu, true, Loss::CrossEntropy, 3);
    let gpu = Gpu::new(&GpuOptions { memory_budget: Some(20_000), ..GpuOptions::from_env() }).unwrap();
    let error = LayerMoments::measure(&net.problem(&gpu), "2.weight").unwrap_err();
    assert_eq!(
        error.to_string(),
        "out of device memory while measuring a layer of 150 outputs: not even one sample's directions fit the \
         memory budget"
    );
    let net = Net::new(&[2, 3, 2], Layer::Tanh, false, Loss::CrossEntropy, 4_099);
    check_moments(&net, self::gpu(), "2.weight");
}

/// `H` of the whole network restricted to a layer is that layer's.
#[test]
fn moments_agree_with_operators() {
    let net = Net::new(&[6, 8, 5, 3], Layer::Tanh, true, Loss::CrossEntropy, 41);
    let problem = net.problem(gpu());
    let space = net.network.restricted(&["2.weight"]).unwrap();
    let d = space.dim;
    let identity: Vec<f32> = (0..d * d).map(|e| f32::from(u8::from(e / d == e % d))).collect();
    let hessian = problem.hvp(&space, &identity).unwrap();
    let moments = LayerMoments::measure(&problem, "2.weight").unwrap();
    let expected: Vec<f64> = (0..d * d).map(|e| moments.hessian[(e / d, e % d)]).collect();
    assert_close("H", &hessian, &expected, 2e-6, 1e-3);
    // C is the noise covariance and the mean gradient's square
    let layer = problem.layer("2.weight").unwrap().noise_covariance().unwrap();
    let noise = problem.noise_covariance_vp(&space, &identity).unwrap();
    let of_layer: Vec<f64> = (0..d * d).map(|e| layer[(e / d, e % d)]).collect();
    assert_close("C of the layer", &noise, &of_layer, 2e-6, 1e-3);
    let mean = f64s(&problem.gradient(&space).unwrap());
    let centred: Vec<f64> =
        (0..d * d).map(|e| moments.covariance[(e / d, e % d)] - mean[e / d] * mean[e % d]).collect();
    assert_close("C", &noise, &centred, 5e-6, 1e-3);
}

/// Where the mean gradient outweighs the noise a million times, the layer's noise covariance is right to single
/// precision of the gradients' differences, in which the uncentred second moment is rounding.
#[test]
fn a_layers_noise_outweighed_by_its_mean_gradient() {
    let (n, d_in, d_out) = (9, 4, 3);
    let network = Network::new(&Model::mlp(&[d_in, d_out], Layer::Relu, false)).unwrap();
    let inputs: Vec<f32> = (0..n * d_in).map(|e| 1.0 + 2f32.powi(-12) * (e * e % 31) as f32).collect();
    let values: Vec<f32> = (0..n * d_out).map(|e| 4.0 + 2f32.powi(-12) * (e * 7 % 17) as f32).collect();
    let targets = Targets::Values { values: values.clone(), width: d_out };
    let data = Dataset::new(inputs.clone(), vec![d_in], targets).unwrap();
    let session = Session::new(gpu(), &network, &vec![0.0; d_in * d_out], &data, Loss::SquaredError).unwrap();
    let found = session.layer("0.weight").unwrap().noise_covariance().unwrap();
    // weights of 0: δ is −y
    let gradient = |p: usize, i: usize| {
        -f64::from(values[p * d_out + i / d_in]) * f64::from(inputs[p * d_in + i % d_in])
    };
    let d = d_in * d_out;
    let mean: Vec<f64> = (0..d).map(|i| (0..n).map(|p| gradient(p, i)).sum::<f64>() / n as f64).collect();
    let entry = |i: usize, j: usize| {
        (0..n).map(|p| (gradient(p, i) - mean[i]) * (gradient(p, j) - mean[j])).sum::<f64>() / n as f64
    };
    let scale = (0..d).map(|i| entry(i, i)).fold(0.0, f64::max);
    let weight = mean.iter().map(|g| g * g).sum::<f64>();
    assert!(weight > 1e6 * scale, "{weight:e}, {scale:e}");
    for i in 0..d {
        for j in 0..d {
            let off = (found[(i, j)] - entry(i, j)).abs();
            assert!(off < 1e-3 * scale, "{i}, {j}: {} for {}", found[(i, j)], entry(i, j));
        }
    }
}

#[test]
fn layers_that_cannot_be_measured() {
    let net = Net::new(&[3, 5, 2], Layer::Tanh, true, Loss::CrossEntropy, 4);
    let problem = net.problem(gpu());
    for name in ["1.weight", "0.bias", "2"] {
        let message = LayerMoments::measure(&problem, name).unwrap_err().to_string();
        let expected = format!("layer: found “{name}”, expected a fully connected layer: 0.weight, 2.weight");
        assert_eq!(message, expected);
    }
    let layers = vec![Layer::Linear { out_features: 2, bias: false }, Layer::Flatten];
    let network = Network::new(&Model { input: vec![3, 4], layers, ..Model::default() }).unwrap();
    let data = Dataset::new(random(1, 12), vec![3, 4], Targets::Classes(vec![1])).unwrap();
    let problem = Session::new(gpu(), &network, &random(2, 8), &data, Loss::CrossEntropy).unwrap();
    assert_eq!(
        LayerMoments::measure(&problem, "0.weight").unwrap_err().to_string(),
        "layer: found “0.weight”, which is applied 3 times a sample, expected a layer that is applied once"
    );
    // overflow is no result
    let net = Net { theta: vec![1e30; net.theta.len()], loss: Loss::SquaredError, ..net };
    let message = LayerMoments::measure(&net.problem(gpu()), "0.weight").unwrap_err().to_string();
    assert!(message.ends_with("is not finite: the network's outputs or the loss overflow"), "{message}");
}
