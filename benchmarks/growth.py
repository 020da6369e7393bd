"""What a sweep costs besides training and measuring, as it grows: the run in which all networks are done already.

    python benchmarks/growth.py
    python benchmarks/growth.py --smoke     # 8 and 16 networks, no report: that it runs, not how fast

One network of `configs/sweep.py` is trained and measured. Its record, checkpoint, curve and times are copied for every
point of a sweep over as many learning rates as it takes, two values of two other axes and two seeds, its measures and
its test errors changed at random. Then all stages are run: they find nothing to train, and judge and report. Prints
seconds by part and number of networks, the exponent of the last doubling, and what 10,000 networks take if it stays so;
the last line is one JSON object with the seconds of all parts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import pathlib
import shutil
import sys
import tempfile

import numpy as np
from etils import epath

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
from configs import sweep
from prunegen_jax.runs import files, pipeline, points, record
from prunegen_jax.runs import workdir as layout
from prunegen_jax.runs.record import Record
from prunegen_jax.runs.timing import Timing

LARGE = 10_000
MEASURES = tuple(name for name in sweep.MEASURES if name not in ("prunability", "prunability_random"))  # the slow ones
OTHERS = 8  # networks of one learning rate


def get_config(networks, smoke):
    """The config of a sweep of so many networks; `smoke`: of networks that are trained in an instant."""
    config = sweep.get_config()
    if smoke:
        config.model.width, config.train.target = 4, 1.5
    config.measures.names = MEASURES
    config.sweep.axes = (
        ("train.learning_rate", tuple(round(0.02 + 1e-4 * i, 4) for i in range(networks // OTHERS))),
        ("train.dropout", (0.0, 0.2)),
        ("train.weight_decay", (0.0, 1e-4)),
        ("seed", (0, 1)),
    )
    return config


def fill(workdir, config, model):
    """Makes `workdir` that of the finished sweep of `config`, from the workdir `model` of one network."""
    (one,) = record.read_all(model)
    random = np.random.default_rng(0)
    for point in points.points(config):
        known = one.to_json() | {"name": point.name, "hash": point.hash, "point": point.fields}
        known["axes"] = list(point.axes)
        errors = int(random.integers(20, 120))
        known["test"] = known["test"] | {"accuracy": 1 - errors / known["test"]["size"]}
        known["targets"] = {"test": known["targets"]["test"] | {"errors": errors}}
        known["measures"] = {
            name: entry | {"value": entry["value"] * random.lognormal(0, 0.3)}
            for name, entry in known["measures"].items()
        }
        record.write(workdir, Record.from_json(known, layout.path(workdir, "records", point.name)))
        for part, change in (("times", {}), ("curves", {"hash": point.hash})):
            content = files.read_json(layout.path(model, part, one.name)) | change
            files.write_json(layout.path(workdir, part, point.name), content)
        weights = layout.path(workdir, "weights", point.name)
        weights.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(layout.path(model, "weights", one.name), weights)
        shutil.copytree(model / "checkpoints" / one.name, workdir / "checkpoints" / point.name)


def measure(networks, folder, stages, smoke):
    """Seconds of each part of a run of `stages` in which nothing is left to train or to measure."""
    workdir, config = epath.Path(folder) / str(networks), get_config(networks, smoke)
    fill(workdir, config, epath.Path(folder) / "model")
    timing = Timing()
    with contextlib.redirect_stdout(io.StringIO()):
        pipeline.run(config, workdir, stages=stages, timing=timing)
    shutil.rmtree(workdir)
    return timing.parts


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=int, nargs="+", default=[256, 512, 1024], help="multiples of 8")
    parser.add_argument("--smoke", action="store_true", help="8 and 16 networks, no report: that it runs, not how fast")
    arguments = parser.parse_args()
    counts = [8, 16] if arguments.smoke else arguments.networks
    stages = pipeline.STAGES[:3] if arguments.smoke else pipeline.STAGES
    with tempfile.TemporaryDirectory() as folder:
        one = get_config(OTHERS, arguments.smoke)
        one.sweep.axes = ()
        with contextlib.redirect_stdout(io.StringIO()):
            pipeline.run(one, pathlib.Path(folder, "model"))
        found = [measure(count, folder, stages, arguments.smoke) for count in counts]
    print(f"{'networks':<12}" + "".join(f"{count:>9}" for count in counts) + f"{'exponent':>10}{LARGE:>10}")
    for part in found[0]:
        before, last = found[-2][part], found[-1][part]
        exponent = math.log(last / before) / math.log(counts[-1] / counts[-2]) if before > 0 else math.nan
        large = last * (LARGE / counts[-1]) ** exponent
        print(f"{part:<12}" + "".join(f"{each[part]:9.1f}" for each in found) + f"{exponent:10.2f}{large:10.0f}")
    print(json.dumps({"networks": counts, "seconds": [round(sum(each.values()), 1) for each in found]}))


if __name__ == "__main__":
    main()
