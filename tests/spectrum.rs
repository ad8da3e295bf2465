//! `curvkit spectrum` against dense f64 decompositions of what `curvkit eval` makes of unit vectors, and its refusals.

mod program;

use faer::{Mat, Side};
use program::*;
use safetensors::Dtype;
use serde_json::Value;

const PROBLEM: &str =
    "--model model.toml --weights weights.safetensors --data data.safetensors --loss cross-entropy";
const OPERATORS: [(&str, &str, &str); 3] = [
    ("hessian", "hvp", "hvp"),
    ("ggn", "ggnvp", "ggnvp"),
    ("noise-covariance", "noise-covariance-vp", "noise_covariance_vp"),
];

/// The operator as a matrix, `[dim, dim]`, of the parameters that `chosen` names.
fn dense(place: &Place, compute: &str, tensor: &str, chosen: &str) -> Mat<f64> {
    place.done(&format!("eval {PROBLEM} {chosen} --compute gradient --out g.safetensors"));
    let dim = place.values("g.safetensors", "gradient").1.len();
    let identity: Vec<f32> = (0..dim * dim).map(|e| f32::from(u8::from(e / dim == e % dim))).collect();
    place.write("unit.safetensors", safetensors(&[("v", Dtype::F32, &[dim, dim], &f32s(&identity))]));
    place.done(&format!(
        "eval {PROBLEM} {chosen} --compute {compute} --vectors unit.safetensors --out dense.safetensors"
    ));
    let values = place.values("dense.safetensors", tensor).1;
    Mat::from_fn(dim, dim, |i, j| 0.5 * (values[i * dim + j] + values[j * dim + i]))
}

/// In ascending order.
fn eigenvalues(matrix: &Mat<f64>) -> Vec<f64> {
    matrix.self_adjoint_eigenvalues(Side::Lower).unwrap()
}

/// A CSV file's header and numbers.
fn table(place: &Place, name: &str) -> (String, Vec<Vec<f64>>) {
    let text = place.text(name);
    let mut lines = text.lines();
    let header = lines.next().unwrap().to_string();
    let number = |cell: &str| cell.parse().unwrap_or(f64::from(u8::from(cell == "true")));
    (header, lines.map(|line| line.split(',').map(number).collect()).collect())
}

#[test]
fn eigenpairs_agree_with_a_dense_decomposition() {
    let place = Place::of("cross-entropy");
    for (operator, compute, tensor) in OPERATORS {
        for (chosen, which, count) in
            [("", "largest", 20), ("", "smallest", 5), ("--parameters 2.weight,4.bias", "magnitude", 7)]
        {
            let matrix = dense(&place, compute, tensor, chosen);
            let mut expected = eigenvalues(&matrix);
            match which {
                "largest" => expected.reverse(),
                "magnitude" => expected.sort_by(|a, b| b.abs().total_cmp(&a.abs())),
                _ => {}
            }
            let scale = expected.iter().fold(0.0f64, |scale, value| scale.max(value.abs()));
            let out = place.done(&format!(
                "spectrum {PROBLEM} {chosen} --operator {operator} --top {count} --which {which} --tolerance 1e-5 --out out \
                 --overwrite --json"
            ));
            let (header, rows) = table(&place, "out/eigenvalues.csv");
            assert_eq!(header, "index,eigenvalue,residual,converged");
            assert_eq!(rows.len(), count, "{operator} {which}");
            let (shape, vectors) = place.values("out/eigenvectors.safetensors", "eigenvectors");
            let dim = matrix.nrows();
            assert_eq!(shape, [count, dim]);
            let printed: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(printed["dim"], dim);
            for (i, row) in rows.iter().enumerate() {
                let what = format!("{operator} {which} {i}");
                let [index, value, residual, converged] = row[..] else { panic!("{row:?}") };
                assert_eq!((index, converged), ((i + 1) as f64, 1.0), "{what}");
                let off = match which {
                    "magnitude" => (value.abs() - expected[i].abs()).abs(),
                    _ => (value - expected[i]).abs(),
                };
                assert!(off <= 1e-5 * scale, "{what}: {value}, expected {}", expected[i]);
                assert_eq!(printed["eigenpairs"]["eigenvalues"][i], value, "{what}");
                let v = &vectors[i * dim..(i + 1) * dim];
                let product = |r: usize| (0..dim).map(|c| matrix[(r, c)] * v[c]).sum::<f64>();
                let rest = (0..dim).map(|r| (product(r) - value * v[r]).powi(2)).sum::<f64>().sqrt() / scale;
                assert!(
                    residual <= 1e-5 && (rest - residual).abs() <= 1e-5,
                    "{what}: {rest}, told {residual}"
                );
            }
            assert!(place.text("out/spectrum.svg").starts_with("<svg"));
            let run: Value = serde_json::from_str(&place.text("out/run.json")).unwrap();
            assert_eq!(run["options"]["operator"], operator);
            // the width that was measured determines the results as one that was asked for
            let widths = run["options"]["block"].as_array().unwrap();
            assert!(widths.len() == 1 && widths[0].as_u64().is_some_and(|width| width >= 1), "{widths:?}");
            assert_eq!(run["results"]["eigenpairs"]["products"], printed["eigenpairs"]["products"]);
            assert!(run["adapter"]["name"].is_string() && run["wall_time_seconds"].is_number());
            assert!(!place.path().join("out/lanczos.safetensors").exists());
        }
    }
}

