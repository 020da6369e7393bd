"""kill -9 at 50 random moments: what is on the disk then is whole, and the same sweep ends with the same files."""

from __future__ import annotations

import hashlib
import multiprocessing
import pathlib
import random
import time

import pytest
from etils import epath

from prunegen_jax.runs import record
from tests.support import faults

pytestmark = pytest.mark.faults
KILLS = 50
# Forked from a process that has imported everything, so that a moment is one of the work, not of imports.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.faults", "orbax.checkpoint", "sklearn.datasets"])


def digests(workdir):
    """SHA-256 of every record and every file of weights."""
    paths = [path for part in ("records", "weights") for path in (pathlib.Path(workdir) / part).glob("[!.]*")]
    return {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def check_whole(workdir, quiet):
    """Weights are those of the undisturbed run; records too, except that measures and targets may be missing."""
    weights = {name: digest for name, digest in digests(workdir).items() if name.startswith("weights/")}
    assert weights.items() <= digests(quiet).items()
    found, problems = record.scan(epath.Path(workdir))
    assert not problems
    for known in found:
        full = record.read(epath.Path(quiet), known.name)
        assert known.measures.items() <= full.measures.items() and known.targets.items() <= full.targets.items()
        later = {"measures": {}, "targets": {}}
        assert known.to_json() | later == full.to_json() | later


def test_kill_9_at_50_random_moments(tmp_path, capsys):
    """The moments are spread over the time that the undisturbed run takes."""

    def start(workdir):
        begun = CONTEXT.Event()
        process = CONTEXT.Process(target=faults.work, args=("smoke", str(workdir), str(tmp_path / "cache"), begun))
        process.start()
        assert begun.wait(faults.PATIENCE)
        return process

    start(tmp_path / "first").join()  # fills the cache of compiled programs
    quiet = tmp_path / "quiet"
    process, begin = start(quiet), time.monotonic()
    process.join()
    assert process.exitcode == 0
    last, rng, whole = time.monotonic() - begin, random.Random(0), digests(quiet)
    assert len(whole) == 16
    assert digests(tmp_path / "first") == whole
    kills, ends, networks = 0, 0, []
    while kills < KILLS or networks[-1] >= 0:
        workdir = tmp_path / str(ends)
        process = start(workdir)
        process.join(rng.uniform(0, last) if kills < KILLS else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            networks.append(len(digests(workdir)) // 2)
            check_whole(workdir, quiet)
        else:
            assert process.exitcode == 0
            assert digests(workdir) == whole
            ends += 1
            networks.append(-1)
    counts = [networks.count(n) for n in range(9)]
    with capsys.disabled():
        print(f"\n{kills} kills in {ends} sweeps, when 0, 1, ... 8 networks were done: {counts}; all ended equal")
