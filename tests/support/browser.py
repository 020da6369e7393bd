"""Pages of the report in headless Chromium, used as a person does."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import Select, WebDriverWait

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


def cells(browser, label: str) -> list[dict[str, str]]:
    """The cells of the table of the page that is visible and whose label begins so, by heading, from top to bottom."""
    return browser.execute_script(
        """
        const table = [...document.querySelectorAll(`table[aria-label^="${arguments[0]}"]`)].find((t) => t.offsetParent)
        const words = (row) => [...row.cells].map((cell) => cell.innerText.trim().replace(/ [\u25be\u25b4]$/, ''))
        return [...table.tBodies[0].rows].map((row) => Object.fromEntries(
          words(table.tHead.rows[0]).map((heading, i) => [heading, words(row)[i]])))
        """,
        label,
    )


def measures_shown(browser) -> list[str]:
    return [row["measure"].removesuffix(" ◆") for row in cells(browser, "The verdict")]


def number(words: str) -> float | None:
    """The number that a cell begins with."""
    return None if words == "–" else float(words.split(maxsplit=1)[0].replace("−", "-"))


def taus_shown(browser) -> dict[str, float | None]:
    """The values of tau-b that the table shows, from top to bottom."""
    return {row["measure"].removesuffix(" ◆"): number(row["τ-b, interval"]) for row in cells(browser, "The verdict")}


def agree(shown: dict[str, float | None], expected: dict[str, float | None]) -> bool:
    """Whether the numbers of a table are those expected, rounded to two digits."""
    return shown.keys() == expected.keys() and all(
        value is expected[name] if None in (value, expected[name]) else abs(value - expected[name]) < 5.1e-3
        for name, value in shown.items()
    )


def described(browser, name: str) -> str:
    """The text alternative of a figure, read from its element."""
    return browser.execute_script(VIEW + "return of(arguments[0]).el.getAttribute('aria-label')", name)


def picture(browser, name: str) -> str:
    """The pixels of a figure, as they are drawn now."""
    return browser.execute_script(VIEW + "return of(arguments[0]).canvas_view.compose().canvas.toDataURL()", name)


def visible(browser, selector: str) -> str:
    """The words of the elements that are shown."""
    return " ".join(item.text for item in find(browser, selector) if item.is_displayed())


def entries(browser, name: str) -> list[str]:
    """What one of the page's lists has to choose from."""
    element = browser.execute_script(VIEW + "return of(arguments[0]).input_el", name)
    return [option.text for option in Select(element).options]


def sort_by(browser, heading: str) -> None:
    """Clicks a heading of the table that is visible."""
    found = (item for item in find(browser, ".sortable button") if item.is_displayed())
    header = next(item for item in found if item.text.rstrip(" ▾▴") == heading)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", header)
    header.click()


def assert_no_complaint(browser, *, but: str | None = None) -> None:
    """Nothing in the console of the page above the level of a notice, but what contains the text `but`."""
    severe = [entry for entry in browser.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]
    severe = [entry for entry in severe if but is None or but not in entry["message"]]
    assert not severe, severe
