"""`prunegen measure`: a file with get_model() in, a table out; what is wrong is said before any work."""

from __future__ import annotations

import csv
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax import MEASURES, Estimate, TrainedModel, measure
from prunegen_jax.cli import main as console
from prunegen_jax.cli import measure as cli
from tests.support.adapter_cases import dataset

NETWORK = """
from tests.support.adapter_cases import ConvNet, dataset, linen_variables
from prunegen_jax import TrainedModel

def get_model():
    print("made")
    return TrainedModel.from_linen(ConvNet(), linen_variables(0), dataset(), name="small")
"""
WIDE = ["parameter_norm", "prunability_prefix", "sum_of_training_losses"]


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "my_network.py"
    path.write_text(NETWORK)
    return str(path)


def test_a_table_is_printed_and_written(network, tmp_path, capsys):
    files = [f"--csv={tmp_path / 'out' / 'm.csv'}", f"--json={tmp_path / 'm.json'}"]
    options = ["--options=prunability_prefix.beta=0.5", "--options=prunability_prefix.scope='layer'"]
    assert console.main(["measure", network, f"--measures={','.join(WIDE)}", *files, *options]) == 0
    out = capsys.readouterr().out
    assert "TrainedModel('small': " in out and "passes over the training set of" in out
    assert out.index("passes over") < out.index("parameter_norm")
    model = cli._get_model(cli._load(network), network)
    expected = measure(model, WIDE, options={"prunability_prefix": {"beta": 0.5, "scope": "layer"}})
    with (tmp_path / "out" / "m.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    content = json.loads((tmp_path / "m.json").read_text())
    assert content["network"] == "small" and list(content["measures"]) == list(rows) == WIDE
    for name in WIDE[:2]:
        assert float(rows[name]["value"]) == content["measures"][name]["value"] == expected[name].value
        assert rows[name]["status"] == "ok" and f"{expected[name].value:.6g}" in out
    assert content["measures"]["prunability_prefix"]["options"] == {"beta": 0.5, "scope": "layer"}
    assert rows[WIDE[2]]["status"] == "not_applicable" and "needs history" in rows[WIDE[2]]["reason"]
    assert content["measures"][WIDE[2]]["value"] == "nan"


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [(None, [], "is not a file; give a Python file that defines get_model()"),
     ("x = 1", [], "does not define get_model()"),
     ("get_model = lambda: 3", [], "returned int, not a prunegen_jax.TrainedModel"),
     ("1 / 0", [], "raised ZeroDivisionError"),
     ("def get_model():\n    raise KeyError", [], "get_model() of {path} raised KeyError"),
     (NETWORK, ["--measures=parameter_norn"], "measure 'parameter_norn' is unknown"),
     (NETWORK, ["--measures=prunability", "--options=prunability.bta=1"], "prunability has no option 'bta'"),
     (NETWORK, ["--measures=prunability", "--options=beta=1"], "--options is 'beta=1'; it must have the form"),
     (NETWORK, ["--measures=parameter_norm", "--options=prunability.beta=1"], "which is not among --measures"),
     (NETWORK, ["--csv="], "is not the name of a file to write"),
     (NETWORK.replace("dataset(),", "dataset()._replace,"), [], "get_model() of {path} raised AttributeError")],
)  # fmt: skip
def test_what_is_wrong_is_said_before_any_work(text, arguments, message, tmp_path, capsys):
    path = tmp_path / "net.py"
    if text is not None:
        path.write_text(text)
    assert console.main(["measure", str(path), *arguments]) == 2
    out, err = capsys.readouterr()
    assert message.format(path=path) in err.splitlines()[-1]
    assert "passes" not in out and ("made" not in out or "get_model" in message)


def test_a_file_imports_its_neighbours_and_may_define_dataclasses(tmp_path, capsys):
    (tmp_path / "neighbour_of_network.py").write_text(NETWORK)
    (tmp_path / "net.py").write_text(
        "from __future__ import annotations\nimport dataclasses\nfrom typing import ClassVar\n"
        "from neighbour_of_network import get_model as made\n"
        "def get_model():\n    @dataclasses.dataclass\n    class A:\n        x: ClassVar[int] = 1\n    return made()\n"
    )
    assert console.main(["measure", str(tmp_path / "net.py"), "--measures=parameter_norm"]) == 0
    assert "parameter_norm" in capsys.readouterr().out


def test_a_failed_measure_is_the_exit_status(network, monkeypatch, capsys):
    failed = {"parameter_norm": Estimate(math.nan, status="failed", reason="no\x1b[2J luck")}
    monkeypatch.setattr(cli, "measure", lambda *args, **options: failed)
    assert console.main(["measure", network, "--measures=parameter_norm"]) == 1
    assert "failed" in (out := capsys.readouterr().out) and "\x1b" not in out


def test_no_text_of_the_csv_is_a_formula():
    text = cli._csv({"a": Estimate(math.nan, None, "failed", "=1+1"), "b": Estimate(-1.5, 0.25)})
    assert text.splitlines()[1:] == ["a,nan,,failed,'=1+1", "b,-1.5,0.25,ok,"]


def test_the_estimate_leaves_out_what_does_not_apply(capsys):
    params = {"w": jnp.ones((72, 3))}
    model = TrainedModel(lambda p, x: x.reshape(x.shape[0], -1) @ p["w"], params, dataset())
    cli._print_estimate(model, ["gradient_noise_first_epoch", "parameter_norm"])
    assert "2 measures: about 0 passes" in capsys.readouterr().out
    assert np.isfinite(MEASURES["gradient_noise_first_epoch"].cost)
