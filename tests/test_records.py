"""Records: written whole, by several processes at once, read back only if they are ours, never outside the workdir."""

from __future__ import annotations

import copy
import os

import pytest
from etils import epath

from prunegen_jax import files, records

NAME = "learning_rate=0.1,seed=0"
BARE = {
    "name": NAME, "hash": "0123456789abcdef", "point": {"seed": 0}, "axes": ["seed"], "status": "converged",
    "train": {"loss": 0.25, "accuracy": 1.0}, "versions": {"threads": "1"}, "measures": {},
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


@pytest.mark.parametrize(
    "change",
    [{"name": "../../outside"}, {"name": "another"}, {"measures": []}, {"point": None}, {"axes": "seed"}],
    ids=str,
)
def test_a_record_of_another_making_counts_as_missing(workdir, change, capsys):
    files.write_json(records.path(workdir, NAME), BARE | change)
    assert records.read(workdir, NAME) is None
    assert records.read_all(workdir) == []
    assert f"is damaged: its {next(iter(change))!r} is" in capsys.readouterr().err


def test_stamps_change_when_a_record_does(workdir):
    assert records.stamps(workdir, {NAME}) == {}
    records.write(workdir, record())
    first = records.stamps(workdir, {NAME})
    assert first == records.stamps(workdir, {NAME})
    assert records.stamps(workdir, {"another"}) == {}
    records.write(workdir, record(a=entry(1.0)))
    assert records.stamps(workdir, {NAME}) != first
