"""The work of `curvkit bench gemm|hvp|train`, done by PyTorch and JAX: one JSON line per row.

    peers.py gemm|hvp|train --framework torch-eager|torch-compile|jax-jit [--sizes N,…] [--blocks K,…]
    peers.py check          all frameworks against double precision

Everything is f32 (TF32 off), on CUDA where the framework has it, else on the CPU with --threads cores.
Where a framework has several ways to do the work, all are timed and the fastest is the row; the others are
named in `others`. A way that fails is named there too.
"""

import argparse
import functools
import json
import os
import sys
import time

HVP_WIDTHS, HVP_SAMPLES = [784, 1024, 512, 256, 128, 64, 10], 512
SGD_WIDTHS, SGD_BATCH, SGD_STEPS, SGD_RATE = [784, 50, 50, 10], 50, 400, 0.01


# ---------------------------------------------------------------------------------------- the problem


def made_up(width, outputs, samples):
    """The data of `curvkit bench`."""
    inputs = (np.arange(samples * width) * 7919 % 1000 / 1000).astype(np.float32)
    return inputs.reshape(samples, width), np.arange(samples) % outputs


def parameters(widths, bias, seed):
    """[(W [out, in], b [out])] or [(W,)], uniform within 1/√in as torch.nn.Linear draws them."""
    rng = np.random.default_rng(seed)
    layers = []
    for i, o in zip(widths, widths[1:]):
        shapes = [(o, i), (o,)] if bias else [(o, i)]
        layers.append(tuple(rng.uniform(-(i**-0.5), i**-0.5, s).astype(np.float32) for s in shapes))
    return layers


def hvp_problem(k):
    x, y = made_up(HVP_WIDTHS[0], HVP_WIDTHS[-1], HVP_SAMPLES)
    directions = [parameters(HVP_WIDTHS, True, 1 + i) for i in range(k)]
    stacked = [tuple(np.stack(t) for t in zip(*layers)) for layers in zip(*directions)]  # [K, …]
    return x, y, parameters(HVP_WIDTHS, True, 0), stacked


# ------------------------------------------------------------------------------------------- timing


def seconds(work, sync, hopeless=float("inf")):
    """Seconds of one `work`, timed as `curvkit bench` times its own (the best of 3 to 50 runs over 2 s), and
    the processor time it took, all cores together, which other programs on the machine hardly change (good to
    a scheduler's tick a core, some 4 ms).

    A first run longer than `hopeless` is the last.
    """
    work()
    sync()
    best, cores, start, runs = float("inf"), float("inf"), time.perf_counter(), 0
    while runs < 3 or (time.perf_counter() - start < 2 and runs < 50):
        run, busy = time.perf_counter(), time.process_time()
        work()
        sync()
        best = min(best, time.perf_counter() - run)
        cores = min(cores, time.process_time() - busy)
        runs += 1
        if best > hopeless:
            break
    return best, cores


def fastest(ways, sync, repeat=1):
    """Times every way of doing the work: the best, its name, and what the others took or why they failed."""
    took, cores, failed = {}, {}, {}
    for name, make in ways.items():
        try:
            took[name], cores[name] = seconds(make(), sync, 2 * min(took.values(), default=float("inf")))
        except Exception as error:  # a way that a framework's version or device has not
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    if not took:
        sys.exit(f"every way failed: {failed}")
    took = {name: s / repeat for name, s in took.items()}
    best = min(took, key=took.get)
    others = {k: v for k, v in took.items() if k != best} | failed
    return {"seconds": took[best], "core_seconds": cores[best] / repeat, "way": best, "others": others}


# ------------------------------------------------------------------------------------------- PyTorch


