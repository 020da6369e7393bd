"""The `TrainedModel` of a network of this package."""

from __future__ import annotations

from prunegen_jax.networks.registry import Network
from prunegen_jax.types import Dataset, History, Partial, PyTree, TrainedModel

Variables = tuple[PyTree, PyTree]  # parameters and running statistics


def as_trained_model(
    network: Network,
    params: PyTree,
    stats: PyTree,
    train: Dataset,
    *,
    init: Variables | None = None,
    first_epoch: Variables | None = None,
    history: History | None = None,
    name: str = "",
) -> TrainedModel:
    """The `TrainedModel` of a trained network that `networks.build` made.

    Args:
        network: its functions.
        params: its parameters.
        stats: its running statistics.
        train: the training set.
        init: parameters and statistics before training.
        first_epoch: parameters and statistics after the first epoch.
        history: how it was trained.
        name: for messages.
    """
    initial = {} if init is None else {"init_params": init[0], "init_apply": Partial(network.apply, init[1])}
    early = None
    if first_epoch is not None:
        early = TrainedModel(Partial(network.apply, first_epoch[1]), first_epoch[0], train, name=name, **initial)
    return TrainedModel(
        Partial(network.apply, stats), params, train, history=history, first_epoch=early, name=name, **initial
    )
