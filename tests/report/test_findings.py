"""The findings of a study, against values known by construction."""

from __future__ import annotations

import base64
import dataclasses

import numpy as np
import pytest

from prunegen_jax.cli import findings as cli
from prunegen_jax.judging import judge
from prunegen_jax.report import findings, widths
from prunegen_jax.runs import curves
from prunegen_jax.runs.tables import write_csv
from tests.support.sweeps import make_table

CURVE = {"fractions": [0.0, 0.25, 0.5, 0.75, 1.0], "losses": [3.0, 1.05, 1.3, 1.1, 1.0]}


def study(seeds=2):
    table = make_table((2, 3, 2), seeds)
    renamed = dict(zip(("model.width", "lr", "depth", "seed"), table.hyperparameters.values(), strict=True))
    renamed["model.width"] = 8.0 * 2 ** renamed["model.width"]
    return dataclasses.replace(table, hyperparameters=renamed)


def test_readings_of_a_curve():
    assert findings.smallest_passing(CURVE, 0.1) == 0.25 and findings.before_first_failure(CURVE, 0.1) == 0.75
    assert findings.smallest_passing(CURVE, 0.01) == 1.0 == findings.before_first_failure(CURVE, 0.01)
    assert findings.smallest_passing(CURVE, 2.0) == 0.0 == findings.before_first_failure(CURVE, 2.0)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([3, 2, 4, 1, 1.5], "is 2 at w=2, rises to 4 at w=3 and falls to 1 at w=4."),
        ([3, 2, 1], "falls all the way, from 3 to 1: there is no peak"),
        ([3, 1, 2], "is 1 at w=2, rises to 2 at w=3, the largest size, and does not fall again."),
    ],
)
def test_the_course_of_the_test_loss(losses, words):
    sizes = np.arange(1, len(losses) + 1)
    assert words in findings.course(sizes, np.array(losses, float), "w")


def test_ranking_is_the_verdict_and_its_paired_differences():
    verdict = judge(study(), draws=100, permutations=19, baseline_draws=0)
    rows = findings.ranking(verdict, "gap").rows
    assert rows[0]["sign"] * rows[0]["tau_b"] == max(row["sign"] * row["tau_b"] for row in rows)
    for row in rows:
        paired = [
            d
            for d in verdict.differences
            if (d["measure"], d["target"], d["statistic"]) == (row["measure"], "gap", "tau_b")
        ]
        assert [d["better_by"] for d in paired] == [row["reference_better_by"]] * len(paired)
        assert len(paired) == (row["measure"] != "prunability")


def test_pruned_test_losses_and_choices():
    table = study(seeds=1)
    shift = {name: float(g) for name, g in zip(table.names, table.targets["gap"], strict=True)}
    drawn = {n: CURVE | {"test_losses": [4.0, 1.0, 1.5, 1.9, 2.0 + g]} for n, g in shift.items()}
    found = findings.pruned_test_loss(drawn)
    assert "12 of them have a smaller test loss" in found.about and len(found.rows) == 5
    assert found.rows[1]["training_median"] == pytest.approx(1.05)
    assert found.rows[1]["test_median"] == pytest.approx(np.median([1 / (2 + g) for g in shift.values()]))
    # networks whose curve is within the tolerance earlier, the smaller their gap
    order = {name: i for i, name in enumerate(sorted(shift, key=shift.get))}
    steps = {
        n: {"fractions": list(np.arange(51) / 50), "losses": [2.0] * (i + 1) + [1.0] * (50 - i)}
        for n, i in order.items()
    }
    rows = findings.choices(table, "gap", steps, draws=50, level=0.95, seed=0).rows
    assert [row["tau_b"] for row in rows if "beta=0.1," in row["measure"]] == pytest.approx([1, 1])
    assert "prunability" in [row["measure"] for row in rows]
    assert not findings.choices(dataclasses.replace(table, measures={}), "gap", {}, draws=9, level=0.9, seed=0).rows


def test_a_study_of_many_sizes():
    sizes = np.repeat([1.0, 2, 4, 8, 16], 2)
    table = dataclasses.replace(
        study().take(np.arange(10)), hyperparameters={"model.width": sizes, "seed": np.tile([0.0, 1], 5)}
    )
    assert widths.size_axis(table) == "model.width" and widths.size_axis(study()) is None
    table.targets["test_loss"][:] = np.array([3, 2, 4, 1, 2])[np.arange(10) // 2] + np.tile([-0.5, 0.5], 5)
    means, ranking = findings.descent(table, judge(table, targets=["test_loss"], draws=50, permutations=0))
    assert [row["test_loss"] for row in means.rows] == [3, 2, 4, 1, 2]
    assert "rises to 4 at model.width=4 and falls to 1 at model.width=8" in means.about
    assert {row["measure"] for row in ranking.rows} == set(table.measures)
    labels = [label for label, _ in widths.panels(dataclasses.replace(table, families={"noise": "flatness"}))]
    assert labels == ["test loss (nats)", "training loss (nats)", "error (fraction)", "kept fraction", "noise"]
    assert widths.image(study()) == ""


def test_numbers_at_the_axes_of_sizes_are_plain():
    """Matplotlib writes those of logarithmic scales as formulas, which are off."""
    table = dataclasses.replace(
        study().take(np.arange(10)), hyperparameters={"model.width": np.repeat([1.0, 2, 4, 8, 16], 2)}
    )
    table.targets["test_loss"][:] = 10.0 ** np.repeat([0, -1, -2, -3, -4], 2)
    address = widths.image(table)
    assert address.startswith("data:image/svg+xml;base64,")
    drawing = base64.b64decode(address.partition(",")[2]).decode()
    assert ">0.01<" in drawing and "math" not in drawing


def test_the_command(tmp_path, capsys):
    table = study()
    write_csv(table, tmp_path / "results.csv")
    quick = ["--draws=50", f"--out={tmp_path / 'out'}"]
    assert cli.main([str(tmp_path), *quick]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"findings.md", "ranking.csv", "growth.csv", "information.csv", "choices.csv"}
    page = (tmp_path / "out" / "findings.md").read_text()
    assert (
        page.count("\n## ") == 4
        and "| prunability | pruning | 1 |" in page
        and "| model.width | target | gap |" in page
    )
    drawn = {name: CURVE | {"test_losses": CURVE["losses"]} for name in table.names}
    header, lines = curves.to_rows(drawn)
    (tmp_path / "curves.csv").write_text("\n".join(",".join(line) for line in [header, *lines]))
    assert curves.read_table(tmp_path) == drawn
    assert cli.main([str(tmp_path), *quick]) == 0
    assert (tmp_path / "out" / "curves.csv").is_file() and (tmp_path / "out" / "pruned_test_loss.csv").is_file()
    assert cli.main([str(tmp_path), "--target=nothing"]) == 2
    assert "there is no target 'nothing'" in capsys.readouterr().err
