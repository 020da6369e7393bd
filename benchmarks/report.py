"""How long the report of a large sweep takes to open: 500 networks, 50 measures, all sections, in headless Chromium.

    python benchmarks/report.py
    python benchmarks/report.py --smoke     # a small page, once; without Chromium it is made and not opened

Opens the page in a fresh Chromium each time, from the request to the moment when the plotting library is idle, so until
everything is drawn. Prints the seconds of each opening on the clock and of the page's own thread, the page's size, and
the median as one JSON line. Run it when the machine does nothing else.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

from prunegen_jax.report import page

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))  # the tests' pages and their browser
from tests.support import report_cases
from tests.support.browser import chromium, opened


def opening(path):
    """Seconds on the clock, and of the page's thread, until the page is idle."""
    with chromium() as browser:
        browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        begin = time.monotonic()
        opened(browser, path)
        clock = time.monotonic() - begin
        metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return clock, next(metric["value"] for metric in metrics if metric["name"] == "ThreadTime")


def main():
    """Makes the page and opens it some times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("models", 500), ("measures", 50), ("times", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--smoke", action="store_true", help="a small page, once: that it runs, not how fast")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.models, arguments.measures, arguments.times = 40, 4, 1
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "index.html"
        begin = time.monotonic()
        path.write_text(page.html(report_cases.material(arguments.models, arguments.measures)))
        print(f"made in {time.monotonic() - begin:.1f} s, {path.stat().st_size / 1e6:.1f} MB")
        if arguments.smoke and not (shutil.which("chromium") and shutil.which("chromedriver")):
            print(json.dumps({"left_out": ["chromium"], **vars(arguments)}))
            return
        found = [opening(path) for _ in range(arguments.times)]
    for clock, work in found:
        print(f"{clock:6.2f} s on the clock, {work:5.2f} s of work")
    clock, work = (statistics.median(values) for values in zip(*found, strict=True))
    print(json.dumps({"opening_seconds": round(clock, 2), "work_seconds": round(work, 2), **vars(arguments)}))


if __name__ == "__main__":
    main()
