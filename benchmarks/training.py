"""Training in steady state: images per second of ours and of PyTorch, the whole CPU used by both.

    python benchmarks/training.py                              # twenty minutes
    python benchmarks/training.py --networks resnet:8 cnn:32   # these alone
    python benchmarks/training.py --smoke                      # seconds: that it runs, not how fast

NiN of depth 2, the pre-activation ResNet-18 (residual sums, 3×3 convolutions of stride 1) and the five-layer CNN, each
as NAME:WIDTH and with batch norm, on 32×32×3 images (random: what they show does not change the work), batches of 128,
SGD with momentum 0.9 and weight decay. Ours runs as the `local` executor does, one single-threaded process per core,
each training a network of its own. PyTorch takes the best of four: contiguous or channels_last, one process with as
many threads as cores or one single-threaded process per core; the data stay in memory and batches are cut from them.
Each variant warms up, then all its processes train for the same stretch of time; the rounds of all variants alternate
and the best round of each counts, which is the one least disturbed. The GEMM rate is that of 1024×1024 matrix products
in XLA, one single-threaded process per core, in the same rounds; the fraction below the rates is what training
reaches of it, counting the multiplications of the convolutions alone. Needs requirements-bench.txt. The last line is
one JSON object.
"""

import argparse
import json
import multiprocessing
import os
import time

import peers

BATCH, IMAGES, UPDATES = 128, 2048, 4  # updates in one call
NETWORKS = ("nin:24", "nin:48", "nin:96", "nin:200", "resnet:8", "resnet:16", "cnn:32")


def flops_per_image(name, width):
    """Of the convolutions and the dense layer, forward and backward; the images themselves need no gradient."""
    if name == "nin":
        first, rest = 16 * 16 * 27 * width, (16 * 16 * 2 + 8 * 8 * (9 + 2)) * width**2 + 10 * width
    else:
        first, rest = 32 * 32 * 27 * width, 10 * 8 * width
    if name == "cnn":
        rest += 9 * sum(size**2 * 2 * (width << i) ** 2 for i, size in enumerate((32, 16, 8)))
    if name == "resnet":  # of each stage four convolutions; from the second on one has half the inputs, as its shortcut
        rest += 9 * 4 * 32**2 * width**2
        rest += sum((9 * 3.5 + 0.5) * (32 >> i) ** 2 * (width << i) ** 2 for i in (1, 2, 3))
    return 2 * (2 * first + 3 * rest)


def ours(name, width, _threads):
    """A function that trains for one more call, and the images it takes."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from prunegen_jax import networks, training
    from prunegen_jax.types import Dataset

    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8))
    labels = jnp.asarray(random.integers(0, 10, IMAGES), dtype=jnp.int32)
    data = Dataset(images, labels, jnp.full(3, 128.0), jnp.full(3, 64.0))
    fields = {"depth": 2} if name == "nin" else {}
    network = networks.build(name, input_shape=(32, 32, 3), classes=10, width=width, **fields)
    h = training.hyper(learning_rate=0.01, weight_decay=1e-4, dropout=0.0, seed=0)
    program = training.compile_for(network, training.Recipe(batch_size=BATCH))
    state, h = jax.tree.map(lambda x: x[None], (program.init(h.key), h))  # an ensemble of one slot
    numbers = np.array([[0], [0], [UPDATES]], np.int32)

    def run():
        nonlocal state
        state, losses = program.run(state, h, data, *numbers)
        jax.block_until_ready(losses)

    return run, UPDATES * BATCH


def pytorch(name, width, threads, *, channels_last):
    """The same in PyTorch."""
    import torch
    import training_peers
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = training_peers.network(name, width).to(memory_format=layout)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8).to(memory_format=layout)
    labels = torch.randint(0, 10, (IMAGES,))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def run():
        order = torch.randperm(IMAGES)
        for batch in order[: UPDATES * BATCH].split(BATCH):
            inputs = (images[batch].to(memory_format=layout).float() - 128.0) / 64.0
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(inputs), labels[batch]).backward()
            optimizer.step()

    return run, UPDATES * BATCH


def gemm(_name, _width, _threads):
    """A matrix product, and its floating-point operations."""
    import jax.numpy as jnp
    import numpy as np

    a = jnp.asarray(np.random.default_rng(0).normal(size=(1024, 1024)), dtype=jnp.float32)
    return (lambda: jnp.dot(a, a).block_until_ready()), 2 * 1024**3


def variants(cores):
    """name → (function, keywords, processes, threads of each)."""
    found = {"ours": (ours, {}, cores, 1), "gemm": (gemm, {}, cores, 1)}
    for layout in (False, True):
        label = "channels_last" if layout else "contiguous"
        found[f"torch {label}, 1 process"] = (pytorch, {"channels_last": layout}, 1, cores)
        found[f"torch {label}, {cores} processes"] = (pytorch, {"channels_last": layout}, cores, 1)
    return found


def worker(variant, network, threads, commands, results):
    """Answers every (start, seconds) with the amount of work done per second, until told None."""
    make, keywords, _, _ = variants(os.cpu_count())[variant]
    run, amount = make(*network, threads, **keywords)
    run(), run()
    results.put("ready")
    while (command := commands.get()) is not None:
        time.sleep(max(0.0, command[0] - time.monotonic()))
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < command[1]:
            run()
            done += amount
        results.put(done / (time.perf_counter() - begin))


def surroundings(threads):
    """The environment of the processes: that of the `local` executor's workers."""
    from prunegen_jax.runs import processes

    return processes.environment(threads)


