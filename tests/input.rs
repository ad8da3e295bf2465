//! Input of the program: what is read and as what, what is refused and by which name, what is told of it.

mod program;

use std::fs;
use std::path::Path;

use program::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const EVAL: &str = "eval --model model.toml --weights weights.safetensors --out out.safetensors";

/// Every command that takes a checkpoint, or what one starts from, and data; each of the data file `data.safetensors`.
fn commands(loss: &str) -> [String; 4] {
    let data = "--data data.safetensors";
    [
        format!("{EVAL} {data} --loss {loss} --compute loss"),
        format!(
            "spectrum --model model.toml --weights weights.safetensors {data} --loss {loss} --operator ggn --top 1 --out run"
        ),
        format!(
            "train --model model.toml --weights weights.safetensors {data} --loss {loss} --learning-rate 0.01 --batch-size 1 --epochs 1 --out run"
        ),
        format!(
            "reproduce superlinear scaling --model model.toml --weights weights.safetensors {data} --loss {loss} --layer {} --batch-size 2 --top 3 --out run",
            "4.weight"
        ),
    ]
}

/// The text under `key` in the metadata of the file `name`.
fn metadata(place: &Place, name: &str, key: &str) -> Value {
    let bytes = place.read(name);
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    serde_json::from_str(&header.metadata().as_ref().unwrap()[key]).unwrap()
}

/// The tensors of `weights.safetensors` under other names, in another precision.
fn rewritten(place: &Place, change: impl Fn(&str, &[f32]) -> (String, Dtype, Vec<u8>)) -> Vec<u8> {
    let tensors = place.tensors("weights.safetensors");
    let changed: Vec<_> = tensors
        .iter()
        .map(|(name, (_, shape, bytes))| {
            let values: Vec<f32> =
                bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            (change(name, &values), shape)
        })
        .collect();
    let tensors: Vec<_> = changed.iter().map(|((n, d, b), s)| (n.as_str(), *d, &s[..], &b[..])).collect();
    safetensors(&tensors)
}

// -------------------------------------------------------------------------------------------------- shapes

/// Images `[3, 4, 4]` for a convolution and a fully connected layer of 3 outputs.
fn images() -> Place {
    let place = Place::empty();
    place.write(
        "model.toml",
        "input = [3, 4, 4]\n[[layers]]\ntype = \"conv2d\"\nout_channels = 2\nkernel_size = 3\n[[layers]]\ntype = \"flatten\"\n[[layers]]\ntype = \"relu\"\n[[layers]]\ntype = \"relu\"\n[[layers]]\ntype = \"linear\"\nout_features = 3\n",
    );
    let some = |count: usize, start: usize| {
        f32s(&(0..count).map(|i| ((start + 7 * i) % 19) as f32 / 19.0 - 0.4).collect::<Vec<_>>())
    };
    place.write(
        "weights.safetensors",
        safetensors(&[
            ("0.weight", Dtype::F32, &[2, 3, 3, 3], &some(54, 1)),
            ("0.bias", Dtype::F32, &[2], &some(2, 2)),
            ("4.weight", Dtype::F32, &[3, 8], &some(24, 3)),
            ("4.bias", Dtype::F32, &[3], &some(3, 4)),
        ]),
    );
    place
}

fn write_images(place: &Place, shape: &[usize], targets: &[usize]) {
    let inputs: Vec<f32> = (0..5 * 48).map(|i| (i * 11 % 23) as f32 / 23.0).collect();
    place.write(
        "data.safetensors",
        safetensors(&[
            ("inputs", Dtype::F32, shape, &f32s(&inputs)),
            ("targets", Dtype::I64, targets, &i64s(&[0, 1, 2, 1, 0])),
        ]),
    );
}

#[test]
fn shapes_are_compared_axis_by_axis() {
    let place = images();
    let eval = &commands("cross-entropy")[0];
    let loss = |shape: &[usize], targets: &[usize]| {
        write_images(&place, shape, targets);
        place.done(eval);
        place.values("out.safetensors", "loss").1[0]
    };
    let expected = loss(&[5, 3, 4, 4], &[5]);
    for shape in [&[5, 48][..], &[5, 1, 48], &[5, 3, 4, 1, 4], &[5, 1, 3, 4, 4]] {
        assert_eq!(loss(shape, &[5]), expected, "{shape:?}");
    }
    assert_eq!(loss(&[5, 3, 4, 4], &[5, 1]), expected);
    for shape in [&[4, 4, 3][..], &[3, 2, 8], &[3, 16], &[4, 3, 4]] {
        write_images(&place, &[&[5], shape].concat(), &[5]);
        for command in commands("cross-entropy") {
            assert_eq!(
                place.refused(&command),
                format!("data.safetensors: inputs: one sample: found shape {shape:?}, expected [3, 4, 4]")
            );
        }
    }
}

