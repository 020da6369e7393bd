"""The job files of the documentation, run as far as one machine goes: they end with the records of a plain run."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
import yaml

from tests.support import faults

JOBS = faults.ROOT / "docs" / "jobs"
pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The records of a plain run."""
    workdir = tmp_path_factory.mktemp("quiet")
    faults.run(workdir)
    return faults.records(workdir)


def bash(*command, folder=faults.ROOT, **variables):
    """Runs a job file as its system would, with this Python; what it wrote."""
    known = os.environ | {"CONFIG": "tests/support/faults.py", "PYTHON": sys.executable} | variables
    done = subprocess.run(
        ["bash", *map(str, command)], cwd=folder, env=known, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_slurm(quiet, tmp_path):
    for task in "0110":  # one was started twice
        bash(JOBS / "slurm.sbatch", WORKDIR=str(tmp_path), SLURM_ARRAY_TASK_ID=task, SHARDS="2")
    assert faults.records(tmp_path) == quiet
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in (JOBS / "slurm.sbatch").read_text().splitlines()
        if line.startswith("#SBATCH")
    )
    assert options["array"] == "0-7"
    assert "requeue" in options
    assert options["signal"].startswith("B:TERM@")  # to the batch shell, which is the driver by then
    assert "${SHARDS:-8}" in (JOBS / "slurm.sbatch").read_text()  # as many as the array has tasks


def test_kubernetes(quiet, tmp_path):
    job = yaml.safe_load((JOBS / "kubernetes.yaml").read_text())
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    (script,) = container["args"]
    assert (job["kind"], spec["completionMode"]) == ("Job", "Indexed")
    assert f'--shard="$JOB_COMPLETION_INDEX/{spec["completions"]}"' in script
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 15
    script = script.replace("configs/sweep.py", "tests/support/faults.py").replace(
        "exec python", f"exec {sys.executable}"
    )
    for index in range(spec["completions"]):
        bash(*container["command"][1:], script, WORKDIR=str(tmp_path), JOB_COMPLETION_INDEX=str(index))
        if len(faults.records(tmp_path)) == 4:  # the sweep has fewer groups than the Job has pods
            break
    assert faults.records(tmp_path) == quiet


def test_tpu_vms(quiet, tmp_path):
    """The machines are folders here, and what reaches them is a shell."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "prunegen").symlink_to(faults.ROOT)
    (tmp_path / "bin").mkdir()
    for name, text in (("ssh", f'cd "{home}" && bash -c "$1"'), ("python3", f'exec "{sys.executable}" "$@"')):
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    variables = {"REMOTE": str(tmp_path / "bin" / "ssh"), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    variables |= {"WORKDIR": str(tmp_path / "w"), "CONFIG": "tests/support/faults.py:judged"}
    printed = bash(JOBS / "tpu_vms.sh", "vm-0", "vm-1", **variables)
    assert set(faults.records(tmp_path / "w")) == set(quiet)
    assert f"report: {tmp_path / 'w' / 'report' / 'index.html'}" in printed


def test_ray(quiet, tmp_path):
    """No address: a cluster of this machine alone."""
    bash(JOBS / "ray.sh", "--stage=train,measure", WORKDIR=str(tmp_path), ADDRESS="")
    assert faults.records(tmp_path) == quiet


def test_slurm_judges(tmp_path):
    faults.run(tmp_path, config="tests/support/faults.py:judged")
    variables = {"WORKDIR": str(tmp_path), "CONFIG": "tests/support/faults.py:judged"}
    assert "report: " in bash(JOBS / "slurm-judge.sbatch", **variables)


def test_every_job_file_is_tested():
    names = {path.name for path in pathlib.Path(JOBS).iterdir()}
    assert names == {"slurm.sbatch", "slurm-judge.sbatch", "kubernetes.yaml", "tpu_vms.sh", "ray.sh"}
