"""Reads a network from its program: its layers and what feeds them, its activations, and the network with folded batch
norm, from `apply(params, inputs)` alone."""

from prunegen_jax.networks.reading.read import Program, read

__all__ = ["Program", "read"]
