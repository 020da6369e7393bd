"""The report: what it says is what the verdict says, what it lacks it names, and what came from outside stays text."""

from __future__ import annotations

import csv
import dataclasses
import html
import math
import pathlib
import re
import subprocess
import sys
import xml.dom.minidom

import numpy as np
import pytest
from PIL import Image

from prunegen_jax import judging, report
from prunegen_jax.judging.statistics import best_first
from prunegen_jax.report import colours, comparison, figures, lines, material, page, points
from prunegen_jax.runs import files, tables
from prunegen_jax.runs.tables.verdict_files import file_stems, read_verdict
from tests.support import checkpoints, pages, report_cases

QUICK = {"draws": 60, "permutations": 19, "added_permutations": 3, "baseline_draws": 2}


@pytest.fixture(scope="module")
def judged() -> tuple[tables.Table, judging.Verdict]:
    table = report_cases.table(24, 5)
    return table, judging.judge(table, **QUICK)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, judged) -> pathlib.Path:
    """A judged workdir: records, times and histories as the pipeline writes them; no weights."""
    folder = tmp_path_factory.mktemp("sweep")
    table, verdict = judged
    tables.write_csv(table, folder / "results.csv")
    judging.write(verdict, folder)
    for name in table.names:
        answers = {"sharpness": {"value": "nan", "status": "failed", "reason": "out of memory", "options": {}}}
        record = report_cases.record(name) | {"measures": answers}
        files.write_json(folder / "records" / f"{name}.json", record)
        files.write_json(folder / "times" / f"{name}.json", {"train": 2.0, "prunability": 0.5})
        checkpoints.write_state(folder, name)
    files.write_json(folder / "config.json", {"train": {"learning_rate": 0.125}, "data": {"dir": None}})
    return folder


@pytest.fixture(scope="module")
def written(workdir) -> pathlib.Path:
    return report.write(workdir, make_curves=False).parent


def test_table_says_what_verdict_csv_says(written, workdir):
    shown = pages.table((written / "index.html").read_text(), "The verdict, gap")
    with (workdir / "verdict.csv").open(newline="") as file:
        rows = {row["measure"]: row for row in csv.DictReader(file) if row["target"] == "gap"}
    assert sorted(row["measure"].removesuffix(" ◆") for row in shown) == sorted(rows) and len(rows) == 5
    taus = []
    for cells in shown:
        row = rows[cells["measure"].removesuffix(" ◆")]
        sign = float(row["sign"])
        assert cells["expected to"] == {1: "rise", -1: "fall"}[sign]
        value, _, interval = cells["τ-b, interval"].replace("−", "-").partition(" ")
        taus.append(float(value))
        assert taus[-1] == pytest.approx(sign * float(row["tau_b"]), abs=5.1e-3)
        ends = sorted(sign * float(row[end]) for end in ("tau_b_low", "tau_b_high"))
        assert [float(end) for end in interval.split(" … ")] == pytest.approx(ends, abs=5.1e-3)
        assert float(cells["adj. R²"].replace("−", "-")) == pytest.approx(float(row["adjusted_r2"]), abs=5.1e-3)
        assert cells["measure"].endswith(" ◆") == (row["measure"] == "prunability")
    assert taus == sorted(taus, reverse=True)


def test_psi_of_each_hyperparameter_is_that_of_verdict_csv(written, judged):
    verdict = judged[1]
    for cells in pages.table((written / "index.html").read_text(), "Psi along each hyperparameter, gap"):
        row = verdict.row(cells.pop("measure").removesuffix(" ◆"), "gap")
        del cells["#"]
        assert list(cells) == [*verdict.settings["axes"], "Ψ"]
        for axis, shown in cells.items():
            value = row["sign"] * row["psi" if axis == "Ψ" else f"psi.{axis}"]
            assert (
                shown == "–"
                if math.isnan(value)
                else float(shown.replace("−", "-")) == pytest.approx(value, abs=5.1e-3)
            )


