"""Checkpoints: whole at every moment, damage noticed, two processes at one of them, and none from a stranger run."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest
from etils import epath

from prunegen_jax.runs import checkpoints, files

HISTORY = {
    "epoch_loss": [2.5, 2 / 3], "check_update": [7], "check_loss": [0.1], "updates": 7, "batch_size": 4, "target": 0.2,
}  # fmt: skip
META = {
    "hash": "a", "data": "b", "versions": {"threads": "1"}, "status": "training", "reason": "", "epochs": 2,
    "history": HISTORY, "check_running": [0.3], "has_first_epoch": False,
}  # fmt: skip
ARRAYS = {"params/a/kernel": np.arange(12, dtype=np.float32).reshape(3, 4), "stats/n": np.array(3, np.int32)}


def test_checkpoint_round_trip(tmp_path):
    assert checkpoints.load(tmp_path / "none") is None
    checkpoints.save(tmp_path / "m", "epoch-1", ARRAYS, META | {"epochs": 1})
    checkpoints.save(tmp_path / "m", "final", {**ARRAYS, "more": np.ones(2, np.float32)}, META)
    arrays, meta = checkpoints.load(tmp_path / "m")
    assert meta == META
    assert sorted(arrays) == sorted([*ARRAYS, "more"])
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert [name.partition("-")[0] for name in sorted(os.listdir(tmp_path / "m"))] == ["final", "state.json"]


def test_a_death_between_arrays_and_their_note_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoints.save(tmp_path / "m", "epoch-1", ARRAYS, META | {"epochs": 1})

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path / "m", "epoch-2", {k: v + 1 for k, v in ARRAYS.items()}, META)
    monkeypatch.undo()
    arrays, meta = checkpoints.load(tmp_path / "m")
    assert meta["epochs"] == 1
    np.testing.assert_array_equal(arrays["stats/n"], 3)
    checkpoints.save(tmp_path / "m", "epoch-2", {k: v + 1 for k, v in ARRAYS.items()}, META)
    assert checkpoints.load(tmp_path / "m")[1]["epochs"] == 2


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "add", "note"])
def test_damaged_checkpoints_are_noticed(tmp_path, damage, caplog):
    big = {"w": np.random.default_rng(0).normal(size=(200, 50)).astype(np.float32)}
    checkpoints.save(tmp_path / "m", "final", big, META)
    data = [f for f in (tmp_path / "m").rglob("*") if f.is_file() and f.name != "state.json"]
    largest = max(data, key=lambda f: f.stat().st_size)
    content = bytearray(largest.read_bytes())
    if damage == "truncate":
        largest.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 16
        largest.write_bytes(content)
    elif damage == "remove":
        largest.unlink()
    elif damage == "add":
        largest.with_name("more").write_bytes(b"")
    else:
        (tmp_path / "m" / "state.json").write_text("{")
    with pytest.raises(files.DamagedError, match="damaged"):
        checkpoints.load(tmp_path / "m")
    assert not caplog.records, "Orbax was asked first, and logged"


def test_trees_by_name():
    tree = {"a": {"kernel": np.ones((2, 3))}, "b": np.zeros(())}
    flat = checkpoints.flatten("params", tree)
    assert sorted(flat) == ["params/a/kernel", "params/b"]
    back = checkpoints.unflatten("params", tree, flat)
    np.testing.assert_array_equal(back["a"]["kernel"], tree["a"]["kernel"])
    with pytest.raises(files.DamagedError, match="has nothing for 'params/c'"):
        checkpoints.unflatten("params", {"c": np.ones(1)}, flat)
    with pytest.raises(files.DamagedError, match=r"needs float64\[3, 3\]"):
        checkpoints.unflatten("params", {"a": {"kernel": np.ones((3, 3))}}, flat)


def save(folder, name, value):
    checkpoints.save(folder, name, {"x": np.full(3, value, np.float32)}, META | {"value": value})


def test_the_arrays_are_replaced_while_they_are_read(tmp_path, monkeypatch):
    """Another driver saves between this one's look at the JSON file and at the arrays that it names."""
    save(tmp_path, "epoch-1", 1)
    real, looks = checkpoints._arrays, []

    def slow(folder, state, expected):
        looks.append(state["meta"]["value"])
        if len(looks) < 3:
            save(tmp_path, "epoch-2", 1 + len(looks))
        return real(folder, state, expected)

    monkeypatch.setattr(checkpoints, "_arrays", slow)
    arrays, meta = checkpoints.load(tmp_path)
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
    arrays, meta = checkpoints.load(tmp_path)
    assert meta["value"] == arrays["x"][0] == (1 if first else 2)
    save(tmp_path, "final", 3)
    assert checkpoints.load(tmp_path)[1]["value"] == 3


