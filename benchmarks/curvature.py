"""Top eigenvalue and trace of the Hessian of a trained network: ours, PyHessian and curvlinops, on the CPU.

    python benchmarks/curvature.py --dir ~/tensorflow_datasets   # CIFAR-10 as TFDS prepared it; about ten minutes
    python benchmarks/curvature.py --data digits --width 8       # the digits of scikit-learn; two minutes

One network (NiN of depth 2, batch norm folded), one training set, one process, one after another. The same accuracy is
asked of everyone: the eigenvalue to 1e-3 (of each peer, the cheapest of its tolerances that gets there), the trace to
a relative standard error of `--error` (of each peer, the fewest products that give it, known from a long run). A
reference by a long run of ours stands beside. Times are of a second call: what compiling costs, once per shape, stands
apart. Needs requirements-bench.txt. The last line is one JSON object: how many times faster ours is in all, and the
cost of one Hessian-vector product relative to one gradient.
"""

import argparse
import json
import math
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import torch
from curvlinops import HessianLinearOperator, hutchinson_trace, hutchpp_trace
from jax.flatten_util import ravel_pytree
from pyhessian import hessian as PyHessian
from scipy.sparse.linalg import eigsh
from torch import nn

from prunegen_jax import data, measures
from prunegen_jax.measures import hessian, subject, traces
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.training import Recipe, hyper, train


def trained(arguments):
    """The network, trained to a cross-entropy of 0.01, and its training set."""
    split = data.split(data.load(arguments.data, dir=arguments.dir), train_size=arguments.examples)
    network = build("nin", image_shape=split.train.images.shape[1:], classes=split.classes, width=arguments.width)
    h = hyper(learning_rate=0.02, weight_decay=0.0, dropout=0.0, seed=0)
    for snapshot in train(network, split.train, h, Recipe(optimizer="momentum", batch_size=32)):
        last = snapshot
    return as_trained_model(network, last.state.params, last.state.stats, split.train), last


def in_torch(model):
    """The folded network in PyTorch, and the same examples."""
    blocks = []
    for name, layer in sorted(model.params.items(), key=lambda item: (item[0] == "head", item[0])):
        kernel = torch.tensor(np.asarray(layer["kernel"]).transpose(3, 2, 0, 1).copy())
        window, stride = kernel.shape[-1], 2 if kernel.shape[-1] == 3 else 1
        conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], window, stride, padding=window // 2)
        conv.weight.data, conv.bias.data = kernel, torch.tensor(np.asarray(layer["bias"]))
        blocks += [nn.AdaptiveAvgPool2d(1), conv, nn.Flatten()] if name == "head" else [conv, nn.ReLU()]
    images = np.asarray(model.train.inputs(model.train.images)).transpose(0, 3, 1, 2).copy()
    return nn.Sequential(*blocks), torch.tensor(images), torch.tensor(np.asarray(model.train.labels)).long()


def timed(function):
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def best(function, repeats=7):
    jax.block_until_ready(function())
    return min(timed(lambda: jax.block_until_ready(function()))[1] for _ in range(repeats))


def cheapest(candidates, run, reference, error=1e-3):
    """The first of the candidates, loosest first, whose eigenvalue is within the error; the last if none is."""
    for candidate in candidates:
        (value, products), seconds = run(candidate)
        if abs(value - reference) <= error * reference:
            break
    return value, products, seconds


def settle_threads(net, images, labels):
    """Gives PyTorch the number of threads with which it is faster on this machine as it is now."""

    def product():
        losses = nn.CrossEntropyLoss()(net(images), labels)
        gradient = torch.autograd.grad(losses, list(net.parameters()), create_graph=True)
        return torch.autograd.grad(gradient, list(net.parameters()), [torch.ones_like(g) for g in gradient])

    seconds = {}
    for threads in (1, torch.get_num_threads()):
        torch.set_num_threads(threads)
        seconds[threads] = min(timed(product)[1] for _ in range(5))
    torch.set_num_threads(min(seconds, key=seconds.get))
    print(f"PyTorch with {torch.get_num_threads()} threads: a product takes {1e3 * min(seconds.values()):.0f} ms")


def counting(operator):
    """A linear operator that counts its products."""
    count = [0]
    inner = operator._matmat

    def counted(vectors):
        count[0] += vectors[0].shape[-1]
        return inner(vectors)

    operator._matmat = counted
    return operator, count


def pyhessian_eigenvalue(net, images, labels, tolerance):
    torch.manual_seed(0)
    count, module = [0], sys.modules[PyHessian.__module__]
    net.zero_grad(set_to_none=True)  # it takes gradients from where they accumulate

    def run():
        torn = PyHessian(net, nn.CrossEntropyLoss(), data=(images, labels), cuda=False)
        inner = module.hessian_vector_product

        def counted(*arguments):
            count[0] += 1
            return inner(*arguments)

        module.hessian_vector_product = counted
        try:
            return torn.eigenvalues(maxIter=500, tol=tolerance)[0][0]
        finally:
            module.hessian_vector_product = inner

    value, seconds = timed(run)
    return (value, count[0]), seconds


def pyhessian_trace(net, images, labels, products):
    torch.manual_seed(0)
    net.zero_grad(set_to_none=True)

    def run():
        torn = PyHessian(net, nn.CrossEntropyLoss(), data=(images, labels), cuda=False)
        return float(np.mean(torn.trace(maxIter=products, tol=0.0)))

    return timed(run)


def curvlinops_operator(net, images, labels):
    parameters = list(net.parameters())
    return HessianLinearOperator(net, nn.CrossEntropyLoss(), parameters, [(images, labels)], check_deterministic=False)