class Torch:
    def __init__(self, compiled, threads):
        global torch
        import torch

        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        self.cuda = torch.cuda.is_available()
        self.device = "cuda" if self.cuda else "cpu"
        self.sync = torch.cuda.synchronize if self.cuda else lambda: None
        self.compiled = compiled
        self.versions = {"torch": torch.__version__}
        self.name = torch.cuda.get_device_name() if self.cuda else None

    def tensor(self, array):
        return torch.as_tensor(array, device=self.device)

    def compile(self, f, **options):
        torch.compiler.reset()
        return torch.compile(f, fullgraph=True, dynamic=False, **options) if self.compiled else f

    def modes(self):
        """Modes of torch.compile worth trying."""
        if not self.compiled:
            return {"": {}}
        graphs = {"reduce-overhead": {"mode": "reduce-overhead"}} if self.cuda else {}
        return {"default": {}} | graphs

    def gemm(self, size, runs):
        a, b = (torch.randn(size, size, device=self.device) for _ in range(2))

        def way(f):
            def work():
                for _ in range(runs):
                    f(a, b)

            return work

        modes = self.modes()
        if self.compiled and self.cuda:
            modes["max-autotune"] = {"mode": "max-autotune-no-cudagraphs"}
        product = lambda a, b: a @ b.T
        return {mode or "a @ b.T": lambda o=o: way(self.compile(product, **o)) for mode, o in modes.items()}

    @staticmethod
    def loss(layers, x, y):
        F = torch.nn.functional
        for i, layer in enumerate(layers):
            x = F.linear(F.relu(x) if i else x, *layer)
        return F.cross_entropy(x, y)

    def hvp(self, k):
        x, y, theta, v = hvp_problem(k)
        x, y = self.tensor(x), self.tensor(y)
        theta, v = ([tuple(map(self.tensor, layer)) for layer in layers] for layers in (theta, v))
        return self.hvp_ways(k, x, y, theta, v)

    def hvp_ways(self, k, x, y, theta, v):
        grad = torch.func.grad(self.loss)

        def forward_over_reverse(theta, v, x, y):
            along = lambda v: torch.func.jvp(lambda t: grad(t, x, y), (theta,), (v,))[1]
            if k > 1:
                return torch.func.vmap(along)(v)
            return [tuple(t[None] for t in layer) for layer in along([tuple(t[0] for t in layer) for layer in v])]

        def reverse_over_reverse(theta, v, x, y):
            _, back = torch.func.vjp(lambda t: grad(t, x, y), theta)
            if k > 1:
                return torch.func.vmap(back)(v)[0]
            return [tuple(t[None] for t in layer) for layer in back([tuple(t[0] for t in layer) for layer in v])[0]]

        ways = {}
        for name, f in (("jvp of grad", forward_over_reverse), ("vjp of grad", reverse_over_reverse)):
            for mode, options in self.modes().items():
                label = f"{name}, {mode}" if mode else name
                ways[label] = lambda f=f, o=options: functools.partial(self.compile(f, **o), theta, v, x, y)
        if not self.compiled:
            leaves = [t.detach().clone().requires_grad_() for layer in theta for t in layer]
            flat = [t for layer in v for t in layer]

            def double_backward(batched=False):
                layers = list(zip(leaves[::2], leaves[1::2]))
                gradient = torch.autograd.grad(self.loss(layers, x, y), leaves, create_graph=True)
                if batched:
                    return torch.autograd.grad(gradient, leaves, flat, is_grads_batched=True)
                one = lambda i: torch.autograd.grad(gradient, leaves, [t[i] for t in flat], retain_graph=i < k - 1)
                return [one(i) for i in range(k)]

            ways["double backward, a loop over directions"] = lambda: double_backward
            if k > 1:
                ways["double backward, batched"] = lambda: functools.partial(double_backward, True)
        return ways

    def train(self):
        """An epoch each: a permutation of the samples, then SGD_STEPS steps; every step's loss is kept."""
        x, y = made_up(SGD_WIDTHS[0], SGD_WIDTHS[-1], SGD_BATCH * SGD_STEPS)
        x, y = self.tensor(x), self.tensor(y)
        order = lambda: torch.as_tensor(np.random.permutation(len(x))).to(self.device).view(-1, SGD_BATCH)
        return {name: lambda make=make: self.epoch(make, x, y, order) for name, make in self.steppers().items()}

    def epoch(self, make, x, y, order):
        step, weights = make(), [self.tensor(w).requires_grad_() for (w,) in parameters(SGD_WIDTHS, False, 0)]
        losses = torch.zeros(SGD_STEPS, device=self.device)
        step = step(weights)

        def work():
            for i, indices in enumerate(order()):
                losses[i] = step(x, y, indices)
            self.weights = weights

        return work

    def steppers(self):
        def eager(**options):
            def with_weights(weights):
                optimizer = torch.optim.SGD(weights, lr=SGD_RATE, **options)

                def step(x, y, indices):
                    optimizer.zero_grad()
                    loss = self.loss([(w,) for w in weights], x[indices], y[indices])
                    loss.backward()
                    optimizer.step()
                    return loss.detach()

                return step

            return with_weights

        def functional(weights, x, y, indices):
            layers = [(w,) for w in weights]
            gradient, loss = torch.func.grad_and_value(self.loss)(layers, x[indices], y[indices])
            for w, (g,) in zip(weights, gradient):
                w.sub_(g, alpha=SGD_RATE)
            return loss

        def whole(**options):
            def with_weights(weights):
                for w in weights:
                    w.requires_grad_(False)
                    if self.cuda:
                        torch._dynamo.mark_static_address(w)  # else CUDA graphs copy the weights every step
                return functools.partial(self.compile(functional, **options), weights)

            return with_weights

        if not self.compiled:
            ways = {"optim.SGD": {}, "optim.SGD, foreach": {"foreach": True}, "optim.SGD, fused": {"fused": True}}
            return {name: lambda o=o: eager(**o) for name, o in ways.items()}
        return {f"whole step, {mode}": lambda o=o: whole(**o) for mode, o in self.modes().items()}


