"""Progress of `measure` for a person who waits: a line on stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence

from tqdm import tqdm

SECONDS = 3.0  # without a line


def with_progress(names: Sequence[str], show: bool | None) -> Iterator[str]:
    """The names of measures one after another; a line says which is computed, once this takes longer than `SECONDS`.

    Args:
        names: the names.
        show: whether to write the line; None: if stderr is a terminal or the output of a notebook.
    """
    if not (_is_watched() if show is None else show):
        yield from names
        return
    with tqdm(total=len(names), unit="measure", file=sys.stderr, leave=False, delay=SECONDS) as bar:
        timer = threading.Timer(SECONDS, _show, [bar])  # the first measure may be a slow one
        timer.daemon = True
        timer.start()
        try:
            for name in names:
                bar.set_postfix_str(name, refresh=bar.format_dict["elapsed"] >= SECONDS)
                yield name
                bar.update()
        finally:
            timer.cancel()


def _show(bar: tqdm) -> None:
    bar.delay = 0  # else its end would not be cleared: only lines of its own count as shown
    bar.refresh()


def _is_watched() -> bool:
    return sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)
