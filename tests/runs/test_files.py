"""Files: whole or not at all, in a folder, and damage noticed."""

from __future__ import annotations

import json
import math
import os
import resource

import numpy as np
import pytest
from etils import epath

from prunegen_jax.runs import arrays, files

CONTENT = {"b": [1, 2.5, None, True], "a": {"x": math.inf, "y": -math.inf, "z": math.nan, "pi": math.pi}, "ü": "<&>"}


def test_json_round_trip(tmp_path):
    path = tmp_path / "deep" / "x.json"
    files.write_json(path, CONTENT)
    back = files.read_json(path)
    assert back["b"] == CONTENT["b"]
    assert back["a"]["pi"] == math.pi
    assert [float(back["a"][k]) for k in "xy"] == [math.inf, -math.inf]
    assert math.isnan(float(back["a"]["z"]))
    assert json.loads(path.read_text())["a"]["z"] == "nan"
    first = path.read_bytes()
    files.write_json(path, dict(reversed(CONTENT.items())))
    assert path.read_bytes() == first


def test_a_limit_on_the_size_of_files_is_told_like_a_full_disk(tmp_path, capfd):
    """`ulimit -f`: one sentence that names the file, for a file of ours and for arrays, and nothing is left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*x\.json'"):
            files.write_json(tmp_path / "x.json", {"a": "b" * 10000})
        with pytest.raises(OSError, match=r"File too large: '.*/arrays'"):
            arrays.write(epath.Path(tmp_path / "arrays" / "x"), {"a": np.zeros(3000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "arrays").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]
    assert not capfd.readouterr().err


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


DIGITS = b"9" * 400


@pytest.mark.parametrize(
    "value",
    [b"NaN", b"-Infinity", b"1e999", DIGITS, b"-" + DIGITS, DIGITS * 20, b"[" * 10**5 + b"]" * 10**5, b"[" * 990],
    ids=["nan", "infinite", "beyond floats", "400 digits", "negative", "8000 digits", "deep", "open"],
)
def test_json_of_another_program_is_damaged(tmp_path, value):
    path = tmp_path / "x.json"
    path.write_bytes(b'{"checksum": "x", "a": ' + value + b"}")
    with pytest.raises(
        files.DamagedError, match=r"x.json is damaged: it is not a complete JSON object with a checksum"
    ):
        files.read_json(path)


def test_integers_of_64_bits_are_read(tmp_path):
    content = {"a": [2**64 - 1, -(2**63)]}
    files.write_json(tmp_path / "x.json", content)
    assert files.read_json(tmp_path / "x.json") == content


@pytest.mark.parametrize("kind", ["fifo", "device", "link", "dangling", "folder"])
def test_what_is_no_regular_file_is_not_read(tmp_path, kind):
    """A FIFO waits for ever, a device has no end; a link may lead to either."""
    path = tmp_path / "x.json"
    files.write_json(tmp_path / "y.json", {})
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "link": tmp_path / "y.json", "dangling": "nothing"}[kind])
    with pytest.raises(files.DamagedError, match=r"x.json is damaged: it is not a regular file"):
        files.read_json(path)
    if kind != "folder":
        files.write_json(path, {"a": 1})  # takes its place
        assert files.read_json(path) == {"a": 1}
        assert files.read_json(tmp_path / "y.json") == {}


def test_a_file_of_any_length_is_not_read_to_its_end(tmp_path):
    with open(tmp_path / "x.json", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(files.DamagedError, match="it has more than 67108864 bytes"):
        files.read_json(tmp_path / "x.json")


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


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/b", "a\\b", ".hidden", "a\0b", "a b", "é", "a*"])
def test_names_that_are_paths_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="is not a file name"):
        files.inside(epath.Path(tmp_path), name)


def test_names_of_networks_are_names(tmp_path):
    name = "learning_rate=1e+38,model_name=nin_2,weight_decay=-0.5"
    assert files.inside(epath.Path(tmp_path), name) == tmp_path / name


def test_a_part_of_a_workdir_lies_in_it(tmp_path):
    """The workdir may be a link, and a part may be one to another place in it."""
    (tmp_path / "home").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "w").symlink_to(tmp_path / "real")
    workdir = epath.Path(tmp_path / "w")
    assert files.inside(workdir / "records", "x.json") == workdir / "records" / "x.json"
    (workdir / "moved").mkdir()
    os.symlink(tmp_path / "real" / "moved", workdir / "records")
    files.inside(workdir / "records", "x.json")
    os.symlink(tmp_path / "home", workdir / "times")
    with pytest.raises(ValueError, match=r"times lies in .*home, outside .*w: only the workdir itself may be a link"):
        files.inside(workdir / "times", "x.json")


def test_a_file_is_written_only_within_the_folder_it_is_meant_for(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "report").symlink_to(tmp_path / "site")
    page = tmp_path / "w" / "report" / "index.html"
    with pytest.raises(ValueError, match="outside"), files.atomic(page, within=tmp_path / "w") as file:
        file.write(b"theirs")
    assert os.listdir(tmp_path / "site") == ["index.html"]
    assert page.read_text() == "mine"
    with files.atomic(page) as file:  # of a folder that a person gave, nobody says where it should be
        file.write(b"theirs")
    assert page.read_text() == "theirs"


def test_a_listing_is_sorted_and_leaves_out_what_is_half_written(tmp_path):
    for name in ("b.json", "a.json", ".x.json", "c.csv"):
        (tmp_path / name).write_text("")
    folder = epath.Path(tmp_path)
    assert [path.name for path in files.listing(folder, ".json")] == ["a.json", "b.json"]
    assert files.listing(folder / "nothing", ".json") == files.listing(folder / "a.json", ".json") == []


def test_a_folder_of_any_name_is_listed(tmp_path):
    """`[ab]` is a pattern to glob."""
    (tmp_path / "[ab]*").mkdir()
    (tmp_path / "[ab]*" / "x.json").write_text("")
    assert [path.name for path in files.listing(epath.Path(tmp_path / "[ab]*"), ".json")] == ["x.json"]
