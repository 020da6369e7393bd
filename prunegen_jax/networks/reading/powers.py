"""The network of a path norm: every weight, and every scale and shift of its affine steps, replaced by |w|^p."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from prunegen_jax.networks.reading.chains import Chain, precision, scale_and_shift, spread
from prunegen_jax.networks.reading.program import evaluate
from prunegen_jax.networks.reading.structure import Bound, Structure, outputs


@dataclasses.dataclass(frozen=True)
class Powered:
    """(bound, params, inputs, power) → logits, as a function that equal structures share.

    Kernels of layers become |W|^p. An affine chain y → s y + t, such as the bias or the batch norm after a layer, or
    one that does not follow a layer, becomes y → |s|^p y + |t|^p. So batch norm need not be folded, and a batch norm
    that cannot be folded counts with its effective scale and shift.
    """

    structure: Structure

    def __call__(self, bound: Bound, params: Any, inputs: jax.Array, power: jax.Array | float = 2.0) -> jax.Array:
        structure = self.structure
        reading, known = structure.arguments(bound, structure.flatten_params(params), inputs)
        flat = reading.flat
        chains = [(reading.chains[path], reading.sites[path].sizes) for path in reading.layers]
        chains += [(chain, (1,) * len(flat.shape(chain.start))) for chain in reading.free]
        steps = [step for chain, _ in chains for step in chain.affine]
        operands = list({s.other for s in steps if s.other is not None and not isinstance(s.other, Literal)})
        values = dict(zip(operands, evaluate(flat, known, operands), strict=True))
        change: dict[int, Callable[[Any], Any]] = {}
        for chain, sizes in chains:
            if chain.affine:
                dtype = precision(flat.avals[chain.end].dtype)
                scale, shift = scale_and_shift(chain, values.__getitem__, sizes, dtype)
                change[chain.end] = _affine(chain, _power(scale, power), _power(shift, power))
        for position, path in reading.parameters.items():
            if path in reading.layers:
                known[position] = _power(known[position], power)
        skip = {step.position: step.place for step in steps}
        return outputs(reading, known, skip=skip, change=change)[0]


def _power(weights: jax.Array, power: jax.Array | float) -> jax.Array:
    return jnp.abs(weights) ** jnp.asarray(power, weights.dtype)


def _affine(chain: Chain, scale: jax.Array, shift: jax.Array) -> Callable[[jax.Array], jax.Array]:
    def apply(value: jax.Array) -> jax.Array:
        along = (scale, shift)
        if chain.axes is not None:
            along = tuple(spread(vector, chain.axes, value.ndim) for vector in along)
        return value * along[0].astype(value.dtype) + along[1].astype(value.dtype)

    return apply
