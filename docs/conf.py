"""Sphinx's settings: `make docs` builds the pages, which read as plain Markdown too, into docs/_build."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent

project = "prunegen_jax"
author = "The prunegen_jax developers"
release = re.search(r'__version__ = "(.*)"', (ROOT / "prunegen_jax" / "__init__.py").read_text())[1]
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "README.md"]  # README.md is included in index.rst
html_theme = "furo"
html_title = f"prunegen_jax {release}"