/// The axes of published images, against models that have others.
#[test]
fn shapes_of_published_images() {
    let place = Place::empty();
    let header = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    place.write("t10k-images-idx3-ubyte", [header(&[0x803, 2, 4, 6]), (0..48).collect()].concat());
    place.write("t10k-labels-idx1-ubyte", [header(&[0x801, 2]), vec![1, 0]].concat());
    place.write("test_batch.bin", [&[1][..], &[7; 3072], &[0], &[9; 3072]].concat());
    let train = |dataset: &str, input: &[usize]| {
        let rest = "[[layers]]\ntype = \"flatten\"\n[[layers]]\ntype = \"linear\"\nout_features = 10\n";
        place.write("model.toml", format!("input = {input:?}\n{rest}"));
        format!(
            "train --model model.toml --loss cross-entropy --learning-rate 0.1 --batch-size 1 --epochs 1 --dataset {dataset} --data-dir . --test --limit 2 --out run"
        )
    };
    for (dataset, shape, input) in [
        ("mnist", "[1, 4, 6]", &[6, 4][..]),
        ("mnist", "[1, 4, 6]", &[1, 6, 4]),
        ("mnist", "[1, 4, 6]", &[2, 12]),
        ("cifar10", "[3, 32, 32]", &[32, 32, 3]),
        ("cifar10", "[3, 32, 32]", &[3, 1024]),
    ] {
        assert_eq!(
            place.refused(&train(dataset, input)),
            format!("{dataset}: inputs: one sample: found shape {shape}, expected {input:?}")
        );
    }
    for (dataset, input) in [
        ("mnist", &[4, 6][..]),
        ("mnist", &[24]),
        ("mnist", &[1, 24]),
        ("cifar10", &[3072]),
        ("cifar10", &[3, 32, 32]),
    ] {
        place.done(&train(dataset, input));
        fs::remove_dir_all(place.path().join("run")).unwrap();
    }
}

/// Channels are those of the model where the file's samples are flat, not one for all values.
#[test]
fn channels_to_standardise_are_the_models() {
    let place = images();
    let eval = format!("{} --standardize", commands("cross-entropy")[0]);
    let loss = |shape: &[usize]| {
        write_images(&place, shape, &[5]);
        place.done(&eval);
        place.values("out.safetensors", "loss").1[0]
    };
    let expected = loss(&[5, 3, 4, 4]);
    assert_eq!(loss(&[5, 48]), expected);
    assert_eq!(loss(&[5, 3, 4, 1, 4]), expected);
}

/// Values for one output, with and without their axis.
#[test]
fn targets_of_one_output() {
    let place = Place::empty();
    place.write("model.toml", "input = [2]\n[[layers]]\ntype = \"linear\"\nout_features = 1\n");
    place.write(
        "weights.safetensors",
        safetensors(&[
            ("0.weight", Dtype::F32, &[1, 2], &f32s(&[1.0, -0.5])),
            ("0.bias", Dtype::F32, &[1], &f32s(&[0.5])),
        ]),
    );
    let eval = &commands("mse")[0];
    let write = |dtype, shape: &[usize], targets: &[u8]| {
        let inputs = f32s(&[1.0, 2.0, 0.0, 4.0, -1.0, 1.0]);
        place.write(
            "data.safetensors",
            safetensors(&[("inputs", Dtype::F32, &[3, 2], &inputs), ("targets", dtype, shape, targets)]),
        );
    };
    for shape in [&[3][..], &[3, 1], &[3, 1, 1]] {
        write(Dtype::F32, shape, &f32s(&[0.5, 0.5, -1.0]));
        place.done(eval);
        assert_eq!(place.values("out.safetensors", "loss").1, [f64::from(4.0f32 / 3.0)], "{shape:?}");
    }
    write(Dtype::F32, &[3, 2], &f32s(&[0.0; 6]));
    assert_eq!(place.refused(eval), "data.safetensors: targets: found shape [3, 2], expected [3, 1]");
    write(Dtype::I64, &[3, 2], &i64s(&[0; 6]));
    assert_eq!(place.refused(eval), "data.safetensors: tensor targets: found shape [3, 2], expected [3]");
}

