"""The report in headless Chromium, as a person uses it: sort, point, choose. Fails, not skips, without Chromium."""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib

import numpy as np
import pytest

from prunegen_jax import judging, report
from prunegen_jax.report import material, page
from prunegen_jax.report.material import Material
from prunegen_jax.runs import files, tables
from tests.support import report_cases
from tests.support.browser import (
    VIEW,
    agree,
    assert_no_complaint,
    cells,
    choose,
    chromium,
    data,
    described,
    entries,
    find,
    measures_shown,
    number,
    opened,
    picture,
    point_at,
    sort_by,
    taus_shown,
    until,
    visible,
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


def page_of(content: Material, folder: pathlib.Path) -> pathlib.Path:
    """The page alone, beside the files of its verdict."""
    judging.write(content.verdict, folder)
    path = folder / "report" / "index.html"
    with files.atomic(path) as file:
        file.write(page.html(content).encode())
    return path


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory) -> pathlib.Path:
    """A page with every section."""
    return page_of(report_cases.material(48, 8), tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def csv_page(tmp_path_factory) -> pathlib.Path:
    """The report on somebody's table: three axes, all networks, targets of any name."""
    folder = tmp_path_factory.mktemp("csv")
    table = report_cases.table(24, 5)
    targets = table.targets | {"shortfall": table.targets["gap"][::-1]}
    tables.write_csv(dataclasses.replace(table, targets=targets), folder / "table.csv")
    table = tables.read_csv(folder / "table.csv")
    verdict = judging.judge(table, draws=20, permutations=5, added_permutations=2, baseline_draws=0)
    return page_of(material.from_table(table, verdict, title="table.csv"), folder)


def judged_in(path: pathlib.Path, target: str, column: str = "tau_b") -> dict[str, float | None]:
    """A statistic of every measure in the expected direction, as verdict.csv beside the report has it."""
    text = (path.parent.parent / "verdict.csv").read_text(encoding="utf8")
    rows = [row for row in csv.DictReader(io.StringIO(text, newline="")) if row["target"] == target]
    return {row["measure"]: float(row["sign"]) * float(row[column]) if row[column] else None for row in rows}


@pytest.mark.parametrize("kind", ["sweep_page", "csv_page"])
def test_sort_and_point(browser, request, kind):
    path = request.getfixturevalue(kind)
    opened(browser, path)
    names, before = measures_shown(browser), data(browser, "points")
    assert agree(taus_shown(browser), judged_in(path, "gap")) and len(names) > 3
    sort_by(browser, "measure")
    assert measures_shown(browser) == sorted(names)
    sort_by(browser, "τ-b, interval")
    taus = [tau for tau in taus_shown(browser).values() if tau is not None]
    assert taus == sorted(taus, reverse=True)  # the best first
    sort_by(browser, "τ-b, interval")
    assert [tau for tau in taus_shown(browser).values() if tau is not None] == sorted(taus)
    assert "▴" in browser.execute_script(
        "return getComputedStyle(document.querySelector('th[aria-sort] button'), '::after').content"
    )
    tooltip = point_at(browser, 3)
    assert before["name"][3] in tooltip and before["h0"][3] in tooltip
    assert_no_complaint(browser)
    assert not browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")


@pytest.mark.parametrize("kind", ["sweep_page", "csv_page"])
def test_the_target_changes_every_panel(browser, request, kind):
    path = request.getfixturevalue(kind)
    opened(browser, path)
    figures = ["scatter", "k", "rank_scatter", "side_by_side", "added"]
    pictures = {name: picture(browser, name) for name in figures}
    first, *others = entries(browser, "target")
    assert first == "gap" and others
    for target in [*others, first]:
        choose(browser, "target", target)
        until(browser, lambda target=target: agree(taus_shown(browser), judged_in(path, target)))
        psi = {r["measure"].removesuffix(" ◆"): number(r["Ψ"]) for r in cells(browser, "Psi along each")}
        assert agree(psi, judged_in(path, target, "psi"))
        name = {"gap": "generalization gap", "test_error": "test error", "test_loss": "test loss"}.get(target, target)
        assert name in visible(browser, ".summary")
        for figure in ("scatter", "k", "rank_scatter", "added"):
            assert name in described(browser, figure), figure
        theirs = judged_in(path, target)[visible(browser, ".other-measure")]
        both = f"τ-b {judged_in(path, target)['prunability']:.2f} and {theirs:.2f}".replace("-0.00", "0.00")
        assert both.replace("τ-b -", "τ-b −").replace("and -", "and −") in described(browser, "side_by_side")
        for figure in figures:
            until(browser, lambda f=figure, before=pictures: picture(browser, f) != before[f])
        pictures = {name: picture(browser, name) for name in figures}
    assert_no_complaint(browser)


@pytest.mark.parametrize("kind", ["sweep_page", "csv_page"])
def test_every_other_control_changes_its_panels(browser, request, kind):
    opened(browser, request.getfixturevalue(kind))
    before, scatter = data(browser, "points"), picture(browser, "scatter")
    axes = entries(browser, "colour")
    legend = visible(browser, "#networks .key")
    assert legend.startswith(f"{axes[0]}:")
    choose(browser, "colour", axes[-1])
    until(browser, lambda: picture(browser, "scatter") != scatter)
    shown = data(browser, "points")
    assert len(set(zip(shown[f"h{len(axes) - 1}"], shown["colour"], strict=True))) == len(set(shown["colour"]))
    for section in ("networks", "pruning", "training"):
        if find(browser, f"#{section}"):
            assert visible(browser, f"#{section} .key").startswith(f"{axes[-1]}:")
    other = next(name for name in entries(browser, "measure") if name != "prunability")
    choose(browser, "measure", other)
    until(browser, lambda: f", {other} against" in described(browser, "scatter"))
    choose(browser, "scale", "rank")
    until(browser, lambda: 1 < max(data(browser, "points")["x"]) <= len(before["x"]))
    assert "prunability" not in entries(browser, "other")
    other, ranks = entries(browser, "other")[-1], picture(browser, "rank_scatter")
    differences = visible(browser, ".bk-clearfix")
    choose(browser, "other", other)
    until(browser, lambda: visible(browser, ".other-measure") == other and picture(browser, "rank_scatter") != ranks)
    assert visible(browser, ".bk-clearfix") != differences and f"and {other} with" in described(browser, "side_by_side")
    for matrix in ("shared", "added"):
        kinds, drawn = entries(browser, f"{matrix}_kind"), picture(browser, matrix)
        choose(browser, f"{matrix}_kind", kinds[-1])
        until(browser, lambda m=matrix, k=kinds[-1]: k in described(browser, m))
        until(browser, lambda m=matrix, d=drawn: picture(browser, m) != d)
    assert_no_complaint(browser)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_screen(browser, sweep_page, width, scheme):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        opened(browser, sweep_page)
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        right = "return arguments[0].getBoundingClientRect().right"
        for name in (
            "scatter",
            "k",
            "rank_scatter",
            "side_by_side",
            "pruning",
            "training",
            "target",
            "colour",
            "other",
        ):
            element = browser.execute_script(VIEW + "return of(arguments[0]).el", name)
            assert browser.execute_script(right, element) <= width, name
            assert element.size["width"] > 0.6 * min(width, 600) or name in {"target", "colour", "other"}, name
        value = next(item for item in find(browser, "td .value") if item.is_displayed())
        assert browser.execute_script(right, value) <= width  # tau-b is shown without scrolling
        tops = [browser.execute_script(VIEW + "return of(arguments[0]).el.getBoundingClientRect().top", name)
                for name in ("rank_scatter", "side_by_side")]  # fmt: skip
        assert (tops[1] > tops[0] + 300) == (width == 390)
        background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 20, 20)"}[scheme]
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_every_canvas_has_a_text_alternative(browser, sweep_page):
    opened(browser, sweep_page)
    without = browser.execute_script(
        """
        const named = (node) => !node ? false : node.getAttribute?.('role') == 'img' && node.getAttribute('aria-label')
          ? true : named(node.parentNode || node.host)
        const all = (root) => [...root.querySelectorAll('*')].flatMap(
          (item) => [...(item.tagName == 'CANVAS' ? [item] : []), ...(item.shadowRoot ? all(item.shadowRoot) : [])])
        const canvases = all(document)
        return [canvases.length, canvases.filter((canvas) => !named(canvas)).length]
        """
    )
    assert without[0] >= 8 and without[1] == 0


