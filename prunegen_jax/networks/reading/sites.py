"""Reading one flat program: kernels, layers, the affine chains after them, and what cannot be read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jax.extend.core import Literal

from prunegen_jax.networks.reading.chains import Chain, affine_step, walk
from prunegen_jax.networks.reading.dependence import Fact, Use, View, propagate
from prunegen_jax.networks.reading.layers import Layer, Path, Site, locate
from prunegen_jax.networks.reading.program import Flat


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """The result of reading one flat program.

    Attributes:
        flat: the program.
        facts: of every value.
        data: the bit of the network's input in `Fact.depends`.
        parameters: position among the arguments → path.
        kernels: paths of all kernels, in the order of the arguments.
        layers: path of the kernel → layer, in the order of the program.
        sites: the same → where it is.
        chains: the same → the affine steps after it.
        biases: path of a kernel → the bias of its layer, also one before a batch norm.
        free: affine chains that do not follow a layer.
        problems: path of a kernel without a layer → the reason.
        hidden: path of a layer whose output cannot be changed → the reason.
    """

    flat: Flat
    facts: Sequence[Fact]
    data: int
    parameters: Mapping[int, Path]
    kernels: tuple[Path, ...]
    layers: Mapping[Path, Layer]
    sites: Mapping[Path, Site]
    chains: Mapping[Path, Chain]
    biases: Mapping[Path, Path]
    free: tuple[Chain, ...]
    problems: Mapping[Path, str]
    hidden: Mapping[Path, str]


def read_flat(flat: Flat, parameters: Mapping[int, Path], data: int) -> Reading:
    """Reads kernels, layers and affine chains from `flat`.

    Args:
        flat: the program.
        parameters: position among the arguments → path, for the parameters.
        data: position among the arguments of the network's input.
    """
    given = [Fact(1 << i, View(i) if i in parameters else None) for i in range(flat.inputs)]
    given += [Fact(1 << (flat.inputs + i) if np.ndim(c) else 0) for i, c in enumerate(flat.constants)]
    uses: list[Use] = []
    facts = propagate(flat, given, 1 << data, sum(1 << i for i in parameters), uses=uses)
    by_leaf = _by_leaf(flat, uses, parameters)
    found, problems = [], {}
    for leaf, leaf_uses in sorted(by_leaf.items()):
        path = parameters[leaf]
        reason = _problem(flat, leaf, leaf_uses)
        place = reason or locate(flat, leaf_uses[0], path, flat.shape(leaf))
        if isinstance(place, str):
            problems[path] = f"{'/'.join(path)}: {place}"
        else:
            found.append(place)
    found.sort(key=lambda pair: pair[1].position)
    layers, sites, chains, biases, hidden = {}, {}, {}, {}, {}
    kernels = tuple(parameters[leaf] for leaf in sorted(by_leaf))
    for layer, site in found:
        start, visible = _outside(flat, site.output)
        chain = walk(flat, facts, 1 << data, start, site.axes)
        if not visible:
            hidden[layer.path] = f"{layer.name}: it is computed inside a function with its own derivative"
            chain = Chain(start, start, (), site.axes)
        own = _added_first(flat, facts, parameters, chain, site)
        layers[layer.path] = dataclasses.replace(layer, bias=own if len(chain.affine) == 1 else None)
        sites[layer.path], chains[layer.path] = site, chain
        own = own or _companion(flat, facts, parameters, kernels, layer.path, chain, site)
        if own is not None:
            biases[layer.path] = own
    free = _free_chains(flat, facts, 1 << data, chains)
    return Reading(flat, facts, 1 << data, parameters, kernels, layers, sites, chains, biases, free, problems, hidden)


def _by_leaf(flat: Flat, uses: Sequence[Use], parameters: Mapping[int, Path]) -> dict[int, list[Use]]:
    """The uses of each kernel. A computed operand counts for the parameters of its size, or for all matrices in it."""
    by_leaf: dict[int, list[Use]] = {}
    for use in uses:
        if use.fact.view is not None:
            leaves = [use.fact.view.leaf]
        else:
            inside = [leaf for leaf in parameters if use.fact.depends >> leaf & 1 and len(flat.shape(leaf)) > 1]
            same = [leaf for leaf in inside if math.prod(flat.shape(leaf)) == use.size]
            leaves = same or inside
        for leaf in leaves:
            if leaf in parameters:
                by_leaf.setdefault(leaf, []).append(use)
    return by_leaf


def _problem(flat: Flat, leaf: int, uses: Sequence[Use]) -> str:
    loops = {use.loop for use in uses if use.loop}
    if loops:
        return f"it is used inside a loop or conditional ({', '.join(sorted(loops))})"
    if any(use.fact.view is None for use in uses):
        return "the kernel that is used is computed from it (as by weight standardisation)"
    if len(uses) > 1:
        return f"it is used {len(uses)} times"
    if not uses[0].on_data:
        return "it is multiplied with other parameters before it is applied to the input"
    view = uses[0].fact.view
    assert view is not None  # asked above
    if not view.exact:
        return "only a part of it is used, or its entries are used several times"
    others = _other_readers(flat, leaf, uses[0])
    return f"it is also read by {', '.join(others)} (as tied embeddings are)" if others else ""


def _other_readers(flat: Flat, leaf: int, use: Use) -> list[str]:
    """Names of the equations, besides the layer's own, that read the parameter or a rearrangement of it."""
    value, position, others = flat.nodes[use.position].inputs[use.place], use.position, []
    while True:
        assert not isinstance(value, Literal)  # a view of a parameter
        readers = list(flat.consumers[value])
        readers.remove(position)
        others += ["the output" if reader < 0 else flat.nodes[reader].name for reader in readers]
        if value == leaf:
            return others
        position = flat.producers[value]
        value = flat.nodes[position].inputs[0]