// ------------------------------------------------------------------------------------ coordinates of a subset

/// Vectors and results are in the order in which parameters are named, and files say so.
#[test]
fn parameters_in_the_order_named() {
    let place = Place::of("cross-entropy"); // 7 → 11 → 5 → 4
    let (bias, weight) = (5, 55);
    let dim = bias + weight;
    let vectors: Vec<f32> = (0..2 * dim).map(|i| (i * 13 % 29) as f32 / 29.0 - 0.5).collect();
    // vectors of 2.weight, 2.bias from vectors of 2.bias, 2.weight
    let turned = |rows: &[f64]| -> Vec<f64> {
        rows.chunks(dim).flat_map(|row| [&row[bias..], &row[..bias]].concat()).collect()
    };
    let as_f64: Vec<f64> = vectors.iter().map(|&x| x.into()).collect();
    let others: Vec<f32> = turned(&as_f64).iter().map(|&x| x as f32).collect();
    place.write("first.safetensors", safetensors(&[("v", Dtype::F32, &[2, dim], &f32s(&vectors))]));
    place.write("second.safetensors", safetensors(&[("v", Dtype::F32, &[2, dim], &f32s(&others))]));
    let quantities = ["gradient", "per_sample_gradient", "hvp", "ggnvp", "noise_covariance_vp", "third"];
    let eval = format!(
        "{EVAL} --data data.safetensors --loss cross-entropy --compute {}",
        quantities.join(",").replace('_', "-")
    );
    place.done(&format!("{eval} --parameters 2.weight,2.bias --vectors second.safetensors"));
    let expected = quantities.map(|name| place.values("out.safetensors", name).1);
    place.done(&format!("{eval} --parameters 2.bias,2.weight --vectors first.safetensors"));
    for (name, expected) in quantities.iter().zip(&expected) {
        let found = place.values("out.safetensors", name).1;
        assert!(distance(&turned(&found), expected) < 1e-6, "{name}");
        assert!(distance(&found, expected) > 1e-2, "{name}");
    }
    let layout = serde_json::json!([
        { "name": "2.bias", "shape": [5], "offset": 0 }, { "name": "2.weight", "shape": [5, 11], "offset": 5 },
    ]);
    assert_eq!(metadata(&place, "out.safetensors", "layout"), layout);

    // eigenvectors of the one order, read as directions of the other
    let spectrum = "spectrum --model model.toml --weights weights.safetensors --data data.safetensors --loss cross-entropy --operator ggn --top 2 --trace";
    place.done(&format!("{spectrum} --parameters 2.bias,2.weight --out run"));
    for file in ["run/eigenvectors.safetensors", "run/diagonal.safetensors"] {
        assert_eq!(metadata(&place, file, "layout"), layout, "{file}");
    }
    let (shape, values) = place.values("run/eigenvectors.safetensors", "eigenvectors");
    let values = f32s(&values.iter().map(|&x| x as f32).collect::<Vec<_>>());
    place.write("v.safetensors", with_metadata(("v", &shape, &values), ("layout", &layout.to_string())));
    place.done(&format!("{eval} --parameters 2.bias,2.weight --vectors v.safetensors"));
    let products = place.values("out.safetensors", "ggnvp").1;
    let eigenvalues = place.text("run/eigenvalues.csv");
    let first: f64 = eigenvalues.lines().nth(1).unwrap().split(',').nth(1).unwrap().parse().unwrap();
    let (_, found) = place.values("v.safetensors", "v");
    let scaled: Vec<f64> = found[..dim].iter().map(|x| first * x).collect();
    assert!(distance(&products[..dim], &scaled) < 1e-3);
    assert_eq!(
        place.refused(&format!("{eval} --parameters 2.weight,2.bias --vectors v.safetensors")),
        "v.safetensors: layout of the vectors: found 2.bias [5] at 0, expected 2.weight [5, 11] at 0"
    );
    place.done(
        "train --model model.toml --data data.safetensors --loss cross-entropy --learning-rate 0.1 --batch-size 4 --epochs 1 --out trained",
    );
    let layout = metadata(&place, "trained/checkpoint.safetensors", "layout");
    assert_eq!(layout[1], serde_json::json!({ "name": "0.bias", "shape": [11], "offset": 77 }));
}

