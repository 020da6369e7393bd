"""Networks restored from a workdir: by name, from its checkpoint, with data from where the user says."""

from __future__ import annotations

import pytest
from etils import epath

from prunegen_jax import data
from prunegen_jax.runs import files, restore, task
from prunegen_jax.runs.points import Point
from tests.runs.test_record import NAME, POINT, content, write


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def test_an_unknown_network_is_answered_with_those_there_are(folder):
    write(folder, content())
    (folder / "records" / f"{NAME} copy.json").write_text("{}")
    with pytest.raises(ValueError, match=f"has no network 'other'; it has {NAME}$"):
        restore.load_model(folder, "other")
    with pytest.raises(ValueError, match="is not a file name"):
        restore.load_model(folder, "../other")


def test_a_workdir_does_not_say_where_data_are(folder, monkeypatch):
    """Nor whether to download them: all of its files may be untrusted."""
    asked = []

    def load(name, **options):
        asked.append((name, options))
        raise FileNotFoundError("no data here")

    monkeypatch.setattr(data, "load", load)
    write(folder, content())
    files.write_json(folder / "config.json", {"data": {"dir": "/theirs", "cache_dir": "/theirs/cache"}})
    for given in ({}, {"data_dir": "/mine", "cache_dir": "/mine/cache"}):
        with pytest.raises(FileNotFoundError, match="no data here"):
            restore.load_model(folder, NAME, **given)
    assert asked == [
        ("mnist", {"dir": None, "cache_dir": None, "download": False}),
        ("mnist", {"dir": "/mine", "cache_dir": "/mine/cache", "download": False}),
    ]


@pytest.mark.parametrize(
    "change", [{"data.name": 1}, {"data.train_size": "x"}, {"data.seed": 0.5}, {"data.seed": None}]
)
def test_a_point_that_describes_no_data(folder, change):
    point = POINT | change
    write(folder, content() | {"point": point, "hash": Point(NAME, point, ()).hash})
    with pytest.raises(ValueError, match="does not describe a data set"):
        restore.load_model(folder, NAME)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "do not describe a network"),
        (
            {"model.name": "nin", "model.nonsense": 1},
            "model.nonsense is unknown to model.name='nin'; its fields are depth",
        ),
        ({"model.name": "nin", "model.width": "x"}, "do not describe a network"),
    ],
)
def test_fields_that_describe_no_network(fields, message):
    with pytest.raises(ValueError, match=message):
        task.build_network(fields, input_shape=(8, 8, 1), classes=10)
