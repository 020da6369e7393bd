"""Pruning curves for plots, kept in `workdir/curves/NAME.json`: coarse, made once from each network's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from prunegen_jax.report import stored
from prunegen_jax.report.stored import Json
from prunegen_jax.runs import files
from prunegen_jax.runs.progress import Progress

# Options of the measure prunability that its curve shares.
_OPTIONS = ("scope", "criterion", "prunable", "fold")


def make(folder: epath.Path, *, data_dir: str | None = None, cache_dir: str | None = None) -> dict[str, str]:
    """Makes the curves that `folder` lacks, one pass over the training set per point of the grid.

    Args:
        folder: a workdir; where its data are is not for its files to say.
        data_dir: where TFDS finds its prepared sets; None for its own default.
        cache_dir: where decoded images are kept; None for the person's cache folder.

    Returns:
        network -> why it has no curve: it diverged, its weights or its data set are not at hand or not whole.
    """
    records, _ = stored.records(folder / "records")
    there = stored.curves(folder / "curves")
    waiting = {name: record for name, record in records.items() if not _is_done(there.get(name), record)}
    reasons = {}
    if not waiting:
        return reasons
    with Progress(len(waiting), "pruning curves") as progress:
        for name, record in waiting.items():
            try:
                files.write_json(folder / "curves" / f"{name}.json", curve_of(folder, record, data_dir, cache_dir))
            except (ValueError, OSError) as error:  # DamagedError is a ValueError
                reasons[name] = str(error)
            progress.step(name)
    return reasons


def curve_of(
    folder: epath.Path, record: Mapping[str, Any], data_dir: str | None = None, cache_dir: str | None = None
) -> Json:
    """The pruned losses of a recorded network. ValueError or OSError when its weights or data are not at hand."""
    if record["status"] == "diverged":
        raise ValueError("the network diverged")
    from prunegen_jax import pruning  # noqa: PLC0415 - the rest of the report needs no JAX
    from prunegen_jax.runs import records  # noqa: PLC0415

    options = _options(record)
    model = records.load_model(folder, record["name"], data_dir=data_dir, cache_dir=cache_dir)
    model = model.folded if options.get("fold") and model.folded is not None else model
    found = pruning.pruned_loss_curve(
        model.apply, model.params, model.train, **{k: v for k, v in options.items() if k != "fold"}
    )
    shown = {"fractions": found.fractions, "kept": found.kept, "losses": found.losses}
    return {"hash": record["hash"], "options": options} | {key: values.tolist() for key, values in shown.items()}


def _is_done(curve: Json | None, record: Mapping[str, Any]) -> bool:
    return curve is not None and curve.get("hash") == record["hash"] and curve.get("options") == _options(record)


def _options(record: Mapping[str, Any]) -> Json:
    """The options that make the curve that of the measure prunability, as it was computed for this network."""
    asked = record["measures"].get("prunability", {}).get("options", {})
    return {key: asked[key] for key in _OPTIONS if key in asked}
