"""Which of the packages that the benchmarks compare with are installed."""

import importlib.util


def missing(*modules, smoke):
    """Those of `modules` that are not installed, which a run with --smoke leaves out.

    Raises:
        SystemExit: if any is missing in a full run, which would compare with nothing.
    """
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent and not smoke:
        raise SystemExit(
            f"not installed: {', '.join(absent)}; install requirements-bench.txt, or run with --smoke to leave them out"
        )
    return absent
