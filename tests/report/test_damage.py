"""Files of a workdir that are not what they should be: a section is left out and named, or one sentence ends it."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import pytest
from etils import epath

from prunegen_jax import judging, report
from prunegen_jax.report import material, page
from prunegen_jax.runs import files, tables
from tests.support import checkpoints, report_cases


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[pathlib.Path, str]:
    """A judged workdir with everything a report shows but weights, and the name of a network in it."""
    folder = tmp_path_factory.mktemp("whole")
    table = report_cases.table(24, 3)
    tables.write_csv(table, folder / "results.csv")
    judging.write(judging.judge(table, draws=20, permutations=5, added_permutations=2, baseline_draws=1), folder)
    details = {"dense": 1.0, "loss": 1.05, "limit": 1.1}
    crossing = {"value": 0.5, "sem": None, "status": "ok", "reason": "", "details": details, "options": {}}
    for name in table.names:
        record = report_cases.record(name) | {"measures": {"prunability": crossing}}
        curve = {"hash": record["hash"], "options": {}, "fractions": [0, 0.5, 1], "losses": ["inf", 2.0, 1.0]}
        files.write_json(folder / "records" / f"{name}.json", record)
        files.write_json(folder / "curves" / f"{name}.json", curve)
        files.write_json(folder / "times" / f"{name}.json", {"train": 2.0, "prunability": 0.5})
        checkpoints.write_state(folder, name)
    files.write_json(folder / "config.json", {"seed": 0})
    return folder, table.names[0]


def damaged(whole, tmp_path, part: str, change) -> epath.Path:
    """A copy of the workdir in which `change` was done to the JSON object in one file of a part."""
    folder = tmp_path / "w"
    shutil.copytree(whole[0], folder)
    names = {"verdict": "verdict.json", "checkpoints": f"checkpoints/{whole[1]}/state.json"}
    path = folder / names.get(part, f"{part}/{whole[1]}.json")
    content = json.loads(path.read_text())
    change(content)
    if part == "verdict":
        path.write_text(json.dumps(content))
    else:
        files.write_json(path, {key: value for key, value in content.items() if key != "checksum"})
    return epath.Path(folder)


def of_rows(**changes):
    """Changes every row of a verdict; a function gets the row's number."""
    return lambda c: [
        row.update({k: v(i) if callable(v) else v for k, v in changes.items()}) for i, row in enumerate(c["rows"])
    ]


VERDICTS = {
    "no family": lambda c: [row.pop("family") for row in c["rows"]],
    "no psi": lambda c: [row.pop("psi") for row in c["rows"]],
    "sign of text": of_rows(sign="x"),
    "sign of two": of_rows(sign=2),
    "number of text": of_rows(tau_b="x"),
    "number of HTML": of_rows(k_corrected="<img src=x>"),
    "number beyond floats": of_rows(tau_b=10**400),
    "list for a number": of_rows(n=[1]),
    "no rows": lambda c: c.update(rows=[]),
    "rows of text": lambda c: c.update(rows="abc"),
    "settings of a list": lambda c: c.update(settings=[]),
    "no count of models": lambda c: c["settings"].pop("models"),
    "level of text": lambda c: c["settings"].update(level="x"),
    "notes of objects": lambda c: c.update(notes=[{"a": 1}]),
    "left out of numbers": lambda c: c.update(left_out=[[1, 2]]),
    "measure of an object": of_rows(measure={"a": 1}),
    "measure twice": of_rows(measure="prunability"),
    "one unknown measure": lambda c: c["rows"][0].update(measure="nothere"),
    "unknown measures": of_rows(measure=lambda i: f"m{i}", target="gap"),
    "axes of a number": lambda c: c["settings"].update(axes=5),
    "axes of numbers": lambda c: c["settings"].update(axes=[5]),
    "axis twice": lambda c: c["settings"].update(axes=["a", "a"]),
    "matrix with a row twice": lambda c: c["matrices"]["shared"].update(rows=["prunability"] * 3),
    "matrix of another shape": lambda c: c["matrices"]["shared"].update(rows=["a"], values=[[1, 1, 1]]),
    "matrix of text": lambda c: c["matrices"]["shared"].update(values=[["x"] * 3] * 3),
    "matrix of one target": lambda c: c["matrices"].pop("added_gap"),
    "difference that lacks": lambda c: c["differences"][0].pop("better_by"),
    "ceiling that lacks": lambda c: c["ceilings"].append({"target": "gap"}),
    "sensitivity that lacks": lambda c: c["sensitivity"].append({"measure": "a", "target": "gap"}),
}


