"""The reference cases: small networks whose every quantity JAX has computed in f64.

    python make.py        (needs jax, numpy and safetensors; writes one folder per loss beside this file)

A folder holds what `curvkit eval` reads and writes: `model.toml`, `data.safetensors`, `weights.safetensors`,
`vectors.safetensors` (all f32: the problem is exactly these numbers) and the results, in f64, in
`reference.safetensors`. Every derivative is JAX's automatic differentiation of the forward pass below.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

jax.config.update("jax_enable_x64", True)

# loss: widths, activation, its TOML options, bias, samples, directions, whether targets are classes
CASES = {
    "cross-entropy": ([7, 11, 5, 4], "tanh", {}, True, 13, 3, True),
    "mse": ([5, 9, 3], "gelu", {}, True, 8, 2, False),
    "softmax-mse": ([6, 10, 7, 3], "relu", {}, True, 17, 2, True),
    "squared-error": ([4, 9, 1, 2], "leaky_relu", {"negative_slope": 0.125}, False, 6, 3, False),
}

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.125),
}

# of one sample's outputs f [L] and targets y [L]
LOSSES = {
    "cross-entropy": lambda f, y: -jnp.sum(y * jax.nn.log_softmax(f)),
    "mse": lambda f, y: jnp.mean((f - y) ** 2),
    "softmax-mse": lambda f, y: jnp.mean((jax.nn.softmax(f) - y) ** 2),
    "squared-error": lambda f, y: 0.5 * jnp.sum((f - y) ** 2),
}


def toml(widths, activation, options, bias):
    linear = [f'type = "linear"\nout_features = {width}\nbias = {str(bias).lower()}\n' for width in widths[1:]]
    sigma = "".join([f'type = "{activation}"\n'] + [f"{key} = {value}\n" for key, value in options.items()])
    layers = f"\n[[layers]]\n{sigma}\n[[layers]]\n".join(linear)
    return f"input = [{widths[0]}]\n\n[[layers]]\n{layers}"


def quantities(shapes, activation, loss, theta, x, y, v):
    """All results at θ [P], for the samples x [N, d], y [N, L] and the directions v [K, P]."""

    def outputs(theta, x):
        start, layers = 0, {}
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            layer, kind = name.split(".")
            layers.setdefault(layer, {})[kind] = theta[start : start + size].reshape(shape)
            start += size
        for i, parameters in enumerate(layers.values()):
            x = parameters["weight"] @ (ACTIVATIONS[activation](x) if i else x) + parameters.get("bias", 0.0)
        return x  # [L]

    def sample_loss(theta, x, y):
        return LOSSES[loss](outputs(theta, x), y)

    def mean_loss(theta):
        return jnp.mean(jax.vmap(sample_loss, (None, 0, 0))(theta, x, y))

    def along(f, v):
        return lambda theta: jax.jvp(f, (theta,), (v,))[1]

    gradient = jax.grad(mean_loss)
    per_sample = jax.vmap(jax.grad(sample_loss), (None, 0, 0))(theta, x, y)  # [N, P]
    jacobians = jax.vmap(jax.jacrev(outputs), (None, 0))(theta, x)  # [N, L, P]
    curvatures = jax.vmap(jax.hessian(LOSSES[loss]))(jax.vmap(outputs, (None, 0))(theta, x), y)  # [N, L, L]
    ggn = jnp.einsum("nlp,nlm,nmq->pq", jacobians, curvatures, jacobians) / len(x)
    deviations = per_sample - jnp.mean(per_sample, 0)
    return {
        "loss": mean_loss(theta),
        "gradient": gradient(theta),
        "per_sample_gradient": per_sample,
        "hvp": jnp.stack([along(gradient, v)(theta) for v in v]),
        "ggnvp": v @ ggn,
        "noise_covariance_vp": (v @ deviations.T) @ deviations / len(x),
        "third": jnp.stack([along(along(gradient, v), v)(theta) for v in v]),
    }


def main():
    for seed, (loss, (widths, activation, options, bias, n, k, classes)) in enumerate(CASES.items()):
        rng = np.random.default_rng(seed)
        shapes, parameters = {}, {}
        for i, (d_in, d_out) in enumerate(zip(widths, widths[1:])):
            shapes[f"{2 * i}.weight"] = (d_out, d_in)
            if bias:
                shapes[f"{2 * i}.bias"] = (d_out,)
        for name, shape in shapes.items():
            parameters[name] = (rng.standard_normal(shape) * 0.7).astype(np.float32)
        inputs = rng.standard_normal((n, widths[0])).astype(np.float32)
        if classes:
            targets = rng.integers(widths[-1], size=n)
            y = np.eye(widths[-1])[targets]
        else:
            targets = y = rng.standard_normal((n, widths[-1])).astype(np.float32)
        theta = np.concatenate([p.ravel() for p in parameters.values()])
        v = rng.standard_normal((k, len(theta))).astype(np.float32)

        problem = [jnp.asarray(a, jnp.float64) for a in (theta, inputs, y, v)]
        results = quantities(shapes, activation, loss, *problem)

        folder = pathlib.Path(__file__).parent / loss
        folder.mkdir(exist_ok=True)
        (folder / "model.toml").write_text(toml(widths, activation, options, bias))
        save_file({"inputs": inputs, "targets": targets}, folder / "data.safetensors")
        save_file(parameters, folder / "weights.safetensors")
        save_file({"v": v}, folder / "vectors.safetensors")
        save_file({name: np.asarray(a) for name, a in results.items()}, folder / "reference.safetensors")


if __name__ == "__main__":
    main()
