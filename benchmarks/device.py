"""Everything that depends on the device, on whatever device JAX finds, within nine minutes: for an accelerator.

    make bench-device OUT=device.json                 # with the JAX of the environment; no peers are needed
    python benchmarks/device.py --out=device.json     # the same
    python benchmarks/device.py --smoke               # seconds: that it runs, not how fast

Random 32×32×3 images, batches of 128, SGD with momentum; medians of three calls, programs compiled before.

* rates of large matrix products of random numbers: bfloat16, float32 at the default and at the highest precision; bytes
  per second that reading an array and writing another moves;
* training in images per second, all slots together, for NiN of depth 2 and ResNet-18 as NAME:WIDTH, at several numbers
  of slots; its share of the rate of the matrix product at the default precision, counting the multiplications of the
  convolutions alone; the MiB that an image moves as the compiler counts them, which may be more than reach the memory,
  and their share of the rate of copying; and the seconds of compiling;
* the forms of convolutions, for one network and under vmap;
* pruning: passes of 2,000 images per second along a pruning curve;
* curvature: one Hessian-vector product in gradients;
* 64 networks of width 48, trained and measured by the driver in slots and one at a time.

What is not begun when `--budget` seconds are over is left out, and named; so is, with its error, what fails, such as a
number of slots that does not fit the memory. All numbers go to the file `--out` after each of them, and the last line
is the same JSON object.
"""

import argparse
import functools
import json
import pathlib
import statistics
import tempfile
import time

import ensemble
import jax
import jax.numpy as jnp
import numpy as np
from training import flops_per_image

from prunegen_jax import networks, pruning, training
from prunegen_jax.compute import planes
from prunegen_jax.measures import hessian, objective
from prunegen_jax.networks import as_trained_model
from prunegen_jax.training.rows import stored
from prunegen_jax.types import Dataset

FULL = {
    "networks": ("nin:48", "nin:200", "resnet:16", "nin:24", "nin:96"),
    "forms": ("resnet:16", "nin:200"),
    "slots": (1, 64, 8, 256),
    "batch": 128,
    "images": 2048,
    "updates": 8,
    "gemm": 8192,
    "many": {
        "networks": 64,
        "width": 48,
        "epochs": 5,
        "stages": ("train",),
    },
}
SMOKE = {
    "networks": ("nin:4", "cnn:2"),
    "forms": (),
    "slots": (1, 2),
    "batch": 8,
    "images": 64,
    "updates": 1,
    "gemm": 64,
    "many": {},
}


