//! The command line: good input against f64 references and against itself, bad input against its message.

mod program;

use std::fs;
use std::process::Stdio;

use program::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const EVAL: &str =
    "eval --model model.toml --weights weights.safetensors --data data.safetensors --out out.safetensors";
const ALL: &str = "loss,gradient,per-sample-gradient,hvp,ggnvp,noise-covariance-vp,third";
const TRAIN: &str = "train --model model.toml --data data.safetensors --learning-rate 0.05 --batch-size 4";

/// A data set of tokens: ids `[N, T]`, a mask if there is one, class p mod 2 for sample p.
fn tokens(shape: &[usize], ids: &[u8], mask: Option<&[f32]>) -> Vec<u8> {
    let classes: Vec<i64> = (0..shape[0] as i64).map(|p| p % 2).collect();
    let (mask, classes) = (mask.map(f32s), i64s(&classes));
    let mut tensors =
        vec![("inputs", Dtype::I64, shape, ids), ("targets", Dtype::I64, &shape[..1], &classes[..])];
    tensors.extend(mask.as_ref().map(|mask| ("mask", Dtype::F32, shape, &mask[..])));
    safetensors(&tensors)
}

// ------------------------------------------------------------------------------------------- good input

#[test]
fn eval_agrees_with_f64() {
    let cases = [
        ("cross-entropy", "cross-entropy"),
        ("mse", "mse"),
        ("softmax-mse", "softmax-mse"),
        ("squared-error", "squared-error"),
        ("conv", "cross-entropy"),
        ("residual", "mse"),
        ("transformer-post-norm", "cross-entropy"),
        ("transformer-norm-first", "squared-error"),
    ];
    for (case, loss) in cases {
        let place = Place::of(case);
        place.done(&format!("{EVAL} --loss {loss} --vectors vectors.safetensors --compute {ALL}"));
        let tolerances = [
            ("loss", 1e-5),
            ("gradient", 1e-5),
            ("per_sample_gradient", 1e-5),
            ("hvp", 5e-5),
            ("ggnvp", 5e-5),
            ("noise_covariance_vp", 5e-5),
            ("third", 2e-4),
        ];
        for (tensor, tolerance) in tolerances {
            let (found_shape, found) = place.values("out.safetensors", tensor);
            let (expected_shape, expected) = place.values("reference.safetensors", tensor);
            assert_eq!(found_shape, expected_shape, "{case} {tensor}");
            let error = distance(&found, &expected);
            assert!(error <= tolerance, "{case} {tensor}: {error:.2e}");
        }
        assert_eq!(place.tensors("out.safetensors").len(), tolerances.len());
    }
}

/// Tokens that the mask leaves out are without effect, whatever their ids; without a mask all are kept.
#[test]
fn eval_of_tokens_goes_by_the_mask() {
    let place = Place::of("transformer-norm-first"); // ids 0 to 8, [4, 5]
    let eval = format!("{EVAL} --loss squared-error --compute gradient");
    let (shape, mask) = place.values("data.safetensors", "mask");
    let gradient = |ids: &[i64], mask: Option<&[f64]>| {
        let mask: Option<Vec<f32>> = mask.map(|mask| mask.iter().map(|&keep| keep as f32).collect());
        place.write("data.safetensors", tokens(&shape, &i64s(ids), mask.as_deref()));
        place.done(&eval);
        place.tensors("out.safetensors")["gradient"].2.clone()
    };
    let ids: Vec<i64> = (0..20).map(|t| t * 5 % 9).collect();
    let other: Vec<i64> =
        ids.iter().zip(&mask).map(|(&id, &keep)| if keep == 1.0 { id } else { 8 - id }).collect();
    assert!(ids != other);
    let masked = gradient(&ids, Some(&mask));
    assert!(masked == gradient(&other, Some(&mask)));
    let whole = gradient(&ids, Some(&[1.0; 20]));
    assert!(whole == gradient(&ids, None));
    assert!(whole != masked);
}

#[test]
fn eval_restricted_to_parameters() {
    let place = Place::of("cross-entropy"); // 7 → 11 → 5 → 4: 2.weight is [5, 11] from coordinate 88 on
    let (from, to) = (88, 143);
    let (k, p) = (3, 172);
    let all = place.values("vectors.safetensors", "v").1;
    let part: Vec<f32> = (0..k).flat_map(|k| &all[k * p + from..k * p + to]).map(|&x| x as f32).collect();
    let padded = |k: usize, i: usize| if (from..to).contains(&i) { all[k * p + i] as f32 } else { 0.0 };
    let whole: Vec<f32> =
        (0..k).flat_map(|k| (0..p).map(move |i| (k, i))).map(|(k, i)| padded(k, i)).collect();
    place.write("part.safetensors", safetensors(&[("v", Dtype::F32, &[k, to - from], &f32s(&part))]));
    place.write("whole.safetensors", safetensors(&[("v", Dtype::F32, &[k, p], &f32s(&whole))]));

    let eval = format!("{EVAL} --loss cross-entropy --compute gradient,hvp,noise-covariance-vp");
    place.done(&format!("{eval} --vectors whole.safetensors"));
    fs::rename(place.path().join("out.safetensors"), place.path().join("all.safetensors")).unwrap();
    place.done(&format!("{eval} --vectors part.safetensors --parameters 2.weight"));
    for (tensor, rows) in [("gradient", 1), ("hvp", k), ("noise_covariance_vp", k)] {
        let found = place.values("out.safetensors", tensor).1;
        let whole = place.values("all.safetensors", tensor).1;
        let expected: Vec<f64> = (0..rows).flat_map(|k| whole[k * p + from..k * p + to].to_vec()).collect();
        assert!(distance(&found, &expected) < 1e-5, "{tensor}");
    }
}