def curvlinops_eigenvalue(net, images, labels, tolerance):
    def run():
        operator, count = counting(curvlinops_operator(net, images, labels))
        start = np.random.default_rng(0).normal(size=operator.shape[0]).astype(np.float32)
        value = eigsh(operator.to_scipy(np.float32), k=1, which="LA", tol=tolerance, v0=start)[0][0]
        return float(value), count[0]

    return timed(run)


def curvlinops_trace(net, images, labels, method, products):
    torch.manual_seed(0)

    def run():
        return float(method(curvlinops_operator(net, images, labels), products))

    return timed(run)


def spread(operator, flat, sketch, samples):
    """Standard deviation of one Hutchinson sample after a sketch of that size (0: none)."""
    basis = jnp.zeros((1, flat.size), flat.dtype)
    if sketch:
        basis, _ = traces._sketch(operator, flat, jax.random.key(77), sketch)
    return float(np.std(np.asarray(traces._samples(operator, basis, jax.random.key(78), samples)), ddof=1))


def fewest_products(operator, flat, error, value):
    """How many products Hutchinson and Hutch++ (a third each, as curvlinops has it) need for that standard error."""
    plain = math.ceil((spread(operator, flat, 0, 128) / (error * value)) ** 2)
    for third in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48):
        if spread(operator, flat, third, 32) / math.sqrt(third) <= error * value:
            return plain, 3 * third
    return plain, 3 * 64


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--dir", default=None)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--error", type=float, default=0.03)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="Using backward")  # PyHessian's way

    model, snapshot = trained(arguments)
    moved = subject.subject(model)
    goal = subject.objective(moved)
    flat = ravel_pytree(moved.weights)[0]
    net, images, labels = in_torch(model.folded)
    difference = nn.CrossEntropyLoss()(net(images), labels).item() - subject.mean_loss(goal, moved.weights)
    print(f"{snapshot.status} after {snapshot.updates} updates, cross-entropy {snapshot.check_loss[-1]:.4f}")
    print(f"{flat.size} parameters, {len(images)} examples; PyTorch's loss differs by {difference:.1e}\n")
    assert abs(difference) < 1e-5

    stored, block = hessian.linearized(goal, moved.weights), hessian.hessian(goal, moved.weights)
    vectors = jax.random.normal(jax.random.key(1), (traces.BLOCK, flat.size))
    one_gradient = best(lambda: hessian.gradient(goal, moved.weights))
    one = best(lambda: hessian.product(stored, vectors[0])) / one_gradient
    alone = best(lambda: hessian.product(block, vectors[0])) / one_gradient
    run_block = jax.jit(lambda operator, v: operator(v))
    shared = best(lambda: run_block(block, vectors)) / one_gradient / len(vectors)

    row = measures.MEASURES
    top_reference = row["hessian_top_eigenvalue"](model, jax.random.key(9), tolerance=1e-7, budget=200).value
    trace_reference = row["hessian_trace"](model, jax.random.key(9), relative_error=0.01, budget=2000, sketch=64)
    plain, plus = fewest_products(block, flat, arguments.error, trace_reference.value)

    def top():
        return row["hessian_top_eigenvalue"](model, jax.random.key(0), tolerance=1e-3)

    def trace():
        return row["hessian_trace"](model, jax.random.key(0), relative_error=arguments.error, budget=500)

    compiling = timed(top)[1] + timed(trace)[1]
    ours_top, ours_top_seconds = timed(top)
    ours_trace, ours_trace_seconds = timed(trace)
    compiling -= ours_top_seconds + ours_trace_seconds

    settle_threads(net, images, labels)
    tolerances = (1e-2, 1e-3, 1e-4, 1e-5)
    their_top = cheapest(tolerances, lambda t: pyhessian_eigenvalue(net, images, labels, t), top_reference)
    their_trace, their_trace_seconds = pyhessian_trace(net, images, labels, plain)
    curv_top = cheapest((1e-1, *tolerances), lambda t: curvlinops_eigenvalue(net, images, labels, t), top_reference)
    method, products = (hutchpp_trace, plus) if plus <= plain else (hutchinson_trace, plain)
    curv_trace, curv_trace_seconds = curvlinops_trace(net, images, labels, method, products)

    table = [
        ("ours", ours_top.value, ours_top.details["products"], ours_top_seconds, ours_trace.value,
         ours_trace.details["products"], ours_trace_seconds),
        ("PyHessian", *their_top, their_trace, plain, their_trace_seconds),
        ("curvlinops", *curv_top, curv_trace, products, curv_trace_seconds),
    ]  # fmt: skip
    columns = f"{'error':>9}{'products':>9}{'s':>8}"
    print(f"{'':11}{'eigenvalue':>11}{columns}   {'trace':>9}{columns}")
    for name, value, used, seconds, total, spent, also in table:
        print(
            f"{name:11}{value:11.4f}{value / top_reference - 1:9.1e}{used:9d}{seconds:8.2f}   "
            f"{total:9.3f}{total / trace_reference.value - 1:9.1e}{spent:9d}{also:8.2f}"
        )
    print(f"{'reference':11}{top_reference:11.4f}{'':29}{trace_reference.value:9.3f} ± {trace_reference.sem:.3f}")
    print(f"\ncompiling, once per shape: {compiling:.1f} s; one gradient {1e3 * one_gradient:.0f} ms")
    print(f"one product over one gradient: {one:.2f} stored, {shared:.2f} in blocks, {alone:.2f} alone")
    ours = ours_top_seconds + ours_trace_seconds
    print(
        json.dumps(
            {
                "vs_pyhessian": round((their_top[2] + their_trace_seconds) / ours, 2),
                "vs_curvlinops": round((curv_top[2] + curv_trace_seconds) / ours, 2),
                "hvp_per_gradient": round(one, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
