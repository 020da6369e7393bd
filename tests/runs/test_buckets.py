"""A bucket as a workdir: the same records as in a folder, without renaming, locks or folders."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from etils import epath

from prunegen_jax import load_model
from prunegen_jax.runs import checkpoint, files, pipeline, record
from tests.support import buckets, faults
from tests.support.checkpoints import META


def get_config():
    config = faults.get_config("judged")
    config.run.workers = 1  # in the process of the test, which alone knows the bucket
    return config


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The workdir in a folder."""
    workdir = tmp_path_factory.mktemp("quiet") / "w"
    pipeline.run(get_config(), workdir, stages=["train", "measure", "judge"])
    return workdir


@pytest.fixture(params=["gs", "s3"])
def scheme(request):
    return request.param


@pytest.fixture
def bucket(tmp_path, monkeypatch, scheme):
    (tmp_path / "objects").mkdir()
    with buckets.served(tmp_path / "objects", monkeypatch, scheme) as bucket:
        yield bucket


def contents(workdir):
    return {path.name: path.read_bytes() for path in files.listing(epath.Path(workdir) / "records", ".json")}


def test_a_sweep_in_a_bucket(bucket, scheme, quiet, capsys):
    pipeline.run(get_config(), f"{scheme}://sweeps/w")
    assert contents(f"{scheme}://sweeps/w") == contents(quiet)
    assert f"report: {scheme}://sweeps/w/report/index.html" in capsys.readouterr().out
    for name in ("results.csv", "verdict.csv", "verdict.json"):
        assert bucket.get(f"{scheme}://sweeps/w/{name}") == (quiet / name).read_bytes()
    assert b"<html" in bucket.get(f"{scheme}://sweeps/w/report/index.html")
    before = bucket.listed()
    pipeline.run(get_config(), f"{scheme}://sweeps/w", stages=["train", "measure"])
    assert bucket.listed() == before
    model = load_model(f"{scheme}://sweeps/w", "width=4,seed=0")
    assert model.params["head"]["kernel"].shape == load_model(quiet, "width=4,seed=0").params["head"]["kernel"].shape


def test_a_sweep_in_a_bucket_goes_on_and_is_repaired(bucket, scheme, quiet):
    pipeline.run(get_config(), f"{scheme}://sweeps/w", stages=["train"])
    lost, damaged = (
        f"{scheme}://sweeps/w/records/width=4,seed=0.json",
        f"{scheme}://sweeps/w/records/width=6,seed=1.json",
    )
    bucket.remove(lost)
    bucket.put(damaged, bucket.get(damaged)[:100])
    (key,) = (
        key for key in bucket.listed(f"{scheme}://sweeps/w/checkpoints/width=6,seed=0/") if key.endswith("/_METADATA")
    )
    bucket.remove(key)
    pipeline.run(get_config(), f"{scheme}://sweeps/w", stages=["train", "measure"])
    assert contents(f"{scheme}://sweeps/w") == contents(quiet)


def test_a_put_that_fails_leaves_the_old_object(bucket, scheme):
    path = epath.Path(f"{scheme}://sweeps/x.json")
    files.write_json(path, {"a": 1})
    with pytest.raises(OSError, match="gone"), files.atomic(path) as file:
        file.write(b"half")
        raise OSError("the network is gone")
    assert files.read_json(path) == {"a": 1}
    assert bucket.listed() == ["sweeps/x.json"]


def test_checkpoints_replace_each_other(bucket, scheme):
    folder = epath.Path(f"{scheme}://sweeps")
    assert checkpoint.load(folder, "m") is None
    for value in (1, 2):
        checkpoint.save(folder, "m", f"epoch-{value}", {"x": np.full(3, value, np.float32)}, META | {"value": value})
    arrays, meta = checkpoint.load(folder, "m")
    assert (meta["value"], list(arrays["x"])) == (2, [2.0] * 3)
    assert {pathlib.PurePath(key).parts[3].partition("-")[0] for key in bucket.listed()} == {"epoch", "state.json"}
    assert not [key for key in bucket.listed() if "/epoch-1-" in key]
    assert record.read_all(folder) == []


def test_an_object_of_an_untrusted_bucket_lands_nowhere_else(bucket, scheme):
    """Whatever its name: on the way to Orbax the objects of a checkpoint are files for a while."""
    folder = epath.Path(f"{scheme}://sweeps")
    checkpoint.save(folder, "m", "epoch-1", {"x": np.ones(3, np.float32)}, META)
    (key,) = (key for key in bucket.listed() if key.endswith("/_METADATA"))
    bucket.put(key.replace("_METADATA", "../../../x"), b"theirs")
    with pytest.raises(files.DamagedError, match="is damaged"):
        checkpoint.load(folder, "m")
