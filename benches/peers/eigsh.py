"""Products per converged eigenpair: `curvkit spectrum` by block width beside SciPy's `eigsh`, on one Hessian.

    eigsh.py --curvkit BINARY --model TOML|NAME --weights FILE --loss LOSS (--data FILE | --dataset NAME …)
             [--layer NAME] [--top 20] [--tolerance 1e-4] [--widths 1,2,4,8,16,32]

`curvkit eval` makes the Hessian itself, column by column, from unit vectors; `eigsh` gets it in double precision and
each of its products is counted. Both are to have ‖A v − λ v‖ ≤ tolerance · |λ₁| for every pair: `eigsh`, whose own
criterion is another one, runs with the largest of many tolerances that does it, and with the number of Lanczos
vectors (of a few) that takes fewest products. Residuals are made here, in double precision, for both.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.sparse.linalg import LinearOperator, eigsh


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def residuals(hessian, values, vectors):
    """‖A v − λ v‖ / |λ₁| of each column of `vectors`."""
    return np.linalg.norm(hessian @ vectors - vectors * values, axis=0) / np.abs(values).max()


def scipy_products(hessian, top, tolerance):
    """The fewest products with which every pair is good enough, and the ncv and tol that they were made with."""
    best = None
    for ncv in {min(len(hessian), max(2 * top + 1, 20)), min(len(hessian), 3 * top), min(len(hessian), 5 * top)}:
        for tol in np.logspace(-1, -8, 29):
            count = 0

            def product(x):
                nonlocal count
                count += 1
                return hessian @ x

            operator = LinearOperator(hessian.shape, matvec=product, dtype=float)
            values, vectors = eigsh(operator, k=top, which="LA", tol=tol, ncv=ncv, v0=np.ones(len(hessian)))
            if residuals(hessian, values, vectors).max() <= tolerance:
                if best is None or count < best[0]:
                    best = count, ncv, tol
                break
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curvkit", default="target/release/curvkit")
    parser.add_argument("--layer")
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--widths", default="1,2,4,8,16,32")
    own, problem = parser.parse_known_args()  # the rest says what Hessian
    place = pathlib.Path(tempfile.mkdtemp(prefix="eigsh-"))
    chosen = ["--parameters", own.layer] if own.layer else []
    asked = run(own.curvkit, "eval", *problem, *chosen, "--compute", "gradient", "--out", place / "g.safetensors")
    if asked.returncode:
        raise SystemExit(asked.stderr.strip())
    dim = load_file(place / "g.safetensors")["gradient"].size
    save_file({"v": np.eye(dim, dtype=np.float32)}, place / "v.safetensors")
    asked = run(own.curvkit, "eval", *problem, *chosen, "--compute", "hvp", "--vectors", place / "v.safetensors",
                "--out", place / "h.safetensors")  # fmt: skip
    if asked.returncode:
        raise SystemExit(asked.stderr.strip())
    hessian = load_file(place / "h.safetensors")["hvp"].astype(float)
    hessian = (hessian + hessian.T) / 2
    print(f"D = {dim}, {own.top} largest eigenvalues to {own.tolerance:g} of |λ₁|\n")
    print("| | products | per pair | largest residual |\n| --- | ---: | ---: | ---: |")
    count, ncv, tol = scipy_products(hessian, own.top, own.tolerance)
    print(f"| SciPy eigsh, ncv = {ncv}, tol = {tol:.1e} | {count} | {count / own.top:.1f} | ≤ {own.tolerance:g} |")
    for width in own.widths.split(","):
        out = place / f"spectrum-{width}"
        asked = run(own.curvkit, "spectrum", *problem, *chosen, "--operator", "hessian", "--top", own.top,
                    "--tolerance", own.tolerance, "--block", width, "--out", out, "--json")  # fmt: skip
        if asked.returncode not in (0, 3):
            raise SystemExit(asked.stderr.strip())
        rows = list(csv.DictReader((out / "eigenvalues.csv").open()))
        values = np.array([float(row["eigenvalue"]) for row in rows])
        vectors = load_file(out / "eigenvectors.safetensors")["eigenvectors"].astype(float).T
        worst = residuals(hessian, values, vectors).max()
        converged = sum(row["converged"] == "true" for row in rows)
        products = json.loads(asked.stdout)["eigenpairs"]["products"]
        print(f"| curvkit, block of {width} | {products} | {products / max(converged, 1):.1f} | {worst:.1e} |")


if __name__ == "__main__":
    main()
