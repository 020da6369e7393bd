"""Reading a network: layers, activations and the folded network from `apply` and the shapes of its arguments alone.

    program = read(apply, params, inputs)
    program.layers, program.edges, program.problems
    logits, activations = program.features(params, inputs, offsets={"conv1/kernel": offset})
    logits = program.folded(program.fold(params), inputs)

Nothing is computed: the function is traced at two batch sizes. The result is cached for all networks of one shape, and
the functions of a `Program` are `Partial`s of functions that these networks share, so that they share compiled programs
too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from prunegen_jax.compute.closures import lift
from prunegen_jax.compute.planes import with_convolutions
from prunegen_jax.networks.reading import folding
from prunegen_jax.networks.reading.activations import Features, InputSquares, LayerInput
from prunegen_jax.networks.reading.edges import Edge, edges, is_sequential
from prunegen_jax.networks.reading.layers import Layer, Path
from prunegen_jax.networks.reading.powers import Powered
from prunegen_jax.networks.reading.structure import Bound, Structure, settings


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The result of reading one network.

    Attributes:
        apply: the network's function, a `Partial`.
        structure: the part shared with other networks of its shape.
        bound: arrays that are not shared, such as statistics.
    """

    apply: Partial
    structure: Structure
    bound: Bound

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Convolutions and dense layers whose geometry is known, in the order of the program."""
        return self.structure.layers

    @property
    def kernels(self) -> tuple[Path, ...]:
        """Paths of all kernels, those inside loops too, in the order of the parameters."""
        return self.structure.references[0].kernels

    @property
    def problems(self) -> dict[Path, str]:
        """Path of each kernel that is not in a layer of `layers` → the reason."""
        return dict(self.structure.problems)

    @property
    def weights(self) -> tuple[Path, ...]:
        """Kernels and their biases, which measures of flatness perturb, in the order of the parameters.

        This includes a bias before a batch norm that is not folded, but not the scales and shifts of the norm.
        For a kernel that is not in a layer, it includes everything in its node of the tree.
        """
        unread = {path[:-1] for path in self.problems}
        chosen = {*self.kernels, *self.structure.references[0].biases.values()}
        return tuple(path for path in self.structure.paths if path in chosen or path[:-1] in unread)

    @property
    def affine(self) -> tuple[tuple[Path, ...], ...]:
        """For each affine step that does not follow a layer (and so cannot be folded), the parameters in it."""
        reading = self.structure.references[0]
        found = []
        for chain in reading.free:
            others = [step.other for step in chain.affine if isinstance(step.other, int)]
            inside = {
                path for i, path in reading.parameters.items() for o in others if reading.facts[o].depends >> i & 1
            }
            found.append(tuple(path for path in self.structure.paths if path in inside))
        return tuple(found)

    @property
    def operations(self) -> frozenset[str]:
        """Names of the primitives applied to values that depend on the input: "exp" shows a softmax, for example."""
        reading = self.structure.references[0]
        return frozenset(
            node.name
            for node in reading.flat.nodes
            if any(isinstance(a, int) and reading.facts[a].depends & reading.data for a in node.inputs)
        )

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Which layers feed which."""
        return _edges(self.structure)

    @property
    def sequential(self) -> bool:
        """Whether it is a plain sequence of layers, all of which could be read."""
        return is_sequential(self.edges) and not self.problems

    @property
    def no_activation(self) -> dict[Path, str]:
        """Path of each layer whose pre-activation cannot be read → the reason."""
        return {path: axis for path, axis in self.structure.batch_axes.items() if isinstance(axis, str)}

    @property
    def features(self) -> Partial:
        """(params, inputs, offsets={}) → (logits, {name: activation}), see `activations.Features`."""
        return Partial(with_convolutions(_features(self.structure)), self.bound)

    def layer_input(self, path: Path) -> Partial:
        """(params, inputs) → (logits, input of the layer at `path`), see `activations.LayerInput`."""
        return Partial(with_convolutions(LayerInput(self.structure, path)), self.bound)

    @property
    def input_squares(self) -> Partial:
        """(params, inputs, {path: kernel}) → a sum whose derivatives are Σ x², see `activations.InputSquares`."""
        return Partial(with_convolutions(_input_squares(self.structure)), self.bound)

    @property
    def hidden(self) -> dict[Path, str]:
        """Path of each layer inside a function with its own derivative → the reason why its values cannot be taken."""
        return dict(self.structure.references[0].hidden)

    @property
    def powered(self) -> Partial:
        """(params, inputs, power=2) → logits of the network of |w|^p, see `powers.Powered`."""
        return Partial(with_convolutions(_powered(self.structure)), self.bound)

    @property
    def folded(self) -> Partial | None:
        """(folded parameters, inputs) → logits; None if there is nothing to fold.

        It is a network like any other: `read` finds its layers, biases and activations.
        """
        if folding.plan(self.structure) is None:
            return None
        return Partial(with_convolutions(_folded(self.structure)), self.bound)

    @property
    def folded_layers(self) -> tuple[Path, ...]:
        """Paths of the kernels that `fold` changes."""
        plan = folding.plan(self.structure)
        return () if plan is None else tuple(plan.biases)

    def fold(self, params: Any) -> Any:
        """The parameters for which `folded` is the same function, with the statistics of this network.

        A network with other parameters and statistics (before training, for example) is read with its own `apply` and
        folded by its own program, which needs no second trace.
        """
        return folding.fold(self.structure, self.bound, params)

    def difference(self, params: Any, inputs: jax.Array) -> float:
        """The largest difference of folded and original logits on `inputs`, over the largest logit.

        Rounding makes it about 1e-7 in float32. NaN, if logits are not finite or all zero, does not count as agreement.
        """
        if self.folded is None:
            return 0.0
        return float(folding.difference(self.apply, params, self.folded, self.fold(params), inputs))