/// A fully connected layer's weights, as `--parameters` has them; the same bits twice.
#[test]
fn a_layer_and_the_same_bits() {
    let place = Place::of("cross-entropy");
    let spectrum = format!("spectrum {PROBLEM} --operator hessian --top 4 --seed 3");
    place.done(&format!("{spectrum} --layer 2.weight --out layer"));
    place.done(&format!("{spectrum} --parameters 2.weight --out parameters"));
    place.done(&format!("{spectrum} --parameters 2.weight --out again"));
    for other in ["parameters", "again"] {
        assert_eq!(place.read("layer/eigenvalues.csv"), place.read(&format!("{other}/eigenvalues.csv")));
        let vectors = |of: &str| place.tensors(&format!("{of}/eigenvectors.safetensors"));
        assert_eq!(vectors("layer"), vectors(other));
    }
}

#[test]
fn a_budget_that_is_spent_is_told_and_taken_up_again() {
    let place = Place::of("cross-entropy");
    let spectrum = format!("spectrum {PROBLEM} --operator hessian --top 20 --tolerance 1e-5 --block 2");
    place.done(&format!("{spectrum} --out whole"));
    let cut = place.run(&format!("{spectrum} --max-products 46 --out cut"));
    assert_eq!(cut.code, Some(3), "{}", cut.err);
    assert!(
        cut.err.starts_with("curvkit: Hessian: ") && cut.err.contains(" of 20 eigenpairs converged within ")
    );
    assert!(cut.out.contains("not converged"), "{}", cut.out);
    let (_, rows) = table(&place, "cut/eigenvalues.csv");
    assert!(rows.iter().any(|row| row[3] == 0.0) && rows.iter().all(|row| row[2].is_finite()));
    place.done(&format!("{spectrum} --resume --out cut"));
    assert_eq!(place.read("cut/eigenvalues.csv"), place.read("whole/eigenvalues.csv"));
    let vectors = |of: &str| place.tensors(&format!("{of}/eigenvectors.safetensors"));
    assert_eq!(vectors("cut"), vectors("whole"));
    // fewer products would be a loss, and another command is another run
    let fewer = place.refused(&format!("{spectrum} --max-products 46 --out cut"));
    let found = "found eigenvalues.csv and 3 more files of another run";
    assert_eq!(
        fewer,
        format!(
            "cut: {found} (options.max_products: found none, expected 46), expected none; --resume goes on from it, \
             --overwrite replaces it"
        )
    );
    let cut = place.run(&format!("{spectrum} --max-products 46 --overwrite --out cut"));
    assert_eq!(cut.code, Some(3));
    let other = place.refused(&format!("{spectrum} --seed 1 --resume --out cut"));
    assert_eq!(other, "cut: found another run: options.seed: found 0, expected 1; --overwrite replaces it");
}

#[test]
fn two_operators_compared() {
    let place = Place::of("cross-entropy");
    let [hessian, noise] =
        [OPERATORS[0], OPERATORS[2]].map(|(_, compute, tensor)| dense(&place, compute, tensor, ""));
    let out = place.done(&format!(
        "spectrum {PROBLEM} --operator hessian --compare noise-covariance --top 6 --tolerance 1e-5 --probes 40 \
         --out out --json"
    ));
    let dim = hessian.nrows();
    let (header, rows) = table(&place, "out/comparison.csv");
    assert_eq!((header.as_str(), rows.len()), ("index,eigenvalue,diagonal,overlap", 6));
    let leading = |matrix: &Mat<f64>| {
        matrix.self_adjoint_eigen(Side::Lower).unwrap().U().reverse_cols().subcols(0, 6).to_owned()
    };
    let (u, v) = (leading(&hessian), leading(&noise));
    let scale = noise.norm_l2();
    for (i, row) in rows.iter().enumerate() {
        let diagonal = u.col(i).transpose() * &noise * u.col(i);
        assert!((row[2] - diagonal).abs() <= 1e-4 * scale, "{i}: {}, expected {diagonal}", row[2]);
        let overlap =
            (u.subcols(0, i + 1).transpose() * v.subcols(0, i + 1)).squared_norm_l2() / (i + 1) as f64;
        assert!((row[3] - overlap).abs() <= 1e-2, "{i}: {}, expected {overlap}", row[3]);
    }
    let printed: Value = serde_json::from_str(&out).unwrap();
    let compared = &printed["comparison"];
    let product = &hessian * &noise;
    let expected = (&product - product.transpose()).norm_l2() / product.norm_l2();
    let [found, error] =
        ["commutativity_error", "commutativity_standard_error"].map(|name| compared[name].as_f64().unwrap());
    assert!(error > 0.0 && (found - expected).abs() <= 4.0 * error, "{found} ± {error}, expected {expected}");
    let rho = compared["rank_correlation"].as_f64().unwrap();
    assert!((-1.0..=1.0).contains(&rho));
    assert_eq!(compared["overlap"].as_array().unwrap().len(), 6);
    for file in ["comparison.svg", "overlap.svg", "report.html", "noise-covariance-eigenvalues.csv"] {
        assert!(!place.read(&format!("out/{file}")).is_empty(), "{file}");
    }
    assert!(place.text("out/report.html").contains("commutativity error"));
    assert_eq!(dim, 172);
}

