"""Convolutions on this machine's backend: XLA's own, patches and planes, alone and under vmap over networks.

    python benchmarks/convolutions.py                   # one thread on a CPU; three minutes
    python benchmarks/convolutions.py --widths 48 --networks 16
    python benchmarks/convolutions.py --smoke           # seconds: that it runs, not how fast

A NiN of depth 2 on 32×32×3 images: microseconds per image of a training step (batch 128, gradient and update) and of
evaluation (batch 64), for one network and, per network, for several at once. Medians, programs compiled. What the form
"auto" means (`prunegen_jax.compute.planes.choose_form`) rests on this table. No peer is needed. The last line is one
JSON object: how many times slower than the best of its column each is.
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("PJRT_NPROC", "1")

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax import training
from prunegen_jax.compute.planes import FORMS
from prunegen_jax.networks import build
from prunegen_jax.training import step
from prunegen_jax.types import Dataset

IMAGES, UPDATES = 1024, 2


def timed(call, repeats):
    """Median seconds of `call`, which blocks."""
    call()
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def measure(conv, width, networks, data, *, batch, repeats):
    """Microseconds per image and network of (training, evaluation)."""
    network = build("nin", input_shape=(32, 32, 3), classes=10, depth=2, width=width, convolutions=conv)
    h = training.hyper(learning_rate=0.01, weight_decay=0.0, dropout=0.0, seed=0)
    program = step.program(network, optimizer_name="momentum", batch_size=batch, augment=False, slots=networks)
    one = (program.init(h.key), h)
    held = jax.tree.map(lambda x: jnp.stack([x] * networks), one)
    numbers = np.array([[0] * networks, [0] * networks, [UPDATES] * networks], np.int32)

    def train():
        nonlocal held
        state, _ = program.run(*held, data, *numbers)
        held = (jax.block_until_ready(state), held[1])

    training_time = timed(train, repeats) / (UPDATES * batch * networks)
    images, (state, _) = data.standardise(data.inputs[:64]), held
    apply = network.apply if networks == 1 else jax.vmap(network.apply, in_axes=(0, 0, None))
    trees = jax.tree.map(lambda x: x[0], (state.stats, state.params)) if networks == 1 else (state.stats, state.params)
    evaluate = jax.jit(apply)
    evaluation_time = timed(lambda: evaluate(*trees, images).block_until_ready(), repeats) / (64 * networks)
    return training_time * 1e6, evaluation_time * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[24, 96])
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--smoke", action="store_true", help="width 4 and one repeat: that it runs, not how fast")
    arguments = parser.parse_args()
    size = {"batch": 8, "repeats": 1} if arguments.smoke else {"batch": 128, "repeats": 5}
    if arguments.smoke:
        arguments.widths, arguments.networks = [4], 2
    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8))
    labels = jnp.asarray(random.integers(0, 10, IMAGES), dtype=jnp.int32)
    data = Dataset(images, labels, jnp.full(3, 128.0), jnp.full(3, 64.0))
    print(f"{jax.devices()[0].device_kind}; microseconds per image and network")
    worse = {}
    for width in arguments.widths:
        for networks in (1, arguments.networks):
            found = {conv: measure(conv, width, networks, data, **size) for conv in FORMS if conv != "auto"}
            for i, what in enumerate(("training", "evaluation")):
                best = min(row[i] for row in found.values())
                label = f"width {width}, {networks} network{'s' * (networks > 1)}, {what}"
                worse[label] = {conv: round(row[i] / best, 2) for conv, row in found.items()}
                print(f"{label:40s}", "  ".join(f"{c} {row[i]:7.0f}" for c, row in found.items()), flush=True)
    print(json.dumps(worse))


if __name__ == "__main__":
    main()
