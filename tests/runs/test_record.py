"""Records: written whole, by several processes at once, read back only if they are ours, never outside the workdir."""

from __future__ import annotations

import copy
import math
import os

import pytest
from etils import epath

from prunegen_jax import data
from prunegen_jax.runs import files
from prunegen_jax.runs import records
from prunegen_jax.runs.points import Point

NAME = "learning_rate=0.1,seed=0"
POINT = {"data.name": "mnist", "data.train_size": None, "data.label_noise": 0.0, "data.seed": 0, "seed": 0}
BARE = {
    "name": NAME, "hash": Point(NAME, POINT, ()).hash, "point": POINT, "axes": ["seed"], "status": "converged",
    "reason": "", "train": {"loss": 0.25, "accuracy": 1.0, "size": 8}, "test": {"loss": 0.5, "accuracy": 0.5},
    "updates": 10, "epochs": 2, "data": "fedcba9876543210", "versions": {"threads": "1"}, "measures": {},
}  # fmt: skip


def entry(value, status="ok"):
    return {"value": value, "sem": None, "status": status, "details": {}, "options": {}}


def record(**measures):
    return copy.deepcopy(BARE) | {"measures": measures}


@pytest.fixture
def workdir(tmp_path):
    return epath.Path(tmp_path)


def test_measures_of_two_drivers_are_joined(workdir):
    records.write(workdir, record())
    records.write(workdir, record(a=entry(1.0)))
    records.write(workdir, record(b=entry(float("inf"))))
    assert records.read(workdir, NAME) == files.plain(record(a=entry(1.0), b=entry(float("inf"))))


def test_training_a_network_again_keeps_its_measures(workdir):
    """As a second driver does that began before the first one wrote the record."""
    records.write(workdir, record(a=entry(1.0)))
    before = records.path(workdir, NAME).read_bytes()
    records.write(workdir, record())
    assert records.path(workdir, NAME).read_bytes() == before


def test_what_failed_does_not_replace_what_did_not(workdir):
    records.write(workdir, record(a=entry(None, "failed")))
    records.write(workdir, record(a=entry(1.0)))
    records.write(workdir, record(a=entry(None, "failed")))
    assert records.read(workdir, NAME)["measures"] == {"a": entry(1.0)}


def test_the_order_of_writing_does_not_show(workdir, tmp_path):
    for folder, order in ((workdir / "x", "ab"), (workdir / "y", "ba")):
        for name in order:
            records.write(folder, record(**{name: entry(1.0)}))
    one, other = (records.path(workdir / folder, NAME).read_bytes() for folder in "xy")
    assert one == other


def test_measures_of_one_network_do_not_go_to_another_of_its_name(workdir):
    """The network was trained anew, by other versions, while this process measured the old one."""
    newer = record() | {"versions": {"threads": "2"}}
    records.write(workdir, record())
    records.write(workdir, newer)
    with pytest.raises(ValueError, match=f"{NAME} was trained anew while it was measured; run the same command again"):
        records.write(workdir, record(a=entry(1.0)))
    assert records.read(workdir, NAME) == newer


def test_an_equal_record_is_not_written_again(workdir):
    records.write(workdir, record(a=entry(1.0)))
    stamp = os.stat(records.path(workdir, NAME)).st_mtime_ns
    records.write(workdir, record(a=entry(1.0)))
    assert os.stat(records.path(workdir, NAME)).st_mtime_ns == stamp


@pytest.mark.parametrize("name", ["../outside", "/outside", "..", "a/b"])
def test_no_name_leads_outside(workdir, name):
    inner = workdir / "inner"
    for act in (
        lambda: records.write(inner, record() | {"name": name}),
        lambda: records.read(inner, name),
        lambda: records.add_times(inner, name, {"train": 1.0}),
        lambda: records.load_model(inner, name),
    ):
        with pytest.raises(ValueError, match="is no name for a file"):
            act()
    assert not [path for path in workdir.iterdir() if path.name != "inner"]


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
def test_a_record_of_another_making_counts_as_missing(workdir, change, capsys):
    files.write_json(records.path(workdir, NAME), BARE | change)
    assert records.read(workdir, NAME) is None
    assert records.read_all(workdir) == []
    told = capsys.readouterr().err
    assert f"is damaged: its {next(iter(change))!r} is" in told and told.isascii() and "\x1b" not in told


@pytest.mark.parametrize("key", sorted(set(BARE) - {"name"}))
def test_a_record_that_lacks_something_counts_as_missing(workdir, key, capsys):
    files.write_json(records.path(workdir, NAME), {k: v for k, v in BARE.items() if k != key})
    assert records.read(workdir, NAME) is None
    assert f"is damaged: its {key!r} is None" in capsys.readouterr().err


