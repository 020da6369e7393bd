"""The report in headless Chromium, as a person uses it: sort, point, choose. Fails, not skips, without Chromium."""

from __future__ import annotations

import csv
import io
import pathlib
import shutil
from collections.abc import Callable

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import Select, WebDriverWait

from configs import sweep
from prunegen_jax import judging, report
from prunegen_jax.report import page
from prunegen_jax.runs import files, pipeline, tables
from tests.support import report_cases

pytestmark = pytest.mark.browser

SECONDS = 60  # until something is there, on a machine that does other things too
READY = "return Boolean(window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle)"
# The first element that a selector finds, shadow roots included.
FIND = """
const within = (root, selector) => {
  const found = [...root.querySelectorAll(selector)]
  for (const item of root.querySelectorAll('*')) if (item.shadowRoot) found.push(...within(item.shadowRoot, selector))
  return found
}
return within(document, arguments[0])
"""
VIEW = """
const of = (name) => [...Bokeh.index.query((view) => view.model.name == name)][0]
"""


def chromium() -> webdriver.Chrome:
    """Chromium without a screen and without a network."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "/usr/bin/chromium"
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "window-size=1366,900"):
        options.add_argument(f"--{flag}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or "/usr/bin/chromedriver"))


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("sweep")
    pipeline.run(sweep.get_config("smoke"), folder)
    return report.write(folder)


@pytest.fixture(scope="module")
def csv_page(tmp_path_factory, shared) -> pathlib.Path:
    table = tables.read_csv(shared / "fixtures" / "pgdl_task1.csv")
    verdict = judging.judge(table, draws=100, permutations=19, added_permutations=3, baseline_draws=0)
    return report.write_for_table(table, verdict, tmp_path_factory.mktemp("csv"), title="pgdl_task1.csv")


def opened(browser, path: pathlib.Path) -> None:
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(path.as_uri())
    WebDriverWait(browser, SECONDS, 0.02).until(lambda driver: driver.execute_script(READY))


def find(browser, selector: str) -> list:
    return browser.execute_script(FIND, selector)


def until(browser, check: Callable[[], bool]) -> None:
    """Waits for what the page does in its own time: scripts answer a choice a moment later."""
    WebDriverWait(browser, SECONDS, 0.05, [StaleElementReferenceException]).until(lambda _: check())


def data(browser, name: str) -> dict:
    """The columns that a source holds now."""
    return browser.execute_script(
        "const d = Bokeh.documents[0].get_model_by_name(arguments[0]).data;"
        "return Object.fromEntries(Object.entries(d).map(([k, v]) => [k, Array.from(v)]))",
        name,
    )


def choose(browser, name: str, words: str) -> None:
    """Picks an entry of one of the page's lists, by its words, as a person does."""
    element = browser.execute_script(VIEW + "return of(arguments[0]).input_el", name)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    Select(element).select_by_visible_text(words)
    WebDriverWait(browser, SECONDS, 0.02).until(lambda driver: driver.execute_script(READY))


def point_at(browser, place: int) -> str:
    """Moves the pointer onto a network of the scatter; what is shown beside it."""
    element, x, y = browser.execute_script(
        VIEW
        + """
        const plot = of('scatter'), d = plot.model.renderers[0].data_source.data, frame = plot.frame
        plot.el.scrollIntoView({block: 'center', behavior: 'instant'})
        const x = frame.x_scale.compute(d.x[arguments[0]]), y = frame.y_scale.compute(d.y[arguments[0]])
        return [plot.el, x + frame.bbox.left * 0 - plot.el.clientWidth / 2, y - plot.el.clientHeight / 2]
        """,
        place,
    )
    ActionChains(browser).move_to_element_with_offset(element, round(x), round(y)).perform()
    WebDriverWait(browser, SECONDS, 0.05).until(lambda driver: find(driver, ".bk-tooltip-row-value"))
    return " ".join(item.text for item in find(browser, ".bk-tooltip-content") if item.is_displayed())


def column(browser, place: int, within: str = "") -> list[str]:
    """The words of a column of the table that are drawn now, from top to bottom."""
    rows = sorted(find(browser, ".slick-row"), key=lambda row: row.location["y"])
    cells = [row.find_elements("css selector", ".slick-cell")[place] for row in rows]
    return [cell.find_element("css selector", within).text if within else cell.text for cell in cells]


def measures_shown(browser) -> list[str]:
    return [words.removesuffix(" ◆") for words in column(browser, 1)]


def taus_shown(browser) -> list[float]:
    """The values of tau-b that the table shows, from top to bottom, without those that are not there."""
    return [float(cell) for cell in column(browser, 4, ".value") if cell != "–"]


def entries(browser, name: str) -> list[str]:
    """What one of the page's lists has to choose from."""
    element = browser.execute_script(VIEW + "return of(arguments[0]).input_el", name)
    return [option.text for option in Select(element).options]


