"""A sweep to the target: ours, compilation included, against a straightforward PyTorch loop over the same points.

    python benchmarks/sweep.py                          # the default sweep and how cost grows; about ten minutes
    python benchmarks/sweep.py --before REVISION        # and the same sweep by an earlier revision of this package
    python benchmarks/sweep.py --smoke                  # 4 networks for 3 epochs: that it runs, not how fast

Both sides train the 48 networks of `configs/sweep.py` on the same 500 digits, with the same batches per epoch, target,
caps and moments of evaluating the whole set (`prunegen_jax.training.stopping`, plain arithmetic), and are timed by the
clock from starting the processes to the last network. Ours begins with an empty cache of programs. PyTorch takes the
better of one process with as many threads as cores, and one single-threaded process per core. Sides alternate over
the rounds, the median counts. Then the cost of 8, 32 and 128 points, memory of a slot, and the shares of compiling and
checks. On an accelerator also 64 networks of width 48 in an ensemble against one at a time; null elsewhere. Needs
requirements-bench.txt. The last line is one JSON object.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import ensemble
import peers

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHORT = {"train.max_epochs": 3, "model.width": 4, "sweep.axes": (("seed", (0, 1)), ("train.dropout", (0.0, 0.2)))}


def points(smoke):
    """The default sweep's points and data, as plain numbers."""
    import numpy as np

    from prunegen_jax import data, get_config
    from prunegen_jax.runs import points as sweeps

    config = get_config("sweep")
    config.update_from_flattened_dict(SHORT if smoke else {})
    train = data.split(data.load(config.data.name), train_size=config.data.train_size).train
    return [p.fields for p in sweeps.points(config)], np.array(train.standardise(train.inputs)), np.array(train.labels)


def torch_network(width, classes, channels, dropout):
    from torch import nn

    layers = []
    for _ in range(2):
        for window in (3, 1, 1):
            conv = nn.Conv2d(channels, width, window, stride=2 if window == 3 else 1, padding=window // 2)
            nn.init.kaiming_normal_(conv.weight)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, classes, 1), nn.Flatten())