def median_seconds(call, repeats=3):
    """Of `call`, whose arrays are waited for; the first call is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def gemm(size, dtype, precision):
    """FLOP/s of a square matrix product."""
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(functools.partial(jnp.dot, precision=precision))
    return 2 * size**3 / median_seconds(lambda: product(a, a))


def copy(size):
    """Bytes per second, read and written."""
    a = jax.random.normal(jax.random.key(0), (4 * size, size))
    negative = jax.jit(jnp.negative)
    return 2 * a.nbytes / median_seconds(lambda: negative(a))


def dataset(images):
    random = np.random.default_rng(0)
    pixels = jnp.asarray(random.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8))
    labels = jnp.asarray(random.integers(0, 10, images), dtype=jnp.int32)
    return Dataset(pixels, labels, jnp.full(3, 128.0), jnp.full(3, 64.0))


def build(label, form="auto"):
    name, _, width = label.partition(":")
    fields = {"depth": 2} if name == "nin" else {}
    return networks.build(name, input_shape=(32, 32, 3), classes=10, width=int(width), convolutions=form, **fields)


def train(sizes, label, slots, form="auto"):
    """Images per second of all slots together, bytes moved per image, and the seconds of compiling."""
    program = training.compile_for(build(label, form), training.Recipe(batch_size=sizes["batch"]), slots=slots)
    h = training.hyper(learning_rate=0.01, weight_decay=1e-4, dropout=0.0, seed=0)
    states, hypers = jax.tree.map(lambda x: jnp.stack([x] * slots), (program.init(h.key), h))
    numbers = np.array([[0] * slots, [0] * slots, [sizes["updates"]] * slots], np.int32)
    data = stored(dataset(sizes["images"]))
    begin = time.perf_counter()
    run = program.run.lower(states, hypers, data, *numbers).compile()
    compiling = time.perf_counter() - begin
    counted = (run.cost_analysis() or {}).get("bytes accessed", float("nan"))  # of one update: a loop is counted once
    moved = counted / (slots * sizes["batch"])

    def call():
        nonlocal states
        states, losses = run(states, hypers, data, *numbers)
        return losses

    seconds = median_seconds(call)
    return slots * sizes["batch"] * sizes["updates"] / seconds, moved, compiling


def trained(sizes, label, found, slots, form="auto"):
    """A row of the table of training."""
    rate, moved, compiling = train(sizes, label, slots, form)
    name, _, width = label.partition(":")
    return {
        "images_per_s": round(rate),
        "share_of_gemm": round(rate * flops_per_image(name, int(width)) / found["gemm float32 default"], 4),
        "mib_per_image": round(moved / 2**20, 3),
        "share_of_copy": round(rate * moved / found["copy"], 3),
        "compile_s": round(compiling, 1),
    }


def untrained(label, examples):
    network = build(label)
    params, stats = network.init(jax.random.key(0))
    return as_trained_model(network, params, stats, dataset(examples))


def passes(label, examples, steps):
    """Passes over the examples per second along a pruning curve of `steps` + 1 points."""
    model = untrained(label, examples)
    curve = functools.partial(pruning.pruned_loss_curve, model.apply, model.params, model.train, steps=steps)
    return round((steps + 1) / median_seconds(lambda: curve().losses, repeats=1), 1)


def curvature(label, examples):
    """Milliseconds of a gradient and of a Hessian-vector product, and their ratio."""
    model = untrained(label, examples)
    problem = objective.weight_function(model)
    goal, weights = problem.objective(), problem.weights
    operator = hessian.linearized(goal, weights)
    gradient = median_seconds(lambda: hessian.gradient(goal, weights))
    flat = jnp.ones(sum(leaf.size for leaf in jax.tree.leaves(weights)))
    product = median_seconds(lambda: hessian.product(operator, flat))
    return {"gradient_ms": gradient * 1e3, "product_ms": product * 1e3, "gradients": round(product / gradient, 2)}


def together(many):
    """How many times faster networks train in slots than one at a time; what is printed has the rest."""
    with tempfile.TemporaryDirectory() as folder:
        return round(ensemble.single(pathlib.Path(folder), **many), 2)


def steps(sizes, found):
    """(name, what to compute), in the order of importance; `found` has the results of those before."""
    for dtype, precision in (("float32", "default"), ("float32", "highest"), ("bfloat16", "default")):
        yield f"gemm {dtype} {precision}", functools.partial(gemm, sizes["gemm"], dtype, precision)
    yield "copy", functools.partial(copy, sizes["gemm"])
    first, *others = sizes["networks"]
    few, many = sizes["slots"][:2], sizes["slots"][2:]
    yield from training_steps(sizes, found, [first], [*few, *many])
    yield from form_steps(sizes, found, [first])
    yield f"pruning passes {first}", functools.partial(passes, first, 2000 // (2048 // sizes["images"]), 10)
    yield f"curvature {first}", functools.partial(curvature, first, min(500, sizes["images"]))
    if sizes["many"]:
        yield "64 networks in slots, times faster", functools.partial(together, sizes["many"])
    yield from training_steps(sizes, found, others, few)
    yield from form_steps(sizes, found, sizes["forms"])
    yield from training_steps(sizes, found, others, many)


def training_steps(sizes, found, labels, slots):
    for label in labels:
        for count in slots:
            yield f"training {label} slots {count}", functools.partial(trained, sizes, label, found, count)


def form_steps(sizes, found, labels):
    """The forms that "auto" does not choose."""
    for label in labels:
        for slots in sizes["slots"][:2]:
            chosen = planes.choose_form(vmapped=slots > 1)
            for form in ("xla", "patches", "planes"):
                if form != chosen:
                    call = functools.partial(trained, sizes, label, found, slots, form)
                    yield f"convolutions {form} {label} slots {slots}", call


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("device.json"))
    parser.add_argument("--budget", type=float, default=450.0, help="seconds after which nothing more is begun")
    parser.add_argument("--smoke", action="store_true", help="small networks, not by the driver: that it runs")
    arguments = parser.parse_args()
    sizes, begin = SMOKE if arguments.smoke else FULL, time.monotonic()
    device = jax.devices()[0]
    about = {"backend": jax.default_backend(), "device": device.device_kind, "jax": jax.__version__}
    found, failed, left_out = {}, {}, []
    for name, compute in steps(sizes, found):
        if time.monotonic() - begin > arguments.budget:
            left_out.append(name)
            continue
        try:
            found[name] = compute()
        except Exception as error:  # out of memory, for one: it is told, and the rest is still measured
            if arguments.smoke:
                raise
            failed[name] = str(error).splitlines()[0][:300]
        print(f"{time.monotonic() - begin:5.0f} s  {name}: {found.get(name, failed.get(name))}", flush=True)
        result = about | {"measured": found, "failed": failed, "left_out": left_out}
        arguments.out.write_text(json.dumps(result, indent=1))
    seconds = round(time.monotonic() - begin)
    result = about | {"measured": found, "failed": failed, "left_out": left_out, "seconds": seconds}
    arguments.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