@pytest.mark.parametrize("late", [False, True])
def test_the_end_of_training_is_not_replaced_by_its_middle(tmp_path, monkeypatch, late):
    """By another driver, that is behind; it finds the end before it writes its arrays, or after."""
    meta = META
    end = {"x": np.full(3, 9, np.float32)}
    real = checkpoints._is_final

    def is_final(folder, meta):
        monkeypatch.setattr(checkpoints, "_is_final", real)
        return False

    checkpoints.save(tmp_path, "final", end, meta | {"status": "converged"})
    if late:
        monkeypatch.setattr(checkpoints, "_is_final", is_final)
    checkpoints.save(tmp_path, "epoch-5", {"x": np.zeros(3, np.float32)}, meta | {"status": "training"})
    arrays, there = checkpoints.load(tmp_path)
    assert (there["status"], arrays["x"][0]) == ("converged", 9.0)
    assert len(os.listdir(tmp_path)) == 2
    for other in ({"hash": "c"}, {"data": "c"}, {"versions": {"threads": "2"}}):  # but by that of another network
        checkpoints.save(tmp_path, "final", end, meta)
        checkpoints.save(tmp_path, "epoch-1", {"x": np.zeros(3, np.float32)}, meta | other)
        assert checkpoints.load(tmp_path)[1] == meta | other


