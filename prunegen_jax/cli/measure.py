"""`prunegen measure FILE.py`: measures the trained network that `get_model()` of a Python file returns."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import os
import pathlib
import sys
import time
import traceback
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from prunegen_jax.cli.measure_zoo import add_options, measure_networks
from prunegen_jax.compute.backend import check_backend
from prunegen_jax.compute.checks import check_network
from prunegen_jax.compute.evaluation import loss_and_accuracy
from prunegen_jax.measures import check_options, find, measure, select
from prunegen_jax.runs import files
from prunegen_jax.runs.estimate import duration
from prunegen_jax.runs.tables.text_files import readable
from prunegen_jax.runs.tables.write import csv_text
from prunegen_jax.types import Estimate, TrainedModel

COLUMNS = ("name", "value", "sem", "status", "reason")
_EXAMPLE = """example of a file:

  from prunegen_jax import Dataset, TrainedModel

  def get_model():
      return TrainedModel.from_linen(module, variables, Dataset(inputs, labels))"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        """One sentence on stderr and a non-zero exit, without the usage in front of it."""
        self.exit(2, f"{message}; see --help\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    p = _Parser(
        prog="prunegen measure",
        description="Measures of one trained network, printed as a table.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("file", nargs="?", help="a Python file that defines get_model() -> TrainedModel; it is run")
    p.add_argument(
        "--measures",
        default="fast",
        help="all, names separated by commas, or fast (the default): those that cost "
        "at most one pass over the training set, and prunability_prefix",
    )
    p.add_argument(
        "--options", action="append", default=[], metavar="MEASURE.OPTION=VALUE",
        help="an option of a measure, for example prunability.beta=0.2; may be given several times",
    )  # fmt: skip
    add_options(p)
    p.add_argument("--csv", metavar="FILE", help="write the table as CSV")
    p.add_argument("--json", metavar="FILE", help="write the table as JSON, with the details of each measure")
    p.add_argument("--seed", type=int, default=0, help="seed of the measures that sample (default 0)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures a network, prints and writes the table.

    Args:
        arguments: the command line; None for `sys.argv`.

    Returns:
        The exit status: 0; 1 if a measure failed; 2 after one sentence on stderr about a wrong input.
    """
    options = parser().parse_args(arguments)
    try:
        check_backend()
        for path in (options.csv, options.json):
            _check_output(path)
        if options.zoo is not None:
            return measure_networks(options, parse_options(options.options))
        if options.file is None:
            raise ValueError("give a Python file that defines get_model(), or --zoo=DIR; see --help")
        module = _load(options.file)
        names = select(options.measures if options.measures in {"fast", "all"} else options.measures.split(","))
        by_measure = parse_options(options.options)
        check_options(by_measure)
        _check_used(by_measure, names)
        model = _get_model(module, options.file)
        _print_estimate(model, names)
        estimates = measure(model, names, key=jax.random.key(options.seed), options=by_measure)
        _write(options, model, estimates, by_measure)  # before printing, which fails if the reader has stopped
        print("\n" + readable_table(estimates))
        for path in filter(None, (options.csv, options.json)):
            print(f"wrote {path}")
    except (ValueError, OSError) as error:
        print(readable(str(error)), file=sys.stderr)
        return 2
    return int(any(estimate.status == "failed" for estimate in estimates.values()))


