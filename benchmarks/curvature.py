"""Top eigenvalue and trace of the Hessian of a trained network: ours, PyHessian and curvlinops, on the CPU.

    python benchmarks/curvature.py --dir ~/tensorflow_datasets   # CIFAR-10 as TFDS prepared it; about ten minutes
    python benchmarks/curvature.py --data digits --width 8       # the digits of scikit-learn; two minutes
    python benchmarks/curvature.py --smoke                       # seconds: that it runs, not how fast

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
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import peers
from jax.flatten_util import ravel_pytree

from prunegen_jax import data, measures
from prunegen_jax.measures import hessian, objective, traces
from prunegen_jax.measures.structure import folded_network
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.training import Recipe, hyper, train

LONG = {"relative_error": 0.01, "budget": 2000, "sketch": 64}  # the run whose trace is the reference


def trained(arguments):
    """The network, trained to a cross-entropy of 0.01, and its training set."""
    split = data.split(data.load(arguments.data, dir=arguments.dir), train_size=arguments.examples)
    network = build("nin", input_shape=split.train.inputs.shape[1:], classes=split.classes, width=arguments.width)
    h = hyper(learning_rate=0.02, weight_decay=0.0, dropout=0.0, seed=0)
    for snapshot in train(network, split.train, h, Recipe(optimizer="momentum", batch_size=32)):
        last = snapshot
    return as_trained_model(network, last.state.params, last.state.stats, split.train), last


def timed(function):
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def best(function, repeats=7):
    jax.block_until_ready(function())
    return min(timed(lambda: jax.block_until_ready(function()))[1] for _ in range(repeats))


def spread(operator, flat, sketch, samples):
    """Standard deviation of one Hutchinson sample after a sketch of that size (0: none)."""
    basis = jnp.zeros((1, flat.size), flat.dtype)
    if sketch:
        basis, _ = traces._sketch(operator, flat, jax.random.key(77), sketch)
    return float(np.std(np.asarray(traces._samples(operator, basis, jax.random.key(78), samples)), ddof=1))


def fewest_products(operator, flat, error, value, thirds=(2, 3, 4, 6, 8, 12, 16, 24, 32, 48)):
    """How many products Hutchinson and Hutch++ (a third each, as curvlinops has it) need for that standard error."""
    plain = math.ceil((spread(operator, flat, 0, 128) / (error * value)) ** 2)
    for third in thirds:
        if spread(operator, flat, third, 32) / math.sqrt(third) <= error * value:
            return plain, 3 * third
    return plain, 3 * 64


def products_over_gradients(goal, weights, block):
    """Seconds of a gradient; in units of it, of a product stored, one of a block, and one alone."""
    stored = hessian.linearized(goal, weights)
    vectors = jax.random.normal(jax.random.key(1), (traces.BLOCK, ravel_pytree(weights)[0].size))
    gradient = best(lambda: hessian.gradient(goal, weights))
    one = best(lambda: hessian.product(stored, vectors[0])) / gradient
    alone = best(lambda: hessian.product(block, vectors[0])) / gradient
    run_block = jax.jit(lambda operator, v: operator(v))
    shared = best(lambda: run_block(block, vectors)) / gradient / len(vectors)
    return gradient, one, shared, alone


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--dir", default=None)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--error", type=float, default=0.03)
    parser.add_argument("--smoke", action="store_true", help="100 digits and width 4, peers only if installed")
    arguments = parser.parse_args()
    left_out = peers.missing("torch", "pyhessian", "curvlinops", smoke=arguments.smoke)
    if arguments.smoke:
        arguments.data, arguments.examples, arguments.width, arguments.error = "digits", 100, 4, 0.3
    warnings.filterwarnings("ignore", message="Using backward")  # PyHessian's way

    model, snapshot = trained(arguments)
    network = objective.weight_function(model)
    goal = network.objective()
    flat = ravel_pytree(network.weights)[0]
    print(f"{snapshot.status} after {snapshot.updates} updates, cross-entropy {snapshot.check_loss[-1]:.4f}")
    print(f"{flat.size} parameters, {len(model.train)} examples")
    if not left_out:
        import curvature_peers

        in_torch = curvature_peers.in_torch(folded_network(model))
        difference = curvature_peers.loss(*in_torch) - objective.mean_loss(goal, network.weights)
        print(f"PyTorch's loss differs by {difference:.1e}")
        assert abs(difference) < 1e-5

    block = hessian.hessian(goal, network.weights)
    one_gradient, one, shared, alone = products_over_gradients(goal, network.weights, block)
    row, budget = measures.MEASURES, 48 if arguments.smoke else 500
    top_reference = row["hessian_top_eigenvalue"](model, jax.random.key(9), tolerance=1e-7, budget=200).value
    trace_reference = row["hessian_trace"](model, jax.random.key(9), **({"budget": 48} if arguments.smoke else LONG))
    thirds = {"thirds": (2,)} if arguments.smoke else {}
    plain, plus = fewest_products(block, flat, arguments.error, trace_reference.value, **thirds)

    def top():
        return row["hessian_top_eigenvalue"](model, jax.random.key(0), tolerance=1e-3)

    def trace():
        return row["hessian_trace"](model, jax.random.key(0), relative_error=arguments.error, budget=budget)

    compiling = timed(top)[1] + timed(trace)[1]
    ours_top, ours_top_seconds = timed(top)
    ours_trace, ours_trace_seconds = timed(trace)
    compiling -= ours_top_seconds + ours_trace_seconds

    table = [
        ("ours", ours_top.value, ours_top.details["products"], ours_top_seconds, ours_trace.value,
         ours_trace.details["products"], ours_trace_seconds),
    ]  # fmt: skip
    if not left_out:
        table += curvature_peers.compare(*in_torch, top_reference=top_reference, plain=plain, plus=plus)
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
    ratios = {f"vs_{name.lower()}": round((row[2] + row[5]) / ours, 2) for name, *row in table[1:]}
    print(json.dumps(ratios | {"hvp_per_gradient": round(one, 2), "left_out": left_out}))


if __name__ == "__main__":
    main()
