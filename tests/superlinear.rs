//! `curvkit reproduce superlinear`: its files, and that an interrupted run goes on where it stopped.

mod program;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use program::*;
use serde_json::Value;

/// Makes the figure of `run/weights.safetensors` with the given options, and checks what is written: `dim` rows,
/// as many as the measured layer has weights.
fn reproduces_scaling(place: &Place, options: &str, dim: usize) {
    let printed = place.done(&format!(
        "reproduce superlinear scaling --dataset synthetic --loss cross-entropy --classes 3 --weights run/weights.safetensors --out out {options}"
    ));
    assert!(
        printed.starts_with("synthetic-") && printed.contains("-cross-entropy-3 (1500 samples, "),
        "{printed}"
    );
    assert!(printed.ends_with("\nreport: out/report.html\n"), "{printed}");
    let table = place.text("out/scaling.csv");
    let mut rows = table.lines();
    assert_eq!(
        rows.next(),
        Some("index,hessian,curvature_second_moment,covariance,awd_raw,hh,hh_sd,hh_sd_wd,hh_sd_wd_li")
    );
    let curvatures: Vec<f64> = rows.map(|row| row.split(',').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(curvatures.len(), dim);
    assert!(curvatures.is_sorted_by(|a, b| a >= b) && curvatures[0] > 0.0);
    assert!(place.text("out/scaling.svg").contains("</svg>"));
    assert!(place.text("out/report.html").contains("</html>"));
    let run: Value = serde_json::from_str(&place.text("out/run.json")).unwrap();
    assert_eq!(run["weights"], "run/weights.safetensors");
    // the data is on record by its content, and a checkpoint's epochs are not known
    let data = run["contents"]["data"].as_object().unwrap();
    let (name, data) = data.iter().next().unwrap();
    assert!(name.contains("-cross-entropy-3") && data["samples"] == 1500, "{name}: {data}");
    assert!(data["digest"].as_str().unwrap().len() == 64 && data["batch_size"].is_number());
    assert!(!run["cases"][0].as_str().unwrap().contains("epochs"));
}

#[test]
fn reproduces_the_scaling_of_given_weights() {
    let place = Place::empty();
    let layer = |width| format!("[[layers]]\ntype = \"linear\"\nout_features = {width}\nbias = false\n");
    let relu = "[[layers]]\ntype = \"relu\"\n";
    let mlp = [layer(50), layer(50), layer(10)].join(relu);
    place.write("mlp.toml", format!("input = [784]\n{mlp}"));
    place.done(
        "train --model mlp.toml --dataset synthetic --classes 0,1,2 --per-class 50 --loss cross-entropy --learning-rate 0.1 --batch-size 50 --epochs 5 --out run",
    );
    reproduces_scaling(&place, "", 2500);
}

#[test]
fn reproduces_the_figures_of_a_model_of_ones_own() {
    let place = Place::of("cross-entropy");
    let printed = place.done(
        "reproduce superlinear all --model model.toml --weights weights.safetensors --data data.safetensors --loss cross-entropy --layer 2.weight --batch-size 2 --top 20 --out out",
    );
    let sizes = "model (13 samples, batches of 2, top 20, 2000 pairs of batches)";
    assert_eq!(printed, format!("{sizes}\nreport: out/report.html\n"));
    assert!(place.text("out/exponents.csv").lines().count() == 1 + 6);
    for part in ["alignment.csv", "bounds.csv", "suppression.svg", "correlation_all_hh.svg"] {
        assert!(place.path().join("out").join(part).exists(), "{part}");
    }
    let report = place.text("out/report.html");
    assert!(report.contains("whose weights were given") && !report.contains("could not be made"));
    let run: Value = serde_json::from_str(&place.text("out/run.json")).unwrap();
    assert_eq!(run["layer"], "2.weight");
    assert_eq!(run["cases"][0], sizes);
    // all that is there is on record
    let names: Vec<&str> =
        run["files"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let out = place.path().join("out");
    for path in files(&out).keys() {
        let name = path.strip_prefix(&out).unwrap().to_str().unwrap();
        assert!(names.contains(&name), "{name}");
    }
    assert_eq!(run["complete"], true);
}

/// Of a network that has seen three images, and of its layer 20 → 10: a small eigenproblem, the large one being that
/// of the fully connected network.
#[test]
fn reproduces_the_scaling_of_a_convolutional_network() {
    let place = Place::empty();
    place.done(
        "train --model cnn-superlinear-mnist --dataset synthetic --classes 0,1,2 --per-class 1 --loss cross-entropy --learning-rate 0.1 --batch-size 3 --epochs 1 --out run",
    );
    reproduces_scaling(&place, "--model cnn --layer 15.weight", 200);
    let run: Value = serde_json::from_str(&place.text("out/run.json")).unwrap();
    assert_eq!(run["layer"], "15.weight");
}

/// Of a layer 50 → 10, whose eigenproblem is small.
const EVOLUTION: &str =
    "reproduce superlinear evolution --dataset synthetic --classes 3 --layer 4.weight --loss";

/// Ends the program as soon as the file `path` is there.
fn interrupted_at(place: &Place, args: &str, path: &Path) {
    let mut command = place.command(args);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none(), "{args}: ended before {}", path.display());
        assert!(started.elapsed() < Duration::from_secs(300), "{args}: no {}", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_evolution_that_was_interrupted_goes_on() {
    let place = Place::empty();
    let run = Path::new("out/runs/synthetic-mlp-cross-entropy-3-quick-seed0");
    let at = |name: &str| place.path().join(run).join(name);
    let evolution = format!("{EVOLUTION} cross-entropy --out out");
    // while it trains, and while it measures
    interrupted_at(&place, &evolution, &at("epoch-000006.safetensors"));
    assert!(!place.path().join("out/report.html").exists());
    interrupted_at(&place, &evolution, &at("epoch-000003-4.weight.json"));
    let measured = fs::metadata(at("epoch-000003-4.weight.json")).unwrap().modified().unwrap();
    place.done(&evolution);
    assert_eq!(fs::metadata(at("epoch-000003-4.weight.json")).unwrap().modified().unwrap(), measured);
    // bit for bit what it is in one go
    place.done(&format!("{EVOLUTION} cross-entropy --out whole"));
    for file in ["evolution.csv", "diagonals.csv", "evolution_a.svg", "evolution_e.svg"] {
        assert!(place.read(&format!("out/{file}")) == place.read(&format!("whole/{file}")), "{file}");
    }

    let table = place.text("out/evolution.csv");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0][..3], ["epoch", "estimate", "gamma"]);
    assert_eq!(rows.len(), 1 + 6 * 9);
    let epochs: Vec<&str> = rows[1..].iter().step_by(9).map(|row| row[0]).collect();
    assert_eq!(epochs, ["1", "3", "6", "16", "40", "100"]);
    assert_eq!(place.text("out/diagonals.csv").lines().count(), 1 + 500);
    let report = place.text("out/report.html");
    assert!(
        report.contains("accuracy 100.00 %") && report.contains("evolution") && report.contains("</html>")
    );
}

#[cfg(target_os = "linux")]
#[test]
fn synthetic_studies_need_no_adapter() {
    let place = Place::empty();
    let mut command = place.command("reproduce superlinear synthetic --out out");
    command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
    let Outcome { code, out, err } = outcome(&mut command);
    assert_eq!((code, out.as_str()), (Some(0), "report: out/report.html\n"), "{err}");
    assert!(place.text("out/synthetic/synthetic.csv").lines().count() > 3);
    let run: Value = serde_json::from_str(&place.text("out/run.json")).unwrap();
    assert_eq!(run["adapter"], Value::Null);
}
