"""The Hessians of single samples with respect to one layer, by autograd and a dense eigensolver, beside `bench layer`.

    per_sample_hessians.py --curvkit BINARY --weights FILE [--samples 10] [--of 20000]

The network is 784-50-50-10 without biases, ReLU, cross-entropy, on made-up inputs; `--weights` is a checkpoint of
`mlp-mnist` such as `curvkit train` or a reproduction leaves. Ten samples are timed and scaled up, in single
precision on all cores, each Hessian by `torch.func.hessian`; its eigenvalues and vectors by `torch.linalg.eigh` in double
precision.
"""

import argparse
import json
import subprocess
import time

import torch
from safetensors.torch import load_file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curvkit", default="target/release/curvkit")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--of", type=int, default=20_000)
    own = parser.parse_args()
    tensors = load_file(own.weights)
    first, focus, last = (tensors[name] for name in sorted(tensors))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(own.samples, first.shape[1], generator=generator)
    classes = torch.arange(own.samples) % last.shape[0]

    def loss(weight, x, y):
        hidden = torch.relu(first @ x)
        return torch.nn.functional.cross_entropy(last @ torch.relu(weight @ hidden), y)

    hessian = torch.func.hessian(loss)
    hessian(focus, inputs[0], classes[0])  # what is made once
    autograd = dense = 0.0
    for x, y in zip(inputs, classes):
        start = time.perf_counter()
        h = hessian(focus, x, y).reshape(focus.numel(), focus.numel())
        middle = time.perf_counter()
        torch.linalg.eigh(h.double())  # in single precision it does not converge on so low a rank
        autograd += middle - start
        dense += time.perf_counter() - middle
    each = [autograd / own.samples, dense / own.samples]
    asked = subprocess.run([own.curvkit, "bench", "layer", "--json", "--samples", str(own.of), "--model", "mlp-mnist",
                            "--weights", own.weights], capture_output=True, text=True)  # fmt: skip
    if asked.returncode:
        raise SystemExit(asked.stderr.strip())
    rows = {row["measure"]: row["seconds"] for row in json.loads(asked.stdout)["result"]["rows"]}
    torch_total = own.of * sum(each)
    print(f"| {own.of} samples, D = {focus.numel()} | seconds |\n| --- | ---: |")
    print(f"| PyTorch {torch.__version__}, Hessians ({own.samples} timed, scaled) | {own.of * each[0]:.0f} |")
    print(f"| PyTorch, dense eigenpairs ({own.samples} timed, scaled) | {own.of * each[1]:.0f} |")
    print(f"| curvkit, eigenpairs of every sample | {rows['spectra']:.2f} |")
    print(f"| curvkit, H, C and E[h²] | {rows['moments']:.2f} |")
    print(f"| eigenpairs: PyTorch / curvkit | {torch_total / rows['spectra']:.0f} |")


if __name__ == "__main__":
    main()
