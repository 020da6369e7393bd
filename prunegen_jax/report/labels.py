"""The labels of the report: what targets are called, and names from files shown as plain text.

Statistics have their labels in `judging.statistics`, the sections of the page theirs in page.html.
"""

from __future__ import annotations

from collections.abc import Sequence

from bokeh.models import PlainText

TARGETS = {
    "gap": "generalization gap (training − test accuracy)",
    "test_error": "test error (fraction)",
    "test_loss": "test loss (nats)",
    "loss_gap": "test − training loss (nats)",
    "ece": "expected calibration error",
    "brier": "Brier score",
}
_LETTERS = 40  # of a name beside an axis


def text(name: str) -> str:
    """A name from a file, without characters that the plotting library interprets as a formula."""
    return name.replace("$$", "$\u200b$").replace("\\(", "\\\u200b(").replace("\\[", "\\\u200b[")


def axis_names(names: Sequence[str]) -> list[str]:
    """Names as labels beside an axis: shortened if long, and still different from each other."""
    shown: list[str] = []
    for name in map(text, names):
        short = name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"
        count = 2
        while short in shown:
            short, count = f"{name[: _LETTERS - 6]}… ({count})", count + 1
        shown.append(short)
    return shown


def target_name(name: str) -> str:
    """A target with its description, if it is a known one."""
    return TARGETS.get(name, text(name))


def label(words: str) -> PlainText:
    """An axis label that is never taken for a formula."""
    return PlainText(text=words)
