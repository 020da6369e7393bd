"""Records: what is known of each network of a workdir, one JSON file each. The one module that knows their format."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Container, Sequence
from typing import NamedTuple

from etils import epath

from prunegen_jax.runs import files, schema, workdir
from prunegen_jax.runs.points import Point, Value
from prunegen_jax.runs.schema import Json

_LOSSES = schema.optional(
    lambda x: (
        schema.fits(x, {"loss": schema.is_number, "size?": schema.is_integer})
        and schema.fits(x, schema.map_of(schema.is_number))
    )
)
_MEASURE = {
    "value": schema.optional(schema.is_number),
    "sem?": schema.optional(schema.is_number),
    "status": schema.one_of("ok", "not_applicable", "failed"),
    "reason?": schema.is_text,
    "details?": schema.is_object,
    "options": schema.is_object,
    "version?": schema.is_integer,  # of the measure's definition; 1 in records of older versions
}
# Settings of JAX that change numbers, by its own names, in `versions`. Records of 0.3 and before are made with these.
DEFAULT_SETTINGS = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": "True",
    "jax_enable_x64": "False",
    "jax_default_matmul_precision": "None",
    "XLA_FLAGS": "",
}
ROUNDING_SETTINGS = ("jax_default_matmul_precision", "XLA_FLAGS")  # those of which only the last digits depend

_TARGET = {
    "loss": schema.is_number,
    "errors": schema.is_count,
    "size": schema.is_count,
    "ece": schema.is_number,
    "brier": schema.is_number,
}
_RECORD = {
    "name": schema.is_text,
    "hash": schema.is_text,
    "point": schema.map_of(lambda x: isinstance(x, Value)),
    "axes": schema.list_of(schema.is_text),
    "status": schema.one_of("converged", "ended", "not_converged", "diverged"),
    "reason": schema.is_text,
    "train": _LOSSES,
    "test": _LOSSES,
    "updates": schema.is_integer,
    "epochs": schema.is_integer,
    "data": lambda x: isinstance(x, str) and x.isprintable(),
    "measures": schema.map_of(_MEASURE),
    "targets?": schema.map_of(_TARGET),
    "versions": schema.map_of(schema.is_text),
}


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of a network whose training has ended.

    Numbers that are not finite may stand as the words "nan", "inf" and "-inf", as in the file.

    Attributes:
        name: of the network, and of the record's file.
        hash: of its point.
        point: every field that changes its numbers.
        axes: the swept fields among them.
        status: how training ended: "converged", "ended" (no target: after all epochs), "not_converged" or "diverged".
        reason: why, if it is one of the latter two.
        train: loss, accuracy and size of the training set; None for a network that diverged.
        test: the same of the test set.
        updates: optimizer updates done.
        epochs: epochs begun.
        data: the fingerprint of the data set.
        measures: name -> value, sem, status, reason, details, and the options and version it was computed with.
        targets: test set -> loss, number of errors, size, calibration error and Brier score on it.
        versions: what the numbers were made with.
    """

    name: str
    hash: str
    point: dict[str, Value]
    axes: tuple[str, ...]
    status: str
    reason: str
    train: Json | None
    test: Json | None
    updates: int
    epochs: int
    data: str
    versions: dict[str, str]
    measures: dict[str, Json] = dataclasses.field(default_factory=dict)
    targets: dict[str, Json] = dataclasses.field(default_factory=dict)

    def to_json(self) -> Json:
        """The record as its file holds it."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return files.plain({name: value for name, value in content.items() if name != "targets" or value})

    @classmethod
    def from_json(cls, content: Json, source: epath.Path) -> Record:
        """The record in `content`, read from the file `source`.

        Raises:
            DamagedError: if it is not whole, or not a record of the network that the file is named after.
        """
        schema.check(content, _RECORD, source)
        schema.check(content, {"name": lambda name: name == source.stem}, source)
        hashes = [Point("", fields, ()).hash for fields in (content["point"], schema.restore_numbers(content["point"]))]
        schema.check(content, {"hash": lambda value: value in hashes}, source)
        content = {"targets": {}} | content  # records of 0.3 and older have none
        known = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        return cls(**known | {"axes": tuple(known["axes"])})

    def with_measure(self, name: str, entry: Json) -> Record:
        """The record with one more measure, or another value of it."""
        return dataclasses.replace(self, measures=self.measures | {name: entry})

    def is_failed(self, measure: str) -> bool:
        """Whether a measure was tried and failed."""
        return measure in self.measures and _is_failed(self.measures[measure])

    def check_data(self, fingerprint: str) -> None:
        """Checks that a data set of this fingerprint is the one that the network was trained on.

        Raises:
            ValueError: if it is another one.
        """
        if fingerprint != self.data:
            raise ValueError(
                f"the data set is not the one that {self.name!r} was trained on: "
                f"its fingerprint is {fingerprint}, but was {self.data}"
            )

    def describe(self) -> str:
        """How training ended, in a few words."""
        return f"{self.status}, loss {float(self.train['loss']):.4g}" if self.train else f"{self.status}, {self.reason}"


class Missing(NamedTuple):
    """What is still to do for a point; false if nothing is."""

    train: bool = False
    measures: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.train or bool(self.measures or self.tests)


def find_missing(
    record: Record | None,
    point: Point,
    stages: Sequence[str],
    measures: Sequence[str],
    *,
    tests: Sequence[str] = (),
    retry_failed: bool = True,
) -> Missing:
    """What is missing of a point. The driver, training and measuring all ask this.

    A network without a record, or whose record is of another point, cannot be measured before it is trained.

    Args:
        record: of the point's name, if there is one.
        point: the network.
        stages: what is asked for: "train", "measure" or both.
        measures: names of those to compute.
        tests: names of the test sets to evaluate it on.
        retry_failed: measures that failed (for lack of memory, say) count as missing.
    """
    if record is None or record.hash != point.hash:
        return Missing(train="train" in stages)
    if "measure" not in stages or record.status == "diverged":
        return Missing()
    done = {name for name, entry in record.measures.items() if not (retry_failed and _is_failed(entry))}
    lacking = tuple(name for name in tests if name not in record.targets)
    return Missing(measures=tuple(name for name in measures if name not in done), tests=lacking)


def read(folder: epath.Path, name: str) -> Record | None:
    """The record of `name` in a workdir; None if there is none or, with a warning, if it is damaged.

    Raises:
        ValueError: if the name is not a plain name, or a link leads out of the workdir.
    """
    try:
        return _read(folder, name)
    except files.DamagedError as error:
        print(f"{error}; it is treated as missing, and the stage train writes it again", file=sys.stderr)
        return None


def _read(folder: epath.Path, name: str) -> Record | None:
    source = workdir.path(folder, "records", name)
    try:
        return Record.from_json(files.read_json(source), source)
    except FileNotFoundError:
        return None


def scan(folder: epath.Path) -> tuple[list[Record], list[str]]:
    """Every record of a workdir that is whole, by name, and a sentence for each file that is not."""
    records, problems = [], []
    for name in workdir.names(folder, "records"):
        try:
            record = _read(folder, name)
        except files.DamagedError as error:
            problems.append(f"{error}; it is treated as missing, and the stage train writes it again")
        except ValueError:
            problems.append(f"{folder / 'records'} contains {f'{name}.json'!r}, which is not a record: ignored")
        else:
            records += [] if record is None else [record]  # None: another process replaced it
    return records, problems


def read_all(folder: epath.Path) -> list[Record]:
    """Every record of a workdir that is whole, by name, with a warning for each that is not."""
    records, problems = scan(folder)
    for problem in problems:
        print(problem, file=sys.stderr)
    return records


def stamps(folder: epath.Path, names: Container[str]) -> dict[str, tuple[float, int]]:
    """Time and size of the files of those records among `names` that exist: they change when the record does."""
    times = {}
    for file in files.listing(folder / "records", ".json"):
        if file.stem in names:
            with contextlib.suppress(FileNotFoundError):
                times[file.stem] = files.time_and_size(file)
    return times


def write(folder: epath.Path, record: Record) -> None:
    """Writes a record, with the measures and targets that another process has put there in the meantime.

    Raises:
        ValueError: if the existing record is of another point; or if the new one has measures, and the existing one is
            of a network trained otherwise; or if links lead out of the workdir.
        OSError: if it cannot be written.
    """
    content, existing = record.to_json(), read(folder, record.name)
    old = existing and existing.to_json()
    if existing is not None:
        if existing.hash != record.hash:
            raise ValueError(
                f"{folder} contains {record.name!r}, made with a different config: its hash is {existing.hash} "
                f"there and {record.hash} here. Choose another --workdir, or restore the old values"
            )
        if _training(content) == _training(old):
            if targets := existing.targets | record.targets:
                content["targets"] = targets
            better = {k: v for k, v in content["measures"].items() if k not in existing.measures or not _is_failed(v)}
            content["measures"] = existing.measures | better
        elif record.measures or record.targets:
            raise ValueError(f"{record.name} was trained again while it was measured; run the same command again")
    if content != old:
        files.write_json(workdir.path(folder, "records", record.name), content)


def _training(content: Json) -> Json:
    """What a record says apart from its measures and targets, settings of JAX written out."""
    return content | {"measures": {}, "targets": {}, "versions": DEFAULT_SETTINGS | content["versions"]}


def _is_failed(entry: Json) -> bool:
    return entry["status"] == "failed"
