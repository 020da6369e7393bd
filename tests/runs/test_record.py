"""Records: written completely, by several processes at once, read back only if whole, never outside the workdir."""

from __future__ import annotations

import copy
import math
import os

import pytest
from etils import epath

from prunegen_jax.runs import costs, files, record, workdir
from prunegen_jax.runs.points import Point
from prunegen_jax.runs.record import Missing, Record, find_missing

NAME = "learning_rate=0.1,seed=0"
POINT = {"data.name": "mnist", "data.train_size": None, "data.label_noise": 0.0, "data.seed": 0, "seed": 0}
BARE = {
    "name": NAME, "hash": Point(NAME, POINT, ()).hash, "point": POINT, "axes": ["seed"], "status": "converged",
    "reason": "", "train": {"loss": 0.25, "accuracy": 1.0, "size": 8}, "test": {"loss": 0.5, "accuracy": 0.5},
    "updates": 10, "epochs": 2, "data": "fedcba9876543210", "versions": {"threads": "1"}, "measures": {},
}  # fmt: skip


def entry(value, status="ok"):
    return {"value": value, "sem": None, "status": status, "details": {}, "options": {}}


def content(**measures):
    """A whole record, as its file holds it."""
    return copy.deepcopy(BARE) | {"measures": measures}


def write(folder, whole):
    record.write(folder, Record(**whole | {"axes": tuple(whole["axes"])}))


def path(folder):
    return workdir.path(folder, "records", NAME)


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def test_measures_of_two_drivers_are_joined(folder):
    write(folder, content())
    write(folder, content(a=entry(1.0)))
    write(folder, content(b=entry(float("inf"))))
    assert record.read(folder, NAME).to_json() == files.plain(content(a=entry(1.0), b=entry(float("inf"))))


def test_training_a_network_again_keeps_its_measures(folder):
    """As a second driver does that began before the first one wrote the record."""
    write(folder, content(a=entry(1.0)))
    before = path(folder).read_bytes()
    write(folder, content())
    assert path(folder).read_bytes() == before


def test_what_failed_does_not_replace_what_did_not(folder):
    write(folder, content(a=entry(None, "failed")))
    write(folder, content(a=entry(1.0)))
    write(folder, content(a=entry(None, "failed")))
    assert record.read(folder, NAME).measures == {"a": entry(1.0)}


def test_the_order_of_writing_does_not_show(folder):
    for name, order in (("x", "ab"), ("y", "ba")):
        for measure in order:
            write(folder / name, content(**{measure: entry(1.0)}))
    one, other = (path(folder / name).read_bytes() for name in "xy")
    assert one == other


def test_measures_of_one_network_do_not_go_to_another_of_its_name(folder):
    """The network was trained again, by other versions, while this process measured the old one."""
    newer = content() | {"versions": {"threads": "2"}}
    write(folder, content())
    write(folder, newer)
    message = f"{NAME} was trained again while it was measured; run the same command again"
    with pytest.raises(ValueError, match=message):
        write(folder, content(a=entry(1.0)))
    assert record.read(folder, NAME).to_json() == newer


def test_an_equal_record_is_not_written_again(folder):
    write(folder, content(a=entry(1.0)))
    stamp = os.stat(path(folder)).st_mtime_ns
    write(folder, content(a=entry(1.0)))
    assert os.stat(path(folder)).st_mtime_ns == stamp


TRAIN, BOTH = ("train",), ("train", "measure")


@pytest.mark.parametrize(
    ("existing", "stages", "missing"),
    [
        (None, BOTH, Missing(train=True)),
        (None, ("measure",), Missing()),  # a network that is not trained cannot be measured
        ({"hash": "another"}, BOTH, Missing(train=True)),
        ({}, TRAIN, Missing()),
        ({}, BOTH, Missing(measures=("a", "b"))),
        ({"measures": {"a": entry(1.0)}}, BOTH, Missing(measures=("b",))),
        ({"measures": {"a": entry(1.0), "b": entry(None, "failed")}}, BOTH, Missing(measures=("b",))),
        ({"measures": {"a": entry(1.0), "b": entry(None, "not_applicable")}}, BOTH, Missing()),
        ({"status": "diverged"}, BOTH, Missing()),
    ],
)
def test_what_is_missing_of_a_point(existing, stages, missing):
    known = None if existing is None else Record(**BARE | existing)
    assert find_missing(known, Point(NAME, POINT, ()), stages, ("a", "b")) == missing
    assert bool(missing) == (missing != Missing())


def test_measures_that_failed_are_missing_only_if_they_are_tried_again():
    known = Record(**content(a=entry(None, "failed")))
    assert not find_missing(known, Point(NAME, POINT, ()), BOTH, ("a",), retry_failed=False)


@pytest.mark.parametrize("name", ["../outside", "/outside", "..", "a/b"])
def test_no_name_leads_outside(folder, name):
    inner = folder / "inner"
    for act in (
        lambda: write(inner, content() | {"name": name}),
        lambda: record.read(inner, name),
        lambda: costs.add(inner, name, {"train": 1.0}),
    ):
        with pytest.raises(ValueError, match="is not a file name"):
            act()
    assert not [each for each in folder.iterdir() if each.name != "inner"]


