"""Networks: the models that sweeps train, by name, and reading any network from its program (`networks.reading`)."""

from prunegen_jax.networks.registry import MODELS, Network, build
from prunegen_jax.networks.trained import as_trained_model

__all__ = ["MODELS", "Network", "as_trained_model", "build"]