_features = functools.lru_cache(maxsize=256)(Features)
_input_squares = functools.lru_cache(maxsize=256)(InputSquares)
_powered = functools.lru_cache(maxsize=256)(Powered)
_folded = functools.lru_cache(maxsize=256)(folding.Folded)


@functools.lru_cache(maxsize=256)
def _edges(structure: Structure) -> tuple[Edge, ...]:
    return edges(structure.references[0])


def read(apply: Callable[..., Any], params: Any, inputs: Any) -> Program:
    """Reads the network `apply(params, inputs [n, ...]) -> logits [n, K]`.

    Args:
        apply: the network in evaluation mode. Arrays bound with `functools.partial` or `jax.tree_util.Partial`, and
            arrays of its closure, are arguments of the program, like the parameters.
        params: any pytree of arrays.
        inputs: an array or a `jax.ShapeDtypeStruct`, `[n, ...]`; n does not matter.
    """
    lifted = lift(apply)
    apply = Partial(lifted.func.original, *lifted.args, **lifted.keywords)  # with the convolutions of the model
    leaves, apply_tree = jax.tree.flatten(apply)
    # With their types, since True == 1 == 1.0, which trace differently.
    statics = tuple((i, type(leaf), leaf) for i, leaf in enumerate(leaves) if not _is_array(leaf))
    arrays = tuple(leaf for leaf in leaves if _is_array(leaf))
    with_keys, params_tree = jax.tree_util.tree_flatten_with_path(params)
    structure = _structure(
        apply_tree,
        statics,
        params_tree,
        tuple(key for key, _ in with_keys),
        _shapes(arrays),
        _shapes([leaf for _, leaf in with_keys]),
        (tuple(inputs.shape[1:]), _dtype(inputs)),
        settings(),
    )
    return Program(apply, structure, (arrays, structure.closure))


@functools.lru_cache(maxsize=256)
def _structure(
    apply_tree: Any,
    statics: tuple[tuple[int, type, Any], ...],
    params_tree: Any,
    keys: tuple[Any, ...],
    bound: tuple[Any, ...],
    params: tuple[Any, ...],
    example: tuple[Any, ...],
    _settings: tuple[Any, ...],
) -> Structure:
    shapes = [tuple(jax.ShapeDtypeStruct(*shape) for shape in part) for part in (bound, params)]
    return Structure(
        apply_tree, {i: leaf for i, _, leaf in statics}, params_tree, keys, *shapes, jax.ShapeDtypeStruct(*example)
    )


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _shapes(leaves: Any) -> tuple[tuple[tuple[int, ...], Any], ...]:
    return tuple((np.shape(leaf), _dtype(leaf)) for leaf in leaves)


def _dtype(leaf: Any) -> Any:
    """The dtype that JAX gives it: float32 for NumPy's float64, unless 64 bits are enabled."""
    return jax.dtypes.canonicalize_dtype(leaf.dtype) if isinstance(leaf, np.ndarray | np.generic) else leaf.dtype
