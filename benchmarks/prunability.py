"""Prunability, exact on the grid j / 1000: ours against what a PyTorch user writes, on the CPU.

    python benchmarks/prunability.py --dir ~/tensorflow_datasets   # CIFAR-10 as TFDS prepared it; twenty minutes
    python benchmarks/prunability.py --data digits --widths 8 16   # the digits of scikit-learn; two minutes
    python benchmarks/prunability.py --smoke                       # seconds: that it runs, not how fast

The user's way: for each point of the grid, upward from nothing kept, prune a copy of the network with
`torch.nn.utils.prune.global_unstructured` and evaluate the training set, until the first point that passes. Both sides
get the same network (NiN of depth 2, batch norm folded, which is the faster way for PyTorch), trained to a
cross-entropy of 0.01, the same examples and tolerance, and must give the same answer. PyTorch takes the better of its
two memory layouts, and batches of 500. Ours is timed with its programs compiled; compiling, once per shape, stands
apart. `--every n` has PyTorch evaluate only every n-th point below the last 30 and counts the others at the mean cost.
Needs requirements-bench.txt. The last line is one JSON object: how many times faster ours is, per width.
"""

import argparse
import copy
import json
import time

import jax
import numpy as np
import peers

from prunegen_jax import data, prunability, training
from prunegen_jax.measures.structure import folded_network
from prunegen_jax.networks import as_trained_model, build


def trained(arguments, width):
    """A network trained to `arguments.target`, batch norm folded."""
    split = data.split(data.load(arguments.data, dir=arguments.dir), train_size=arguments.examples)
    network = build("nin", input_shape=split.train.inputs.shape[1:], classes=split.classes, width=width)
    h = training.hyper(learning_rate=0.03, weight_decay=0.0, dropout=0.0, seed=0)
    for snapshot in training.train(network, split.train, h, training.Recipe(target=arguments.target)):
        last = snapshot
    if last.status != "converged":
        raise SystemExit(f"width {width}: {last.status}, {last.reason}")
    return folded_network(as_trained_model(network, last.state.params, last.state.stats, split.train))


def in_torch(model, memory_format):
    """The network and its examples in PyTorch; convolutions in the order of our leaves, so that ties break alike."""
    import torch
    from torch import nn

    memory_format = getattr(torch, memory_format)
    layers = []
    for name in sorted(model.params):
        kernel = np.asarray(model.params[name]["kernel"]).transpose(3, 2, 0, 1).copy()
        conv = nn.Conv2d(
            kernel.shape[1], kernel.shape[0], kernel.shape[2], 1 + (kernel.shape[2] == 3), kernel.shape[2] // 2
        )
        conv.weight.data, conv.bias.data = torch.tensor(kernel), torch.tensor(np.asarray(model.params[name]["bias"]))
        layers += [nn.AdaptiveAvgPool2d(1), conv, nn.Flatten()] if name == "head" else [conv, nn.ReLU()]
    images = np.asarray(model.train.standardise(model.train.inputs)).transpose(0, 3, 1, 2).copy()
    images = torch.tensor(images).to(memory_format=memory_format)
    return nn.Sequential(*layers).eval(), images, torch.tensor(np.asarray(model.train.labels)).long()


def training_loss(network, images, labels):
    import torch
    from torch.nn.functional import cross_entropy

    with torch.no_grad():
        parts = [
            cross_entropy(network(x), y, reduction="sum").double()
            for x, y in zip(images.split(500), labels.split(500), strict=True)
        ]
    return float(sum(parts)) / len(labels)


def peer(network, images, labels, answer, every):
    """(first passing fraction, seconds it takes, points evaluated) of the user's way."""
    from torch import nn
    from torch.nn.utils import prune

    limit = 1.1 * training_loss(network, images, labels)
    p = sum(m.weight.numel() for m in network if isinstance(m, nn.Conv2d))
    spent, evaluated = 0.0, 0
    for j in range(1001):
        if j % every and j < answer - 30:
            continue
        begin = time.perf_counter()
        pruned = copy.deepcopy(network)
        weights = [(m, "weight") for m in pruned if isinstance(m, nn.Conv2d)]
        prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=p - (p * j + 500) // 1000)
        loss = training_loss(pruned, images, labels)
        spent, evaluated = spent + time.perf_counter() - begin, evaluated + 1
        if loss <= limit:
            return j / 1000, spent / evaluated * (j + 1), evaluated
    raise SystemExit("no point of the grid passes, not even the whole network")


def against_torch(model, answer, every):
    """What `peer` returns for the faster of PyTorch's two memory layouts."""
    layouts = [in_torch(model, layout) for layout in ("contiguous_format", "channels_last")]
    for layout in layouts:
        training_loss(*layout)
    costs = []
    for layout in layouts:
        begin = time.perf_counter()
        training_loss(*layout)
        costs.append(time.perf_counter() - begin)
    return peer(*layouts[int(np.argmin(costs))], answer, every)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--dir", default=None)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--widths", type=int, nargs="+", default=[48, 96])
    parser.add_argument("--target", type=float, default=0.01)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="200 digits and width 4, PyTorch only if installed")
    arguments = parser.parse_args()
    left_out = peers.missing("torch", smoke=arguments.smoke)
    if arguments.smoke:
        arguments.data, arguments.examples, arguments.widths, arguments.every = "digits", 200, [4], 100
        arguments.target = 0.5
    ratios, columns = {}, ("width", "fraction", "passes", "compile s", "ours s", "torch s", "points", "ratio")
    print("".join(f"{column:>11}" for column in columns))
    for width in arguments.widths:
        model = trained(arguments, width)
        seconds = []
        for _ in range(4):
            begin = time.perf_counter()
            found = prunability(model.apply, model.params, model.train)
            seconds.append(time.perf_counter() - begin)
        ours = float(np.median(seconds[1:]))
        passes, compiling = found.examples / len(model.train), seconds[0] - ours
        if left_out:
            print("".join(f"{value:11.5g}" for value in (width, found.fraction, passes, compiling, ours)), flush=True)
            continue
        fraction, theirs, points = against_torch(model, round(1000 * found.fraction), arguments.every)
        if fraction != found.fraction:
            raise SystemExit(f"width {width}: ours says {found.fraction}, PyTorch {fraction}")
        ratios[str(width)] = round(theirs / ours, 2)
        row = (width, fraction, passes, compiling, ours, theirs, points, ratios[str(width)])
        print("".join(f"{value:11.5g}" for value in row), flush=True)
    if not left_out:
        import torch

        print(f"JAX {jax.__version__}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    print(json.dumps({"vs_torch": ratios, "left_out": left_out}))


if __name__ == "__main__":
    main()
