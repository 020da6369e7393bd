"""Executors: where the work of a sweep is done, in processes of this machine or on a Ray cluster."""

from __future__ import annotations

from ml_collections import ConfigDict

from prunegen_jax.runs.executors import local, ray
from prunegen_jax.runs.executors.base import Executor

EXECUTORS: dict[str, Executor] = {"local": local.run, "ray": ray.run}


def find(name: str, config: ConfigDict, *, address: str = "") -> Executor:
    """The executor called `name`.

    Args:
        name: a key of `EXECUTORS`.
        config: of the run, whose fields `run` are checked.
        address: of a Ray cluster; "" for none.

    Raises:
        ValueError: if it is not known or not installed, or `config.run` or the address does not fit it.
    """
    if name not in EXECUTORS:
        raise ValueError(f"--executor={name!r} is unknown; choose among {', '.join(EXECUTORS)}")
    if address and name != "ray":
        raise ValueError(f"--ray_address={address!r} is given, but --executor={name}; it needs --executor=ray")
    for field, least in (("workers", 0), ("threads", 1), ("retries", 0)):
        if config.run[field] < least:
            raise ValueError(f"run.{field}={config.run[field]} must be at least {least}")
    if name == "ray":
        ray.require(config)
    return EXECUTORS[name]