@pytest.mark.parametrize("change", VERDICTS.values(), ids=VERDICTS)
def test_a_verdict_of_another_making_is_one_sentence(whole, tmp_path, change):
    folder = damaged(whole, tmp_path, "verdict", change)
    with pytest.raises(ValueError, match="is not a valid verdict|of the verdict; judge again") as told:
        page.html(material.from_workdir(folder))
    assert len(str(told.value).splitlines()) == 1


def test_a_verdict_without_a_bottom(whole, tmp_path):
    folder = damaged(whole, tmp_path, "verdict", dict)
    (folder / "verdict.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not a valid verdict"):
        material.from_workdir(folder)


LEFT_OUT = {
    "curve of text": ("curves", lambda c: c.update(losses=["x"] * 3), "pruning curves"),
    "curve of nothing": ("curves", lambda c: c.update(losses=[], fractions=[]), "pruning curves"),
    "curve of two lengths": ("curves", lambda c: c.update(losses=[1.0]), "pruning curves"),
    "curve over an object": ("curves", lambda c: c.update(fractions={"a": 1}), "pruning curves"),
    "curve without losses": ("curves", lambda c: c.pop("losses"), "pruning curves"),
    "history of a list": ("checkpoints", lambda c: c["meta"].update(history=[1]), "training curves"),
    "history of text": ("checkpoints", lambda c: c["meta"]["history"].update(check_loss="ab"), "training curves"),
    "history of two lengths": ("checkpoints", lambda c: c["meta"]["history"].update(check_loss=[]), "training curves"),
    "history without a target": ("checkpoints", lambda c: c["meta"]["history"].pop("target"), "training curves"),
    "meta of a list": ("checkpoints", lambda c: c.update(meta=[1]), "training curves"),
}


@pytest.mark.parametrize(("part", "change", "section"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_not_whole_is_left_out_and_named(whole, tmp_path, part, change, section):
    found = material.from_workdir(damaged(whole, tmp_path, part, change))
    assert "1 of 24 networks have no" in found.missing[section]
    assert "1 of 24 networks have no" in page.html(found)


@pytest.mark.parametrize("part", ["report", "curves", "report/figures"])
def test_no_link_leads_a_report_outside(whole, tmp_path, part):
    folder = damaged(whole, tmp_path, "verdict", dict)
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(folder / "curves")
    (folder / part).parent.mkdir(exist_ok=True)
    os.symlink(tmp_path / "elsewhere", folder / part)
    with pytest.raises(ValueError, match="outside"):
        report.write(folder, make_curves=False)
    assert not list((tmp_path / "elsewhere").iterdir())


RECORDS = {
    "measures of a list": lambda c: c.update(measures=["x"]),
    "versions of text": lambda c: c.update(versions="x"),
    "value of text": lambda c: c["measures"]["prunability"].update(value="foo"),
    "no hash": lambda c: c.pop("hash"),
    "no point": lambda c: c.pop("point"),
}


@pytest.mark.parametrize("change", RECORDS.values(), ids=RECORDS)
def test_a_record_that_is_not_whole_is_noted(whole, tmp_path, change):
    found = material.from_workdir(damaged(whole, tmp_path, "records", change))
    assert any(f"{whole[1]}.json is damaged: its" in note for note in found.verdict.notes)
    assert len(found.crossings) == 23 and "is damaged: its" in page.html(found)


def test_a_prunability_without_details_has_no_crossing(whole, tmp_path):
    folder = damaged(whole, tmp_path, "records", lambda c: c["measures"]["prunability"].update(details={}))
    found = material.from_workdir(folder)
    assert len(found.crossings) == 23 and 'id="pruning"' in page.html(found)


@pytest.mark.parametrize("value", ["<b>x", None, [1], True])
def test_times_that_are_no_numbers_do_not_count(whole, tmp_path, value):
    found = material.from_workdir(damaged(whole, tmp_path, "times", lambda c: c.update(train=value)))
    assert page.costs(found)[0] == ("train", 46.0, 2.0)
