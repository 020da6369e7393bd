"""Ray: the same records as on one machine, also when a node is killed; and what is said when Ray is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types

import pytest

from prunegen_jax.runs import pipeline
from prunegen_jax.runs.executors import ray as cluster
from tests.support import faults

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1)]
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=1))
    print("killed", flush=True)
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes of one core each; a line to it kills the second, and another one comes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    variables = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], cwd=faults.ROOT, env=variables, **pipes) as process:
        process.address = next(line for line in iter(process.stdout.readline, "") if ":" in line).strip()
        yield process
        process.stdin.close()
        process.wait()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The records that the local executor makes."""
    workdir = tmp_path_factory.mktemp("quiet")
    faults.run(workdir)
    return faults.records(workdir)


@pytest.mark.faults
def test_a_node_is_killed(nodes, quiet, tmp_path):
    driver = faults.start(tmp_path, "--executor=ray", f"--ray_address={nodes.address}")
    faults.until(driver, lambda: len(faults.checkpoints(tmp_path)) == 2)
    nodes.stdin.write("kill\n")
    nodes.stdin.flush()
    assert nodes.stdout.readline() == "killed\n"
    faults.finish(driver)
    assert faults.records(tmp_path) == quiet


@pytest.mark.faults
def test_a_node_is_killed_in_the_middle_of_the_default_sweep(nodes, tmp_path):
    default = {"config": "configs/sweep.py"}
    faults.run(tmp_path / "local", patience=faults.LONG, **default)
    driver = faults.start(tmp_path / "ray", "--executor=ray", f"--ray_address={nodes.address}", **default)
    faults.until(driver, lambda: len(faults.records(tmp_path / "ray")) >= 16, patience=faults.LONG)
    nodes.stdin.write("kill\n")
    nodes.stdin.flush()
    assert nodes.stdout.readline() == "killed\n"
    begun = len(faults.records(tmp_path / "ray"))
    faults.finish(driver, patience=faults.LONG)
    assert begun < 48
    assert len(faults.records(tmp_path / "ray")) == 48
    assert faults.records(tmp_path / "ray") == faults.records(tmp_path / "local")


@pytest.mark.faults
def test_a_driver_of_a_cluster_is_told_to_stop(nodes, quiet, tmp_path):
    to = ["--executor=ray", f"--ray_address={nodes.address}"]
    endless = ["--config.train.target=1e-30", "--config.train.max_epochs=1000000", "--config.run.checkpoint_seconds=5"]
    driver = faults.start(tmp_path / "endless", *to, *endless)
    faults.until(driver, lambda: len(faults.checkpoints(tmp_path / "endless")) == 2)
    before = faults.epochs(tmp_path / "endless")
    driver.send_signal(signal.SIGTERM)
    output = faults.finish(driver, status=143)
    assert (
        output.strip().splitlines()[-1] == "stopped with 0 of 4 networks done; run the same command again to continue"
    )
    after = faults.epochs(tmp_path / "endless")
    assert all(after[name] > before[name] for name in before)
    driver = faults.start(tmp_path / "w", *to)
    faults.until(driver, lambda: faults.checkpoints(tmp_path / "w"))
    driver.kill()
    driver.communicate()
    faults.run(tmp_path / "w", *to)
    assert faults.records(tmp_path / "w") == quiet


@pytest.mark.faults
def test_a_cluster_that_is_not_there(tmp_path):
    output = faults.run(tmp_path, "--executor=ray", "--ray_address=127.0.0.1:1", status=2)
    estimate, *lines = output.splitlines()
    assert estimate.startswith("4 networks to train")
    assert lines == ["--ray_address=127.0.0.1:1 does not answer: Connection refused"]


@pytest.mark.parametrize(
    ("flag", "variable", "joined"), [("", "", "local"), ("", "auto", "auto"), ("10.0.0.1", "auto", "10.0.0.1")]
)
def test_which_cluster_is_joined(tmp_path, monkeypatch, flag, variable, joined):
    asked = []

    def init(*, address, **_):
        asked.append(address)
        sys.exit("enough")

    monkeypatch.setenv("RAY_ADDRESS", variable)
    oom = "RAY_task_oom_retries"  # how Ray spells it
    monkeypatch.setenv(oom, "")
    monkeypatch.delenv(oom)
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(init=init, is_initialized=bool))
    with pytest.raises(SystemExit, match="enough"):
        pipeline.run(faults.get_config(), tmp_path / "w", stages=("train",), executor="ray", address=flag)
    assert asked == [joined]
    assert os.environ[oom] == str(faults.get_config().run.retries)  # else for ever


def test_without_ray_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"--executor=ray needs Ray, an extra: pip install 'prunegen_jax\[ray\]'"):
        pipeline.run(faults.get_config(), tmp_path / "w", executor="ray")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {"num_cpus": 1}),
        ("GPU=1", {"num_cpus": 0, "num_gpus": 1.0, "resources": {}}),
        ("CPU=2, GPU=0.5", {"num_cpus": 2.0, "num_gpus": 0.5, "resources": {}}),
        ("TPU=4", {"num_cpus": 0, "resources": {"TPU": 4.0}}),
    ],
)
def test_resources(text, options):
    config = faults.get_config()
    config.run.ray_resources = text
    assert cluster._resources(config) == options


@pytest.mark.parametrize("text", ["GPU", "GPU=one", "=1", "GPU=1;TPU=1", "GPU=-1"])
def test_resources_that_cannot_be_read(text):
    config = faults.get_config()
    config.run.ray_resources = text
    with pytest.raises(ValueError, match=f"run.ray_resources='{text}' contains"):
        cluster._resources(config)