/// A safetensors file of one F32 tensor (name, shape, bytes) and a text in its metadata.
fn with_metadata((name, shape, bytes): (&str, &[usize], &[u8]), (key, text): (&str, &str)) -> Vec<u8> {
    let view = safetensors::tensor::TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
    let metadata = [(key.to_string(), text.to_string())].into();
    ::safetensors::serialize([(name, view)], Some(metadata)).unwrap()
}

// ---------------------------------------------------------------------------------------- numbers of samples

#[test]
fn fewer_samples_than_meant() {
    let place = Place::empty();
    place.write(
        "model.toml",
        "input = [3, 32, 32]\n[[layers]]\ntype = \"avg_pool2d\"\nkernel_size = 32\n[[layers]]\ntype = \"flatten\"\n[[layers]]\ntype = \"linear\"\nout_features = 10\n",
    );
    let zeros = f32s(&[0.0; 30]);
    place.write(
        "weights.safetensors",
        safetensors(&[
            ("2.weight", Dtype::F32, &[10, 3], &zeros),
            ("2.bias", Dtype::F32, &[10], &zeros[..40]),
        ]),
    );
    let eval = format!("{EVAL} --dataset cifar10 --data-dir . --loss cross-entropy --compute loss");
    let record = |label: u8| [&[label][..], &[0; 3072]].concat();
    let whole: Vec<u8> = (0..10_000).flat_map(|i| record((i % 10) as u8)).collect();
    place.write("data_batch_1.bin", &whole);
    for (options, told) in [("", ""), ("--limit 10001", ""), ("--per-class 1001", "")] {
        assert_eq!(
            place.refused(&format!("{eval} {options}")),
            format!(
                ".: found no data_batch_2.bin, here or in the folder cifar-10-batches-bin; --limit or --per-class, within the first 10000 samples, asks for fewer than all{told}"
            )
        );
    }
    for (options, samples) in [("--limit 10000", 10_000), ("--per-class 3 --classes 0,7", 6)] {
        let told: Value = serde_json::from_str(&place.done(&format!("{eval} {options} --json"))).unwrap();
        assert_eq!(told["samples"], samples);
        assert_eq!(told["run"]["samples"], samples);
        let text = place.done(&format!("{eval} {options}"));
        assert!(text.contains(&format!("\nsamples   {samples}\n")), "{text}");
    }
    place.write("data_batch_2.bin", record(3));
    assert_eq!(
        place.refused(&eval),
        "./data_batch_2.bin: found 1 records, expected 10000; --limit or --per-class, within the first 10001 samples, asks for fewer than all"
    );
    // as much as the preset asks for, before anything is trained
    assert_eq!(
        place.refused("reproduce superlinear table1 --dataset cifar10 --data-dir . --preset paper --out run"),
        "./data_batch_2.bin: found 1 records, expected 10000; --limit or --per-class, within the first 10001 samples, asks for fewer than all"
    );
}

#[test]
fn every_result_tells_the_number_of_samples() {
    let place = Place::of("cross-entropy"); // 13 samples
    let some = "--limit 11";
    let [_, spectrum, train, _] = commands("cross-entropy");
    let told = place.done(&format!("{spectrum} {some}"));
    assert!(told.starts_with("Gauss–Newton matrix of 172 parameters over 11 samples\n"), "{told}");
    let run: Value = serde_json::from_str(&place.text("run/run.json")).unwrap();
    assert_eq!((&run["samples"], &run["results"]["samples"]), (&11.into(), &11.into()));
    fs::remove_dir_all(place.path().join("run")).unwrap();
    let told = place.done(&format!("{train} {some}"));
    assert!(told.contains(", 11 samples\n"), "{told}");
    let run: Value = serde_json::from_str(&place.text("run/run.json")).unwrap();
    assert_eq!(run["samples"], 11);
    fs::remove_dir_all(place.path().join("run")).unwrap();
    let json: Value = serde_json::from_str(&place.done(&format!("{train} {some} --json"))).unwrap();
    assert_eq!(json["samples"], 11);
}

// ------------------------------------------------------------------------------------------------- precision

