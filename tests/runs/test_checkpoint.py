"""Checkpoints: complete at every moment, with two processes at one of them, and nothing of others deleted."""

from __future__ import annotations

import os

import numpy as np
import pytest
from etils import epath

from prunegen_jax.runs import arrays, checkpoint, files
from tests.support.checkpoints import ARRAYS, HISTORY, META, load, place, save, set_age, write, write_state


def test_checkpoint_round_trip(tmp_path):
    assert load(tmp_path) is None
    write(tmp_path, "epoch-1", ARRAYS, META | {"epochs": 1})
    write(tmp_path, "final", {**ARRAYS, "more": np.ones(2, np.float32)})
    arrays, meta = load(tmp_path)
    assert meta == META
    assert sorted(arrays) == sorted([*ARRAYS, "more"])
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert [name.partition("-")[0] for name in sorted(os.listdir(place(tmp_path)))] == ["final", "state.json"]


def test_final_arrays_stay_in_memory_within_the_block(tmp_path, monkeypatch):
    with checkpoint.kept_in_memory():
        write(tmp_path, "epoch-1", ARRAYS, META | {"epochs": 1})
        write(tmp_path, "final", {k: v + 1 for k, v in ARRAYS.items()})
        with monkeypatch.context() as patch:
            patch.setattr(arrays, "read", None)  # reading would fail
            content, meta = load(tmp_path)
        assert meta == META
        np.testing.assert_array_equal(content["stats/n"], 4)
        content.clear()  # the caller's own
        assert load(tmp_path)[0].keys() == ARRAYS.keys()
        write(tmp_path / "other", "final", ARRAYS)  # of another workdir, with other arrays
        np.testing.assert_array_equal(load(tmp_path / "other")[0]["stats/n"], 3)
    np.testing.assert_array_equal(load(tmp_path)[0]["stats/n"], 4)
    monkeypatch.setattr(arrays, "read", None)
    with pytest.raises(TypeError):
        load(tmp_path)


def test_no_more_stays_in_memory_than_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_MOST_KEPT", sum(array.nbytes for array in ARRAYS.values()))
    with checkpoint.kept_in_memory():
        for name in "one", "two":
            write(tmp_path / name, "final", {k: v + len(name) * (name == "two") for k, v in ARRAYS.items()})
        monkeypatch.setattr(arrays, "read", None)
        load(tmp_path / "one")
        with pytest.raises(TypeError):
            load(tmp_path / "two")


def test_progress_and_history_are_read_without_the_arrays(tmp_path):
    folder = epath.Path(tmp_path)
    assert (
        checkpoint.progress(folder, "m") is checkpoint.history(folder, "m") is checkpoint.written(folder, "m") is None
    )
    path = write_state(tmp_path, "m", epochs=5)
    os.utime(path, (7, 7))
    assert checkpoint.progress(folder, "m") == 5
    assert checkpoint.written(folder, "m") == 7.0
    assert checkpoint.history(folder, "m") == HISTORY
    write_state(tmp_path, "m", history=HISTORY | {"check_loss": []})
    assert checkpoint.progress(folder, "m") is checkpoint.history(folder, "m") is None


def test_a_death_between_arrays_and_the_json_file_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    write(tmp_path, "epoch-1", ARRAYS, META | {"epochs": 1})

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "epoch-2", {k: v + 1 for k, v in ARRAYS.items()})
    monkeypatch.undo()
    arrays, meta = load(tmp_path)
    assert meta["epochs"] == 1
    np.testing.assert_array_equal(arrays["stats/n"], 3)
    write(tmp_path, "epoch-2", {k: v + 1 for k, v in ARRAYS.items()})
    assert load(tmp_path)[1]["epochs"] == 2


def test_the_arrays_are_replaced_while_they_are_read(tmp_path, monkeypatch):
    """Another driver saves between this one's look at the JSON file and at the arrays that it names."""
    save(tmp_path, "epoch-1", 1)
    real, looks = checkpoint._read_arrays, []

    def slow(folder, state, expected):
        looks.append(state["meta"]["value"])
        if len(looks) < 3:
            save(tmp_path, "epoch-2", 1 + len(looks))
        return real(folder, state, expected)

    monkeypatch.setattr(checkpoint, "_read_arrays", slow)
    arrays, meta = load(tmp_path)
    assert looks == [1, 2, 3]
    assert (meta["value"], float(arrays["x"][0])) == (3, 3.0)


