"""Which layers feed which."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jax.extend.core import Literal as Scalar

from prunegen_jax.networks.reading.sites import Reading

Join = Literal["sequential", "sum", "concatenation", "other"]
INPUT, OUTPUT = "input", "output"


@dataclasses.dataclass(frozen=True)
class Edge:
    """The output of the layer `source` reaches the layer `target` without another layer in between.

    Attributes:
        source: name of a layer, or "input".
        target: name of a layer, or "output".
        join: "sequential" if it is combined with nothing on the way; "sum" or "concatenation" if it is combined
            with the output of other layers; "other" for products in attention or gates, for example.
    """

    source: str
    target: str
    join: Join


def edges(reading: Reading) -> tuple[Edge, ...]:
    """All edges, ordered by target, then by source, both as in the program."""
    flat, found = reading.flat, []
    layers = {reading.sites[path].position: path for path in reading.layers}
    flows: dict[int, dict[str, Join]] = {
        value: {INPUT: "sequential"} for value in range(flat.inputs) if reading.facts[value].depends == reading.data
    }
    for position, node in enumerate(flat.nodes):
        if node.opened:
            continue
        incoming = [flows[a] for a in node.inputs if not isinstance(a, Scalar) and a in flows]
        flow = _merge(node.name, incoming)
        if position in layers:
            name = "/".join(layers[position])
            found += [Edge(source, name, join) for source, join in flow.items()]
            flow = {name: "sequential"}
        if flow:
            flows |= dict.fromkeys(node.outputs, flow)
    last = flat.outputs[0]
    flow = {} if isinstance(last, Scalar) else flows.get(last, {})
    found += [Edge(source, OUTPUT, join) for source, join in flow.items()]
    order = [INPUT, *("/".join(path) for path in reading.layers), OUTPUT]
    return tuple(sorted(found, key=lambda edge: (order.index(edge.target), order.index(edge.source))))


def _merge(name: str, incoming: list[dict[str, Join]]) -> dict[str, Join]:
    merged: dict[str, Join] = {}
    for flow in incoming:
        merged |= flow
    if len({frozenset(flow) for flow in incoming}) > 1:
        join: Join = "sum" if name in ("add", "add_any", "sub") else "other"
        merged = dict.fromkeys(merged, "concatenation" if name == "concatenate" else join)
    return merged


def is_sequential(found: tuple[Edge, ...]) -> bool:
    """Whether every layer takes only the output of the layer before it."""
    sources, targets = [edge.source for edge in found], [edge.target for edge in found]
    alone = len(set(sources)) == len(sources) and len(set(targets)) == len(targets)
    return alone and all(edge.join == "sequential" for edge in found)
