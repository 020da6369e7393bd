"""The command `prunegen`, also `python -m prunegen_jax`: runs a sweep, measures a network, judges a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from prunegen_jax.runs import processes

_USAGE = """usage: prunegen COMMAND ...

  prunegen run --config=sweep --workdir=DIR    train, measure, judge and report a sweep; the same as run.py
  prunegen measure NETWORK.py                  measures of one network, which the file's get_model() returns
  prunegen measure --zoo=DIR --data=NAME --csv=FILE   measures of many small networks of a model zoo
  prunegen judge TABLE.csv --out=DIR           judge a table; the same as python -m prunegen_jax.judging
  prunegen report WORKDIR                      write the report of a judged workdir again
  prunegen findings WORKDIR --out=DIR          answer the questions of the paper with tables, from a judged workdir

prunegen COMMAND --help lists the options of a command; prunegen --version prints the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command named by the first word, with the other words as its command line.

    Args:
        arguments: the command line; None for `sys.argv`.

    Returns:
        The exit status.
    """
    processes.open_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (given[0], given[1:]) if given else ("", [])
    commands = {"run": _run, "measure": _measure, "judge": _judge, "report": _report, "findings": _findings}
    if command in commands:
        return commands[command](rest)
    if command == "--version":
        from prunegen_jax import __version__  # noqa: PLC0415

        print(__version__)
        return 0
    if command in {"-h", "--help"}:
        print(_USAGE)
        return 0
    problem = f"unknown command {command!r}" if command else "a command is missing"
    print(f"{problem}; choose among {', '.join(commands)}, or see prunegen --help", file=sys.stderr)
    return 2


def _run(arguments: list[str]) -> int:
    from prunegen_jax.cli import run as sweep  # noqa: PLC0415 - its import defines flags

    if "" not in sys.path:
        sys.path.insert(0, "")  # as with `python run.py`: a config can import files next to it
    sys.argv = ["prunegen run", *arguments]
    sweep.main()
    return 0


def _measure(arguments: list[str]) -> int:
    from prunegen_jax.cli.measure import main as measure  # noqa: PLC0415 - imports JAX

    return measure(arguments)


def _judge(arguments: list[str]) -> int:
    from prunegen_jax.cli.judge import main as judge  # noqa: PLC0415 - SciPy takes a second

    return judge(arguments)


def _findings(arguments: list[str]) -> int:
    from prunegen_jax.cli.findings import main as findings  # noqa: PLC0415 - imports JAX

    return findings(arguments)


def _report(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "prunegen report", description="Writes WORKDIR/report again from the files of the workdir."
    )
    parser.add_argument("workdir", help="a judged workdir")
    parser.add_argument("--no-curves", action="store_true", help="do not compute missing pruning curves")
    parser.add_argument("--data_dir", help="where TFDS finds its prepared data sets, if not in its default folder")
    parser.add_argument("--cache_dir", help="where decoded images are kept, if not in your cache folder")
    options = parser.parse_args(arguments)
    from prunegen_jax import report  # noqa: PLC0415 - plotting takes seconds to import
    from prunegen_jax.compute.backend import check_backend  # noqa: PLC0415
    from prunegen_jax.runs.tables.text_files import readable  # noqa: PLC0415

    try:
        if not options.no_curves:
            check_backend()
        page = report.write(
            options.workdir,
            make_curves=not options.no_curves,
            data_dir=options.data_dir,
            cache_dir=options.cache_dir,
        )
        print(f"report: {page}")
    except (ValueError, OSError) as error:
        print(readable(str(error)), file=sys.stderr)
        return 2
    return 0
