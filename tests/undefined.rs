//! What has no value is said to be undefined, wherever it would stand, and what could not be made is no success.

mod program;

use program::*;
use safetensors::Dtype;
use serde_json::Value;

/// `0.weight` [3, 4] of zeros in the model `linear`; with targets of 0 every residual is 0, and so is the noise.
fn without_noise() -> Place {
    let place = Place::empty();
    place.write("model.toml", "input = [4]\n[[layers]]\ntype = \"linear\"\nout_features = 3\nbias = false\n");
    place.write("weights.safetensors", safetensors(&[("0.weight", Dtype::F32, &[3, 4], &f32s(&[0.0; 12]))]));
    let inputs: Vec<f32> = (0..20).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
    let data = [
        ("inputs", Dtype::F32, &[5, 4][..], &f32s(&inputs)[..]),
        ("targets", Dtype::F32, &[5, 3][..], &f32s(&[0.0; 15])[..]),
    ];
    place.write("data.safetensors", safetensors(&data));
    place
}

const CHECKPOINT: &str = "--model model.toml --weights weights.safetensors --data data.safetensors";

#[test]
fn a_comparison_with_the_zero_matrix_is_undefined() {
    let place = without_noise();
    let spectrum = format!("spectrum {CHECKPOINT} --loss mse");
    let compare = format!("{spectrum} --operator hessian --compare noise-covariance --top 3 --out out");
    let told = place.run(&compare);
    let line = |name: &str| told.out.lines().find(|line| line.trim().starts_with(name)).unwrap().trim();
    let overlap = "eigenvalue 1 of the second operator is not told from 0";
    for (name, reason) in [
        ("overlap", overlap),
        ("γ", "of 0 points, 3 are needed"),
        ("Spearman's ρ", "of 0 points, 2 are needed"),
        ("commutativity error", "the operators' product is 0"),
    ] {
        assert_eq!(line(name), format!("{name:<20} undefined: {reason}"));
    }
    assert!(told.out.contains("all vectors that were multiplied gave 0"), "{}", told.out);
    assert_eq!(told.code, Some(3));
    assert!(told.err.starts_with("curvkit: Hessian and noise covariance: undefined: overlap ("));
    assert_eq!(told.err.lines().count(), 1);
    assert_eq!(place.text("out/comparison.csv").lines().nth(1).unwrap().split(',').nth(3), Some(""));
    assert!(place.text("out/report.html").contains(&format!("<td>undefined</td><td>{overlap}</td>")));
    assert!(!place.path().join("out/overlap.svg").exists());
    let json = place.run(&format!("{compare} --json")).out;
    assert!(!json.contains("NaN"));
    let compared = &serde_json::from_str::<Value>(&json).unwrap()["comparison"];
    for name in ["commutativity_error", "commutativity_standard_error", "exponent", "rank_correlation"] {
        assert!(compared[name].is_null(), "{name}");
    }
    assert_eq!(compared["overlap"], serde_json::json!([null, null, null]));
    assert_eq!(compared["undefined"]["overlap"], overlap);

    // of the zero matrix the trace is 0, and a density is not defined
    let density = place.run(&format!("{spectrum} --operator noise-covariance --density --trace --out z"));
    let undefined = "density of the noise covariance: undefined: all eigenvalues are 0";
    assert_eq!((density.code, density.err), (Some(3), format!("curvkit: {undefined}\n")));
    assert!(
        density.out.contains(undefined) && density.out.contains("trace (XTrace)         0.000000e0 ± 0.0e0")
    );
    let run: Value = serde_json::from_str(&place.text("z/run.json")).unwrap();
    assert!(run["results"]["density"].is_null());
    assert_eq!(run["results"]["undefined"]["density"], "all eigenvalues are 0");
    assert!(!place.path().join("z/density.csv").exists());
}

