"""The studies that come with the package, by name, and those in a folder."""

from __future__ import annotations

import pytest

import prunegen_jax
from prunegen_jax.runs import studies


def test_a_study_by_name_and_by_folder():
    assert {"cifar10", "double_descent"} <= set(studies.names())
    table = prunegen_jax.read_study("double_descent")
    assert len(table) == 24 and table.families["average_sharpness"] == "flatness" and table.signs["prunability"] == 1
    again = studies.read_study(studies.FOLDER / "double_descent")
    assert again.names == table.names and list(again.measures) == list(table.measures)


def test_what_is_no_study(tmp_path):
    with pytest.raises(
        ValueError, match=r"has no results.csv; give a judged workdir, or one of cifar10, double_descent"
    ):
        studies.read_study(tmp_path)
    with pytest.raises(ValueError, match="nothing has no results.csv"):
        studies.read_study("nothing")