#[test]
fn density_and_trace() {
    let place = Place::of("cross-entropy");
    let matrix = dense(&place, "hvp", "hvp", "");
    let out = place.done(&format!(
        "spectrum {PROBLEM} --operator hessian --density --trace --probes 60 --steps 40 --out out --json"
    ));
    let printed: Value = serde_json::from_str(&out).unwrap();
    let (header, rows) = table(&place, "out/density.csv");
    assert_eq!(header, "eigenvalue,density,standard_error");
    let integral: f64 = rows.windows(2).map(|w| (w[1][0] - w[0][0]) * (w[0][1] + w[1][1]) / 2.0).sum();
    assert!((integral - 1.0).abs() < 1e-3, "{integral}");
    assert_eq!(table(&place, "out/density-log.csv").0, header);
    let (dim, trace) = (matrix.nrows() as f64, (0..matrix.nrows()).map(|i| matrix[(i, i)]).sum::<f64>());
    let within = |estimate: &Value, expected: f64, what: &str| {
        let [value, error] = ["value", "standard_error"].map(|name| estimate[name].as_f64().unwrap());
        assert!(
            (value - expected).abs() <= 4.0 * error + 1e-5,
            "{what}: {value} ± {error}, expected {expected}"
        );
    };
    within(&printed["trace"]["hutchinson"], trace, "Hutchinson");
    within(&printed["trace"]["xtrace"], trace, "XTrace");
    within(&printed["trace"]["frobenius"], matrix.norm_l2(), "Frobenius");
    within(&printed["density"]["moments"][0], trace / dim, "first moment");
    within(&printed["density"]["moments"][1], matrix.squared_norm_l2() / dim, "second moment");
    let (shape, diagonal) = place.values("out/diagonal.safetensors", "diagonal");
    assert_eq!(shape, [172]);
    let errors = place.values("out/diagonal.safetensors", "standard_error").1;
    let far = (0..172).filter(|&i| (diagonal[i] - matrix[(i, i)]).abs() > 4.0 * errors[i] + 1e-6).count();
    assert!(far <= 2, "{far} entries of the diagonal are far off");
    let run: Value = serde_json::from_str(&place.text("out/run.json")).unwrap();
    assert_eq!(run["options"]["block"], serde_json::json!([]), "no solver runs");
    assert!(printed.get("eigenpairs").is_none() && !place.path().join("out/eigenvalues.csv").exists());
    for plot in ["spectrum.svg", "density-log.svg"] {
        assert!(place.text(&format!("out/{plot}")).starts_with("<svg"), "{plot}");
    }
}

#[test]
fn refusals() {
    let place = Place::of("cross-entropy");
    let spectrum = format!("spectrum {PROBLEM} --operator hessian --out out");
    for (options, message) in [
        ("--top 0", "--top: found 0, expected 1 to 172, the number of parameters"),
        ("--top 173", "--top: found 173, expected 1 to 172, the number of parameters"),
        ("--parameters 4.bias --top 5", "--top: found 5, expected 1 to 4, the number of parameters"),
        ("--tolerance 0", "--tolerance: found 0, expected a number above 0"),
        ("--tolerance nan", "--tolerance: found NaN, expected a number above 0"),
        ("--block 0", "--block: found 0, expected at least 1"),
        ("--max-products 0", "--max-products: found 0, expected at least 1"),
        ("--probes 1", "--probes: found 1, expected 2, for a standard error, to 100000"),
        ("--steps 0", "--steps: found 0, expected 1 to 100000"),
        ("--compare hessian", "--compare: found hessian, expected another operator than --operator"),
        (
            "--layer 1.weight",
            "--layer: found “1.weight”, expected a fully connected layer: 0.weight, 2.weight, 4.weight",
        ),
    ] {
        assert_eq!(place.refused(&format!("{spectrum} {options}")), message, "{options}");
    }
    let both = place.refused(&format!("{spectrum} --layer 2.weight --parameters 4.bias"));
    assert!(both.contains("--layer") && both.contains("--parameters"), "{both}");
}
