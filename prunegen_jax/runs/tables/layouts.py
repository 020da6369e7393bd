"""Tables as other tools write them: which tool wrote a table, and what its columns are called in ours.

A layout is recognised by the names of its columns. It renames them to what `columns.assign` finds by name, drops those
that say nothing about a model, and keeps one row of each training. Nothing is guessed where no layout is recognised.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import re
from collections.abc import Callable, Sequence

_STEPS = ("step", "epoch", "training_iteration", "_step", "global_step")
_HYPERPARAMETERS = (  # how a hyperparameter is called where no prefix says that it is one
    r"(base_|init_|initial_)?(learning_rate|lr)(_\w+)?|(train_)?batch_size|bs|(train_)?epochs|max_epochs|width|depth|"
    r"(weight|lr)_decay|wd|l2(_?reg)?|dropout(_rate)?|momentum|optimi[sz]er|opt|scheduler|activation|arch(itecture)?|model|"
    r"dataset|augment(ation)?|label_smoothing|label_noise|num_(layers|units|blocks|filters)|hidden(_\w+)?|"
    r"(random_|data_|init_)?seed|(w_|b_)?init(_std|iali[sz]er)?|train_fraction|width_multiplier|batch_?norm"
)
_BARE = re.compile(rf"({_HYPERPARAMETERS})$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a tool names the columns of its tables.

    Attributes:
        name: the tool, or the data set.
        needs: patterns that each match a column of every such table; no table of another kind has all of them.
        hyperparameter: prefix of the columns of hyperparameters; "" where they are known by their names alone.
        result: prefix of the columns of results, which is dropped.
        label: columns that name a training, the first that there is counts.
        drops: pattern of columns that say nothing about a model.
        fallback: a column that is the target if nothing else is one, and what it is.
        measures: columns that are judged although they would be confounders alone.
    """

    name: str
    needs: tuple[str, ...]
    hyperparameter: str = ""
    result: str = ""
    label: tuple[str, ...] = ()
    drops: str = r"(?!)"
    fallback: tuple[str, str] = ("", "")
    measures: tuple[str, ...] = ()


LAYOUTS = (
    Layout("prunegen_jax", (r"name", r"status", r"hp\..+", r"gap|test_error|test_loss")),
    Layout("robust-generalization-measures (Dziugaite et al. 2020)", (r"complexity\..+", r"gen\.gap|gen_gap")),
    Layout(
        "Small CNN Zoo (Unterthiner et al. 2020)", (r"modeldir", r"config\..+", r"test_accuracy"),
        hyperparameter="config.", label=("modeldir",), measures=("train_loss",),
        drops=r"laststep|config\.(dataset|epochs_between_checkpoints|num_checkpoints)",
    ),
    Layout(
        "model zoo (Schürholt et al. 2022)", (r"trial_id", r"training_iteration", r"config/.+"),
        hyperparameter="config/", label=("trial_id",), measures=("train_loss",),
        drops=r"(time|timestamp|date|pid|hostname|node_ip|iterations_since|episodes|timesteps|experiment_|done|warmup)"
        r"\w*|(perf|config/(dataset|model::type|device|cuda|seed_path))\b.*|(ggap|generali[sz]ation_gap)",
    ),
    Layout(
        "MLflow", (r"run_id", r"params\..+", r"metrics\..+"), hyperparameter="params.", result="metrics.",
        label=("run_id",), drops=r"(tags\..*|artifact_uri|start_time|end_time|experiment_id|user_id|lifecycle_stage)",
    ),
    Layout(
        "Optuna", (r"number", r"params_.+", r"state"), hyperparameter="params_", result="user_attrs_",
        label=("number",), drops=r"datetime_.*|duration|system_attrs_.*|intermediate_values.*",
        fallback=("value", "the objective, which Optuna minimizes by default"),
    ),
    Layout(
        "W&B", (r"name", r"state", r"created|runtime|user|sweep|_runtime|_timestamp|_wandb.*|summary\..+|(?-i:State)"),
        hyperparameter="config.", result="summary.", label=("id",),
        drops=r"(notes|user|tags|created|runtime|sweep|id|group|job type|job_type|commit|hostname|end time|"
        r"gpu( type| count)?|updated|(summary\.)?_(runtime|timestamp|wandb.*))",
    ),
)  # fmt: skip


def recognise(header: Sequence[str]) -> Layout | None:
    """The layout of a table with these columns; None for none of `LAYOUTS`."""

    def has(pattern: str) -> bool:
        return any(re.fullmatch(pattern, column, re.IGNORECASE) for column in header)

    return next((layout for layout in LAYOUTS if all(map(has, layout.needs))), None)