WRONG = [
    *({"name": name} for name in ("../../outside", "another", 1)),
    *({"hash": value} for value in ("0123456789abcdef", None)),
    *({"point": value} for value in (None, POINT | {"seed": [0]}, POINT | {"seed": {"a": 1}})),
    *({"axes": value} for value in ("seed", [["seed"]], [None])),
    *({"status": value} for value in ("training", {"a": 1}, None)),
    *({"train": value} for value in ([1], {"loss": "x"}, {}, {"loss": 1.0, "size": "inf"})),
    *({"test": value} for value in ("x", {"loss": True}, {"loss": 1.0, "size": 1.5})),
    *({key: value} for key in ("updates", "epochs") for value in ("1", 1.5, None)),
    *({"reason": value} for value in (None, 1)),
    *({"data": value} for value in (None, "\x1b[2J")),
    *({"versions": value} for value in ("x", {"jax": 1})),
    *({"measures": value} for value in ([], {"a": "x"}, {"a": {}})),
    *({"measures": {"a": entry(value)}} for value in ("x", [1], True)),
    *({"measures": {"a": entry(1.0) | change}} for change in ({"status": "fine"}, {"options": None}, {"sem": "x"})),
    {"measures": {"a": {"value": 1.0, "status": "ok"}}},
]


@pytest.mark.parametrize("change", WRONG, ids=lambda change: str(change)[:60])
def test_a_record_of_another_program_counts_as_missing(folder, change, capsys):
    files.write_json(path(folder), BARE | change)
    assert record.read(folder, NAME) is None
    assert record.read_all(folder) == []
    printed = capsys.readouterr().err
    assert f"is damaged: its '{next(iter(change))}" in printed and printed.isascii() and "\x1b" not in printed


@pytest.mark.parametrize("key", sorted(set(BARE) - {"name"}))
def test_a_record_that_lacks_something_counts_as_missing(folder, key, capsys):
    files.write_json(path(folder), {k: v for k, v in BARE.items() if k != key})
    assert record.read(folder, NAME) is None
    assert f"is damaged: its {key!r} is None" in capsys.readouterr().err


def test_a_record_may_hold_what_is_not_finite(folder):
    """A loss that overflowed, a measure without a value, a field of the config."""
    point = POINT | {"train.target": math.inf}
    whole = content(a=entry(math.nan, "failed"), b=entry(-math.inf))
    whole |= {"point": point, "hash": Point(NAME, point, ()).hash}
    whole |= {"test": {"loss": math.inf, "accuracy": 0.5, "size": 4}}
    diverged = whole | {"status": "diverged", "train": None, "test": None}
    for each in (whole, diverged):
        path(folder).unlink(missing_ok=True)
        write(folder, each)
        assert record.read(folder, NAME).to_json() == files.plain(each)


def test_a_record_says_how_training_ended():
    assert Record(**content()).describe() == "converged, loss 0.25"
    assert Record(**content() | {"train": {"loss": "inf"}}).describe() == "converged, loss inf"
    diverged = content() | {"status": "diverged", "train": None, "reason": "a loss is nan"}
    assert Record(**diverged).describe() == "diverged, a loss is nan"


def test_a_record_of_another_point_is_not_replaced(folder):
    write(folder, content(a=entry(1.0)))
    before = path(folder).read_bytes()
    point = POINT | {"seed": 1}
    with pytest.raises(ValueError, match="made with a different config: .* Choose another --workdir"):
        write(folder, content() | {"point": point, "hash": Point(NAME, point, ()).hash})
    assert path(folder).read_bytes() == before


def test_other_files_among_the_records_are_left_out(folder, capsys):
    write(folder, content())
    records = folder / "records"
    (records / f"{NAME} copy.json").write_bytes(path(folder).read_bytes())
    (records / "a\x1b[2J.json").write_text("{}")
    (records / "folder.json").mkdir()
    os.symlink("loop.json", records / "loop.json")
    os.mkfifo(records / "pipe.json")
    assert [each.name for each in record.read_all(folder)] == [NAME]
    printed = capsys.readouterr().err
    assert printed.count("which is not a record: ignored") == 2 and "\x1b" not in printed
    assert printed.count("it is treated as missing") == 3
    assert list(record.stamps(folder, {NAME})) == [NAME]


@pytest.mark.parametrize("part", ["records", "times"])
def test_no_link_leads_a_record_outside(tmp_path, part):
    (tmp_path / "w").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "w" / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="outside"):
        write(epath.Path(tmp_path / "w"), content())
        costs.add(epath.Path(tmp_path / "w"), NAME, {"train": 1.0})
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("value", ["<b>x", None, [1.0], True])
def test_times_that_are_no_numbers_are_forgotten(folder, value):
    target = workdir.path(folder, "times", NAME)
    files.write_json(target, {"train": value, "check": 1.0})
    costs.add(folder, NAME, {"train": 2.0, "check": 2.0})
    assert files.read_json(target) == {"train": 2.0, "check": 3.0}
    assert costs.read_all(folder) == {NAME: {"train": 2.0, "check": 3.0}}


def test_stamps_change_when_a_record_does(folder):
    assert record.stamps(folder, {NAME}) == {}
    write(folder, content())
    first = record.stamps(folder, {NAME})
    assert first == record.stamps(folder, {NAME})
    assert record.stamps(folder, {"another"}) == {}
    write(folder, content(a=entry(1.0)))
    assert record.stamps(folder, {NAME}) != first