def sort_by(browser, heading: str) -> None:
    header = next(item for item in find(browser, ".slick-header-column") if item.text.strip() == heading)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", header)
    header.click()


def believed(columns: dict) -> dict[str, float | None]:
    return dict(zip(columns["measure"], columns["tau_b"], strict=True))


def judged_in(path: pathlib.Path, target: str) -> dict[str, list]:
    """Measures and tau-b in the believed direction, as verdict.csv beside the report has them."""
    text = (path.parent.parent / "verdict.csv").read_text(encoding="utf8")
    rows = [row for row in csv.DictReader(io.StringIO(text, newline="")) if row["target"] == target]
    turned = [float(row["sign"]) * float(row["tau_b"]) if row["tau_b"] else None for row in rows]
    return {"measure": [row["measure"] for row in rows], "tau_b": turned}


def assert_no_complaint(browser) -> None:
    severe = [entry for entry in browser.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]
    assert not severe, severe


@pytest.mark.parametrize("kind", ["sweep_page", "csv_page"])
def test_sort_point_and_choose(browser, request, kind):
    path = request.getfixturevalue(kind)
    opened(browser, path)
    verdict, before = data(browser, "verdict"), data(browser, "points")
    names = verdict["measure"]
    until(browser, lambda: measures_shown(browser) == names)
    sort_by(browser, "measure")
    until(browser, lambda: measures_shown(browser) == sorted(names))
    sort_by(browser, "τ-b, interval")
    until(browser, lambda: taus_shown(browser) == sorted(taus_shown(browser)))
    sort_by(browser, "τ-b, interval")
    until(browser, lambda: taus_shown(browser) == sorted(taus_shown(browser), reverse=True))
    assert len(taus_shown(browser)) > 3
    told = point_at(browser, 3)
    assert before["name"][3] in told and before["h0"][3] in told
    targets = entries(browser, "target")
    if len(targets) > 1:
        choose(browser, "target", targets[-1])
        until(browser, lambda: data(browser, "points")["y"] != before["y"])
        assert data(browser, "points")["x"] == before["x"]
        until(browser, lambda: believed(data(browser, "verdict")) == believed(judged_in(path, targets[-1])))
        words = browser.execute_script("return Bokeh.documents[0].get_model_by_name('summary').text")
        assert {"test_loss": "test loss (nats)"}.get(targets[-1], targets[-1]) in words
    axes = entries(browser, "colour")
    choose(browser, "colour", axes[-1])
    until(browser, lambda: data(browser, "points")["colour"] != before["colour"])
    coloured, values = (data(browser, "points")[name] for name in ("colour", f"h{len(axes) - 1}"))
    assert len(set(zip(values, coloured, strict=True))) == len(set(values)) == len(set(coloured))
    other = next(name for name in reversed(names) if name != "prunability")
    choose(browser, "measure", other)
    until(browser, lambda: data(browser, "points")["x"] != before["x"])
    choose(browser, "scale", "rank")
    until(browser, lambda: 1 < max(data(browser, "points")["x"]) <= len(before["x"]))
    assert_no_complaint(browser)
    assert not browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")


def test_a_rival_of_choice(browser, sweep_page):
    opened(browser, sweep_page)
    before, compared = data(browser, "ranks"), data(browser, "compared")
    other = entries(browser, "rival")[-1]
    assert "prunability" not in entries(browser, "rival")
    choose(browser, "rival", other)
    until(browser, lambda: data(browser, "ranks")["y"] != before["y"])
    assert data(browser, "ranks")["x"] == before["x"] and data(browser, "compared")["ours"] == compared["ours"]
    for target in reversed(entries(browser, "target")):
        choose(browser, "target", target)
        found = judged_in(sweep_page, target)
        taus = dict(zip(found["measure"], found["tau_b"], strict=True))
        until(browser, lambda taus=taus: data(browser, "compared")["ours"][0] == taus["prunability"])
        assert data(browser, "compared")["theirs"][0] == taus[other]
        words = browser.execute_script("return Bokeh.documents[0].get_model_by_name('difference').text")
        assert f"<b>{other}</b>" in words
    assert_no_complaint(browser)


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
    told = point_at(browser, 0)
    assert html in told and bad in told
    assert bad in measures_shown(browser) and html in measures_shown(browser)
    of = {name: {r["measure"]: r["tau_b"] for r in verdict.rows if r["target"] == name} for name in verdict.targets}
    assert of["gap"] != of[html] and believed(data(browser, "verdict")) == of["gap"]
    choose(browser, "target", html)
    until(browser, lambda: believed(data(browser, "verdict")) == of[html])
    choose(browser, "colour", html)
    choose(browser, "measure", html)
    choose(browser, "rival", html)
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
    assert len(data(browser, "points")["x"]) == 500 and len(data(browser, "verdict")["measure"]) == 50
    assert_no_complaint(browser)
