"""Measures that are one: how the page and the tables for papers show them."""

from __future__ import annotations

import dataclasses

from prunegen_jax import judging
from prunegen_jax.report import material, page, paper_tables
from tests.support import pages, report_cases

QUICK = {"draws": 20, "permutations": 0, "added_permutations": 0, "baseline_draws": 0}


def test_a_reverse_is_marked_and_has_no_number():
    """It keeps both wherever a click moves it."""
    table = report_cases.table(24, 3)
    table = dataclasses.replace(table, measures=table.measures | {"turned": -table.measures["prunability"]})
    content = material.from_table(table, judging.judge(table, **QUICK), title="t")
    text = page.html(content)
    for label in ("The verdict, gap", "Psi along each hyperparameter, gap"):
        rows = [(row["#"], row["measure"].replace(" ◆", "").replace(" *", "")) for row in pages.table(text, label)]
        place = [name for _, name in rows].index("turned (reverse of prunability)")
        assert rows[place - 1][1] == "prunability" and [number for number, _ in rows if number] == ["1", "2", "3"]
        assert rows[place][0] == ""
    tables = paper_tables.paper_tables(content)
    assert "| turned (reverse of prunability) |" in tables["verdict_gap.md"]
    assert "turned (reverse of prunability) &" in tables["verdict_gap.tex"]