def test_a_column_near_the_largest_number_opens(browser, tmp_path):
    table = report_cases.table(24, 3)
    huge = np.where(np.arange(24) % 2, -1, 1) * np.linspace(1e308, 1.7e308, 24)
    table = dataclasses.replace(table, measures=table.measures | {"measure_01": huge}, targets={"gap": huge[::-1]})
    verdict = judging.judge(table, draws=0, permutations=0, added_permutations=0, baseline_draws=0)
    opened(browser, page_of(material.from_table(table, verdict, title="huge"), tmp_path))
    for scale in ("logarithm", "rank", "value"):
        choose(browser, "measure", "measure_01")
        choose(browser, "scale", scale)
    assert len(taus_shown(browser)) == 3
    assert_no_complaint(browser, but="could not set initial ranges")  # of a plot with nothing that can be drawn


def test_hostile_names_stay_text_when_they_are_shown(browser, tmp_path):
    bad = report_cases.HOSTILE
    html = '<img src=x onerror="window.hacked = 1">'
    plain = report_cases.table(16, 3)
    table = tables.Table(
        names=tuple(html + name for name in plain.names),
        hyperparameters={bad: plain.hyperparameters["model.width"], html: plain.hyperparameters["train.learning_rate"]},
        measures=dict(zip((bad, html, "$$\\frac$$"), plain.measures.values(), strict=True)),
        targets={"gap": plain.targets["gap"], html: plain.targets["test_loss"]},
        families={bad: html},
    )  # fmt: skip
    verdict = judging.judge(table, reference=bad, draws=20, permutations=9, added_permutations=0, baseline_draws=0)
    browser.get_log("browser")
    opened(browser, report.write_for_table(table, verdict, tmp_path, title=html))
    tooltip = point_at(browser, 0)
    assert html in tooltip and bad in tooltip
    assert bad in measures_shown(browser) and html in measures_shown(browser)
    of = {name: {r["measure"]: r["tau_b"] for r in verdict.rows if r["target"] == name} for name in verdict.targets}
    signs = {row["measure"]: row["sign"] for row in verdict.rows}
    of = {target: {name: signs[name] * tau for name, tau in taus.items()} for target, taus in of.items()}
    assert of["gap"] != of[html] and agree(taus_shown(browser), of["gap"])
    choose(browser, "target", html)
    until(browser, lambda: agree(taus_shown(browser), of[html]))
    choose(browser, "colour", html)
    choose(browser, "measure", html)
    choose(browser, "other", html)
    assert browser.title.startswith(html)
    with pytest.raises(Exception, match="alert"):
        browser.switch_to.alert  # noqa: B018
    assert browser.execute_script("return window.hacked === undefined")
    assert_no_complaint(browser)


def test_five_hundred_models_and_fifty_measures_open(browser, tmp_path):
    """`benchmarks/report.py` says how long it takes."""
    path = tmp_path / "index.html"
    with files.atomic(path) as file:
        file.write(page.html(report_cases.material(500, 50)).encode())
    opened(browser, path)
    assert len(data(browser, "points")["x"]) == 500 and len(measures_shown(browser)) == 50
    assert_no_complaint(browser)