/// The curvature ⅔ x₀² fits single precision, its square for the unit vectors of a density too, but not for those of a
/// trace, whose coordinates are ±1.
#[test]
fn a_part_that_overflows_leaves_the_others() {
    let place = without_noise();
    let data = [
        ("inputs", Dtype::F32, &[1, 4][..], &f32s(&[5.5e9, 0.0, 0.0, 0.0])[..]),
        ("targets", Dtype::F32, &[1, 3][..], &f32s(&[0.0; 3])[..]),
    ];
    place.write("data.safetensors", safetensors(&data));
    let told = place.run(&format!(
        "spectrum {CHECKPOINT} --loss mse --operator hessian --trace --density --probes 4 --out out"
    ));
    assert_eq!(told.code, Some(3), "{}", told.err);
    assert!(told.err.starts_with("curvkit: trace: product 1 of the estimate is not finite"), "{}", told.err);
    assert!(told.out.contains("density by 4 probes") && told.out.ends_with("wrote out\n"), "{}", told.out);
    let is_there = |name: &str| place.path().join("out").join(name).exists();
    assert!(is_there("density.csv") && is_there("run.json") && !is_there("diagonal.safetensors"));
    let run: Value = serde_json::from_str(&place.text("out/run.json")).unwrap();
    assert!(run["results"]["density"].is_object() && run["results"]["trace"].is_null());
}

/// Of two samples, C has rank 1: one of its eigenvectors is one, the others are whatever the solver began with.
#[test]
fn an_overlap_is_defined_as_far_as_the_rank() {
    let place = without_noise();
    let data = [
        ("inputs", Dtype::F32, &[2, 4][..], &f32s(&[1.0, 0.5, -0.25, 2.0, 0.5, 1.0, 1.5, -1.0])[..]),
        ("targets", Dtype::F32, &[2, 3][..], &f32s(&[1.0, 2.0, 3.0, -1.0, 0.5, 0.0])[..]),
    ];
    place.write("data.safetensors", safetensors(&data));
    let out = place.done(&format!(
        "spectrum {CHECKPOINT} --loss mse --operator hessian --compare noise-covariance --top 3 --out out --json"
    ));
    let compared = &serde_json::from_str::<Value>(&out).unwrap()["comparison"];
    let overlap = compared["overlap"].as_array().unwrap();
    assert!(overlap[0].is_number() && overlap[1].is_null() && overlap[2].is_null(), "{overlap:?}");
    let reason = "eigenvalue 2 of the second operator is not told from 0";
    assert_eq!(compared["undefined"]["overlap"], reason);
    assert!(compared["commutativity_error"].is_number());
    assert!(place.text("out/report.html").contains(&format!("undefined for 3: {reason}")));
}

/// The layer before is dead: H and C of `2.weight` are 0.
fn dead() -> Place {
    let place = Place::empty();
    let layer = |width| format!("[[layers]]\ntype = \"linear\"\nout_features = {width}\nbias = false\n");
    let relu = "[[layers]]\ntype = \"relu\"\n";
    place.write("model.toml", format!("input = [3]\n{}{relu}{}", layer(8), layer(5)));
    let weights: Vec<f32> = (0..40).map(|i| (i as f32).cos()).collect();
    let tensors = [
        ("0.weight", Dtype::F32, &[8, 3][..], &f32s(&[-1.0; 24])[..]),
        ("2.weight", Dtype::F32, &[5, 8][..], &f32s(&weights)[..]),
    ];
    place.write("weights.safetensors", safetensors(&tensors));
    let data = [
        ("inputs", Dtype::F32, &[20, 3][..], &f32s(&[0.5; 60])[..]),
        ("targets", Dtype::I64, &[20][..], &i64s(&(0..20).map(|p| p % 5).collect::<Vec<_>>())[..]),
    ];
    place.write("data.safetensors", safetensors(&data));
    place
}