def torch_train(fields, images, labels):
    """One network to its target or cap: what a person writes, with our moments of checking. Whether it got there."""
    import math

    import torch
    from torch.nn.functional import cross_entropy

    from prunegen_jax.training import stopping

    torch.manual_seed(fields["seed"])
    size, batch, target = len(labels), fields["train.batch_size"], fields["train.target"]
    network = torch_network(fields["model.width"], 10, images.shape[1], fields["train.dropout"])
    decayed = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": fields["train.weight_decay"]}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=fields["train.learning_rate"], momentum=0.9)
    runnings, losses, stream, updates, latest = [], [], torch.empty(0, dtype=torch.long), 0, 0
    for epoch in range(fields["train.max_epochs"]):
        end, losses_here = -(-(epoch + 1) * size // batch), []
        begin = updates
        count = stopping.checks_per_epoch(losses[-1] if losses else math.inf, target)
        edges = {stopping.part_start(begin, end, i + 1, count) for i in range(count)}
        while updates < end:
            if len(stream) < batch:
                stream = torch.cat([stream, torch.randperm(size)])
            chosen, stream = stream[:batch], stream[batch:]
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(network(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            updates += 1
            losses_here.append(loss.detach())
            if updates not in edges:
                continue
            running, losses_here = float(torch.stack(losses_here).mean()), []
            since = (updates - latest) * batch / size
            last = epoch + 1 == fields["train.max_epochs"] and updates == end
            if last or stopping.worth_checking(running, since, runnings, losses, target=target):
                network.eval()
                with torch.no_grad():
                    whole = float(cross_entropy(network(images), labels))
                network.train()
                runnings, losses, latest = [*runnings, running], [*losses, whole], updates
                if whole < target:
                    return True
    return False


def torch_worker(path, share, of, threads):
    """Trains every `of`-th point from `share` on."""
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    fields = json.loads((pathlib.Path(path) / "points.json").read_text())
    stored = np.load(pathlib.Path(path) / "data.npz")
    images, labels = torch.tensor(stored["images"]).permute(0, 3, 1, 2).contiguous(), torch.tensor(stored["labels"])
    print(sum(torch_train(one, images, labels.long()) for one in fields[share::of]))


def time_torch(folder, processes, threads):
    """Seconds, and networks at the target."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    begin = time.perf_counter()
    running = [
        subprocess.Popen(
            [sys.executable, __file__, "--torch", str(folder), str(i), str(processes), str(threads)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i in range(processes)
    ]
    reached = sum(int(process.communicate()[0]) for process in running)
    return time.perf_counter() - begin, reached


def time_ours(root, folder, smoke):
    """Seconds, networks at the target and records of the command line in the checkout `root`, its cache empty.

    PYTHONPATH names `root`, so that each side imports its own package and not the one in the environment.
    """
    workdir = folder / f"work-{time.monotonic_ns()}"
    command = [sys.executable, "run.py", "--config=configs/sweep.py", f"--workdir={workdir}", "--stage=train"]
    command += [f"--config.{name}={value}" for name, value in SHORT.items()] if smoke else []
    environment = os.environ | {
        "XDG_CACHE_HOME": str(workdir / "cache"),
        "PYTHONPATH": str(root),
    }
    begin = time.perf_counter()
    subprocess.run(command, cwd=root, env=environment, check=True, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    found = [json.loads(path.read_text()) for path in (workdir / "records").glob("*.json")]
    return seconds, sum(record["status"] == "converged" for record in found), {r["name"]: r for r in found}


def compare_records(old, new):
    """How the same networks ended before and now, in a sentence."""
    import numpy as np

    same = sum(old[name]["status"] == new[name]["status"] for name in new)
    both = [n for n in new if old[n]["train"] and new[n]["train"]]
    moved = [abs(old[n]["test"]["loss"] - new[n]["test"]["loss"]) for n in both]
    twins = [(n, n.replace("seed=0", "seed=1")) for n in both if "seed=0" in n]
    seeds = [abs(new[a]["test"]["loss"] - new[b]["test"]["loss"]) for a, b in twins if b in new]
    plain = [m for n, m in zip(both, moved, strict=True) if new[n]["point"]["train.dropout"] == 0]
    return (
        f"{same} of {len(new)} statuses equal; test loss moved by {np.median(moved):.3g} in the median "
        f"({np.median(plain):.3g} without dropout), between seeds it differs by {np.median(seeds):.3g}"
    )


def grow(folder, counts, smoke):
    """Networks per hour, and the shares of compiling and checks, of sweeps of `counts` points."""
    from prunegen_jax import get_config

    rows = []
    for count in counts:
        config = get_config("sweep")
        seeds = tuple(range(count // 4))
        config.sweep.axes = (("model.width", (8, 16)), ("train.learning_rate", (0.05, 0.1)), ("seed", seeds))
        if smoke:  # one program
            config.train.max_epochs = SHORT["train.max_epochs"]
            config.sweep.axes = (("model.width", (SHORT["model.width"],)), ("seed", seeds))
        config.run.compilation_cache = str(folder / f"cache-{count}")
        workdir, begin = folder / f"grow-{count}", time.perf_counter()
        ensemble.run_here(config, workdir)
        seconds = time.perf_counter() - begin
        total = {}
        for path in (workdir / "times").glob("*.json"):
            for key, value in json.loads(path.read_text()).items():
                total[key] = total.get(key, 0.0) + (value if isinstance(value, float) else 0.0)
        share = total["check"] / (total["train"] - total["compile"])
        rows.append((count, seconds, total["compile"] / total["train"], share))
    return rows


def slot_memory(smoke):
    """Bytes of a slot at widths 16 (digits) and 48 (32×32×3), batch 32 and 128; `smoke`: at width 4 alone."""
    import jax.numpy as jnp

    from prunegen_jax import networks, training
    from prunegen_jax.runs import slots
    from prunegen_jax.types import Dataset

    found = {}
    for width, size, channels, batch in ((4, 8, 1, 32),) if smoke else ((16, 8, 1, 32), (48, 32, 3, 128)):
        shape = (size, size, channels)
        data = Dataset(
            jnp.zeros((2048, *shape), jnp.uint8), jnp.zeros(2048, jnp.int32), jnp.zeros(channels), jnp.ones(channels)
        )
        network = networks.build("nin", input_shape=shape, classes=10, width=width)
        found[width] = slots.bytes_of_slot(network, training.Recipe(batch_size=batch), data)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="a git revision of this package to time as well")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--grow", type=int, nargs="*", default=[8, 32, 128])
    parser.add_argument("--smoke", action="store_true", help="few networks and epochs, PyTorch only if installed")
    parser.add_argument("--torch", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.torch:
        path, *numbers = arguments.torch
        return torch_worker(path, *map(int, numbers))
    left_out = peers.missing("torch", smoke=arguments.smoke)
    if arguments.smoke:
        arguments.grow = [4]
    import numpy as np

    cores = os.cpu_count()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        fields, images, labels = points(arguments.smoke)
        (folder / "points.json").write_text(json.dumps(fields))
        np.savez(folder / "data.npz", images=images, labels=labels)
        if arguments.before:
            old = folder / "before"
            subprocess.run(["git", "worktree", "add", "-q", "--detach", old, arguments.before], cwd=ROOT, check=True)
        sides = {"ours": lambda: time_ours(ROOT, folder, arguments.smoke)}
        if arguments.before:
            sides["before"] = lambda: time_ours(old, folder, arguments.smoke)
        if not left_out:
            sides[f"torch, 1 process of {cores} threads"] = lambda: time_torch(folder, 1, cores)
            sides[f"torch, {cores} processes of 1 thread"] = lambda: time_torch(folder, cores, 1)
        seconds, last = {side: [] for side in sides}, {}
        for _ in range(arguments.rounds):
            for side, run in sides.items():
                last[side] = run()
                seconds[side].append(last[side][0])
                print(f"{side:34s} {last[side][0]:7.1f} s", flush=True)
        medians = {side: statistics.median(values) for side, values in seconds.items()}
        for side, value in medians.items():
            rate = 3600 * len(fields) / value
            print(f"{side:34s} {value:7.1f} s  {rate:7.0f} networks/hour  {last[side][1]} at the target", flush=True)
        if arguments.before:
            print(
                f"before / ours: {medians['before'] / medians['ours']:.2f}; "
                + compare_records(last["before"][2], last["ours"][2])
            )
            subprocess.run(["git", "worktree", "remove", "--force", old], cwd=ROOT, check=True)
        for count, value, compiling, checks in grow(folder, arguments.grow, arguments.smoke):
            told = f"compiling {compiling:.0%} of training, checks {checks:.1%} of the rest"
            print(f"{count:4d} points {value:7.1f} s  {3600 * count / value:7.0f} networks/hour  {told}", flush=True)
        print(
            "memory of a slot:",
            ", ".join(f"width {w} {b / 2**20:.1f} MiB" for w, b in slot_memory(arguments.smoke).items()),
        )
        import jax

        alone = None  # on a CPU an ensemble has one slot
        if arguments.smoke:
            alone = ensemble.single(
                folder, 4, width=4, slots=2, epochs=1, compile_before=False, measures=("prunability",)
            )
        elif jax.default_backend() != "cpu":
            alone = ensemble.single(folder)
        peer = min((value for side, value in medians.items() if side.startswith("torch")), default=None)
        ratios = {"vs_torch": peer and round(peer / medians["ours"], 2), "vs_single": alone and round(alone, 2)}
        print(json.dumps(ratios | {"left_out": left_out}))


if __name__ == "__main__":
    main()
