"""Runs the code of a Markdown page, block by block, as a reader would.

    python tests/documents.py docs/quickstart.md FOLDER

runs the page in FOLDER. Blocks of `python` share one interpreter, one whose first line is a comment with a file's name
is put into that file, and blocks of `sh` go to bash. A block after `<!-- not run: REASON -->` is left out.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import subprocess
import sys

RUN = ("python", "sh")
SHOWN = ("text", "json", "bibtex", "csv")  # output and data, nothing to run
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})(.*)$")
_NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")
_FILE = re.compile(r"^# ([\w./-]+\.\w+)$")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its page's line (from 1), language and code; why it is not run, or the file that it is."""

    line: int
    language: str
    code: str
    reason: str = ""
    file: str = ""


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page. ValueError for one that is not closed, or of a language that is not known."""
    found, lines, at = [], text.splitlines(), 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if not fence:
            at += 1
            continue
        indent, marks, language = fence[1], fence[2], fence[3].strip()
        if language not in (*RUN, *SHOWN):
            raise ValueError(f"line {at + 1} opens a block of {language!r}; use one of {', '.join((*RUN, *SHOWN))}")
        end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == marks), None)
        if end is None:
            raise ValueError(f"the block of line {at + 1} is not closed")
        code = "\n".join(line.removeprefix(indent) for line in lines[at + 1 : end]) + "\n"
        before = next((line.strip() for line in reversed(lines[:at]) if line.strip()), "")
        reason, file = _NOT_RUN.match(before), _FILE.match(code.partition("\n")[0])
        found.append(Block(at + 1, language, code, reason[1] if reason else "", file[1] if file else ""))
        at = end + 1
    return found


def run(page: pathlib.Path, folder: pathlib.Path) -> int:
    """Runs the blocks of `page` in `folder`, in order; returns how many. The first that fails raises."""
    os.chdir(folder)
    sys.path.insert(0, "")
    namespace: dict[str, object] = {"__name__": "__main__"}
    count = 0
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.reason or block.language not in RUN:
            continue
        print(f"--- {page.name}, line {block.line}", flush=True)
        if block.file and block.language == "python":
            pathlib.Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            pathlib.Path(block.file).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)
        else:
            subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], check=True)
        count += 1
    return count


if __name__ == "__main__":
    print(run(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()), "blocks ran")
