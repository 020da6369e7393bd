"""Standard streams that are closed when a process begins."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from prunegen_jax.runs.progress import Progress

ROOT = pathlib.Path(__file__).parents[2]
CODE = """
import os, sys
from prunegen_jax.runs import processes
assert sys.stderr is None
processes.open_streams()
print("lost", file=sys.stderr)
os.write(2, b"what a library writes")
path = sys.argv[1]
with open(path, "w") as file:
    assert file.fileno() > 2
    os.write(2, b"what a library writes")
"""


def test_messages_of_libraries_do_not_land_in_files(tmp_path):
    """The number of a closed stderr would be that of the next file."""
    command = f"exec {sys.executable} -c '{CODE}' {tmp_path / 'file'} 2>&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert not (tmp_path / "file").read_bytes()


def test_progress_without_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(1, "test") as progress:
        progress.note("first")
    assert progress.total == 1
