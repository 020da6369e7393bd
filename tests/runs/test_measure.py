"""Networks of a workdir measured together: what each of them gets alone, on disk as it is measured."""

from __future__ import annotations

import json
import math
import shutil

import jax
import pytest
from etils import epath

from prunegen_jax.compute import lockstep
from prunegen_jax.runs import checkpoint, costs, files, measure, pipeline, processes, record, restore, train
from prunegen_jax.runs import points as sweeps
from tests.support import experiments

# One of every kind of program: passes, masks, searches, gradients, products with the Hessian, layers, inputs.
NAMES = (
    "parameter_norm", "prunability", "normalized_margins", "path_norm", "sharpness_flatness", "worst_sharpness",
    "hessian_top_eigenvalue", "gradient_noise", "davies_bouldin_mixup", "updates_to_loss",
)  # fmt: skip


def _config(**run):
    config = experiments.get_config()
    config.data.train_size = 100
    config.train.batch_size = 20
    config.model.width = 4
    config.train.max_epochs = 40
    config.measures.names = NAMES
    config.sweep.axes = (("train.learning_rate", (0.05, 0.1)), ("seed", (0, 1)))
    for field, value in run.items():
        config.run[field] = value
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    pipeline.run(_config(), workdir, stages=("train",))
    return workdir


def _measured(trained, folder, names=NAMES, count=4, **run):
    """The measures in the records of the first `count` networks of `trained`, measured in a copy of it."""
    if not folder.exists():
        shutil.copytree(trained, folder)
    config = _config(**run)
    measure.measure_missing(epath.Path(folder), sweeps.points(config)[:count], names, config)
    return {file.stem: json.loads(file.read_text())["measures"] for file in sorted((folder / "records").glob("*.json"))}


def test_measured_together_is_measured_alone(trained, tmp_path, monkeypatch):
    alone = _measured(trained, tmp_path / "alone")
    calls = []
    real = lockstep._Vmapped.__call__
    monkeypatch.setattr(lockstep._Vmapped, "__call__", lambda self, calls_: calls.append(calls_) or real(self, calls_))
    beside = _measured(trained, tmp_path / "together", slots=4)
    assert max(len(made) for made in calls) == 4
    assert list(beside) == list(alone)
    for network, measures in alone.items():
        assert set(measures) == set(beside[network]) == set(NAMES)
        for name, expected in measures.items():
            found = beside[network][name]
            assert (found["status"], found["reason"]) == (expected["status"], expected["reason"]), name
            if expected["status"] == "ok":
                assert math.isclose(float(found["value"]), float(expected["value"]), rel_tol=2e-3, abs_tol=1e-5), (
                    network,
                    name,
                )


def test_records_do_not_depend_on_the_company(trained, tmp_path):
    names = ("prunability", "hessian_top_eigenvalue", "sharpness_flatness")
    _measured(trained, tmp_path / "all", names, slots=4)
    _measured(trained, tmp_path / "some", names[:1], count=1, slots=4)  # a run that was cut short
    _measured(trained, tmp_path / "some", names, slots=4)
    records = [
        {file.name: file.read_bytes() for file in (tmp_path / folder / "records").glob("*.json")}
        for folder in ("all", "some")
    ]
    assert records[0] == records[1]


def test_records_do_not_depend_on_the_lane(trained, tmp_path):
    points, config = sweeps.points(_config()), _config(slots=4)
    for folder, order in (("forward", points), ("back", points[::-1])):
        shutil.copytree(trained, tmp_path / folder)
        measure.measure_missing(epath.Path(tmp_path / folder), order, ("prunability", "path_norm"), config)
    for file in (tmp_path / "forward" / "records").glob("*.json"):
        assert file.read_bytes() == (tmp_path / "back" / "records" / file.name).read_bytes()