#[test]
fn figures_that_cannot_be_made_are_no_success() {
    let place = dead();
    let reproduce = |target: &str| {
        place.run(&format!(
            "reproduce superlinear {target} {CHECKPOINT} --loss cross-entropy --layer 2.weight --batch-size 4 -q --out {target}"
        ))
    };
    let of = "of model, cross-entropy, 2.weight could not be made";
    let no_points =
        "γ of C is undefined: of 0 points, 3 are needed; a point is a direction with curvature and noise";
    let none = "E[h²]_ii between its bounds is undefined: no direction has curvature";
    for (target, message) in [
        ("scaling", format!("Scaling {of}: {no_points}")),
        (
            "alignment",
            format!("Alignment {of}: R of C is undefined: the leading 40 directions have no noise"),
        ),
        ("bounds", format!("The bounds of Theorem 5.1 {of}: {none}")),
        (
            "suppression",
            format!(
                "Suppression {of}: what is stiff is undefined: no sample’s h_p has a positive eigenvalue, 0e0 being the largest"
            ),
        ),
    ] {
        let told = reproduce(target);
        assert_eq!((told.code, told.err), (Some(3), format!("curvkit: {message}\n")));
        let report = place.text(&format!("{target}/report.html"));
        assert!(report.contains("could not be made") && !report.contains(">agrees</b>"), "{target}");
        let run: Value = serde_json::from_str(&place.text(&format!("{target}/run.json"))).unwrap();
        assert_eq!(run["missing"], serde_json::json!([message]));
    }
    // all that is missing is told, in one line
    let all = reproduce("all");
    assert_eq!((all.code, all.err.lines().count(), all.err.matches(of).count()), (Some(3), 1, 4));
}

#[test]
fn a_regression_has_no_accuracy() {
    let place = without_noise();
    let eval = format!("eval {CHECKPOINT} --loss mse --compute loss --out o.safetensors");
    let undefined = "undefined: the targets are values, not classes";
    assert!(place.done(&eval).contains(&format!("accuracy  {undefined}\n")));
    let json: Value = serde_json::from_str(&place.done(&format!("{eval} --json"))).unwrap();
    assert!(json["accuracy"].is_null());
    assert_eq!(json["undefined"]["accuracy"], "the targets are values, not classes");
    // one-hot values are values
    let one_hot: Vec<f32> = (0..15).map(|i| f32::from(u8::from(i % 3 == (i / 3) % 3))).collect();
    let inputs: Vec<f32> = (0..20).map(|i| i as f32 / 20.0).collect();
    let data = [
        ("inputs", Dtype::F32, &[5, 4][..], &f32s(&inputs)[..]),
        ("targets", Dtype::F32, &[5, 3][..], &f32s(&one_hot)[..]),
    ];
    place.write("data.safetensors", safetensors(&data));
    assert!(place.done(&eval).contains(undefined));
    let cross_entropy = place.refused(&eval.replace("mse", "cross-entropy"));
    assert!(cross_entropy.contains("found values, expected classes (I32 or I64) for cross-entropy"));

    let train =
        "train --model model.toml --data data.safetensors --loss mse --learning-rate 0.1 --batch-size 2";
    let printed = place.done(&format!("{train} --epochs 2 --out run"));
    assert!(
        printed.starts_with("epoch 2: loss ")
            && printed.contains(&format!(", accuracy {undefined}, 5 samples\n"))
    );
    let history = place.text("run/history.csv");
    assert_eq!(history.lines().nth(2).unwrap().split(',').nth(2), Some(""), "{history}");
    let json = place.done(&format!("{train} --epochs 3 --resume --out run --json"));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["last"]["accuracy"].is_null() && json["last"]["epoch"] == 3);
    assert_eq!(json["undefined"]["accuracy"], "the targets are values, not classes");
    // and classes have one
    let classes = Place::of("cross-entropy");
    let json = classes
        .done(&format!("eval {CHECKPOINT} --loss cross-entropy --compute loss --out o.safetensors --json"));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["accuracy"].is_number() && json["undefined"] == serde_json::json!({}));
}

#[test]
fn a_tolerance_below_rounding_names_the_floor() {
    let place = Place::of("cross-entropy");
    for (operator, which) in [("hessian", "largest"), ("hessian", "magnitude"), ("ggn", "smallest")] {
        let spectrum = format!(
            "spectrum {CHECKPOINT} --loss cross-entropy --operator {operator} --which {which} --top 3 --tolerance 1e-12 --out out"
        );
        let told = place.run(&format!("{spectrum} --overwrite"));
        assert_eq!(told.code, Some(3), "{}", told.err);
        let (before, rest) = told.err.split_once(" here, ").unwrap();
        assert_eq!(rest, "and more products would not lower them\n");
        let (what, floor) =
            before.split_once("converged to 1e-12: single precision reaches residuals of ").unwrap();
        assert!(what.ends_with(" of 3 eigenpairs "), "{what}");
        let floor: f64 = floor.parse().unwrap();
        assert!((1e-8..1e-6).contains(&floor), "{floor}");
        // what there is is written, and the state is kept
        let rows = place.text("out/eigenvalues.csv");
        assert_eq!(rows.lines().count(), 1 + 3);
        assert!(place.path().join("out/lanczos.safetensors").exists());
        // more products are not spent
        let products =
            |out: &str| out.split(" products").next().unwrap().rsplit(' ').next().unwrap().to_string();
        let again = place.run(&format!("{spectrum} --resume --max-products 100000"));
        assert_eq!((again.code, &again.err), (Some(3), &told.err));
        assert_eq!(products(&again.out), products(&told.out));
        assert_eq!(place.text("out/eigenvalues.csv"), rows);
        // and a tolerance that is reached converges
        let reached = spectrum.replace("1e-12", &format!("{:e}", 1.5 * floor));
        place.done(&format!("{reached} --overwrite"));
        assert!(!place.path().join("out/lanczos.safetensors").exists());
    }
}