class Variant:
    """The processes of one variant, started once and asked for a stretch of work at a time."""

    def __init__(self, variant, network):
        _, _, processes, threads = variants(os.cpu_count())[variant]
        context = multiprocessing.get_context("spawn")
        self.results, self.commands = context.Queue(), [context.Queue() for _ in range(processes)]
        os.environ.update(surroundings(threads))
        for commands in self.commands:
            context.Process(
                target=worker, args=(variant, network, threads, commands, self.results), daemon=True
            ).start()
        for _ in self.commands:
            self.results.get(timeout=600)  # compiling included; a process that failed says nothing

    def rate(self, seconds):
        """Work per second of all the processes together."""
        start = time.monotonic() + 0.2
        for commands in self.commands:
            commands.put((start, seconds))
        return sum(self.results.get(timeout=seconds + 60) for _ in self.commands)

    def close(self):
        for commands in self.commands:
            commands.put(None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--smoke", action="store_true", help="small networks for an instant, PyTorch only if installed")
    arguments = parser.parse_args()
    left_out = peers.missing("torch", smoke=arguments.smoke)
    if arguments.smoke:
        arguments.networks, arguments.rounds, arguments.seconds = ["nin:4", "cnn:2"], 1, 0.2
    names = [name for name in variants(os.cpu_count()) if not (left_out and name.startswith("torch"))]
    ratios, fractions = {}, {}
    for label in arguments.networks:
        network = label.partition(":")[0], int(label.partition(":")[2])
        running = {name: Variant(name, network) for name in names}
        rounds = [{name: v.rate(arguments.seconds) for name, v in running.items()} for _ in range(arguments.rounds)]
        for variant in running.values():
            variant.close()
        best = {name: max(one[name] for one in rounds) for name in running}
        fractions[label] = round(best["ours"] * flops_per_image(*network) / best["gemm"], 3)
        print(f"{label}: GEMM {best['gemm'] / 1e9:.0f} GFLOP/s; images per second:", flush=True)
        for name, rate in best.items():
            if name != "gemm":
                print(f"    {name:32s} {rate:8.0f}", flush=True)
        print(f"    of the GEMM rate: {fractions[label]}", flush=True)
        if not left_out:
            peer = max((name for name in best if name.startswith("torch")), key=best.get)
            ratios[label] = round(best["ours"] / best[peer], 3)
            print(f"    ours / {peer}: {ratios[label]}", flush=True)
    print(json.dumps({"vs_torch": ratios, "gemm_fraction": fractions, "left_out": left_out}))


if __name__ == "__main__":
    main()