@pytest.mark.parametrize("slots", [1, 4])
def test_what_cannot_be_measured_keeps_nobody_from_it(trained, tmp_path, slots):
    shutil.copytree(trained, tmp_path / "w")
    points, config = sweeps.points(_config()), _config(slots=slots)
    file = tmp_path / "w" / "records" / f"{points[1].name}.json"
    files.write_json(file, files.read_json(file) | {"data": "another"})
    with pytest.raises(ValueError, match="the data set is not the one"):
        measure.measure_missing(epath.Path(tmp_path / "w"), points, ("parameter_norm",), config)
    measured = {p.name: "parameter_norm" in record.read(epath.Path(tmp_path / "w"), p.name).measures for p in points}
    assert list(measured.values()) == [True, False, True, True]


def test_a_record_that_cannot_be_written_loses_no_other(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "w")
    points, real = sweeps.points(_config()), record.write

    def write(folder, known):
        if known.name == points[0].name:
            raise OSError("the share is gone")
        real(folder, known)

    monkeypatch.setattr(record, "write", write)
    with pytest.raises(OSError, match="the share is gone"):
        measure.measure_missing(epath.Path(tmp_path / "w"), points, ("parameter_norm",), _config(slots=4))
    written = [bool(record.read(epath.Path(tmp_path / "w"), p.name).measures) for p in points]
    assert written == [False, True, True, True]


def test_a_record_of_more_layers_than_its_checkpoint_builds_no_network(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "w")
    folder, name = epath.Path(tmp_path / "w"), sweeps.points(_config())[0].name
    known = record.read(folder, name)
    arrays, meta = checkpoint.load(folder, name)
    point = sweeps.Point(name, known.point | {"model.depth": 20000}, ())
    checkpoint.save(folder, name, "final", arrays, meta | {"hash": point.hash})
    file = folder / "records" / f"{name}.json"
    files.write_json(file, files.read_json(file) | {"point": point.fields, "hash": point.hash})
    with pytest.raises(files.DamagedError, match="has more layers than its checkpoint"):
        restore.load_model(folder, name)


def test_a_stop_keeps_what_is_measured(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "w")
    config, asked = _config(slots=4), []
    with pytest.raises(processes.StoppedError, match="stopped before 'inverse_margin' was measured"):
        measure.measure_missing(
            epath.Path(tmp_path / "w"), sweeps.points(config), ("parameter_norm", "inverse_margin"), config,
            stop=lambda: asked.append(1) or len(asked) > 1,
        )  # fmt: skip
    for file in (tmp_path / "w" / "records").glob("*.json"):
        assert list(json.loads(file.read_text())["measures"]) == ["parameter_norm"]


@pytest.mark.parametrize(("seconds", "before_the_second"), [(0.0, ["parameter_norm"]), (1e9, [])])
def test_records_are_written_once_a_second_and_at_the_end(trained, tmp_path, monkeypatch, seconds, before_the_second):
    shutil.copytree(trained, tmp_path / "w")
    monkeypatch.setattr(measure, "_WRITE_SECONDS", seconds)
    folder, config, seen = epath.Path(tmp_path / "w"), _config(), []
    point = sweeps.points(config)[0]

    def stop():
        seen.append(list(record.read(folder, point.name).measures))
        if len(seen) == 3:
            raise RuntimeError("unforeseen")

    names = ("parameter_norm", "inverse_margin", "num_parameters")
    with pytest.raises(RuntimeError, match="unforeseen"):
        measure.measure_missing(folder, [point], names, config, stop=stop)
    assert seen[:2] == [[], before_the_second]
    assert list(record.read(folder, point.name).measures) == sorted(names[:2])
    assert set(names[:2]) <= set(costs.read(folder, point.name))


def test_what_is_compiled_ahead_is_not_compiled_again(tmp_path):
    config = _config()
    config.model.width = 5
    config.train.max_epochs = 2
    points, compiled = sweeps.points(config)[:2], []

    def note(event, seconds, *, fun_name="", **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        train.compile_ahead(epath.Path(tmp_path), points, config)
        ahead = list(compiled)
        train.train_missing(epath.Path(tmp_path), points, config)
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    updates = ahead[-1]
    assert updates not in ahead[:-1]
    assert len(compiled) > len(ahead)
    assert updates not in compiled[len(ahead) :]
    train.compile_ahead(epath.Path(tmp_path), points, config)  # all have a record: nothing to do
