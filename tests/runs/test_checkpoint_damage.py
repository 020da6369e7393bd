"""Checkpoints that are damaged or untrusted are refused: nothing outside their folder is read, written or allocated."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from prunegen_jax.runs import files, snapshot
from tests.support.checkpoints import ARRAYS, HISTORY, META, load, place, save, write


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "add", "note"])
def test_damaged_checkpoints_are_noticed(tmp_path, damage, caplog):
    big = {"w": np.random.default_rng(0).normal(size=(200, 50)).astype(np.float32)}
    write(tmp_path, "final", big)
    data = [f for f in place(tmp_path).rglob("*") if f.is_file() and f.name != "state.json"]
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
        (place(tmp_path) / "state.json").write_text("{")
    with pytest.raises(files.DamagedError, match="damaged"):
        load(tmp_path)
    assert not caplog.records, "Orbax was asked first, and logged"


def test_a_checkpoint_that_a_link_puts_elsewhere_is_refused(tmp_path):
    """The workdir itself may be a link; no part of it may lead out of it."""
    home, real, workdir = tmp_path / "home", tmp_path / "real", tmp_path / "w"
    save(real, "epoch-1", 1)
    workdir.symlink_to(real)
    folder = place(workdir)
    save(workdir, "epoch-2", 2)
    assert load(workdir)[1]["value"] == 2
    for part in (folder, folder.parent):
        save(home, "epoch-1", 1)
        shutil.rmtree(part)
        part.symlink_to(place(home) if part == folder else place(home).parent)
        before = sorted(home.rglob("*"))
        for act in (lambda: save(workdir, "epoch-3", 3), lambda: load(workdir)):
            with pytest.raises(ValueError, match=r"/home.*, outside .*/w: only the workdir itself may be a link"):
                act()
        assert sorted(home.rglob("*")) == before
        part.unlink()
        part.mkdir()
        shutil.rmtree(home)


@pytest.mark.parametrize("name", ["../stolen", "/etc", "..", "a/../../stolen"])
def test_an_untrusted_checkpoint_names_nothing_outside_its_folder(tmp_path, name):
    save(tmp_path / "other", "epoch-1", 7)
    shutil.copytree(place(tmp_path / "other"), tmp_path / "checkpoints" / "stolen")
    save(tmp_path, "epoch-1", 1)
    path = place(tmp_path) / "state.json"
    files.write_json(path, files.read_json(path) | {"arrays": name})
    with pytest.raises(files.DamagedError, match="is not a file name"):
        load(tmp_path)
    before = sorted(os.listdir(tmp_path / "checkpoints" / "stolen"))
    save(tmp_path, "epoch-2", 2)
    assert sorted(os.listdir(tmp_path / "checkpoints" / "stolen")) == before
    assert load(tmp_path)[1]["value"] == 2


STATES = [
    {}, {"arrays": 3, "digest": "x", "files": {}, "meta": {}}, {"arrays": "x", "digest": "y", "files": {}},
    {"arrays": "x", "digest": "y", "meta": {}}, {"arrays": "x", "digest": "y", "files": {"z": 3}, "meta": {}},
]  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_a_json_file_of_another_program_is_refused(tmp_path, state):
    files.write_json(place(tmp_path) / "state.json", state)
    with pytest.raises(files.DamagedError, match=r"state.json is damaged: its '(arrays|meta|files|z)' is"):
        load(tmp_path)


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
def test_a_json_file_with_a_checksum_but_wrong_content_is_refused(tmp_path, saved, wrong):
    state = saved(tmp_path)
    meta = {key: value for key, value in (state["meta"] | wrong).items() if value is not None}
    files.write_json(place(tmp_path) / "state.json", state | {"meta": meta})
    with pytest.raises(files.DamagedError, match=r"state.json is damaged: (its|a) "):
        load(tmp_path)


def test_the_losses_of_a_diverged_network_need_not_be_finite(tmp_path):
    meta = META | {"status": "diverged", "history": HISTORY | {"check_loss": ["nan"], "target": "-inf"}}
    write(tmp_path, "final", ARRAYS, meta)
    assert load(tmp_path)[1] == meta


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function that puts a whole checkpoint into a workdir, and returns the content of its JSON file."""
    original = tmp_path_factory.mktemp("saved")
    save(original, "epoch-1", 1)

    def put(workdir):
        shutil.copytree(original, workdir, dirs_exist_ok=True)
        return files.read_json(place(workdir) / "state.json")

    return put


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", ["fifo", "device", "loop", "sparse", "all"])
def test_files_that_have_no_end_are_not_read(tmp_path, saved, kind, named):
    """A file beside the arrays, `named` in the JSON file or not; or all the arrays are a link to elsewhere."""
    state = saved(tmp_path)
    path, arrays = place(tmp_path) / "state.json", place(tmp_path) / state["arrays"]
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
    if named:
        files.write_json(path, state | {"files": state["files"] | {"more": "0" * 64}})
    expected = snapshot.shapes("x", np.zeros(3, np.float32))
    with pytest.raises(
        files.DamagedError, match=r"not a regular file|differs from what was written|more than \d+ bytes|outside"
    ):
        load(tmp_path, expected=expected)


@pytest.fixture
def blank(monkeypatch):
    """No memory may be had for arrays."""

    def refuse(shape, dtype):
        raise AssertionError(f"{shape} was asked for")

    monkeypatch.setattr(np, "empty", refuse)


def test_arrays_that_are_not_expected_take_no_memory(tmp_path, blank):
    tree = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(2, np.int32)}
    expected = snapshot.shapes("p", tree)
    wrong = {
        r"'p/a' is float32\[400, 100\]; the network needs float32\[3, 4\]": {"a": np.zeros((400, 100), np.float32)},
        r"'p/a' is complex64\[3, 4\]; the network needs float32\[3, 4\]": {"a": np.zeros((3, 4), np.complex64)},
        r"'p/c' is not an array of this network": {"c": np.zeros(3)},
    }
    for message, leaves in wrong.items():
        write(tmp_path, "final", snapshot.flatten("p", tree | leaves))
        with pytest.raises(files.DamagedError, match=message):
            load(tmp_path, expected=expected)


def test_arrays_of_zeros_without_end_take_no_memory(tmp_path, blank):
    write(tmp_path, "final", {"a": np.zeros((2**15, 2**10), np.float32)})
    with pytest.raises(files.DamagedError, match="take 134217728 bytes, more than its files can hold"):
        load(tmp_path)


def test_what_is_expected_is_loaded(tmp_path):
    """Of its arrays some may be missing: a finished network's has no moments."""
    tree = {"a": np.zeros((2**15, 2**10), np.float32), "b": np.ones((), np.int32)}
    expected = snapshot.shapes("p", tree) | snapshot.shapes("moments", tree)
    write(tmp_path, "final", snapshot.flatten("p", tree))
    arrays, _ = load(tmp_path, expected=expected)
    assert snapshot.unflatten("p", tree, arrays)["b"] == 1
    with pytest.raises(files.DamagedError, match=r"has int32\[\] for 'p/b'; the network needs float32\[\]"):
        snapshot.unflatten("p", {"b": np.ones((), np.float32)}, arrays)