def test_a_record_may_hold_what_is_not_finite(workdir):
    """A loss that overflowed, a measure without a value, a field of the config."""
    point = POINT | {"train.target": math.inf}
    whole = record(a=entry(math.nan, "failed"), b=entry(-math.inf))
    whole |= {"point": point, "hash": Point(NAME, point, ()).hash}
    whole |= {"test": {"loss": math.inf, "accuracy": 0.5, "size": 4}}
    diverged = whole | {"status": "diverged", "train": None, "test": None}
    for each in (whole, diverged):
        records.path(workdir, NAME).unlink(missing_ok=True)
        records.write(workdir, each)
        assert records.read(workdir, NAME) == files.plain(each)


def test_a_record_of_another_point_is_not_replaced(workdir):
    records.write(workdir, record(a=entry(1.0)))
    before = records.path(workdir, NAME).read_bytes()
    point = POINT | {"seed": 1}
    with pytest.raises(ValueError, match="made with another config: .* Choose another --workdir"):
        records.write(workdir, record() | {"point": point, "hash": Point(NAME, point, ()).hash})
    assert records.path(workdir, NAME).read_bytes() == before


def test_what_else_lies_among_the_records_is_left_out(workdir, capsys):
    records.write(workdir, record())
    folder = workdir / "records"
    (folder / f"{NAME} copy.json").write_bytes(records.path(workdir, NAME).read_bytes())
    (folder / "a\x1b[2J.json").write_text("{}")
    (folder / "folder.json").mkdir()
    os.symlink("loop.json", folder / "loop.json")
    os.mkfifo(folder / "pipe.json")
    assert [each["name"] for each in records.read_all(workdir)] == [NAME]
    told = capsys.readouterr().err
    assert told.count("which is no record of ours: left out") == 2 and "\x1b" not in told
    assert told.count("it counts as missing") == 3
    assert list(records.stamps(workdir, {NAME})) == [NAME]
    with pytest.raises(ValueError, match=f"has no network 'other'; it has .*{NAME}.*$"):
        records.load_model(workdir, "other")


@pytest.mark.parametrize("part", ["records", "times"])
def test_no_link_leads_a_record_outside(tmp_path, part):
    (tmp_path / "w").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "w" / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="outside"):
        records.write(epath.Path(tmp_path / "w"), record())
        records.add_times(epath.Path(tmp_path / "w"), NAME, {"train": 1.0})
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("value", ["<b>x", None, [1.0], True])
def test_times_that_are_no_numbers_are_forgotten(workdir, value):
    target = workdir / "times" / f"{NAME}.json"
    files.write_json(target, {"train": value, "check": 1.0})
    records.add_times(workdir, NAME, {"train": 2.0, "check": 2.0})
    assert files.read_json(target) == {"train": 2.0, "check": 3.0}


def test_a_workdir_does_not_say_where_data_are(workdir, monkeypatch):
    """Nor whether to download them: a stranger may have written all of its files."""
    asked = []

    def load(name, **options):
        asked.append((name, options))
        raise FileNotFoundError("no data here")

    monkeypatch.setattr(data, "load", load)
    records.write(workdir, record())
    files.write_json(workdir / "config.json", {"data": {"dir": "/theirs", "cache_dir": "/theirs/cache"}})
    for given in ({}, {"data_dir": "/mine", "cache_dir": "/mine/cache"}):
        with pytest.raises(FileNotFoundError, match="no data here"):
            records.load_model(workdir, NAME, **given)
    assert asked == [
        ("mnist", {"dir": None, "cache_dir": None, "download": False}),
        ("mnist", {"dir": "/mine", "cache_dir": "/mine/cache", "download": False}),
    ]


@pytest.mark.parametrize(
    "change", [{"data.name": 1}, {"data.train_size": "x"}, {"data.seed": 0.5}, {"data.seed": None}]
)
def test_a_point_that_describes_no_data(workdir, change):
    point = POINT | change
    records.write(workdir, record() | {"point": point, "hash": Point(NAME, point, ()).hash})
    with pytest.raises(ValueError, match="describes no data set"):
        records.load_model(workdir, NAME)


@pytest.mark.parametrize(
    "fields", [{}, {"model.name": "nin", "model.nonsense": 1}, {"model.name": "nin", "model.width": "x"}]
)
def test_fields_that_describe_no_network(fields):
    with pytest.raises(ValueError, match="describe no network"):
        records.network_of(fields, image_shape=(8, 8, 1), classes=10)


def test_stamps_change_when_a_record_does(workdir):
    assert records.stamps(workdir, {NAME}) == {}
    records.write(workdir, record())
    first = records.stamps(workdir, {NAME})
    assert first == records.stamps(workdir, {NAME})
    assert records.stamps(workdir, {"another"}) == {}
    records.write(workdir, record(a=entry(1.0)))
    assert records.stamps(workdir, {NAME}) != first