def test_what_killed_processes_left_is_deleted_when_it_is_old(tmp_path):
    save(tmp_path, "epoch-1", 1)
    half = "epoch-000002-01234567"
    for name, age in ((half, 7200), (f"{half}.orbax-checkpoint-tmp", 7200), ("epoch-000003-01234567", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("")
        age_of(tmp_path / name, age)
    (tmp_path / ".abcd_123.tmp").write_text("{")
    age_of(tmp_path / ".abcd_123.tmp", 7200)
    save(tmp_path, "epoch-4", 4)
    left = {name for name in os.listdir(tmp_path) if name != "state.json"}
    assert {name.rpartition("-")[0] for name in left} == {"epoch-000003", "epoch-4"}


def age_of(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def test_what_others_put_there_is_never_deleted(tmp_path):
    """However old: under a name of theirs, as a link, or named by the JSON file of a stranger."""
    home, folder = tmp_path / "home", tmp_path / "w" / "checkpoints" / "m"
    (home / "thesis").mkdir(parents=True)
    (home / "thesis" / "one.tex").write_text("")
    save(folder, "epoch-1", 1)
    (folder / "notes.txt").write_text("")
    (folder / "epoch-000009-old").mkdir()
    (folder / "epoch-000005-01234567").symlink_to(home)
    (folder / "link").symlink_to(home)
    for path in (home, *folder.iterdir()):
        age_of(path, 7200)
    state = files.read_json(folder / "state.json")
    for name in ("notes.txt", "epoch-000005-01234567"):
        files.write_json(folder / "state.json", state | {"arrays": name})
        save(folder, "epoch-2", 2)
        assert (folder / "notes.txt").exists()
        assert (folder / "epoch-000009-old").exists()
        assert (folder / "link").is_symlink()
        assert (home / "thesis" / "one.tex").exists()
    assert checkpoints.load(folder)[1]["value"] == 2


def test_what_cannot_be_deleted_ends_nothing(tmp_path, monkeypatch):
    save(tmp_path, "epoch-1", 1)

    def refuse(*_, **__):
        raise PermissionError("not yours")

    monkeypatch.setattr(type(epath.Path(tmp_path)), "rmtree", refuse)
    save(tmp_path, "epoch-2", 2)
    assert checkpoints.load(tmp_path)[1]["value"] == 2


def test_a_checkpoint_that_a_link_puts_elsewhere_is_refused(tmp_path):
    """The workdir itself may be a link; no part of it may lead out of it."""
    home, real = tmp_path / "home", tmp_path / "real"
    save(real / "checkpoints" / "m", "epoch-1", 1)
    (tmp_path / "w").symlink_to(real)
    folder = tmp_path / "w" / "checkpoints" / "m"
    save(folder, "epoch-2", 2)
    assert checkpoints.load(folder)[1]["value"] == 2
    for part in (folder, folder.parent):
        home.mkdir()
        save(home / "m", "epoch-1", 1)
        shutil.rmtree(part)
        part.symlink_to(home / "m" if part == folder else home)
        before = sorted(home.rglob("*"))
        for act in (lambda: save(folder, "epoch-3", 3), lambda: checkpoints.load(folder)):
            with pytest.raises(ValueError, match=r"/home.*, outside .*/w: only the whole workdir may be a link"):
                act()
        assert sorted(home.rglob("*")) == before
        part.unlink()
        part.mkdir()
        shutil.rmtree(home)


@pytest.mark.parametrize("name", ["../stolen", "/etc", "..", "a/../../stolen"])
def test_a_strangers_checkpoint_names_nothing_outside_its_folder(tmp_path, name):
    save(tmp_path / "stolen", "epoch-1", 7)
    folder = tmp_path / "m"
    save(folder, "epoch-1", 1)
    state = files.read_json(folder / "state.json")
    files.write_json(folder / "state.json", state | {"arrays": name})
    with pytest.raises(files.DamagedError, match="is no name for a file"):
        checkpoints.load(folder)
    before = sorted(os.listdir(tmp_path / "stolen"))
    save(folder, "epoch-2", 2)
    assert sorted(os.listdir(tmp_path / "stolen")) == before
    assert checkpoints.load(folder)[1]["value"] == 2


NOTES = [
    {}, {"arrays": 3, "digest": "x", "files": {}, "meta": {}}, {"arrays": "x", "digest": "y", "files": {}},
    {"arrays": "x", "digest": "y", "meta": {}}, {"arrays": "x", "digest": "y", "files": {"z": 3}, "meta": {}},
]  # fmt: skip


@pytest.mark.parametrize("state", NOTES)
def test_a_note_of_another_making_is_refused(tmp_path, state):
    files.write_json(tmp_path / "state.json", state)
    with pytest.raises(files.DamagedError, match=r"state.json is damaged: its '(arrays|meta|files|z)' is"):
        checkpoints.load(tmp_path)


WRONG = [
    *[{key: None} for key in META],
    {"status": "weird"}, {"epochs": "many"}, {"epochs": -1}, {"epochs": True}, {"has_first_epoch": 1},
    {"check_running": ["x"]}, {"check_running": [None]}, {"check_running": ["nan"]}, {"check_running": [1.0, 2.0]},
    *[{"history": {k: v for k, v in HISTORY.items() if k != key}} for key in HISTORY],
    *[{"history": HISTORY | more} for more in (
        {"more": 1}, {"updates": 1.5}, {"epoch_loss": ["x"]}, {"epoch_loss": [[]]}, {"check_loss": ["inf"]},
        {"check_update": ["7"]}, {"batch_size": "4"}, {"target": "x"}, {"target": "nan"},
    )],
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_sealed_note_that_does_not_say_how_far_a_network_has_come_is_refused(tmp_path, noted, wrong):
    state = noted(tmp_path)
    meta = {key: value for key, value in (state["meta"] | wrong).items() if value is not None}
    files.write_json(tmp_path / "state.json", state | {"meta": meta})
    with pytest.raises(files.DamagedError, match=r"state.json is damaged: (its|a) "):
        checkpoints.load(tmp_path)


def test_the_losses_of_a_diverged_network_need_not_be_finite(tmp_path):
    meta = META | {"status": "diverged", "history": HISTORY | {"check_loss": ["nan"], "target": "-inf"}}
    checkpoints.save(tmp_path, "final", ARRAYS, meta)
    assert checkpoints.load(tmp_path)[1] == meta


@pytest.fixture(scope="module")
def noted(tmp_path_factory):
    """A function that puts a whole checkpoint into a folder, and returns its note."""
    original = tmp_path_factory.mktemp("noted")
    save(original, "epoch-1", 1)

    def put(folder):
        shutil.copytree(original, folder, dirs_exist_ok=True)
        return files.read_json(folder / "state.json")

    return put


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("kind", ["fifo", "device", "loop", "sparse", "all"])
def test_files_that_have_no_end_are_not_read(tmp_path, noted, kind, told):
    """Beside the arrays, and `told` of in the note; or all the arrays are a link to elsewhere."""
    arrays = tmp_path / "m" / noted(tmp_path / "m")["arrays"]
    more = arrays / "more"
    if kind == "fifo":
        os.mkfifo(more)
    elif kind == "sparse":
        with open(more, "wb") as file:
            file.truncate(2**40)
    elif kind == "all":
        arrays.rename(tmp_path / "moved")
        arrays.symlink_to(tmp_path / "moved")
    else:
        more.symlink_to("/dev/zero" if kind == "device" else ".")
    if told:
        state = files.read_json(tmp_path / "m" / "state.json")
        files.write_json(tmp_path / "m" / "state.json", state | {"files": state["files"] | {"more": "0" * 64}})
    expected = checkpoints.shapes("x", np.zeros(3, np.float32))
    with pytest.raises(files.DamagedError, match=r"no regular file|not as it was written|more than \d+ bytes|outside"):
        checkpoints.load(tmp_path / "m", expected=expected)


@pytest.fixture
def blank(monkeypatch):
    """No memory may be had for arrays."""

    def refuse(shape, dtype):
        raise AssertionError(f"{shape} was asked for")

    monkeypatch.setattr(np, "empty", refuse)


def test_arrays_that_are_not_expected_take_no_memory(tmp_path, blank):
    tree = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(2, np.int32)}
    expected = checkpoints.shapes("p", tree)
    wrong = {
        r"'p/a' is float32\[400, 100\]; the network needs float32\[3, 4\]": {"a": np.zeros((400, 100), np.float32)},
        r"'p/a' is complex64\[3, 4\]; the network needs float32\[3, 4\]": {"a": np.zeros((3, 4), np.complex64)},
        r"'p/c' is no array of this network": {"c": np.zeros(3)},
    }
    for told, leaves in wrong.items():
        checkpoints.save(tmp_path, "final", checkpoints.flatten("p", tree | leaves), META)
        with pytest.raises(files.DamagedError, match=told):
            checkpoints.load(tmp_path, expected=expected)


def test_arrays_of_zeros_without_end_take_no_memory(tmp_path, blank):
    checkpoints.save(tmp_path, "final", {"a": np.zeros((2**15, 2**10), np.float32)}, META)
    with pytest.raises(files.DamagedError, match="take 134217728 bytes, more than its files can hold"):
        checkpoints.load(tmp_path)


def test_what_is_expected_is_loaded(tmp_path):
    """Of its arrays some may be missing: a finished network's has no moments."""
    tree = {"a": np.zeros((2**15, 2**10), np.float32), "b": np.ones((), np.int32)}
    expected = checkpoints.shapes("p", tree) | checkpoints.shapes("moments", tree)
    checkpoints.save(tmp_path, "final", checkpoints.flatten("p", tree), META)
    arrays, _ = checkpoints.load(tmp_path, expected=expected)
    assert checkpoints.unflatten("p", tree, arrays)["b"] == 1
    with pytest.raises(files.DamagedError, match=r"has int32\[\] for 'p/b'; the network needs float32\[\]"):
        checkpoints.unflatten("p", {"b": np.ones((), np.float32)}, arrays)
