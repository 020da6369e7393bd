"""Settings of JAX that change numbers: kept in records and checkpoints, and not mixed in one workdir."""

from __future__ import annotations

import math
import platform

import jax
import pytest
from etils import epath

from prunegen_jax.runs import checkpoint, compatibility, files, processes, record, snapshot, task, workdir
from prunegen_jax.runs import points as sweeps
from prunegen_jax.runs.record import Record
from tests.support import experiments

LOSSES = {"loss": 0.01, "accuracy": 1.0, "size": 200}
REFUSED = [("jax_default_prng_impl", "rbg"), ("jax_threefry_partitionable", False), ("jax_enable_x64", True)]
WARNED = [("jax_default_matmul_precision", "bfloat16"), ("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")]


@pytest.fixture
def set_to(monkeypatch):
    """Sets something of JAX, until the test ends."""
    before = {}

    def change(name, value):
        if name == "XLA_FLAGS":  # read when a process starts; this one has started
            monkeypatch.setenv(name, f"--xla_dump_to=/tmp/x {value}")
        else:
            before[name] = getattr(jax.config, name)
            jax.config.update(name, value)

    yield change
    for name, value in before.items():
        jax.config.update(name, value)


def put(folder, *, versions, **measures):
    """A record of the first network of `experiments`, as if it had been trained."""
    point = sweeps.points(experiments.get_config())[0]
    known = Record(
        point.name, point.hash, point.fields, point.axes, "converged", "", LOSSES, LOSSES, 9, 3, "data", versions,
        {name: {"value": 1.0, "status": "ok", "options": {}} | entry for name, entry in measures.items()},
    )  # fmt: skip
    record.write(folder, known)
    return known


def prepare(folder, *names, **options):
    config = experiments.get_config()
    config.measures.options = options
    return compatibility.prepare(folder, config, sweeps.points(config), names, fingerprint=lambda point: "data")


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_changes_numbers_is_recorded_and_refused(name, value, tmp_path, set_to):
    folder = epath.Path(tmp_path)
    known = put(folder, versions={"jax": "1"})  # of version 0.3.0, which did not record them: the defaults
    prepare(folder)
    set_to(name, value)
    assert snapshot.settings()[name] == str(value)
    with pytest.raises(ValueError, match=rf"{known.name}', made with {name}='.*', not '{value}'. Choose another"):
        prepare(folder)
    put(epath.Path(tmp_path / "new"), versions=snapshot.settings())
    prepare(epath.Path(tmp_path / "new"))


@pytest.mark.parametrize(("name", "value"), WARNED)
def test_what_changes_the_rounding_is_recorded_and_told(name, value, tmp_path, set_to, capsys):
    folder = epath.Path(tmp_path)
    put(folder, versions={"jax": "1"})
    prepare(folder)
    assert not capsys.readouterr().err
    set_to(name, value)
    assert snapshot.settings()[name] == value
    prepare(folder)
    told = capsys.readouterr().err
    assert f"made with {name}=" in told
    assert f"not '{value}': the last digits of new numbers may differ" in told


def test_settings_are_those_that_records_without_them_have(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2 --xla_force_host_platform_device_count=2")
    assert snapshot.settings() == record.DEFAULT_SETTINGS


def test_a_checkpoint_without_settings_is_continued(tmp_path, capsys):
    """That of a network in training, written by version 0.3.0; not so under other settings."""
    config, folder = experiments.get_config(), epath.Path(tmp_path)
    point = sweeps.points(config)[0]
    work = task.build_task(point, config)
    init, begin = snapshot.resume(folder, work)
    snapshot.save(folder, work, init, begin._replace(epochs=3))
    state = workdir.path(folder, "checkpoints", point.name) / "state.json"
    content = files.read_json(state)
    versions = content["meta"]["versions"]
    assert versions.items() >= record.DEFAULT_SETTINGS.items()
    old = {name: value for name, value in versions.items() if name not in record.DEFAULT_SETTINGS}
    files.write_json(state, content | {"meta": content["meta"] | {"versions": old}})
    assert snapshot.resume(folder, work)[1].epochs == 3
    assert not capsys.readouterr().err
    files.write_json(state, content | {"meta": content["meta"] | {"versions": old | {"jax_enable_x64": "True"}}})
    assert snapshot.resume(folder, work)[1].epochs == 0
    assert "training starts over" in capsys.readouterr().err
    assert checkpoint.progress(folder, point.name) == 3


def test_training_again_keeps_the_measures_of_a_record_without_settings(tmp_path):
    folder = epath.Path(tmp_path)
    known = put(folder, versions={"jax": "1"}, parameter_norm={})
    put(folder, versions={"jax": "1"} | record.DEFAULT_SETTINGS)
    assert record.read(folder, known.name).measures == known.measures


def test_failed_measures_bind_nothing(tmp_path):
    """A value of an option under which no number exists does not keep others out."""
    folder = epath.Path(tmp_path)
    entry = {"value": "nan", "status": "failed", "options": {"beta": -1.0}}
    put(folder, versions={}, prunability=entry)
    prepare(folder, "prunability", prunability={"beta": 0.1})
    put(folder, versions={}, prunability=entry | {"status": "ok"})
    with pytest.raises(ValueError, match="computed with options {'beta': -1.0}, not {'beta': 0.1}"):
        prepare(folder, "prunability", prunability={"beta": 0.1})


def test_infinity_is_equal_to_itself(tmp_path):
    folder = epath.Path(tmp_path)
    put(folder, versions={}, prunability={"options": {"beta": math.inf, "layers": ("a",)}})
    prepare(folder, "prunability", prunability={"beta": math.inf, "layers": ("a",)})


@pytest.mark.parametrize(
    ("described", "kind"),
    [
        (
            "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\n"
            "processor\t: 1\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: another\n\n",
            "AMD EPYC, family 25, model 17",
        ),
        (
            "processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n\n",
            f"{platform.processor() or platform.machine()}, implementer 0x41, part 0xd40",
        ),
        (None, platform.processor() or platform.machine()),
    ],
)
def test_kind_of_processor(tmp_path, described, kind):
    source = tmp_path / "cpuinfo"
    if described is not None:
        source.write_text(described)
    assert processes.processor(source) == kind