# ----------------------------------------------------------------------------------------------- JAX


class Jax:
    def __init__(self, threads):
        global jax, jnp
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_default_matmul_precision", "highest")
        device = jax.devices()[0]
        self.cuda = device.platform in ("gpu", "cuda")
        self.device = "cuda" if self.cuda else "cpu"
        self.name = device.device_kind if self.cuda else None
        self.versions = {"jax": jax.__version__}
        self.last = None

    def sync(self):
        jax.block_until_ready(self.last)

    def work(self, f, *args, runs=1):
        def work():
            for _ in range(runs):
                self.last = f(*args)

        return work

    def gemm(self, size, runs):
        a, b = (jax.random.normal(jax.random.key(i), (size, size)) for i in range(2))
        return {"jit": lambda: self.work(jax.jit(lambda a, b: a @ b.T), a, b, runs=runs)}

    @staticmethod
    def loss(layers, x, y):
        for i, (w, *b) in enumerate(layers):
            x = (jax.nn.relu(x) if i else x) @ w.T
            x = x + b[0] if b else x
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1))

    def hvp(self, k):
        arguments = jax.tree.map(jnp.asarray, hvp_problem(k))

        def block(x, y, theta, v):
            gradient = lambda t: jax.grad(self.loss)(t, x, y)
            return jax.vmap(lambda v: jax.jvp(gradient, (theta,), (v,))[1])(v)

        def single(x, y, theta, v):
            gradient = lambda t: jax.grad(self.loss)(t, x, y)
            along = jax.jvp(gradient, (theta,), (jax.tree.map(lambda t: t[0], v),))[1]
            return jax.tree.map(lambda t: t[None], along)

        return {"jvp of grad": lambda: self.work(jax.jit(block if k > 1 else single), *arguments)}

    def train(self):
        x, y = made_up(SGD_WIDTHS[0], SGD_WIDTHS[-1], SGD_BATCH * SGD_STEPS)
        x, y = jnp.asarray(x), jnp.asarray(y)
        layers = [(w,) for (w,) in parameters(SGD_WIDTHS, False, 0)]

        def step(x, y, theta, indices):
            loss, gradient = jax.value_and_grad(self.loss)(theta, x[indices], y[indices])
            return jax.tree.map(lambda t, g: t - SGD_RATE * g, theta, gradient), loss

        def looped(loop):
            self.theta = jax.tree.map(jnp.asarray, layers)

            def work():
                order = jnp.asarray(np.random.permutation(len(x)).astype(np.int32).reshape(-1, SGD_BATCH))
                self.theta, losses = loop(x, y, self.theta, order)
                self.last = self.theta, losses

            return work

        def scan(unroll):
            epoch = lambda x, y, theta, order: jax.lax.scan(functools.partial(step, x, y), theta, order, unroll=unroll)
            return looped(jax.jit(epoch, donate_argnums=2))

        def steps():
            one = jax.jit(step, donate_argnums=2)

            def loop(x, y, theta, order):
                losses = []
                for indices in order:
                    theta, loss = one(x, y, theta, indices)
                    losses.append(loss)
                return theta, losses

            return looped(loop)

        return {
            "scan over the epoch": lambda: scan(1),
            "scan, unrolled by 8": lambda: scan(8),
            "a call per step": steps,
        }


# --------------------------------------------------------------------------------------------- check


def reference(k):
    """HVPs in double precision, by double backward."""
    global torch
    import torch

    x, y, theta, v = hvp_problem(k)
    leaves = [torch.tensor(t, dtype=torch.float64, requires_grad=True) for layer in theta for t in layer]
    loss = Torch.loss(list(zip(leaves[::2], leaves[1::2])), torch.tensor(x, dtype=torch.float64), torch.tensor(y))
    gradient = torch.autograd.grad(loss, leaves, create_graph=True)
    flat = [t for layer in v for t in layer]
    along = lambda i: [torch.tensor(t[i], dtype=torch.float64) for t in flat]
    products = [torch.autograd.grad(gradient, leaves, along(i), retain_graph=True) for i in range(k)]
    return np.stack([np.concatenate([t.numpy().ravel() for t in p]) for p in products])  # [K, P]


