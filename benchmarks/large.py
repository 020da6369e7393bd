"""A large network on one machine: ResNet-18 of 11 million parameters, its fast measures, time and peak memory.

    python benchmarks/large.py --dir ~/tensorflow_datasets   # CIFAR-10 as TFDS prepared it; half an hour
    python benchmarks/large.py --smoke                       # seconds: that it runs, not how fast

The pre-activation ResNet-18 of width 64, untrained, and 2,000 images: the measures that `names="fast"` stands for, one
after another in one process, the cheapest first and `prunability_prefix` last, compiling included. Memory is the
largest resident set of the process so far, so that a step where it grows is the one that needed it. A measure that
fails ends the benchmark. The last line is one JSON object: seconds, seconds of CPU and GiB in all.
"""

import argparse
import json
import resource
import sys
import time

import jax

from prunegen_jax import MEASURES, data, measure
from prunegen_jax.compute import trees
from prunegen_jax.measures import select
from prunegen_jax.networks import as_trained_model, build


def peak():
    """The largest resident set of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def untrained(arguments):
    """The network before training, which is also its initial network, and a subset of the training set."""
    split = data.split(data.load(arguments.data, dir=arguments.dir), train_size=arguments.examples)
    network = build("resnet", input_shape=split.train.inputs.shape[1:], classes=split.classes, width=arguments.width)
    params, stats = network.init(jax.random.key(0))
    return as_trained_model(network, params, stats, split.train, init=(params, stats))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--dir", default=None)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50, help="of the grid of prunability_prefix")
    parser.add_argument("--smoke", action="store_true", help="100 digits, width 2, and three measures")
    arguments = parser.parse_args()
    names = sorted(select("fast"), key=lambda name: MEASURES[name].cost)
    options = {"prunability_prefix": {"steps": arguments.steps}}
    if arguments.smoke:
        arguments.data, arguments.examples, arguments.width = "digits", 100, 2
        names = ["path_norm", "inverse_margin", "prunability_prefix"]
    begin = time.perf_counter()
    model = untrained(arguments)
    print(f"{trees.count(model.params)} parameters, {len(model.train)} examples, {peak():.2f} GiB", flush=True)
    for name in names:
        start, used = time.perf_counter(), time.process_time()
        (estimate,) = measure(model, name, options={n: o for n, o in options.items() if n == name}).values()
        if estimate.status == "failed":
            raise SystemExit(f"{name}: {estimate.reason}")
        answer = f"{estimate.value:.6g}" if estimate.status == "ok" else estimate.reason
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
        print(f"{name:40}{seconds:8.1f} s{cpu:8.1f} CPU s{peak():7.2f} GiB  {answer}", flush=True)
    seconds, cpu = time.perf_counter() - begin, time.process_time()
    print(json.dumps({"seconds": round(seconds), "cpu_seconds": round(cpu), "gib": round(peak(), 2)}))


if __name__ == "__main__":
    main()