def arrange(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, step: int | None, is_target: Callable[[str], bool]
) -> tuple[list[str], list[list[str]], str | None, list[str]]:
    """A table with the columns of its layout renamed, and one row for each training.

    Args:
        header: names of the columns.
        rows: the rows.
        step: the step of each training to keep; None for its last.
        is_target: whether a column is a target by its name.

    Returns:
        Header, rows, the target if only the layout tells it (otherwise None), and notes: which layout it is, and how
        many rows are steps of one training.

    Raises:
        ValueError: if `step` is given and no training has it, or the table has no steps.
    """
    layout = recognise(header)
    if layout is None:
        rows, notes = keep_one_step(header, rows, ("name", "run_id", "trial_id", "modeldir"), step)
        return list(header), rows, None, notes
    names = [_rename(column, layout) for column in header]
    column, meaning = layout.fallback
    target = column if column in header and not any(is_target(name) for name in names if name) else None
    if column in header and target is None:
        names[header.index(column)] = None
    rows, steps = keep_one_step(header, rows, layout.label, step)
    notes = [f"the table is recognised as one of {layout.name}", *steps]
    notes += [f"taken as the target: {target}, {meaning}"] if target else []
    kept = [i for i, name in enumerate(names) if name is not None and name not in names[:i]]
    dropped = [column for i, column in enumerate(header) if column and i not in kept]
    if dropped:
        notes.append(f"columns ignored, as they do not describe a model: {', '.join(dropped)}")
    return [str(names[i]) for i in kept], [[row[i] for i in kept] for row in rows], target, notes


def translate(patterns: str, header: Sequence[str]) -> str:
    """Shell patterns, separated by commas, of columns as a recognised table has them: in the names they are given here.

    A pattern that also matches one of the new names stays.
    """
    layout = recognise(header)
    names = {column: _rename(column, layout) or column for column in header} if layout is not None else {}
    found = []
    for pattern in (part.strip() for part in patterns.split(",")):
        renamed = [new for old, new in names.items() if new != old and fnmatch.fnmatchcase(old, pattern)]
        stays = not renamed or any(fnmatch.fnmatchcase(new, pattern) for new in names.values())
        found += [pattern] if stays else map(glob.escape, renamed)
    return ",".join(found)


def _rename(column: str, layout: Layout) -> str | None:
    """Our name of a column of a layout; None for one that is dropped."""
    if layout.label and column.lower() == layout.label[0]:
        return "name"
    if re.fullmatch(rf"|unnamed: 0|{layout.drops}", column, re.IGNORECASE) or (
        layout.label and column.lower() in _STEPS
    ):
        return None
    if layout.hyperparameter and column.startswith(layout.hyperparameter):
        name = column.removeprefix(layout.hyperparameter)
        return "hp.seed" if re.fullmatch(r"(random_)?seed", name, re.IGNORECASE) else f"hp.{name}"
    if column in layout.measures:
        return f"measure.{column}"
    if layout.result and column.startswith(layout.result):
        return column.removeprefix(layout.result)
    return f"hp.{column}" if layout.name == "W&B" and _BARE.match(column) else column


def keep_one_step(
    header: Sequence[str], rows: Sequence[Sequence[str]], labels: Sequence[str], step: int | None
) -> tuple[list[list[str]], list[str]]:
    """One row of each training, its last or that of a step, and a note where there are more."""
    lower = [column.lower() for column in header]
    label = next((lower.index(name) for name in labels if name in lower), None)
    place = next((lower.index(name) for name in _STEPS if name in lower), None)
    repeats = label is not None and len({row[label] for row in rows}) < len(rows)
    if place is None or not repeats:
        if step is not None:
            raise ValueError(f"--step={step}: the table does not have several steps of one training run")
        return [list(row) for row in rows], []
    chosen: dict[str, Sequence[str]] = {}
    for row in rows:
        if step is not None and _number(row[place]) != step:
            continue
        if row[label] not in chosen or _number(row[place]) >= _number(chosen[row[label]][place]):
            chosen[row[label]] = row
    if not chosen:
        raise ValueError(f"--step={step}: no row has this value in the column {header[place]!r}")
    which = "the last" if step is None else f"step {step}"
    note = f"{len(rows)} rows are steps of training runs: {which} of each is judged, {len(chosen)} models"
    return [list(row) for row in chosen.values()], [note]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("-inf")