/// Numbers of 16 bits are the numbers that they are; those of 64 are rounded, and refused where f32 ends.
#[test]
fn half_and_double_precision() {
    let place = Place::of("cross-entropy");
    let eval = format!(
        "{EVAL} --data data.safetensors --loss cross-entropy --compute loss,hvp --vectors vectors.safetensors"
    );
    let results = || {
        place.done(&eval);
        let out = place.tensors("out.safetensors");
        (out["loss"].clone(), out["hvp"].clone())
    };
    // bf16: the upper half of an f32; f16: exponent and fraction moved, here without subnormals
    let bf16 = |x: f32| ((x.to_bits() >> 16) as u16, f32::from_bits(x.to_bits() & 0xffff_0000));
    let f16 = |x: f32| {
        let bits = x.to_bits();
        let (sign, exponent, fraction) = (bits >> 31, (bits >> 23 & 0xff) as i32 - 127, bits >> 13 & 0x3ff);
        match exponent {
            -14..=15 => {
                let half = sign << 15 | ((exponent + 15) as u32) << 10 | fraction;
                (half as u16, f32::from_bits(bits & 0xffff_e000))
            }
            _ => ((sign << 15) as u16, 0.0 * x),
        }
    };
    let good = place.read("weights.safetensors");
    type Half<'a> = &'a dyn Fn(f32) -> (u16, f32);
    let kinds: [(Dtype, Half); 2] = [(Dtype::F16, &f16), (Dtype::BF16, &bf16)];
    for (dtype, half) in kinds {
        place.write("weights.safetensors", &good);
        let rounded = rewritten(&place, |name, values| {
            let values: Vec<f32> = values.iter().map(|&x| half(x).1).collect();
            (name.into(), Dtype::F32, f32s(&values))
        });
        let halves = rewritten(&place, |name, values| {
            let bytes = values.iter().flat_map(|&x| half(x).0.to_le_bytes()).collect();
            (name.into(), dtype, bytes)
        });
        place.write("weights.safetensors", rounded);
        let expected = results();
        place.write("weights.safetensors", halves);
        assert!(results() == expected, "{dtype}");
    }
    place.write("weights.safetensors", &good);
    let expected = results();
    place.write(
        "weights.safetensors",
        rewritten(&place, |name, values| {
            let bytes = values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
            (name.into(), Dtype::F64, bytes)
        }),
    );
    assert!(results() == expected);
    place.write("weights.safetensors", &good);
    place.write(
        "weights.safetensors",
        rewritten(&place, |name, values| {
            let bytes = values.iter().flat_map(|&x| (f64::from(x) * 1e39).to_le_bytes()).collect();
            (name.into(), Dtype::F64, bytes)
        }),
    );
    let refused = place.refused(&eval);
    assert!(refused.starts_with("weights.safetensors: tensor 0.weight: found "), "{refused}");
    assert!(refused.contains("e38") && refused.ends_with(" at [0, 2], expected a finite f32"), "{refused}");
}

/// Inputs, targets and directions of 16 bits.
#[test]
fn half_precision_everywhere() {
    let place = Place::empty();
    place.write("model.toml", "input = [2]\n[[layers]]\ntype = \"linear\"\nout_features = 1\nbias = false\n");
    let halves = |bits: &[u16]| bits.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<u8>>();
    let (one, two, minus) = (0x3c00, 0x4000, 0xbc00);
    let (bone, btwo) = (0x3f80, 0x4000);
    place.write(
        "weights.safetensors",
        safetensors(&[("0.weight", Dtype::BF16, &[1, 2], &halves(&[bone, btwo]))]),
    );
    place.write(
        "data.safetensors",
        safetensors(&[
            ("inputs", Dtype::F16, &[2, 2], &halves(&[one, one, two, minus])),
            ("targets", Dtype::BF16, &[2, 1], &halves(&[bone, btwo])),
        ]),
    );
    place.write("v.safetensors", safetensors(&[("v", Dtype::F16, &[1, 2], &halves(&[one, two]))]));
    place.done(&format!(
        "{EVAL} --data data.safetensors --loss squared-error --compute loss,hvp --vectors v.safetensors"
    ));
    // outputs 3 and 0, residuals 2 and −2; H = ½ (1 1; 1 1) + ½ (4 −2; −2 1)
    assert_eq!(place.values("out.safetensors", "loss").1, [2.0]);
    assert_eq!(place.values("out.safetensors", "hvp").1, [1.5, 1.5]);
}

