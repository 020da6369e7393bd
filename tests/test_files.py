"""Files: whole or not at all, and damage noticed; checkpoints likewise."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest

from prunegen_jax import checkpoints, files

CONTENT = {"b": [1, 2.5, None, True], "a": {"x": math.inf, "y": -math.inf, "z": math.nan, "pi": math.pi}, "ü": "<&>"}


def test_json_round_trip(tmp_path):
    path = tmp_path / "deep" / "x.json"
    files.write_json(path, CONTENT)
    back = files.read_json(path)
    assert back["b"] == CONTENT["b"]
    assert back["a"]["pi"] == math.pi
    assert [files.number(back["a"][k]) for k in "xy"] == [math.inf, -math.inf]
    assert math.isnan(files.number(back["a"]["z"]))
    assert json.loads(path.read_text())["a"]["z"] == "nan"
    first = path.read_bytes()
    files.write_json(path, dict(reversed(CONTENT.items())))
    assert path.read_bytes() == first


def test_numpy_values_become_plain_ones(tmp_path):
    files.write_json(tmp_path / "x.json", {"a": np.float32(0.5), "b": np.arange(3), "c": (np.int64(4), np.bool_(True))})
    assert files.read_json(tmp_path / "x.json") == {"a": 0.5, "b": [0, 1, 2], "c": [4, True]}


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_damaged_json_is_noticed(tmp_path, position):
    path = tmp_path / "x.json"
    files.write_json(path, {"value": 0.123456789, "name": "abc"})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * position)])
    with pytest.raises(files.DamagedError, match="is damaged"):
        files.read_json(path)
    path.write_bytes(content.replace(b"0.123456789", b"0.123456788"))
    with pytest.raises(files.DamagedError, match="checksum"):
        files.read_json(path)
    path.write_bytes(b"[1]")
    with pytest.raises(files.DamagedError, match="is damaged"):
        files.read_json(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(OSError, match="disk"), files.atomic(path) as file:
        file.write(b"half")
        raise OSError("disk full")
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert files.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]


ARRAYS = {"params/a/kernel": np.arange(12, dtype=np.float32).reshape(3, 4), "stats/n": np.array(3, np.int32)}


def test_checkpoint_round_trip(tmp_path):
    assert checkpoints.load(tmp_path / "none") is None
    checkpoints.save(tmp_path / "m", "epoch-1", ARRAYS, {"epochs": 1, "losses": [0.1, 2 / 3]})
    checkpoints.save(tmp_path / "m", "final", {**ARRAYS, "more": np.ones(2, np.float32)}, {"epochs": 2})
    arrays, meta = checkpoints.load(tmp_path / "m")
    assert meta == {"epochs": 2}
    assert sorted(arrays) == sorted([*ARRAYS, "more"])
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert sorted(os.listdir(tmp_path / "m")) == ["final", "state.json"]


def test_a_death_between_arrays_and_their_note_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoints.save(tmp_path / "m", "epoch-1", ARRAYS, {"epochs": 1})

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path / "m", "epoch-2", {k: v + 1 for k, v in ARRAYS.items()}, {"epochs": 2})
    monkeypatch.undo()
    arrays, meta = checkpoints.load(tmp_path / "m")
    assert meta == {"epochs": 1}
    np.testing.assert_array_equal(arrays["stats/n"], 3)
    checkpoints.save(tmp_path / "m", "epoch-2", {k: v + 1 for k, v in ARRAYS.items()}, {"epochs": 2})
    assert checkpoints.load(tmp_path / "m")[1] == {"epochs": 2}


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "note"])
def test_damaged_checkpoints_are_noticed(tmp_path, damage):
    big = {"w": np.random.default_rng(0).normal(size=(200, 50)).astype(np.float32)}
    checkpoints.save(tmp_path / "m", "final", big, {})
    data = [f for f in (tmp_path / "m" / "final").rglob("*") if f.is_file()]
    largest = max(data, key=lambda f: f.stat().st_size)
    content = bytearray(largest.read_bytes())
    if damage == "truncate":
        largest.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 16
        largest.write_bytes(content)
    elif damage == "remove":
        largest.unlink()
    else:
        (tmp_path / "m" / "state.json").write_text("{")
    with pytest.raises(files.DamagedError, match="damaged"):
        checkpoints.load(tmp_path / "m")


def test_trees_by_name():
    tree = {"a": {"kernel": np.ones((2, 3))}, "b": np.zeros(())}
    flat = checkpoints.flatten("params", tree)
    assert sorted(flat) == ["params/a/kernel", "params/b"]
    back = checkpoints.unflatten("params", tree, flat)
    np.testing.assert_array_equal(back["a"]["kernel"], tree["a"]["kernel"])
    with pytest.raises(files.DamagedError, match="has nothing for 'params/c'"):
        checkpoints.unflatten("params", {"c": np.ones(1)}, flat)
    with pytest.raises(files.DamagedError, match="needs \\(3, 3\\)"):
        checkpoints.unflatten("params", {"a": {"kernel": np.ones((3, 3))}}, flat)
