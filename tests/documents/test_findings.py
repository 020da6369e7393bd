"""docs/findings.md: its numbers are those of the tables in studies/, which are what the page says they are."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import scipy.stats
from etils import epath

import prunegen_jax
from configs import cifar10
from configs.double_descent import get_config
from docs import make_findings
from prunegen_jax.runs import record, tables
from prunegen_jax.runs.studies import read_study
from tests.support.report_cases import record as make_record

FOLDER = epath.Path(make_findings.STUDIES / "double_descent")


def test_the_page_says_what_the_tables_say():
    assert make_findings.PAGE.read_text() == make_findings.page(make_findings.STUDIES)


def test_the_summary_of_the_readme():
    text = make_findings.README.read_text()
    assert make_findings.with_summary(text, make_findings.STUDIES) == text
    with pytest.raises(ValueError, match="one paragraph that begins with"):
        make_findings.with_summary("# nothing\n", make_findings.STUDIES)


def test_the_large_study_by_scipy():
    """Kendall's coefficient over configurations, seeds averaged, and the range of the gap."""
    with (make_findings.STUDIES / "cifar10" / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "converged"]
    axes = [name for name in rows[0] if name.startswith("hp.") and name != "hp.seed"]
    configurations: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        configurations.setdefault(tuple(row[name] for name in axes), []).append(row)

    def means(column):
        return [np.mean([float(row[column]) for row in same]) for same in configurations.values()]

    text, gaps = make_findings.PAGE.read_text(), [float(row["gap"]) for row in rows]
    assert f"The gap lies between {min(gaps):.3f} and {max(gaps):.3f}." in text
    for name, sign in (("prunability", 1), ("inverse_margin", 1), ("normalized_margins", -1)):
        tau = sign * scipy.stats.kendalltau(means(name), np.round(means("gap"), 9)).statistic
        assert f"| `{name}` | {tau:.2f} |" in text
    wanted, table = cifar10.get_config(), read_study("cifar10")
    assert set(table.measures) <= set(wanted.measures.names)
    assert set(table.hyperparameters) == {name for name, _ in wanted.sweep.axes}


def test_numbers_of_the_page_by_hand():
    """Means over seeds and Kendall's coefficient, from the lines of the table alone."""
    with (FOLDER / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    widths = sorted({float(row["hp.model.width"]) for row in rows})
    assert len(rows) == 24 and len(widths) == 12

    def means(column):
        return np.array([np.mean([float(r[column]) for r in rows if float(r["hp.model.width"]) == w]) for w in widths])

    loss, text = means("test_loss"), make_findings.PAGE.read_text()
    peak = int(np.argmax(np.diff(loss))) + 1
    assert f"rises to {loss[peak]:.3g} at model.width={widths[peak]:g}" in text
    for name in ("prunability:absolute", "training_cross_entropy"):
        signs = [np.sign((a - b) * (c - d)) for a, c in zip(means(name), loss, strict=True)
                 for b, d in zip(means(name), loss, strict=True)]  # fmt: skip
        assert f"| `{name}` | {np.sum(signs) / (12 * 11):.2f} |" in text


def test_the_study_is_of_the_config():
    wanted, table = get_config(), read_study(FOLDER)
    assert set(table.measures) == set(wanted.measures.names)
    axes = dict(wanted.sweep.axes)
    assert sorted(set(table.hyperparameters["model.width"])) == list(axes["model.width"])
    assert {len(set(values)) for values in table.hyperparameters.values()} == {12, 2}


def test_a_study_from_a_workdir(tmp_path):
    """Standard errors and versions are columns, and are not taken for measures."""
    workdir, study = epath.Path(tmp_path / "workdir"), epath.Path(tmp_path / "study")
    for name, value in (("a", 0.25), ("b", 0.5), ("c", 0.75)):
        entry = {"value": value, "sem": 0.01, "status": "ok", "reason": "", "details": {}, "options": {}, "version": 1}
        known = make_record(name) | {"measures": {"average_sharpness": entry}}
        record.write(workdir, record.Record.from_json(known, workdir / "records" / f"{name}.json"))
    tables.write_csv(
        tables.from_records([each.to_json() for each in record.read_all(workdir)]), workdir / "results.csv"
    )
    (workdir / "config.json").write_text('{"checksum": "0", "data": {"dir": "/some/where", "name": "digits"}}')
    make_findings.write_study(workdir, study)
    assert json.loads((study / "config.json").read_text()) == {
        "data": {"dir": None, "cache_dir": None, "name": "digits"}
    }
    with (study / "results.csv").open() as file:
        first = next(csv.DictReader(file))
    added = {name: first[name] for name in ("sem.average_sharpness", "version.jax", "version.prunegen_jax")}
    assert list(added.values()) == ["0.01", "9.9.9", prunegen_jax.__version__]
    table = read_study(study)
    assert list(table.measures) == ["average_sharpness"] and table.families == {"average_sharpness": "flatness"}
    assert table.measures["average_sharpness"] == pytest.approx([0.25, 0.5, 0.75])