#[test]
fn eval_prints_json_and_records_the_run() {
    let place = Place::of("mse");
    let printed: Value =
        serde_json::from_str(&place.done(&format!("{EVAL} --loss mse --compute loss --json"))).unwrap();
    let (_, expected) = place.values("reference.safetensors", "loss");
    assert!((printed["loss"].as_f64().unwrap() / expected[0] - 1.0).abs() < 1e-5);
    let run = &printed["run"];
    assert!(!run["adapter"]["name"].as_str().unwrap().is_empty());
    assert_eq!(run["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(run["options"]["loss"], "mse");

    let bytes = place.read("out.safetensors");
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let kept: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["run"]).unwrap();
    assert_eq!(kept["command"], run["command"]);
}

#[test]
fn quiet_prints_nothing() {
    let place = Place::of("mse");
    assert_eq!(place.done(&format!("{EVAL} --loss mse --compute loss --quiet")), "");
    assert_eq!(place.done(&format!("{TRAIN} --loss mse --epochs 1 --quiet --out run")), "");
}

#[test]
fn one_sample_is_enough() {
    let place = Place::of("cross-entropy");
    place.done(&format!(
        "{EVAL} --loss cross-entropy --vectors vectors.safetensors --compute {ALL} --limit 1"
    ));
    let (shape, noise) = place.values("out.safetensors", "noise_covariance_vp");
    assert_eq!(shape, [3, 172]);
    assert!(noise.iter().all(|&x| x == 0.0));
    let train = "train --model model.toml --data data.safetensors --loss cross-entropy --learning-rate 0.05";
    place.done(&format!("{train} --limit 1 --batch-size 1 --epochs 2 --out run"));
    assert_eq!(place.text("run/history.csv").lines().count(), 3);
}

#[test]
fn eval_gives_the_same_bits_again() {
    let place = Place::of("softmax-mse");
    let eval = format!("{EVAL} --loss softmax-mse --vectors vectors.safetensors --compute {ALL}");
    place.done(&eval);
    let first = place.tensors("out.safetensors");
    place.done(&eval);
    assert!(place.tensors("out.safetensors") == first);
}

#[test]
fn train_gives_the_same_bits_again_and_when_resumed() {
    let place = Place::of("cross-entropy");
    for (name, sampling) in [("epoch", "epoch"), ("drawn", "with-replacement")] {
        let train = format!(
            "{TRAIN} --loss cross-entropy --momentum 0.9 --weight-decay 0.01 --schedule exponential --gamma 0.9 --seed 3 --sampling {sampling}"
        );
        for out in ["whole", "again"] {
            place.done(&format!("{train} --epochs 5 --out {name}-{out}"));
        }
        place.done(&format!("{train} --epochs 2 --out {name}-parts"));
        let half = place.tensors(&format!("{name}-parts/weights.safetensors"));
        place.done(&format!("{train} --epochs 5 --resume --out {name}-parts"));

        let weights = place.tensors(&format!("{name}-whole/weights.safetensors"));
        let history = place.text(&format!("{name}-whole/history.csv"));
        assert_eq!(history.lines().count(), 6);
        assert!(weights != half);
        for out in ["again", "parts"] {
            assert!(place.tensors(&format!("{name}-{out}/weights.safetensors")) == weights, "{name} {out}");
            assert_eq!(place.text(&format!("{name}-{out}/history.csv")), history, "{name} {out}");
        }
    }
}

#[test]
fn train_keeps_checkpoints_that_eval_reads() {
    let place = Place::of("mse");
    place.done(&format!("{TRAIN} --loss mse --epochs 4 --checkpoint-every 2 --out run"));
    let last = place.tensors("run/checkpoints/epoch-000004.safetensors");
    assert!(last == place.tensors("run/weights.safetensors"));
    assert!(last != place.tensors("run/checkpoints/epoch-000002.safetensors"));
    let run: Value = serde_json::from_str(&place.text("run/run.json")).unwrap();
    assert_eq!(run["options"]["train"]["batch_size"], 4);
    assert!(place.text("run/loss.svg").contains("</svg>"));
    place.done(
        "eval --model model.toml --weights run/checkpoints/epoch-000002.safetensors --data data.safetensors --loss mse --compute loss --out out.safetensors",
    );
}

#[test]
fn adapters_are_listed() {
    let place = Place::empty();
    let listed: Value = serde_json::from_str(&place.done("adapters --json")).unwrap();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    let text = place.done("adapters");
    assert!(!names.is_empty() && names.iter().all(|name| text.contains(name)), "{text}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::empty();
    let mut command = place.command("adapters");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}

#[test]
fn help_and_version() {
    let place = Place::empty();
    assert_eq!(place.done("--version"), format!("curvkit {}\n", env!("CARGO_PKG_VERSION")));
    for command in ["", "adapters", "eval", "train", "reproduce superlinear", "bench", "data fetch"] {
        let help = place.done(&format!("{command} --help"));
        assert!(help.contains("Usage:"), "{command}");
    }
}

// -------------------------------------------------------------------------------------------- bad input

#[test]
fn bad_arguments() {
    let place = Place::of("cross-entropy");
    let eval = format!("{EVAL} --loss cross-entropy");
    let cases = [
        ("evaluate", "unrecognized subcommand 'evaluate' tip: a similar subcommand exists: 'eval'"),
        (
            "eval",
            "the following required arguments were not provided: --model <TOML|NAME> --loss <LOSS> --weights <FILE> --compute <QUANTITY,…> --out <FILE> --data <FILE>",
        ),
        (
            &format!("{EVAL} --compute loss --loss crossentropy"),
            "--loss: found “crossentropy”, expected cross-entropy, mse, softmax-mse, squared-error",
        ),
        (
            &format!("{eval} --compute hessian"),
            "invalid value 'hessian' for '--compute <QUANTITY,…>' [possible values: loss, gradient, per-sample-gradient, hvp, ggnvp, noise-covariance-vp, third]",
        ),
        (
            &format!("{eval} --compute loss --memory-budget 12XB"),
            "--memory-budget: found “12XB”, expected a number and B, KB, MB, GB, KiB, MiB or GiB, such as 512MiB",
        ),
        (
            &format!("{eval} --compute hvp"),
            "--vectors: found none for hvp, expected a file with directions v [K, P]",
        ),
        (
            &format!("{eval} --compute loss --parameters 2.weight,1.weight"),
            "--parameters: found “1.weight”, expected one of 0.weight, 0.bias, 2.weight, 2.bias, 4.weight, 4.bias",
        ),
        (
            &format!("{eval} --compute loss --parameters 2.weight,2.weight"),
            "--parameters: found “2.weight” twice, expected each name once",
        ),
        (
            &format!("{eval} --compute loss --classes 2,7"),
            "--classes: found class 7, of which there is no sample, expected some of 0,1,2,3",
        ),
        (&format!("{eval} --compute loss --limit 0"), "--limit: found 0, expected at least 1"),
        (
            &format!("{eval} --compute loss --limit 14"),
            "--limit: found 14 of 13 samples, expected no more than there are",
        ),
        (
            &format!("{eval} --compute loss --per-class 100"),
            "--per-class: found 4 samples of class 0, expected at least 100",
        ),
        (
            &format!("{eval} --compute loss --test"),
            "--test: found it with --data, expected a data set by name, which has test samples",
        ),
        (
            &format!("{eval} --compute loss --fit-on 5"),
            "--fit-on: found it alone, expected --standardize, or sst2, whose vocabulary is taken from samples",
        ),
        (
            &format!("{eval} --compute loss --standardize --fit-on 0"),
            "--fit-on: found 0, expected at least 1",
        ),
        (
            &format!("{eval} --compute loss --standardize --fit-on 14"),
            "--fit-on: found 14 of 13 samples, expected no more than there are",
        ),
        ("data fetch mnits --dir data", "data set: found “mnits”, expected mnist, cifar10, sst2"),
        (
            "reproduce superlinear table2 --out run",
            "superlinear: found “table2”, expected all, table1, table3, figure1 to figure15, scaling, alignment, \
             evolution, suppression, bounds or synthetic",
        ),
        (
            "reproduce superlinear scaling --dataset synthetic --classes 4 --out run",
            "--classes: found 4, expected 3, 6 or 10",
        ),
        (
            "reproduce superlinear all --dataset synthetic --weights weights.safetensors --out run",
            "--weights: found a checkpoint, for 2 cases, expected one dataset, model, loss, number of classes \
             and seed",
        ),
        (
            "reproduce superlinear scaling --dataset synthetic --weights weights.safetensors --out run",
            "--weights: found a checkpoint, for 2 cases, expected one dataset, model, loss, number of classes \
             and seed",
        ),
        (
            // told before the network is trained
            "reproduce superlinear scaling --dataset synthetic --loss cross-entropy --classes 3 --per-class 30 --out run",
            "--per-class: found 30 images of each of 3 classes, expected at least 34, for two batches of 50",
        ),
        (
            "reproduce superlinear scaling --dataset synthetic --top 5 --out run",
            "--top: found 5, expected a model of your own: --model FILE",
        ),
        (
            "reproduce superlinear scaling --model model.toml --data data.safetensors --loss mse --layer 2.weight \
             --weights weights.safetensors --batch-size 2 --top 2 --out run",
            "--top: found 2, expected at least 3 directions, to fit a line over",
        ),
        (
            "reproduce superlinear scaling --dataset synthetic --model mlp,model.toml --out run",
            "--model: found “model.toml” beside others, expected it alone",
        ),
        (
            "reproduce superlinear scaling --dataset synthetic --limit 5 --out run",
            "--limit: found 5, expected a model of your own: --model FILE",
        ),
        (
            "reproduce superlinear scaling --model model.toml --data data.safetensors --loss mse --out run",
            "--layer: found none, expected a fully connected layer, for “model.toml”",
        ),
        (
            "reproduce superlinear scaling --model model.toml --data data.safetensors --loss mse --layer 2.weight --out run",
            "--weights: found none, expected a checkpoint, for a model of your own",
        ),
        (
            "reproduce superlinear evolution --model model.toml --data data.safetensors --loss mse --layer 2.weight \
             --weights weights.safetensors --out run",
            "--weights: found a checkpoint, for evolution, expected scaling, alignment, suppression or bounds: what a \
             checkpoint shows",
        ),
        (
            "reproduce superlinear scaling --model model.toml --dataset synthetic,mnist --loss mse --layer 2.weight \
             --weights weights.safetensors --out run",
            "--dataset: found several, expected one, for “model.toml”",
        ),
        (
            "reproduce superlinear synthetic --weights weights.safetensors --out run",
            "--weights: found weights.safetensors, for synthetic, expected none: no network is measured",
        ),
        (
            "reproduce superlinear table1 --dataset synthetic --seeds 0,1,0 --out run",
            "--seeds: found 0 twice, expected each once",
        ),
        (
            // told before the first network is trained
            "reproduce superlinear table1 --dataset synthetic,cifar10 --data-dir nowhere --out run",
            "nowhere: found no data_batch_1.bin, here or in the folder cifar-10-batches-bin",
        ),
        (
            "reproduce superlinear all --dataset mnist --data-dir nowhere --out run",
            "nowhere: found neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz, here or in the folder mnist",
        ),
        (
            "bench hvp --model nothing",
            "nothing: found no such model, expected a file or one of mlp-mnist, mlp-cifar, cnn-superlinear, \
             cnn-superlinear-mnist, lenet, resnet20, mlp-tanh, cnn-sharpness, transformer-sst2, linear-4, two-layer, \
             fnn-geometry, cnn-geometry, vgg13, vgg19, resnet38, resnet110",
        ),
        ("bench hvp --blocks 1,0", "--blocks: found 0, expected at least 1"),
        ("bench train --batch-size 0", "--batch-size: found 0, expected at least 1"),
    ];
    for (args, expected) in cases {
        assert_eq!(place.refused(args), expected);
    }
}

#[test]
fn bad_training_options() {
    let place = Place::of("cross-entropy");
    let train = "train --model model.toml --data data.safetensors --loss cross-entropy --out run";
    let cases = [
        (
            "--batch-size 14 --epochs 1 --learning-rate 0.1",
            "--batch-size: found 14, expected 1 to the 13 samples",
        ),
        (
            "--batch-size 0 --epochs 1 --learning-rate 0.1",
            "--batch-size: found 0, expected 1 to the 13 samples",
        ),
        ("--batch-size 4 --epochs 0 --learning-rate 0.1", "--epochs: found 0, expected at least 1"),
        (
            "--batch-size 4 --epochs 1 --learning-rate 1e-46",
            "--learning-rate: found 0.0000000000000000000000000000000000000000000001, expected a positive number, within \
             1.2e-38 to 3.4e38",
        ),
        (
            "--batch-size 4 --epochs 1 --learning-rate -1",
            "--learning-rate: found -1, expected a positive number",
        ),
        (
            "--batch-size 4 --epochs 1 --learning-rate nan",
            "--learning-rate: found NaN, expected a positive number",
        ),
        (
            "--batch-size 4 --epochs 1 --learning-rate 0.1 --momentum 1",
            "--momentum: found 1, expected a number from 0 to below 1",
        ),
        (
            "--batch-size 4 --epochs 1 --learning-rate 0.1 --weight-decay -0.5",
            "--weight-decay: found -0.5, expected a number from 0 on",
        ),
        (
            "--batch-size 4 --epochs 1 --learning-rate 0.1 --schedule exponential",
            "the following required arguments were not provided: --gamma <GAMMA>",
        ),
        (
            "--batch-size 4 --epochs 1 --learning-rate 0.1 --checkpoint-every 0",
            "--checkpoint-every: found 0, expected at least 1",
        ),
    ];
    for (options, expected) in cases {
        assert_eq!(place.refused(&format!("{train} {options}")), expected);
    }
}

#[test]
fn bad_models() {
    let place = Place::of("cross-entropy");
    let linear = "[[layers]]\ntype = \"linear\"\nout_features = 4\n";
    let cases = [
        (
            "input = [7]\n\n[[layers]]\ntype = \"conv9d\"\n".to_string(),
            "line 4: layer 0: type: unknown variant `conv9d`, expected one of `linear`, `conv2d`, `max_pool2d`, `avg_pool2d`, \
             `adaptive_avg_pool2d`, `pad_channels`, `flatten`, `relu`, `leaky_relu`, `tanh`, `gelu`, `scalar_bias`, `scalar_scale`, \
             `residual`, `embedding`, `positional_encoding`, `transformer_encoder_layer`, `layer_norm`, `mean_pool`",
        ),
        (
            "input = [7]\n[[layers]]\ntype = \"linear\"\n".to_string(),
            "line 2: layer 0 (linear): missing field `out_features`",
        ),
        (linear.to_string(), "found neither input nor tokens, expected one of them"),
        (
            format!("input = [7]\n{linear}slope = 1\n"),
            "line 5: layer 0 (linear): unknown field `slope`, expected `out_features` or `bias`",
        ),
        ("input = [7\n".to_string(), "line 1: unclosed array, expected `]`"),
        (
            format!("input = [3, 7]\n{linear}"),
            "the last layer's output has shape [3, 4], expected one axis: add a flatten layer",
        ),
        (format!("input = []\n{linear}"), "found neither input nor tokens, expected one of them"),
        (
            "input = [7]\n[[layers]]\ntype = \"linear\"\nout_features = 0\n".to_string(),
            "layer 0 (linear): out_features: found 0, expected 1 to 4294967295",
        ),
        (
            "input = [4000000000]\n[[layers]]\ntype = \"linear\"\nout_features = 9000000000000000000\n"
                .to_string(),
            "layer 0 (linear): out_features: found 9000000000000000000, expected 1 to 4294967295",
        ),
        (
            "input = [65536, 65536]\n".to_string() + linear,
            "input: found shape [65536, 65536], expected positive sizes and at most 4294967295 values",
        ),
        (
            "input = [7]\nlayers = []\n".to_string(),
            "found no layers that compute anything, expected at least one",
        ),
    ];
    let eval = format!("{EVAL} --loss cross-entropy --compute loss");
    for (model, expected) in cases {
        place.write("model.toml", model);
        assert_eq!(place.refused(&eval), format!("model.toml: {expected}"));
    }
    fs::remove_file(place.path().join("model.toml")).unwrap();
    assert_eq!(place.refused(&eval), "model.toml: read: No such file or directory (os error 2)");
}

#[test]
fn bad_weights() {
    let place = Place::of("cross-entropy");
    let good = place.read("weights.safetensors");
    let bias = |name: &'static str, dtype, shape: &[usize], bytes: &[u8]| {
        let mut tensors = place.tensors("weights.safetensors");
        tensors.remove("4.bias");
        tensors.insert(name.into(), (dtype, shape.to_vec(), bytes.to_vec()));
        let tensors: Vec<_> = tensors.iter().map(|(n, (d, s, b))| (n.as_str(), *d, &s[..], &b[..])).collect();
        safetensors(&tensors)
    };
    let cases = [
        (
            bias("4.bais", Dtype::F32, &[4], &f32s(&[0.0; 4])),
            "4.bias [4] is missing; 4.bais [4] is not among the model's parameters",
        ),
        (bias("4.bias", Dtype::F32, &[2, 2], &f32s(&[0.0; 4])), "4.bias: found shape [2, 2], expected [4]"),
        (
            bias("4.bias", Dtype::I64, &[4], &i64s(&[0; 4])),
            "tensor 4.bias: found I64, expected F32, F64, F16 or BF16",
        ),
        (
            bias("4.bias", Dtype::F32, &[4], &f32s(&[0.0, f32::NAN, 0.0, 0.0])),
            "tensor 4.bias: found NaN at [1], expected a finite f32",
        ),
        (good[..5].to_vec(), "truncated: found 5 bytes, expected a safetensors header"),
        (
            good[..100].to_vec(),
            "truncated or no safetensors file: found 92 bytes after the first eight, expected a header of 384",
        ),
        (good[..good.len() - 1].to_vec(), "truncated: found 687 bytes after the header, expected 688"),
        ([&good[..], &[0]].concat(), "too long: found 689 bytes after the header, expected 688"),
        (
            [&good[..9], b"?", &good[10..]].concat(),
            "corrupt safetensors header: key must be a string at line 1 column 2",
        ),
    ];
    let eval = format!("{EVAL} --loss cross-entropy --compute loss");
    for (weights, expected) in cases {
        place.write("weights.safetensors", weights);
        assert_eq!(place.refused(&eval), format!("weights.safetensors: {expected}"));
        assert_eq!(
            place.refused(&format!(
                "{TRAIN} --loss cross-entropy --epochs 1 --weights weights.safetensors --out run"
            )),
            format!("weights.safetensors: {expected}")
        );
    }
}

#[test]
fn bad_data() {
    let place = Place::of("cross-entropy");
    let inputs = f32s(&[0.5; 21]);
    let data = |shape: &[usize], inputs: &[u8], targets: &[i64]| {
        safetensors(&[
            ("inputs", Dtype::F32, shape, inputs),
            ("targets", Dtype::I64, &[targets.len()], &i64s(targets)),
        ])
    };
    let mut nan = inputs.clone();
    nan[4 * 9..4 * 10].copy_from_slice(&f32::NAN.to_le_bytes());
    let cases = [
        (
            data(&[3, 7], &inputs, &[0, 4, 1]),
            "targets: found class 4 for sample 1, expected 0 to 3 for 4 outputs",
        ),
        (data(&[3, 7], &inputs, &[0, -1, 1]), "tensor targets: found -1 at [1], expected 0 to 4294967295"),
        (data(&[3, 7], &nan, &[0, 1, 2]), "tensor inputs: found NaN at [1, 2], expected a finite f32"),
        (data(&[3, 7], &inputs, &[0, 1]), "tensor targets: found shape [2], expected [3]"),
        (
            data(&[7, 3], &inputs, &[0, 1, 2]),
            "tensor inputs: found shape [7, 3], expected the 3 samples of targets on the first axis",
        ),
        (data(&[7, 3], &inputs, &[0; 7]), "inputs: one sample: found shape [3], expected [7]"),
        (
            data(&[0, 7], &[], &[]),
            "tensor inputs: found shape [0, 7], expected [N, …] without an axis of length 0",
        ),
        (safetensors(&[("input", Dtype::F32, &[3, 7], &inputs)]), "no tensor inputs, only input"),
        (
            safetensors(&[
                ("inputs", Dtype::F32, &[3, 7], &inputs),
                ("targets", Dtype::F32, &[3, 7], &inputs),
            ]),
            "targets: found values, expected classes (I32 or I64) for cross-entropy",
        ),
        (
            safetensors(&[
                ("inputs", Dtype::F32, &[3, 7], &inputs),
                ("targets", Dtype::U8, &[3], &[0, 1, 2]),
            ]),
            "tensor targets: found U8 [3], expected I32 or I64 [3], or F32, F64, F16 or BF16 [3, L]",
        ),
        (b"inputs".to_vec(), "truncated: found 6 bytes, expected a safetensors header"),
    ];
    for (data, expected) in cases {
        place.write("data.safetensors", data);
        for command in [
            format!("{EVAL} --loss cross-entropy --compute loss"),
            format!("{TRAIN} --loss cross-entropy --epochs 1 --out run"),
        ] {
            assert_eq!(place.refused(&command), format!("data.safetensors: {expected}"));
        }
    }
    let values = f32s(&[0.5; 9]);
    place.write(
        "data.safetensors",
        safetensors(&[("inputs", Dtype::F32, &[3, 7], &inputs), ("targets", Dtype::F32, &[3, 3], &values)]),
    );
    assert_eq!(
        place.refused(&format!("{EVAL} --loss mse --compute loss")),
        "data.safetensors: targets: found shape [3, 3], expected [3, 4]"
    );
}

#[test]
fn bad_tokens() {
    let place = Place::of("transformer-norm-first"); // ids 0 to 8, 5 a sample
    let shape = [2, 5];
    let (good, mask) =
        (i64s(&[0, 8, 1, 2, 3, 4, 5, 6, 7, 0]), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    let masked = |at: usize, keep: f32| {
        let mut mask = mask;
        mask[at] = keep;
        tokens(&shape, &good, Some(&mask))
    };
    let ids = f32s(&[0.0, 8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 0.0]);
    let cases = [
        (
            tokens(&shape, &i64s(&[0, 8, 1, 2, 3, 4, 9, 6, 7, 0]), Some(&mask)),
            "tokens: found id 9 for token 1 of sample 1, expected 0 to 8",
        ),
        (
            tokens(&shape, &i64s(&[0, 8, 1, 2, 3, 4, -1, 6, 7, 0]), Some(&mask)),
            "tensor inputs: found -1 at [1, 1], expected 0 to 4294967295",
        ),
        (masked(6, 0.0), "mask: found no token kept of sample 1, expected at least one"),
        (masked(3, 0.5), "mask: found 0.5 for token 3 of sample 0, expected 0 or 1"),
        (
            tokens(&[1, 10], &good, Some(&mask)),
            "inputs: found 10 tokens a sample, expected 5, as the model has",
        ),
        (
            safetensors(&[
                ("inputs", Dtype::F32, &shape, &ids),
                ("mask", Dtype::F32, &shape, &f32s(&mask)),
                ("targets", Dtype::I64, &[2], &i64s(&[0, 1])),
            ]),
            "inputs: found numbers [5] a sample, expected token ids (I32 or I64) [N, 5]: the model has tokens",
        ),
    ];
    for (data, expected) in cases {
        place.write("data.safetensors", data);
        for command in [
            format!("{EVAL} --loss cross-entropy --compute loss"),
            format!("{TRAIN} --loss cross-entropy --epochs 1 --out run"),
        ] {
            assert_eq!(place.refused(&command), format!("data.safetensors: {expected}"));
        }
    }
}

#[test]
fn bad_directions() {
    let place = Place::of("cross-entropy");
    let zeros = f32s(&[0.0; 344]);
    let cases = [
        (
            safetensors(&[("v", Dtype::F32, &[0, 172], &[])]),
            "tensor v: found shape [0, 172], expected [K, 172] with K at least 1",
        ),
        (
            safetensors(&[("v", Dtype::F32, &[4, 86], &zeros)]),
            "tensor v: found shape [4, 86], expected [K, 172] with K at least 1",
        ),
        (
            safetensors(&[("v", Dtype::F32, &[344], &zeros)]),
            "tensor v: found shape [344], expected [K, 172] with K at least 1",
        ),
        (safetensors(&[("w", Dtype::F32, &[2, 172], &zeros)]), "no tensor v, only w"),
        (
            safetensors(&[("v", Dtype::F32, &[1, 172], &f32s(&[f32::INFINITY; 172]))]),
            "tensor v: found inf at [0, 0], expected a finite f32",
        ),
    ];
    for (directions, expected) in cases {
        place.write("vectors.safetensors", directions);
        assert_eq!(
            place
                .refused(&format!("{EVAL} --loss cross-entropy --compute hvp --vectors vectors.safetensors")),
            format!("vectors.safetensors: {expected}")
        );
    }
}

/// The reader's own tests go through every way in which these files can be wrong.
#[test]
fn bad_mnist() {
    let place = Place::of("cross-entropy");
    let train = "train --model model.toml --loss cross-entropy --learning-rate 0.1 --batch-size 1 --epochs 1 --out run --dataset mnist --data-dir .";
    assert_eq!(
        place.refused(train),
        ".: found neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz, here or in the folder mnist"
    );
    let header = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let images = [header(&[0x803, 2, 2, 2]), vec![9; 8]].concat();
    let labels = [header(&[0x801, 2]), vec![3, 1]].concat();
    let cases: [(&[u8], &[u8], &str); 4] = [
        (&labels, &labels, "train-images-idx3-ubyte: found magic number 0x00000801, expected 0x00000803"),
        (
            &images[..21],
            &labels,
            "train-images-idx3-ubyte: truncated: found 5 bytes after the header, expected 8 for shape [2, 2, 2]",
        ),
        (&images, &labels[..6], "train-labels-idx1-ubyte: truncated: found 6 bytes, expected a header of 8"),
        (&images, &labels, "mnist: inputs: one sample: found shape [1, 2, 2], expected [7]"),
    ];
    for (images, labels, expected) in cases {
        place.write("train-images-idx3-ubyte", images);
        place.write("train-labels-idx1-ubyte", labels);
        assert_eq!(place.refused(train).trim_start_matches("./"), expected);
    }
}

#[test]
fn results_that_overflow() {
    let place = Place::of("mse"); // 5 → 9 → 3
    let mut weights = place.tensors("weights.safetensors");
    for (_, _, bytes) in weights.values_mut() {
        *bytes = f32s(&vec![1e30; bytes.len() / 4]);
    }
    let weights: Vec<_> = weights.iter().map(|(n, (d, s, b))| (n.as_str(), *d, &s[..], &b[..])).collect();
    place.write("weights.safetensors", safetensors(&weights));
    for quantity in ["loss", "gradient"] {
        let message = place.refused(&format!("{EVAL} --loss mse --compute {quantity}"));
        assert!(message.starts_with("loss is not finite: sample 0 has "), "{message}");
        assert!(message.ends_with(": it overflows by weights as large as 1e30, of 0.weight"), "{message}");
    }
}

#[test]
fn training_that_diverges_names_the_step() {
    let place = Place::of("mse"); // 8 samples
    let train =
        "train --model model.toml --data data.safetensors --loss mse --batch-size 4 --epochs 3 --out run";
    let message = place.refused(&format!("{train} --learning-rate 1e30"));
    assert!(message.starts_with("training diverged at step 2 (epoch 1): loss is "), "{message}");
    assert!(message.ends_with("; lower the learning rate (found 1e30)"), "{message}");
    let message = place.refused(&format!("{train} --learning-rate 0.1 --weight-decay 1e30"));
    assert!(
        message.ends_with("; lower the learning rate or the weight decay (found 0.1 and 1e30)"),
        "{message}"
    );
    let message = place.refused(&format!("{train} --learning-rate 0.1 --schedule exponential --gamma 1e30"));
    assert!(
        message.contains("(epoch 2)")
            && message.contains("; lower gamma (found 1e30, by which the learning rate has come to 1"),
        "{message}"
    );
}

/// What is finite is written where something else overflows.
#[test]
fn a_quantity_that_overflows_leaves_the_others() {
    let place = Place::of("cross-entropy");
    let mut vectors = f32s(&[1e38; 172]);
    vectors.extend(f32s(&[1.0; 172]));
    place.write("large.safetensors", safetensors(&[("v", Dtype::F32, &[2, 172], &vectors)]));
    let eval =
        |what: &str| format!("{EVAL} --loss cross-entropy --compute {what} --vectors large.safetensors");
    let Outcome { code, out, err } = place.run(&eval("gradient,third,loss"));
    assert_eq!(code, Some(3), "{err}");
    assert!(out.starts_with("loss ") && out.contains("wrote"), "{out}");
    assert!(
        err.starts_with("curvkit: third is not finite: element ")
            && err.contains(": it overflows by direction 0, of length 1.311487"),
        "{err}"
    );
    assert_eq!(place.tensors("out.safetensors").into_keys().collect::<Vec<_>>(), ["gradient", "loss"]);
    let message = place.refused(&eval("third"));
    assert!(message.starts_with("third is not finite: element "), "{message}");
}

#[test]
fn a_run_is_resumed_as_it_was_begun() {
    let place = Place::of("cross-entropy");
    let train = format!("{TRAIN} --loss cross-entropy --out run");
    place.done(&format!("{train} --epochs 2"));
    for (other, difference) in [
        ("--seed 1", "options.train.seed: found 0, expected 1"),
        ("--momentum 0.5", "options.train.momentum: found 0.0, expected 0.5"),
        ("--limit 12", "contents.data: found SHA-256 "),
        ("--sampling with-replacement", "options.train.sampling: found epoch, expected with-replacement"),
        ("--memory-budget 64MiB", "adapter.memory_budget: found 2147483648, expected 67108864"),
    ] {
        let message = place.refused(&format!("{train} --epochs 3 --resume {other}"));
        let expected = format!("run: found another run: {difference}");
        assert!(message.starts_with(&expected), "{message}");
        assert!(message.ends_with("; --resume-anyway goes on from it, --overwrite replaces it"), "{message}");
    }
    assert_eq!(
        place.refused(&format!("{train} --epochs 1 --resume")),
        "--epochs: found 1, expected at least 2: so many have been run"
    );
}

#[test]
fn output_that_cannot_be_written() {
    let place = Place::of("cross-entropy");
    place.write("file", "");
    fs::create_dir(place.path().join("folder")).unwrap();
    let eval = "eval --model model.toml --weights weights.safetensors --data data.safetensors --loss cross-entropy --compute loss";
    let train = format!("{TRAIN} --loss cross-entropy --epochs 1");
    let synthetic = "reproduce superlinear scaling --dataset synthetic --classes 3";
    let cases = [
        (format!("{eval} --out folder"), "folder: found a folder, expected a file"),
        (format!("{eval} --out file/out.safetensors"), "file: create folder: File exists (os error 17)"),
        (format!("{train} --out file"), "file: create folder: File exists (os error 17)"),
        (format!("{train} --out file/run"), "file/run: create folder: Not a directory (os error 20)"),
        (format!("{synthetic} --out file/run"), "file/run: create folder: Not a directory (os error 20)"),
    ];
    for (args, expected) in cases {
        assert_eq!(place.refused(&args), expected);
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_read_only() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::of("cross-entropy");
    let folder = place.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    if tempfile::tempfile_in(&folder).is_ok() {
        println!("skipped: permissions do not bind this user");
        return;
    }
    let eval = "eval --model model.toml --weights weights.safetensors --data data.safetensors --loss cross-entropy --compute loss";
    let denied = "folder: write: Permission denied (os error 13)";
    assert_eq!(place.refused(&format!("{eval} --out folder/out.safetensors")), denied);
    assert_eq!(place.refused(&format!("{TRAIN} --loss cross-entropy --epochs 1 --out folder")), denied);
}

#[test]
fn an_adapter_that_is_not_there() {
    let place = Place::of("cross-entropy");
    let listed: Value = serde_json::from_str(&place.done("adapters --json")).unwrap();
    let listed: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|a| format!("{} {}", a["index"], a["name"].as_str().unwrap()))
        .collect();
    let eval = format!("{EVAL} --loss cross-entropy --compute loss");
    for wanted in ["nosuch", "99"] {
        assert_eq!(
            place.refused(&format!("{eval} --adapter {wanted}")),
            format!("--adapter: found “{wanted}”, expected one of {}", listed.join(", "))
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_adapter_at_all() {
    let place = Place::of("cross-entropy");
    for args in [
        "adapters",
        &format!("{EVAL} --loss cross-entropy --compute loss"),
        &format!("{TRAIN} --loss cross-entropy --epochs 1 --out run"),
        "reproduce superlinear scaling --dataset synthetic --out run",
        "bench gemm",
    ] {
        let mut command = place.command(args);
        command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
        assert_eq!(
            place.refused_command(&mut command),
            "found no adapter, expected a Vulkan, Metal or DX12 driver (Debian: mesa-vulkan-drivers)"
        );
    }
}
