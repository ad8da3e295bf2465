"""The reference cases: small networks whose every quantity JAX or PyTorch has computed in f64.

    python make.py        (needs jax, torch, numpy and safetensors; writes one folder per case beside this file)

Multi-layer perceptrons, one per loss, are JAX's automatic differentiation of the forward pass below. The other
networks are made of PyTorch's own modules, whose `state_dict` is the weights file as it stands, and
differentiated by repeated backward passes.

A folder holds what `curvkit eval` reads and writes: `model.toml`, `data.safetensors`, `weights.safetensors`,
`vectors.safetensors` (all f32: the problem is exactly these numbers) and the results, in f64, in
`reference.safetensors`.
"""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

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


class ScalarBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x + self.bias


class ScalarScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * x


class Residual(nn.Module):
    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


class Sinusoidal(nn.Module):
    def forward(self, x):
        t, d = x.shape[-2:]
        rates = torch.exp(torch.arange(0, d, 2) * (-math.log(10000.0) / d))
        angles = torch.arange(t)[:, None] * rates
        encoding = torch.zeros(t, d)
        encoding[:, 0::2], encoding[:, 1::2] = torch.sin(angles), torch.cos(angles[:, : d // 2])
        return x + encoding


class Learned(nn.Module):
    def __init__(self, tokens, features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tokens, features))

    def forward(self, x):
        return x + self.weight


class MeanPool(nn.Module):
    def forward(self, x, mask):
        return (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def layer_norm(x, _, weight, bias, eps):
    """In place of PyTorch's, whose third derivative is silently wrong (in 2.15; pytorch issue 175754)."""
    deviations = x - x.mean(-1, keepdim=True)
    return deviations / torch.sqrt((deviations**2).mean(-1, keepdim=True) + eps) * weight + bias


class Model(nn.Sequential):
    """Hands the mask to the layers that look at it."""

    def forward(self, x, mask):
        for layer in self:
            if isinstance(layer, nn.TransformerEncoderLayer):
                x = layer(x, src_key_padding_mask=mask == 0)
            elif isinstance(layer, MeanPool):
                x = layer(x, mask)
            else:
                x = layer(x)
        return x


def build(layers, shape):
    """PyTorch's modules for the layers of a model file, and the shape of what they return."""
    modules = []
    for layer in layers:
        options = dict(layer)
        match options.pop("type"):
            case "linear":
                module = nn.Linear(shape[-1], **options)
            case "conv2d":
                module = nn.Conv2d(shape[0], **options)
            case "max_pool2d":
                module = nn.MaxPool2d(**options)
            case "avg_pool2d":
                module = nn.AvgPool2d(**options)
            case "adaptive_avg_pool2d":
                module = nn.AdaptiveAvgPool2d(**options)
            case "flatten":
                module = nn.Flatten()
            case "relu":
                module = nn.ReLU()
            case "tanh":
                module = nn.Tanh()
            case "gelu":
                module = nn.GELU()
            case "scalar_bias":
                module = ScalarBias()
            case "scalar_scale":
                module = ScalarScale()
            case "residual":
                parts = [nn.Sequential(*build(options.get(part, []), shape)[0]) for part in ("body", "shortcut")]
                module = Residual(*parts)
            case "layer_norm":
                module = nn.LayerNorm(shape[-1])
            case "embedding":
                module = nn.Embedding(**options)
            case "positional_encoding":
                module = Sinusoidal() if options["kind"] == "sinusoidal" else Learned(*shape)
            case "transformer_encoder_layer":
                options["nhead"] = options.pop("num_heads")
                module = nn.TransformerEncoderLayer(shape[-1], dropout=0.0, batch_first=True, **options)
            case "mean_pool":
                module = MeanPool()
        ids = isinstance(module, nn.Embedding)
        x = torch.zeros((1, *shape), dtype=torch.int64 if ids else None)
        x = module(x, torch.ones(1, shape[0])) if isinstance(module, MeanPool) else module(x)
        shape = tuple(x.shape[1:])
        modules.append(module)
    return modules, shape


def layer(type, **options):
    return {"type": type, **options}


def conv(out_channels, kernel_size, stride=1, padding=0, bias=True):
    return layer(
        "conv2d", out_channels=out_channels, kernel_size=kernel_size, stride=stride, padding=padding, bias=bias
    )


def encoder(num_heads, dim_feedforward, activation, norm_first):
    return layer(
        "transformer_encoder_layer",
        num_heads=num_heads,
        dim_feedforward=dim_feedforward,
        activation=activation,
        norm_first=norm_first,
    )


RELU, TANH, FLATTEN = layer("relu"), layer("tanh"), layer("flatten")
BIAS, SCALE = layer("scalar_bias"), layer("scalar_scale")

# name: input or number of tokens, layers, loss, samples, directions, whether targets are classes
TORCH_CASES = {
    "conv": (
        (2, 7, 9),
        [
            conv(3, 3, stride=2, padding=1),
            RELU,
            layer("max_pool2d", kernel_size=3, stride=1),
            conv(4, 5, padding=2, bias=False),
            TANH,
            layer("avg_pool2d", kernel_size=2, stride=1),
            FLATTEN,
            layer("linear", out_features=3),
        ],
        "cross-entropy",
        5,
        2,
        True,
    ),
    "residual": (
        (2, 5, 7),
        [
            conv(3, 3, padding=1, bias=False),
            BIAS,
            RELU,
            layer(
                "residual",
                body=[
                    BIAS,
                    conv(4, 3, stride=2, padding=1, bias=False),
                    BIAS,
                    RELU,
                    BIAS,
                    conv(4, 3, padding=1, bias=False),
                    SCALE,
                    BIAS,
                ],
                shortcut=[BIAS, conv(4, 1, stride=2, bias=False)],
            ),
            RELU,
            layer("residual", body=[layer("gelu"), conv(4, 3, padding=1), SCALE]),
            layer("adaptive_avg_pool2d", output_size=2),
            FLATTEN,
            layer("linear", out_features=3),
        ],
        "mse",
        4,
        2,
        False,
    ),
    "transformer-post-norm": (
        7,
        [
            layer("embedding", num_embeddings=11, embedding_dim=6),
            layer("positional_encoding", kind="sinusoidal"),
            encoder(2, 9, "relu", False),
            layer("mean_pool"),
            layer("linear", out_features=3),
        ],
        "cross-entropy",
        5,
        2,
        True,
    ),
    "transformer-norm-first": (
        5,
        [
            layer("embedding", num_embeddings=9, embedding_dim=6),
            layer("positional_encoding", kind="learned"),
            encoder(3, 7, "gelu", True),
            encoder(1, 5, "relu", True),
            layer("layer_norm"),
            layer("mean_pool"),
            layer("linear", out_features=2),
        ],
        "squared-error",
        4,
        2,
        True,
    ),
}


def layers_toml(layers, table="layers"):
    def value(x):
        return f'"{x}"' if isinstance(x, str) else str(x).lower()

    blocks = []
    for layer in layers:
        own = [f"{key} = {value(x)}\n" for key, x in layer.items() if not isinstance(x, list)]
        blocks.append(f"[[{table}]]\n" + "".join(own))
        blocks += [layers_toml(x, f"{table}.{key}") for key, x in layer.items() if isinstance(x, list)]
    return "\n".join(blocks)


# of the outputs f [N, L] and targets y [N, L]: [N]
TORCH_LOSSES = {
    "cross-entropy": lambda f, y: -(y * torch.log_softmax(f, 1)).sum(1),
    "mse": lambda f, y: ((f - y) ** 2).mean(1),
    "squared-error": lambda f, y: 0.5 * ((f - y) ** 2).sum(1),
}


def torch_quantities(model, loss, x, mask, y, v):
    """All results at the model's parameters, for the samples x [N, …], y [N, L] and the directions v [K, P]."""
    theta = list(model.parameters())

    def flat_gradient(scalar):
        parts = torch.autograd.grad(scalar, theta, create_graph=True, materialize_grads=True)
        return torch.cat([part.ravel() for part in parts])

    f = model(x, mask)
    losses = TORCH_LOSSES[loss](f, y)
    gradient = flat_gradient(losses.mean())
    hvp = [flat_gradient(gradient @ direction) for direction in v]
    third = [flat_gradient(h @ direction) for h, direction in zip(hvp, v)]
    per_sample = torch.stack([flat_gradient(sample) for sample in losses]).detach()
    jacobians = torch.stack([torch.stack([flat_gradient(out) for out in sample]) for sample in f]).detach()
    curvatures = torch.stack(
        [
            torch.autograd.functional.hessian(lambda f: TORCH_LOSSES[loss](f[None], y[None])[0], f.detach())
            for f, y in zip(f, y)
        ]
    )
    ggn = torch.einsum("nlp,nlm,nmq->pq", jacobians, curvatures, jacobians) / len(x)
    deviations = per_sample - per_sample.mean(0)
    return {
        "loss": losses.mean(),
        "gradient": gradient,
        "per_sample_gradient": per_sample,
        "hvp": torch.stack(hvp),
        "ggnvp": v @ ggn,
        "noise_covariance_vp": (v @ deviations.T) @ deviations / len(x),
        "third": torch.stack(third),
    }


def make_with_torch():
    torch.set_default_dtype(torch.float64)
    x, (weight, bias) = torch.randn(3, 5), torch.randn(2, 5)
    fused = nn.functional.layer_norm(x, (5,), weight, bias, 1e-5)
    assert torch.allclose(layer_norm(x, (5,), weight, bias, 1e-5), fused, 1e-13)
    nn.functional.layer_norm = layer_norm
    torch.backends.mha.set_fastpath_enabled(False)  # the fused kernels have no second derivative
    for seed, (name, (shape, layers, loss, n, k, classes)) in enumerate(TORCH_CASES.items()):
        rng = np.random.default_rng(100 + seed)
        tokens = isinstance(shape, int)
        modules, (outputs,) = build(layers, (shape,) if tokens else shape)
        model = Model(*modules).eval()
        parameters = {}
        for key, tensor in model.state_dict().items():
            fan_in = max(1, math.prod(tensor.shape[1:]))
            centre = 1.0 if key.endswith(".scale") or ("norm" in key and key.endswith(".weight")) else 0.0
            values = centre + rng.standard_normal(tuple(tensor.shape)) * 0.9 / math.sqrt(fan_in)
            parameters[key] = values.astype(np.float32)
        model.load_state_dict({key: torch.from_numpy(x).double() for key, x in parameters.items()})
        if tokens:
            ids = rng.integers(layers[0]["num_embeddings"], size=(n, shape))
            lengths = np.array([shape, 1, 3, shape - 1, 2])[:n]
            mask = (np.arange(shape) < lengths[:, None]).astype(np.float32)
            data = {"inputs": ids * (mask == 1), "mask": mask}
        else:
            data, mask = {"inputs": rng.standard_normal((n, *shape)).astype(np.float32)}, np.zeros(0)
        if classes:
            data["targets"] = rng.integers(outputs, size=n)
            y = np.eye(outputs)[data["targets"]]
        else:
            data["targets"] = y = rng.standard_normal((n, outputs)).astype(np.float32)
        v = rng.standard_normal((k, sum(x.size for x in parameters.values()))).astype(np.float32)

        x = torch.from_numpy(data["inputs"])
        x = x if tokens else x.double()
        problem = [torch.from_numpy(a).double() for a in (mask, y, v)]
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            results = torch_quantities(model, loss, x, *problem)

        head = f"tokens = {shape}" if tokens else f"input = {list(shape)}"
        folder = pathlib.Path(__file__).parent / name
        folder.mkdir(exist_ok=True)
        (folder / "model.toml").write_text(f"{head}\n\n{layers_toml(layers)}")
        save_file(data, folder / "data.safetensors")
        save_file(parameters, folder / "weights.safetensors")
        save_file({"v": v}, folder / "vectors.safetensors")
        results = {name: a.detach().numpy() for name, a in results.items()}
        save_file(results, folder / "reference.safetensors")


def make_with_jax():
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
    make_with_jax()
    make_with_torch()