@pytest.mark.parametrize("first", [0, 1])
def test_two_processes_save_at_once(tmp_path, monkeypatch, first):
    """Both have written their arrays, under one name, before either replaces the JSON file."""
    save(tmp_path, "epoch-1", 0)
    real = files.write_json

    def between(path, content):
        monkeypatch.setattr(files, "write_json", real)
        if first:
            save(tmp_path, "epoch-2", 2)
            real(path, content)
        else:
            real(path, content)
            save(tmp_path, "epoch-2", 2)

    monkeypatch.setattr(files, "write_json", between)
    save(tmp_path, "epoch-2", 1)
    arrays, meta = load(tmp_path)
    assert meta["value"] == arrays["x"][0] == (1 if first else 2)
    save(tmp_path, "final", 3)
    assert load(tmp_path)[1]["value"] == 3


@pytest.mark.parametrize("late", [False, True])
def test_the_end_of_training_is_not_replaced_by_its_middle(tmp_path, monkeypatch, late):
    """By another driver, that is behind; it finds the end before it writes its arrays, or after."""
    end = {"x": np.full(3, 9, np.float32)}
    real = checkpoint._is_final

    def is_final(folder, meta):
        monkeypatch.setattr(checkpoint, "_is_final", real)
        return False

    write(tmp_path, "final", end, META | {"status": "converged"})
    if late:
        monkeypatch.setattr(checkpoint, "_is_final", is_final)
    write(tmp_path, "epoch-5", {"x": np.zeros(3, np.float32)}, META | {"status": "training"})
    arrays, meta = load(tmp_path)
    assert (meta["status"], arrays["x"][0]) == ("converged", 9.0)
    assert len(os.listdir(place(tmp_path))) == 2
    for other in ({"hash": "c"}, {"data": "c"}, {"versions": {"threads": "2"}}):  # but by that of another network
        write(tmp_path, "final", end)
        write(tmp_path, "epoch-1", {"x": np.zeros(3, np.float32)}, META | other)
        assert load(tmp_path)[1] == META | other


def test_what_killed_processes_left_is_deleted_when_it_is_old(tmp_path):
    save(tmp_path, "epoch-1", 1)
    folder, half = place(tmp_path), "epoch-000002-01234567"
    for name, age in ((half, 7200), (f"{half}.orbax-checkpoint-tmp", 7200), ("epoch-000003-01234567", 60)):
        (folder / name).mkdir()
        (folder / name / "half").write_text("")
        set_age(folder / name, age)
    (folder / ".abcd_123.tmp").write_text("{")
    set_age(folder / ".abcd_123.tmp", 7200)
    save(tmp_path, "epoch-4", 4)
    left = {name for name in os.listdir(folder) if name != "state.json"}
    assert {name.rpartition("-")[0] for name in left} == {"epoch-000003", "epoch-4"}


def test_what_others_put_there_is_never_deleted(tmp_path):
    """However old: under a name of theirs, as a link, or named by an untrusted JSON file."""
    home, workdir = tmp_path / "home", tmp_path / "w"
    folder = place(workdir)
    (home / "thesis").mkdir(parents=True)
    (home / "thesis" / "one.tex").write_text("")
    save(workdir, "epoch-1", 1)
    (folder / "notes.txt").write_text("")
    (folder / "epoch-000009-old").mkdir()
    (folder / "epoch-000005-01234567").symlink_to(home)
    (folder / "link").symlink_to(home)
    for path in (home, *folder.iterdir()):
        set_age(path, 7200)
    state = files.read_json(folder / "state.json")
    for name in ("notes.txt", "epoch-000005-01234567"):
        files.write_json(folder / "state.json", state | {"arrays": name})
        save(workdir, "epoch-2", 2)
        assert (folder / "notes.txt").exists()
        assert (folder / "epoch-000009-old").exists()
        assert (folder / "link").is_symlink()
        assert (home / "thesis" / "one.tex").exists()
    assert load(workdir)[1]["value"] == 2


def test_what_cannot_be_deleted_ends_nothing(tmp_path, monkeypatch):
    save(tmp_path, "epoch-1", 1)

    def refuse(*_, **__):
        raise PermissionError("not yours")

    monkeypatch.setattr(type(epath.Path(tmp_path)), "rmtree", refuse)
    save(tmp_path, "epoch-2", 2)
    assert load(tmp_path)[1]["value"] == 2
