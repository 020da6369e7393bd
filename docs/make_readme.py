"""Rewrites the verdict in README.md and takes the picture of the report, docs/images/report.png, from a finished sweep.

    python docs/make_readme.py runs/sweep

The picture needs Chromium.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap

from prunegen_jax.judging import describe, format_table
from prunegen_jax.report import material

ROOT = pathlib.Path(__file__).parent.parent
_VERDICT = re.compile(r"(?<=\n```text\n)target: .*?(?=```\n)", re.DOTALL)
SIZE = "1200,860"  # pixels of the picture: the first screen of the page


def with_verdict(text: str, workdir: pathlib.Path) -> str:
    """The text of README.md with the verdict of a workdir in place of the one that is there.

    Raises:
        ValueError: if the text does not have exactly one.
    """
    verdict = material.from_workdir(workdir).verdict
    shown = f"{format_table(verdict, target='gap').rstrip()}\n\n{textwrap.fill(describe(verdict, target='gap'), 120)}"
    if len(_VERDICT.findall(text)) != 1:
        raise ValueError("README.md must have one block of text that begins with 'target: '")
    return _VERDICT.sub(lambda _: f"{shown}\nreport: runs/sweep/report/index.html\n", text)


def take_picture(page: pathlib.Path, target: pathlib.Path) -> None:
    """The first screen of a page as Chromium shows it.

    Raises:
        FileNotFoundError: if there is no Chromium.
        subprocess.CalledProcessError: if it fails.
    """
    command = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if command is None:
        raise FileNotFoundError("Chromium is not installed; the picture of the report needs it")
    with tempfile.TemporaryDirectory() as profile:
        flags = ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars")
        values = (f"user-data-dir={profile}", f"window-size={SIZE}", "virtual-time-budget=10000")
        shot = f"--screenshot={target.resolve()}"
        subprocess.run(
            [command, *(f"--{flag}" for flag in (*flags, *values)), shot, page.resolve().as_uri()],
            check=True,
            capture_output=True,
            timeout=120,
        )


def main(workdir: str) -> None:
    """Rewrites README.md and docs/images/report.png from `workdir`."""
    folder, readme = pathlib.Path(workdir), ROOT / "README.md"
    readme.write_text(with_verdict(readme.read_text(encoding="utf-8"), folder), encoding="utf-8")
    print(f"wrote {readme}")
    take_picture(folder / "report" / "index.html", ROOT / "docs" / "images" / "report.png")
    print("wrote docs/images/report.png")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("name a finished workdir: python docs/make_readme.py runs/sweep")
    main(sys.argv[1])