/// Samples that are all the same: their gradients do not vary but for rounding, and so are Hessians of few directions.
fn identical_samples(value: f32) -> Place {
    let place = Place::empty();
    let layer = |outs: usize| format!("[[layers]]\ntype = \"linear\"\nout_features = {outs}\n");
    place.write("model.toml", format!("input = [5]\n{}[[layers]]\ntype = \"tanh\"\n{}", layer(6), layer(3)));
    let random = |seed: usize, len: usize| -> Vec<f32> {
        (0..len).map(|i| ((i * i + 7 * seed + i) as f32 * 0.61).sin() * 0.6).collect()
    };
    let weights = [
        ("0.weight", &[6, 5][..], random(1, 30)),
        ("0.bias", &[6][..], random(2, 6)),
        ("2.weight", &[3, 6][..], random(3, 18)),
        ("2.bias", &[3][..], random(4, 3)),
    ]
    .map(|(name, shape, values)| (name, shape, f32s(&values)));
    let weights: Vec<_> =
        weights.iter().map(|(name, shape, bytes)| (*name, Dtype::F32, *shape, &bytes[..])).collect();
    place.write("weights.safetensors", safetensors(&weights));
    let inputs = f32s(&[value; 13 * 5]);
    let targets = i64s(&[1; 13]);
    let data =
        [("inputs", Dtype::F32, &[13, 5][..], &inputs[..]), ("targets", Dtype::I64, &[13][..], &targets[..])];
    place.write("data.safetensors", safetensors(&data));
    place
}

#[test]
fn noise_that_is_rounding_is_no_noise() {
    for value in [0.0, 1.0] {
        let place = identical_samples(value);
        let spectrum = format!("spectrum {CHECKPOINT} --loss cross-entropy");
        let told =
            place.run(&format!("{spectrum} --operator hessian --compare noise-covariance --top 3 --out a"));
        assert_eq!(told.code, Some(3), "{}", told.err);
        for measure in ["overlap (", "γ (", "Spearman's ρ (", "commutativity error ("] {
            assert!(told.err.contains(measure), "{measure}: {}", told.err);
        }
        let told = place
            .run(&format!("{spectrum} --operator noise-covariance --compare ggn --density --top 3 --out b"));
        assert_eq!(told.code, Some(3), "{}", told.err);
        assert!(told.err.contains("commutativity error (the operators' product is 0)"), "{}", told.err);
        assert!(
            told.err.contains("density of the noise covariance: undefined: all eigenvalues are 0"),
            "{}",
            told.err
        );
        let values = place.text("b/eigenvalues.csv");
        assert!(values.lines().skip(1).all(|line| line.split(',').nth(1) == Some("0.0")), "{values}");
    }
}

/// An exponent is not fitted to curvature that single precision makes of 0.
#[test]
fn curvature_that_is_rounding_is_no_point_of_a_fit() {
    let place = identical_samples(0.0);
    let scaling = format!(
        "reproduce superlinear scaling {CHECKPOINT} --loss cross-entropy --layer 2.weight --batch-size 1 --out out"
    );
    let told = place.run(&scaling);
    assert_eq!(told.code, Some(3), "{}{}", told.out, told.err);
    assert!(told.err.contains("3 are needed"), "{}", told.err);
    let report = place.text("out/report.html");
    assert!(!report.contains("finding agrees"), "no claim is made of what is undefined");
}