def trained():
    """The weights in double precision after an epoch in file order."""
    global torch
    import torch

    x, y = map(torch.tensor, made_up(SGD_WIDTHS[0], SGD_WIDTHS[-1], SGD_BATCH * SGD_STEPS))
    weights = [torch.tensor(w, dtype=torch.float64, requires_grad=True) for (w,) in parameters(SGD_WIDTHS, False, 0)]
    for bx, by in zip(x.double().split(SGD_BATCH), y.split(SGD_BATCH)):
        gradient = torch.autograd.grad(Torch.loss([(w,) for w in weights], bx, by), weights)
        with torch.no_grad():
            [w.sub_(g, alpha=SGD_RATE) for w, g in zip(weights, gradient)]
    return np.concatenate([w.detach().numpy().ravel() for w in weights])


def check(threads):
    host = lambda t: np.asarray(t.detach().cpu() if hasattr(t, "detach") else t, dtype=np.float64)
    failed = False

    def compare(what, found, expected, tolerance):
        nonlocal failed
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        failed |= not error < tolerance
        print(json.dumps({"check": what, "relative_error": float(error)}), flush=True)

    np.random.permutation = np.arange  # epochs in file order
    trained_reference = trained()
    for framework in FRAMEWORKS:
        peer = open_framework(framework, threads)
        for k in (1, 4):
            expected = reference(k)
            for way, make in peer.hvp(k).items():
                work = make()
                result = work() if isinstance(peer, Torch) else (work(), peer.last)[1]
                leaves = [t for part in result for t in (part if isinstance(part, (tuple, list)) else [part])]
                if "loop" in way:  # K lists of P's parts
                    found = np.stack([np.concatenate([host(t).ravel() for t in one]) for one in result])
                else:
                    found = np.concatenate([host(t).reshape(k, -1) for t in leaves], axis=1)
                compare(f"{framework} hvp K = {k}: {way}", found, expected, 1e-5)
        for way, make in peer.train().items():
            work = make()
            work()
            peer.sync()
            weights = peer.weights if isinstance(peer, Torch) else [w for (w,) in peer.theta]
            found = np.concatenate([host(w).ravel() for w in weights])
            # 2e-7 for 100 steps; then, in every framework, a ReLU comes to lie on the other side of its kink
            compare(f"{framework} train: {way}", found, trained_reference, 1e-3)
    sys.exit(failed)


# ---------------------------------------------------------------------------------------------- main

FRAMEWORKS = ["torch-eager", "torch-compile", "jax-jit"]


def open_framework(name, threads):
    return Jax(threads) if name == "jax-jit" else Torch(name == "torch-compile", threads)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser.add_argument("subject", choices=["gemm", "hvp", "train", "check"])
    parser.add_argument("--framework", choices=FRAMEWORKS)
    parser.add_argument("--sizes", type=numbers, help="of square products (gemm)")
    parser.add_argument("--blocks", type=numbers, default=[1, 4, 16], help="directions at once (hvp)")
    parser.add_argument("--threads", type=int, default=2, help="cores, where there is no GPU")
    options = parser.parse_args()

    # before any library counts the cores
    if hasattr(os, "sched_setaffinity") and not os.path.exists("/dev/nvidiactl"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    global np
    import numpy as np

    if options.subject == "check":
        check(options.threads)
    if options.framework is None:
        parser.error("--framework is needed")
    peer = open_framework(options.framework, options.threads)

    def row(ways, repeat=1, **what):
        best = fastest(ways, peer.sync, repeat)
        made_on = {"device": peer.device, "device_name": peer.name, "versions": peer.versions}
        print(json.dumps({"framework": options.framework, "subject": options.subject, **what, **best, **made_on}), flush=True)

    if options.subject == "gemm":
        for size in options.sizes or ([512, 1024, 2048, 4096] if peer.cuda else [256, 512, 1024]):
            runs = int(min(max(-(-(2**30) // (2 * size**3)), 1), 16))
            row(peer.gemm(size, runs), runs, size=size)
    elif options.subject == "hvp":
        for k in options.blocks:
            row(peer.hvp(k), k=k, samples=HVP_SAMPLES)
    else:
        row(peer.train(), SGD_STEPS, batch=SGD_BATCH)


if __name__ == "__main__":
    main()
