"""Which property of a trained network tells how well it generalizes?

The public surface. Names are imported on first use, so that `import prunegen_jax` costs nothing and judging a
table needs no JAX.
"""

import importlib
import importlib.abc
import sys
from typing import Any

__version__ = "0.3.0"

_HOME = {
    "Dataset": "types",
    "Estimate": "types",
    "History": "types",
    "HistoryRecorder": "training.history",
    "TrainedModel": "types",
    "build": "networks",
    "prunability": "pruning",
    "prunability_prefix": "pruning",
    "pruned_loss_curve": "pruning",
    "random_prunability": "pruning",
    "MEASURES": "measures",
    "measure": "measures",
    "get_config": "runs.configs",
    "judge": "judging",
    "load_model": "runs.restore",
    "pipeline": "runs",
    "read_csv": "runs.tables",
    "read_study": "runs.studies",
}

# Modules of version 0.1 and where they are now.
_MOVED = {
    "checkpoints": "runs.checkpoint",
    "cluster": "runs.executors.ray",
    "columns": "runs.tables.columns",
    "compilation": "runs.compilation",
    "console": "cli.main",
    "costs": "runs.costs",
    "driver": "runs.driver",
    "evaluation": "compute.evaluation",
    "executors": "runs.executors",
    "files": "runs.files",
    "main": "cli.run",
    "masks": "pruning.masks",
    "measures.beyond": "measures.clustering",
    "measures.operators": "measures.convolution_norms",
    "measures.subject": "measures.objective",
    "measures.weights": "measures.structure",
    "models": "networks",
    "pipeline": "runs.pipeline",
    "pool": "runs.executors.process",
    "processes": "runs.processes",
    "progress": "runs.progress",
    "record_form": "runs.schema",
    "report.curves": "runs.curves",
    "records": "runs.record",
    "scan": "pruning.scan",
    "shipped": "runs.configs",
    "slots": "runs.slots",
    "snapshots": "runs.snapshot",
    "sweeps": "runs.points",
    "table_files": "runs.tables.text_files",
    "tables": "runs.tables",
    "together": "compute.lockstep",
    "training.checks": "training.losses",
    "training.seat": "training.slot",
    "trees": "compute.trees",
    "work": "runs.train",
    "workdir": "runs.workdir",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"prunegen_jax has no {name!r}; it has {', '.join(sorted(_HOME))}")
    home = importlib.import_module(f"{__name__}.{_HOME[name]}")
    return importlib.import_module(f"{home.__name__}.{name}") if name == "pipeline" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted(_HOME)


class _Moved(importlib.abc.MetaPathFinder):
    """Asked last, for a module that nobody else finds: says where it is now."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        package, _, module = name.partition(".")
        if package == __name__ and module in _MOVED:
            # Without name=, or `from prunegen_jax import records` would hide the sentence.
            raise ModuleNotFoundError(f"{name} is now {__name__}.{_MOVED[module]}")


sys.meta_path.append(_Moved())
