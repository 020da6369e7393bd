"""What a page of the report holds, as the plotting library will read it."""

from __future__ import annotations

import html
import json
import re


def _documents(text: str) -> list[dict]:
    """The plotting library's documents in a page, as it will read them: entities resolved by its own rule."""
    found = re.search(r"const docs_json = '(.*?)';\n", text, flags=re.DOTALL)
    assert found, "the page holds no document"
    raw = found[1].replace("\\\\", "\\").replace("&#x27;", "'")
    return list(json.loads(html.unescape(raw)).values())


def model(text: str, kind: str, name: str) -> dict:
    """The attributes of the model of a kind called `name` in a page."""
    stack: list = list(_documents(text))
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            attributes = item.get("attributes", {})
            if item.get("name") == kind and attributes.get("name") == name:
                return attributes
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    raise AssertionError(f"no {kind} {name!r}")


def source(text: str, name: str) -> dict[str, list]:
    """The columns of the data source called `name` in a page."""
    return dict(model(text, "ColumnDataSource", name)["data"]["entries"])


def table(text: str, label: str) -> list[dict[str, str]]:
    """The rows of the first table of a page whose label begins so, as heading -> text of the cell."""
    found = re.search(
        rf'<table class="sortable" aria-label="{re.escape(html.escape(label))}.*?</table>', text, re.DOTALL
    )
    assert found, f"the page holds no table {label!r}"
    rows = re.findall(r"<tr.*?</tr>", found[0], re.DOTALL)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in rows]
    plain = [[html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in cells]
    return [dict(zip(plain[0], row, strict=True)) for row in plain[1:]]