def parse_options(entries: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options of measures from entries such as "prunability.beta=0.2"; values are Python literals, else text.

    Raises:
        ValueError: for an entry of another form.
    """
    by_measure: dict[str, dict[str, Any]] = {}
    for entry in entries:
        target, equals, text = entry.partition("=")
        name, dot, option = target.partition(".")
        if not (name and dot and option and equals):
            raise ValueError(
                f"--options is {entry!r}; it must have the form MEASURE.OPTION=VALUE, such as prunability.beta=0.2"
            )
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        by_measure.setdefault(name, {})[option] = value
    return by_measure


def readable_table(estimates: Mapping[str, Estimate]) -> str:
    """The estimates as lines of text, one measure each."""
    rows = [COLUMNS]
    for name, estimate in estimates.items():
        sem = "" if estimate.sem is None else f"{estimate.sem:.2g}"
        value = f"{estimate.value:.6g}" if estimate.status == "ok" else ""
        rows.append((name, value, sem, estimate.status.replace("_", " "), estimate.reason))
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS) - 1)]
    lines = []
    for name, value, sem, status, reason in rows:
        numbers = f"{value.rjust(widths[1])}  {sem.rjust(widths[2])}"
        lines.append(f"{name.ljust(widths[0])}  {numbers}  {status.ljust(widths[3])}  {reason}".rstrip())
    return "\n".join(readable(line) for line in lines)


def _load(path: str) -> types.ModuleType:
    """Runs the Python file and returns its module. It can import files next to it."""
    if not os.path.isfile(path):
        raise ValueError(f"{path!r} is not a file; give a Python file that defines get_model()")
    module = types.ModuleType("prunegen_network")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses look for the module of a class
    folder = str(pathlib.Path(path).resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        code = compile(pathlib.Path(path).read_bytes(), path, "exec")
        exec(code, module.__dict__)
    except Exception as error:  # in the user's code: the traceback says where
        traceback.print_exc()
        raise ValueError(f"{path} raised {type(error).__name__}") from error
    if not callable(getattr(module, "get_model", None)):
        raise ValueError(f"{path} does not define get_model(), which must return a TrainedModel; see --help")
    return module


def _get_model(module: types.ModuleType, path: str) -> TrainedModel:
    try:
        model = module.get_model()
    except Exception as error:  # as in _load
        traceback.print_exc()
        raise ValueError(f"get_model() of {path} raised {type(error).__name__}") from error
    if not isinstance(model, TrainedModel):
        raise ValueError(f"get_model() of {path} returned {type(model).__name__}, not a prunegen_jax.TrainedModel")
    check_network(model.apply, model.params, model.train)
    return model


def _check_used(by_measure: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in by_measure:
        if name not in names:
            raise ValueError(f"--options gives an option of {name}, which is not among --measures")


def _check_output(path: str | None) -> None:
    if path is not None and (not path or os.path.isdir(path)):
        raise ValueError(f"{path!r} is not the name of a file to write")


def _print_estimate(model: TrainedModel, names: Sequence[str]) -> None:
    """Prints what is measured, and about how long it takes: the passes over the data times the seconds of one pass."""
    loss_and_accuracy(model.apply, model.params, model.train)  # compiles
    begin = time.perf_counter()
    loss, accuracy = loss_and_accuracy(model.apply, model.params, model.train)
    seconds = time.perf_counter() - begin
    rows = [find(name) for name in names]
    passes = sum(row.cost for row in rows if not row.missing(model))
    print(f"{model!r}: training loss {loss:.4g}" + (f", accuracy {accuracy:.2%}" if accuracy >= 0 else ""))
    print(
        f"{len(names)} measures: about {passes:.0f} passes over the training set of {seconds:.2g} s each, "
        f"{duration(passes * seconds)}, and compilation (seconds each, once)",
        flush=True,
    )


def _write(
    options: argparse.Namespace,
    model: TrainedModel,
    estimates: Mapping[str, Estimate],
    by_measure: Mapping[str, Mapping[str, Any]],
) -> None:
    if options.csv:
        with files.atomic(options.csv) as file:
            file.write(_csv(estimates).encode())
    if options.json:
        rows = {name: dataclasses.asdict(e) | {"options": by_measure.get(name, {})} for name, e in estimates.items()}
        content = files.plain({"network": model.name, "seed": options.seed, "measures": rows})
        with files.atomic(options.json) as file:
            file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _csv(estimates: Mapping[str, Estimate]) -> str:
    def line(name: str, estimate: Estimate) -> tuple[str, ...]:
        sem = "" if estimate.sem is None else repr(float(estimate.sem))
        return name, repr(float(estimate.value)), sem, estimate.status, estimate.reason

    return csv_text(COLUMNS, [line(name, estimate) for name, estimate in estimates.items()])
