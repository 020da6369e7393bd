"""docs/repeat_study.py: networks of a study are trained again, and each number is compared."""

from __future__ import annotations

import csv

import pytest
from etils import epath

from docs import make_findings, repeat_study
from prunegen_jax.runs import pipeline
from prunegen_jax.runs.studies import read_study
from tests.support import experiments


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp("study"))
    pipeline.run(experiments.get_config(), folder / "workdir", stages=("train", "measure", "judge"))
    make_findings.write_study(folder / "workdir", folder / "study")
    return folder / "study"


def test_networks_trained_again_are_equal_and_a_changed_number_is_shown(study, tmp_path, capsys):
    chosen = repeat_study.choose(read_study(study), 2, seed=0)
    with (study / "results.csv").open() as file:
        header, *rows = csv.reader(file)
    place = header.index("parameter_norm")
    changed = next(row for row in rows if row[0] == chosen[0])
    changed[place] = str(float(changed[place]) + 2)
    (study / "results.csv").write_text("\n".join(",".join(f'"{c}"' for c in row) for row in [header, *rows]))
    repeat_study.main([str(study), f"--workdir={tmp_path / 'again'}", "--networks=2"])
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if " of " in line}
    assert {*lines} == {*read_study(study).measures, *read_study(study).targets}
    assert lines.pop("parameter_norm")[:4] == ["1", "of", "2", "2"]
    assert all(line[:4] == ["2", "of", "2", "0"] for line in lines.values())


def test_the_networks_of_a_shipped_study():
    """They are those of its table, under the same names."""
    folder = epath.Path(make_findings.STUDIES / "cifar10")
    chosen = repeat_study.choose(read_study(folder), 5, seed=0)
    config = repeat_study.repeat_config(folder, chosen)
    found = pipeline.sweeps.points(config)
    assert {point.name for point in found} == set(chosen) and len(found) == 5
    assert {point.fields["train.max_epochs"] for point in found} == {200}
    with pytest.raises(ValueError, match=r"networks=0 must lie between 1 and \d+"):
        repeat_study.choose(read_study(folder), 0, seed=0)
