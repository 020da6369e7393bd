"""Which property of a trained network tells how well it generalizes?

The public surface. Names are imported on first use, so that `import prunegen_jax` costs nothing and judging a
table needs no JAX.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Dataset": "types",
    "Estimate": "types",
    "History": "types",
    "Layer": "types",
    "TrainedModel": "types",
    "build": "models",
    "prunability": "pruning",
    "prunability_prefix": "pruning",
    "pruned_loss_curve": "pruning",
    "random_prunability": "pruning",
    "MEASURES": "measures",
    "measure": "measures",
    "get_config": "shipped",
    "judge": "judging",
    "load_model": "records",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"prunegen_jax has no {name!r}; it has {', '.join(sorted(_HOME))}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