def test_columns_without_values_are_neither_shown_nor_explained():
    table = report_cases.table(14, 3)  # no complete grid: there is no PGDL score
    text = page.html(material.from_table(table, judging.judge(table, **QUICK), title="t"))
    assert all(
        any(row[name] != "–" for row in pages.table(text, "The verdict"))
        for name in pages.table(text, "The verdict")[0]
    )
    assert "PGDL" not in pages.table(text, "The verdict")[0] and "<dt>PGDL</dt>" not in text


def test_paper_tables_say_what_the_verdict_says(written, judged):
    lines_of = (written / "tables" / "verdict_gap.md").read_text().splitlines()
    header = [cell.strip() for cell in lines_of[0].strip("|").split("|")]
    for line in lines_of[2:]:
        cells = dict(zip(header, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        row = judged[1].row(cells["measure"], "gap")
        assert float(cells["τ-b"].split()[0]) == pytest.approx(row["tau_b"], abs=5.1e-4)
        assert cells["n"] == str(row["n"])
    latex = (written / "tables" / "verdict_gap.tex").read_text()
    assert latex.count(r"\\") == 6 and r"measure\_01" in latex


def test_the_reference_is_compared_with_the_best_other_measure(written, judged):
    table, verdict = judged
    text = (written / "index.html").read_text()
    rows = sorted((row for row in verdict.rows if row["target"] == "gap"), key=best_first)
    best = next(row for row in rows if row["measure"] != "prunability")
    shown, axes = pages.source(text, "compared"), verdict.settings["axes"]
    assert shown["row"] == ["τ-b", "Ψ", *(f"ψ, {axis}" for axis in axes)]
    for column, row in (("reference", verdict.row("prunability", "gap")), ("other", best)):
        expected = [row["sign"] * row[key] for key in ("tau_b", "psi", *(f"psi.{axis}" for axis in axes))]
        assert shown[column] == pytest.approx(expected, nan_ok=True)
    content = material.from_table(table, verdict, title="x")
    falling = next(row["measure"] for row in rows if row["sign"] < 0)
    assert np.argmax(comparison.ranks(content)[falling]) == np.argmin(table.measures[falling])
    assert comparison.correlations(content, falling, "gap")[2][0] == -verdict.row(falling, "gap")["tau_b"]
    words = pages.model(text, "Div", "difference")["text"]
    about = (best["measure"], "gap", "psi")
    psi = next(d for d in verdict.differences if (d["measure"], d["target"], d["statistic"]) == about)
    assert words.count("Ψ") == 1 and f"{abs(psi['better_by']):.2f}" in words


def test_no_comparison_without_the_reference_or_without_another(judged):
    table, _ = judged
    others = dataclasses.replace(table, measures={k: v for k, v in table.measures.items() if k != "prunability"})
    alone = dataclasses.replace(table, measures={"prunability": table.measures["prunability"]})
    for each in (others, alone):
        found = material.from_table(each, judging.judge(each, draws=0, permutations=0), title="x")
        assert 'id="comparison"' not in page.html(found)
    bare = material.from_table(table, judging.judge(table, draws=0, permutations=0), title="x")
    assert "the verdict has no paired intervals" in page.html(bare)


def test_figures_are_there_in_both_formats(written):
    names = {path.stem for path in (written / "figures").iterdir()}
    wanted = {"intervals_gap", "psi_gap", "information_gap", "scatters_gap", "shared_symmetric", "added_gap"}
    assert wanted | {"training_curves", "intervals_test_loss", "comparison_gap", "comparison_test_loss"} <= names
    for name in names:
        drawing = written / "figures" / f"{name}.svg"
        xml.dom.minidom.parse(str(drawing))
        assert "$" not in drawing.read_text(), f"{name} shows the source of a formula"
        with Image.open(written / "figures" / f"{name}.png") as image:
            assert min(image.size) > 200


def test_the_page_asks_nothing_of_the_network(written):
    text = (written / "index.html").read_text().replace(page._library(), "")
    assert not re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=|<link[^>]*href=\"(?!data:)|@import", text)


def test_sections_without_data_are_named_with_the_reason(written, judged):
    text = (written / "index.html").read_text()
    assert "24 of 24 networks have no pruning curve" in text and 'id="pruning"' not in text
    alone = page.html(material.from_table(*judged, title="someone's.csv"))
    for section in ("pruning", "training", "costs"):
        assert f'id="{section}"' not in alone
    for section in ("pruning curves", "training curves", "costs", "config and versions"):
        assert f"<b>{section}</b>: the report was made from a table alone" in alone
    assert "someone&#39;s.csv" in alone


def test_no_axis_no_permutations_no_matrix():
    table = dataclasses.replace(report_cases.table(12, 2), hyperparameters={}, families={})
    verdict = judging.judge(table, draws=0, permutations=0, added_permutations=0, baseline_draws=0)
    text = page.html(material.from_table(table, dataclasses.replace(verdict, matrices={}), title="bare"))
    assert "no hyperparameter varies" in text and "without permutations" in text and "no matrices" in text
    assert 'id="psi"' not in text and 'id="shared"' not in text


def test_costs_config_versions_and_failed_measures(written):
    text = (written / "index.html").read_text()
    assert '<td>train</td><td class="n">48.0</td><td class="n">2</td>' in text
    assert "train.learning_rate = 0.125" in text and "jax 9.9.9" in text
    assert '<td>sharpness</td><td>failed</td><td class="n">24</td><td>out of memory</td>' in text


def test_left_out_networks_are_told():
    whole = report_cases.table(20, 3)
    reason = ("not_converged: cross-entropy 0.2 after 5 epochs, target 0.01",)
    out = tuple((name, *reason) for name in whole.names[16:])
    table = dataclasses.replace(whole.take(np.arange(16)), left_out=out, left_out_rows=whole.take(np.arange(16, 20)))
    text = page.html(material.from_table(table, judging.judge(table, **QUICK), title="some left out"))
    assert "4 not_converged" in text and "cross-entropy 0.2 after 5 epochs" in text
    assert "The verdict with the networks that were left out" in text
    markers = pages.source(text, "points")["marker"]
    assert markers.count("x") == 4 and markers.count("circle") == 16


def test_what_came_from_outside_stays_text(tmp_path):
    bad = report_cases.HOSTILE
    plain = report_cases.table(16, 3)
    table = dataclasses.replace(
        plain,
        names=tuple(bad + name for name in plain.names),
        hyperparameters={bad: np.array([bad, "$$x$$"])[np.arange(16) % 2]} | plain.hyperparameters,
        measures={"</script>" + bad: plain.measures["prunability"], "a_$b$ & \\c{": plain.measures["measure_01"]},
        targets={"gap": plain.targets["gap"], "../" + bad: plain.targets["test_loss"]},
        families={"</script>" + bad: bad},
        signs={},
        notes=(bad,),
        left_out=((bad, bad),),
    )
    verdict = judging.judge(table, reference="</script>" + bad, **QUICK)
    path = report.write_for_table(table, verdict, tmp_path, title=bad)
    text = path.read_text()
    library = page._library()
    assert bad not in text.replace(library, "") and html.escape(bad) in text
    assert "$$" not in "".join(pages.source(text, "points")["h0"])
    written = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert all(re.fullmatch(r"report/(index\.html|(figures|tables)/\w+\.(png|svg|md|tex))", name) for name in written)
    assert bad not in (path.parent / "tables" / "verdict_gap.md").read_text()
    assert r"a\_\$b\$ \& \textbackslash{}c\{" in (path.parent / "tables" / "verdict_gap.tex").read_text()


def test_verdicts_survive_the_file(judged, tmp_path):
    verdict = judged[1]
    judging.write(verdict, tmp_path)
    back = read_verdict(tmp_path / "verdict.json")
    assert back.to_json() == verdict.to_json()
    assert math.isnan(back.row("prunability", "test_loss")["sign_error"]) == math.isnan(
        verdict.row("prunability", "test_loss")["sign_error"]
    )
    (tmp_path / "verdict.json").write_text('{"rows": 3}')
    with pytest.raises(ValueError, match=r"verdict\.json is not a valid verdict"):
        read_verdict(tmp_path / "verdict.json")


def test_a_workdir_that_was_never_judged(tmp_path):
    with pytest.raises(ValueError, match="run the stage judge first"):
        report.write(tmp_path)


def test_equal_workdirs_give_equal_figures_and_tables_without_jax(written, workdir):
    """Written again, in a process of its own."""
    before = {p: p.read_bytes() for p in [*written.glob("figures/*"), *written.glob("tables/*")]}
    for path in before:
        path.unlink()
    code = "import sys; from prunegen_jax import report; report.write(sys.argv[1], make_curves=False)"
    code += "; assert 'jax' not in sys.modules, 'jax was imported'"
    subprocess.run([sys.executable, "-c", code, str(workdir)], check=True, cwd=pathlib.Path(__file__).parents[2])
    assert before and all(path.read_bytes() == content for path, content in before.items())


def test_values_near_the_largest_number_are_reported(tmp_path):
    table = report_cases.table(24, 3)
    huge = np.where(np.arange(24) % 2, -1, 1) * np.linspace(1e308, 1.7e308, 24)
    table = dataclasses.replace(table, measures=table.measures | {"measure_01": huge})
    verdict = judging.judge(table, **QUICK)
    content = material.from_table(table, verdict, title="t")
    assert "measure_01" in page.html(content)
    shown, logarithms, ranks = points._scaled(huge)
    assert np.isnan(shown).all()  # no axis has room for them
    assert np.nanmax(logarithms) == pytest.approx(np.log10(huge.max())) and sorted(ranks) == list(range(1, 25))
    names = {name.partition(".")[0] for name, _ in figures.figures(content)}
    assert {"scatters_gap", "comparison_gap"} <= names


def test_colours_tell_levels_apart_and_keep_their_order():
    few = colours.of_axis(np.array([0.1, 0.01, 0.1, 1.0]))
    assert few.order == ("0.01", "0.1", "1") and few.labels == ("0.1", "0.01", "0.1", "1")
    assert few.colours[0] == few.colours[2] and len(set(few.colours)) == 3
    many = colours.of_axis(np.arange(100.0))
    assert len(many.order) == 6 and many.labels[0] == many.order[0] and many.labels[99] == many.order[-1]
    words = colours.of_axis(np.array(["sgd", "adam"]))
    assert set(words.colours) <= set(colours.OKABE_ITO)
    assert colours.of_families(["norms", "pruning"])["pruning"] == colours.OKABE_ITO[0]
    assert colours.OKABE_ITO[0] not in colours.of_families(["norms", "size"]).values()


def test_curves_are_relative_and_thinned():
    x, y = lines.relative({"fractions": [0, 0.5, 1], "losses": [2.0, 1.0, 0.5]})
    assert y.tolist() == [4, 2, 1] and x.tolist() == [0, 0.5, 1]
    assert lines.crossing({"fraction": 0.8, "loss": 0.54, "dense": 0.5, "limit": 0.55}) == (0.8, 1.08, 1.1)
    updates, losses = lines.thinned({"check_update": range(1000), "check_loss": np.linspace(1, 0.1, 1000)})
    assert len(updates) == lines.POINTS and (updates[0], updates[-1]) == (0, 999) and losses[-1] == 0.1
    assert len(lines.thinned({"check_update": [], "check_loss": []})[0]) == 0


def test_file_stems_are_safe_and_differ():
    stems = file_stems(["gap", "../gap", "GAP", "???", "a" * 300])
    assert len({s.lower() for s in stems.values()}) == 5
    assert all(re.fullmatch(r"[\w-]{1,64}", stem) for stem in stems.values())