def _outside(flat: Flat, value: int) -> tuple[int, bool]:
    """The value as the world outside of calls with their own derivative sees it, and whether it does."""
    made_outside = {v for node in flat.nodes if not node.inside for v in node.outputs}
    while value not in made_outside:
        readers = flat.consumers[value]
        if len(readers) != 1 or readers[0] < 0 or flat.nodes[readers[0]].equation is not None:
            return value, False
        value = flat.nodes[readers[0]].outputs[0]
    return value, True


def _added_first(
    flat: Flat, facts: Sequence[Fact], parameters: Mapping[int, Path], chain: Chain, site: Site
) -> Path | None:
    """The parameter that the first step of the chain adds."""
    if not chain.affine or chain.affine[0].operation != "add":
        return None
    other = chain.affine[0].other
    view = None if other is None or isinstance(other, Literal) else facts[other].view
    if view is None or not view.exact or math.prod(flat.shape(view.leaf)) != math.prod(site.sizes):
        return None
    return parameters.get(view.leaf)


def _companion(
    flat: Flat,
    facts: Sequence[Fact],
    parameters: Mapping[int, Path],
    kernels: Sequence[Path],
    path: Path,
    chain: Chain,
    site: Site,
) -> Path | None:
    """The bias of a layer before a batch norm that computes its shift of its own parameters and this bias.

    It is the only companion of the kernel (a parameter in the same node of the tree, which has no other kernel and no
    parameter that the chain multiplies by), and is added.
    """
    if [kernel[:-1] for kernel in kernels].count(path[:-1]) > 1:
        return None
    added, scaling = 0, 0
    for step in chain.affine:
        depends = facts[step.other].depends if isinstance(step.other, int) else 0
        if step.operation in ("mul", "div"):
            scaling |= depends
        else:
            added |= depends
    beside = [leaf for leaf, other in parameters.items() if other != path and other[:-1] == path[:-1]]
    companions = [leaf for leaf in beside if added >> leaf & 1]
    if len(companions) != 1 or any(scaling >> leaf & 1 for leaf in beside):
        return None
    bias = companions[0]
    return parameters[bias] if math.prod(flat.shape(bias)) == math.prod(site.sizes) else None


def _free_chains(flat: Flat, facts: Sequence[Fact], data: int, chains: Mapping[Path, Chain]) -> tuple[Chain, ...]:
    """Maximal chains of affine steps that are not in a layer's chain. Their steps may vary along any axis."""
    taken = {step.position for chain in chains.values() for step in chain.steps}
    free = []
    for position, node in enumerate(flat.nodes):
        if node.inside or node.opened or position in taken or node.name == "neg":
            continue
        values = [a for a in node.inputs if not isinstance(a, Literal) and facts[a].depends & data]
        if len(values) != 1:
            continue
        # The value itself may have other consumers, so this step comes first, then the walk from its result.
        step = affine_step(flat, facts, data, position, values[0], None)
        if step is None:
            continue
        rest = walk(flat, facts, data, node.outputs[0], None)
        chain = Chain(values[0], rest.end, (step, *rest.steps), None)
        taken |= {step.position for step in chain.steps}
        free.append(chain)
    return tuple(free)