#[test]
fn names_of_wrapped_models() {
    let place = Place::of("cross-entropy");
    let eval = &commands("cross-entropy")[0];
    place.done(eval);
    let expected = place.values("out.safetensors", "loss");
    let good = place.read("weights.safetensors");
    let prefixed = |prefix: &str| {
        place.write("weights.safetensors", &good);
        let renamed = rewritten(&place, |name, values| (format!("{prefix}{name}"), Dtype::F32, f32s(values)));
        place.write("weights.safetensors", renamed);
    };
    for prefix in ["module.", "_orig_mod.", "_orig_mod.module."] {
        prefixed(prefix);
        place.done(eval);
        assert!(place.values("out.safetensors", "loss") == expected, "{prefix}");
    }
    prefixed("net.");
    for command in commands("cross-entropy") {
        let refused = place.refused(&command);
        assert!(
            refused.starts_with(
                "weights.safetensors: 0.weight [11, 7] is missing; 0.bias [11] is missing; 2.weight [5, 11] is missing; 2.bias [5] is missing; and 2 more are missing; net."
            ),
            "{refused}"
        );
        assert!(
            refused.ends_with(" is not among the model's parameters; and 2 more are not among them"),
            "{refused}"
        );
    }
}

// ------------------------------------------------------------------------------------------------ the culprit

#[test]
fn layers_and_keys_of_a_model_are_named() {
    let place = Place::of("cross-entropy");
    let eval = &commands("cross-entropy")[0];
    let linear = "[[layers]]\ntype = \"linear\"\nout_features = 4\n";
    let cases = [
        (
            format!("input = [7]\n{linear}[[layers]]\ntype = \"tanh\"\n[[layers]]\ntype = \"linear\"\nout_features = -5\n"),
            "line 9: layer 2 (linear): out_features: found -5, expected a whole number, 0 or more",
        ),
        (
            format!("input = [7]\n{linear}[[layers]]\ntype = \"residual\"\n[[layers.body]]\ntype = \"linear\"\nout_features = 2.5\n"),
            "line 9: layer 1.body.0 (linear): out_features: found 2.5, expected a whole number, 0 or more",
        ),
        (
            format!("input = [7]\n{linear}bias = 1\n"),
            "line 5: layer 0 (linear): bias: found 1, expected true or false",
        ),
        (
            format!("input = [7]\n{linear}[[layers]]\ntype = \"leaky_relu\"\nnegative_slope = \"0.1\"\n"),
            "line 7: layer 1 (leaky_relu): negative_slope: found string \"0.1\", expected a number",
        ),
        (
            format!("input = [7]\n{linear}[[layers]]\ntype = \"leaky_relu\"\nnegative_slope = nan\n"),
            "layer 1 (leaky_relu): negative_slope: found NaN, expected a finite number",
        ),
        (
            "input = [3, 5, 5]\n[[layers]]\ntype = \"conv2d\"\nout_channels = 2\nkernel_size = 3\npadding = -1\nstride = -1\n"
                .into(),
            "line 6: layer 0 (conv2d): padding: found -1, expected a whole number, 0 or more",
        ),
        (
            "input = [3, 5, 5]\n[[layers]]\ntype = \"conv2d\"\nout_channels = 2\nkernel_size = 3\npadding = 9223372036854775807\n"
                .into(),
            "layer 0 (conv2d): padding: found 9223372036854775807, expected 0 to 4294967295",
        ),
        (
            "input = [3, 5, 5]\n[[layers]]\ntype = \"max_pool2d\"\nkernel_size = 2\nstride = 0\n".into(),
            "layer 0 (max_pool2d): stride: found 0, expected 1 to 4294967295",
        ),
        (
            format!("input = [7, -2]\n{linear}"),
            "line 1: input: found -2, expected a whole number, 0 or more",
        ),
        (
            format!("input = [7]\ntokens = \"many\"\n{linear}"),
            "line 2: tokens: found string \"many\", expected a whole number, 0 or more",
        ),
        (
            format!("input = [7]\n{linear}[[layers]]\ntype = \"linear\"\n"),
            "line 5: layer 1 (linear): missing field `out_features`",
        ),
        (
            format!("input = [7]\n{linear}[[layers]]\nout_features = 3\n"),
            "line 5: layer 1: missing field `type`",
        ),
        (format!("inputs = [7]\n{linear}"), "line 1: unknown field `inputs`, expected one of `input`, `tokens`, `initialisation`, `layers`"),
    ];
    for (model, expected) in cases {
        place.write("model.toml", model);
        assert_eq!(place.refused(eval), format!("model.toml: {expected}"));
    }
}

/// Values that are numbers, but too large to compute with.
#[test]
fn values_that_overflow_are_named() {
    let place = Place::empty();
    place.write(
        "model.toml",
        "input = [2]\n[[layers]]\ntype = \"linear\"\nout_features = 2\n[[layers]]\ntype = \"tanh\"\n[[layers]]\ntype = \"relu\"\n[[layers]]\ntype = \"relu\"\n[[layers]]\ntype = \"linear\"\nout_features = 2\n",
    );
    let write = |first: f32, last: f32, input: f32, target: f32, length: f32| {
        let row = |x: f32| f32s(&[x, 0.5 * x, -x, 0.25 * x]);
        place.write(
            "weights.safetensors",
            safetensors(&[
                ("0.weight", Dtype::F32, &[2, 2], &row(first)),
                ("0.bias", Dtype::F32, &[2], &f32s(&[0.1, 0.2])),
                ("4.weight", Dtype::F32, &[2, 2], &row(last)),
                ("4.bias", Dtype::F32, &[2], &f32s(&[0.1, 0.2])),
            ]),
        );
        place.write(
            "data.safetensors",
            safetensors(&[
                ("inputs", Dtype::F32, &[2, 2], &f32s(&[0.5, 0.25, input, 0.5])),
                ("targets", Dtype::F32, &[2, 2], &f32s(&[0.0, 1.0, target, 0.5])),
            ]),
        );
        place.write("v.safetensors", safetensors(&[("v", Dtype::F32, &[1, 12], &f32s(&[length; 12]))]));
    };
    let why = "loss is not finite: sample";
    let cases = [
        (
            (1.0, 1e30, 0.5, 0.5),
            format!("{why} 0 has inf: it overflows by weights as large as 1e30, of 4.weight"),
        ),
        ((1.0, 1.0, 0.5, 1e30), format!("{why} 1 has inf: it overflows by targets as large as 1e30")),
    ];
    for ((first, last, input, target), expected) in cases {
        write(first, last, input, target, 1.0);
        for command in &commands("mse")[..3] {
            let outcome = place.run(command);
            assert_eq!((outcome.code, outcome.err), (Some(2), format!("curvkit: {expected}\n")), "{command}");
        }
    }
    write(1.0, 1.0, 0.5, 0.5, 1e38);
    let refused = place.refused(&format!(
        "{EVAL} --data data.safetensors --loss mse --compute third --vectors v.safetensors"
    ));
    assert!(refused.starts_with("third is not finite: element 0 is "), "{refused}");
    assert!(refused.contains(": it overflows by direction 0, of length 3.46"), "{refused}");
}

#[test]
fn adapters_by_numbers_in_their_names() {
    let place = Place::of("mse");
    let listed: Value = serde_json::from_str(&place.done("adapters --json")).unwrap();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    let is_digit = |c: char| c.is_ascii_digit();
    let number =
        names[0].split(|c| !is_digit(c)).find(|part| part.parse::<usize>().is_ok_and(|n| n >= names.len()));
    let Some(number) = number else {
        println!("skipped: no number in {}", names[0]);
        return;
    };
    let eval = format!("{EVAL} --data data.safetensors --loss mse --compute loss");
    let having = names.iter().filter(|name| name.contains(number)).count();
    if having == 1 {
        let told: Value =
            serde_json::from_str(&place.done(&format!("{eval} --json --adapter {number}"))).unwrap();
        assert_eq!(told["run"]["adapter"]["name"], names[0]);
    } else {
        let refused = place.refused(&format!("{eval} --adapter {number}"));
        assert!(
            refused.starts_with(&format!("--adapter: found “{number}”, of {having} adapters")),
            "{refused}"
        );
    }
}

// -------------------------------------------------------------------------------------------------- warnings

/// Runs what has to succeed; gives what it told on standard error.
fn told(place: &Place, args: &str) -> String {
    let outcome = place.run(args);
    assert_eq!(outcome.code, Some(0), "{args}: {}", outcome.err);
    outcome.err
}

#[test]
fn tensors_that_nobody_reads_are_named() {
    let place = Place::of("transformer-norm-first"); // ids 0 to 8, 5 a sample
    let eval = format!("{EVAL} --data data.safetensors --loss cross-entropy --compute loss");
    let write = |mask: &str, last: i64| {
        let ids = i64s(&[0, 8, 1, 2, 3, 4, 5, 6, last, last]);
        let mask = (mask, Dtype::F32, &[2, 5][..], &f32s(&[1.0; 10])[..]);
        place.write(
            "data.safetensors",
            safetensors(&[
                ("inputs", Dtype::I64, &[2, 5], &ids),
                mask,
                ("targets", Dtype::I64, &[2], &i64s(&[0, 1])),
            ]),
        );
    };
    write("mask", 0);
    assert_eq!(told(&place, &eval), "");
    write("attention_mask", 1);
    let unread = "curvkit: warning: data.safetensors: not read: attention_mask; what is read here is inputs, mask, targets\n";
    for options in ["", "--json", "--quiet"] {
        assert_eq!(told(&place, &format!("{eval} {options}")), unread);
    }
    write("attention_mask", 0);
    assert_eq!(
        told(&place, &eval),
        format!(
            "curvkit: warning: data.safetensors: no tensor mask: every token is kept, although 1 of 2 samples end in ids 0\n{unread}"
        )
    );
    let place = Place::of("mse");
    let v = place.tensors("vectors.safetensors").remove("v").unwrap();
    place.write(
        "v.safetensors",
        safetensors(&[("v", v.0, &v.1, &v.2), ("w", Dtype::F32, &[1], &f32s(&[1.0]))]),
    );
    assert_eq!(
        told(
            &place,
            &format!("{EVAL} --data data.safetensors --loss mse --compute hvp --vectors v.safetensors")
        ),
        "curvkit: warning: v.safetensors: not read: w; what is read here is v\n"
    );
}

/// What drivers and the loader say of themselves is not heard where the program is told to be quiet, and no "error:"
/// of a layer that looks for a desktop is heard at all.
#[cfg(target_os = "linux")]
#[test]
fn drivers_are_not_heard() {
    let place = Place::of("mse");
    let eval = format!("{EVAL} --data data.safetensors --loss mse --compute loss");
    for args in ["adapters", &eval] {
        let mut command = place.command(args);
        let outcome = outcome(&mut command);
        assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{args}");
    }
    let mut command = place.command(&eval);
    let loud = outcome(command.env("VK_LOADER_DEBUG", "all"));
    assert!(loud.code == Some(0) && !loud.err.is_empty(), "the loader says nothing that could be left out");
    let mut command = place.command(&format!("{eval} --quiet"));
    let quiet = outcome(command.env("VK_LOADER_DEBUG", "all"));
    assert_eq!((quiet.code, quiet.out.as_str(), quiet.err.as_str()), (Some(0), "", ""));
    // errors are
    let mut command = place.command(&format!("{eval} --quiet --adapter nosuch"));
    let refused = place.refused_command(command.env("VK_LOADER_DEBUG", "all"));
    assert!(refused.starts_with("--adapter: found “nosuch”, expected one of "), "{refused}");
}

// ---------------------------------------------------------------------------------------- states that were saved

/// A state to resume from is taken as it was written, or not at all.
#[test]
fn damaged_training_states() {
    let place = Place::of("mse");
    let train = "train --model model.toml --data data.safetensors --loss mse --learning-rate 0.05 --batch-size 4 --out run";
    place.done(&format!("{train} --epochs 2"));
    let state = place.read("run/checkpoint.safetensors");
    let more = format!("{train} --epochs 3 --resume");
    let header = 8 + u64::from_le_bytes(state[..8].try_into().unwrap()) as usize;
    for (at, bit) in [(header + 2, 0), (header + 3, 7), (state.len() - 1, 3)] {
        let mut damaged = state.clone();
        damaged[at] ^= 1 << bit;
        place.write("run/checkpoint.safetensors", damaged);
        assert_eq!(
            place.refused(&more),
            "run/checkpoint.safetensors: damaged: the content is not what its checksum says"
        );
    }
    let text = std::str::from_utf8(&state[8..header]).unwrap();
    let epoch = 8 + text.find("\"epoch\":\"2\"").unwrap() + "\"epoch\":\"".len();
    let mut damaged = state.clone();
    damaged[epoch] = b'1';
    place.write("run/checkpoint.safetensors", damaged);
    assert_eq!(
        place.refused(&more),
        "run/checkpoint.safetensors: damaged: the content is not what its checksum says"
    );
    for at in (0..header).step_by(7) {
        let mut damaged = state.clone();
        damaged[at] ^= 16;
        place.write("run/checkpoint.safetensors", damaged);
        let refused = place.refused(&more);
        assert!(refused.starts_with("run/checkpoint.safetensors: "), "{at}: {refused}");
    }
    place.write("run/checkpoint.safetensors", &state);
    place.done(&more);
    assert!(Path::new(&place.path().join("run/weights.safetensors")).exists());
}
