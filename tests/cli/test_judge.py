"""`prunegen judge` as its user meets it."""

import json
import os
import subprocess
import sys
import warnings

import pytest

from prunegen_jax.cli.judge import main
from prunegen_jax.runs.tables import write_csv
from tests.support.sweeps import make_table

FAST = ["--draws=50", "--permutations=9", "--added-permutations=0", "--baseline-draws=0"]


def test_command_line(tmp_path, capsys):
    write_csv(make_table(), tmp_path / "results.csv")
    out = tmp_path / "verdict"
    arguments = [str(tmp_path / "results.csv"), "--target=gap", "--hyperparameters=hp*", f"--out={out}", *FAST]
    assert main([*arguments, "--family=pruning=prun*", "--negative=against", "--signature=all=*"]) == 0
    printed = capsys.readouterr().out
    assert "taken as targets: gap" in printed and "prunability" in printed and "target: gap" in printed
    content = json.loads((out / "verdict.json").read_text())
    assert [row["sign"] for row in content["rows"] if row["measure"] == "against"] == [-1]
    assert content["signatures"][0]["features"] == 3 and (out / "verdict.csv").is_file()


def test_command_line_of_pgdl(tmp_path, capsys):
    configs = {
        str(i): {
            "hparams": {
                "a": {"current_value": i % 2},
                "b": {"current_value": i // 2 % 2},
                "c": {"current_value": i // 4},
            },
            "metrics": {"train_acc": 1.0, "test_acc": 0.9 - i**2 / 1000},
        }
        for i in range(8)
    }
    (tmp_path / "model_configs.json").write_text(json.dumps(configs))
    (tmp_path / "size.predict").write_text(json.dumps({f"model_{i}": i for i in range(8)}))
    arguments = [
        f"--pgdl={tmp_path / 'model_configs.json'}",
        f"--predictions={tmp_path / 'size.predict'}",
        "--target=gap",
    ]
    assert main([*arguments, f"--out={tmp_path / 'out'}", *FAST]) == 0
    row = json.loads((tmp_path / "out" / "verdict.json").read_text())["rows"][0]
    assert row["measure"] == "size" and row["tau_b"] == pytest.approx(1) and row["pgdl"] == pytest.approx(1)
    (tmp_path / "size.predict").write_text(json.dumps({"model_0": 1}))
    assert main(arguments) == 2
    assert "lacks 7 of 8 models, the first is 'model_1'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a table or --pgdl"),
        (["nothing.csv"], "there is no file 'nothing.csv'"),
        (
            ["TABLE", "--target=accuracy"],
            "--target: no column matches 'accuracy'; the columns are name, status, hp.axis0",
        ),
        (["TABLE", "--hyperparameters=x*"], "--hyperparameters: no column matches 'x*'"),
        (["TABLE", "--measures=x*"], "--measures: no column matches 'x*'"),
        (["TABLE", "--measures=status"], "column 'status' must hold numbers, but model '0' (line 2) has 'converged'"),
        (["TABLE", "--repeats=median"], "repeats is 'median'"),
        (["TABLE", "--draws=many"], "argument --draws: invalid int value: 'many'"),
        (["TABLE", "--unknown=1"], "unrecognized arguments: --unknown=1"),
        (["TABLE", "--family=x"], "--family is 'x'; it must have the form NAME=VALUES"),
        (["TABLE", "--signature=x=zz*"], "--signature x: no measure matches 'zz*'"),
        (["TABLE", "--predictions=a.predict"], "--predictions needs --pgdl"),
        (["TABLE", "--out=TABLE"], "is a file; it must be a folder"),
        (["TABLE", "--test-size=0"], "test_size is 0; it must be a positive finite number"),
        (["TABLE", "--test-size=-5"], "test_size is -5; it must be a positive finite number"),
        (["TABLE", "--test-size=1" + "0" * 400], "it must be a positive finite number"),
        (["TABLE", "--target=\x1b]0;t\x07"], "--target: no column matches"),
        (["TABLE", "--reference=rival"], "there is no reference 'rival' in the table"),
    ],
)
def test_wrong_command_line(tmp_path, capsys, arguments, message):
    """One sentence on stderr, nothing on stdout, a status that is not zero."""
    path = tmp_path / "results.csv"
    write_csv(make_table(), path)
    try:
        status = main([a.replace("TABLE", str(path)) for a in arguments])
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    assert status == 2 and printed.out == ""
    assert message in printed.err and printed.err.count("\n") == 1 and printed.err.strip().isprintable()


def test_infinite_targets_are_judged_without_a_warning(tmp_path, capsys):
    lines = [f"n{i},{i % 3},{i * 7 % 5},{'inf' if i % 4 else i}" for i in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["name,hp.a,m,gap", *lines]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([str(tmp_path / "t.csv"), "--test-size=100", *FAST]) == 0
    assert capsys.readouterr().err == ""


def test_a_terminal_obeys_no_name(tmp_path, capsys):
    """Names in a file may hold commands for a terminal; what is printed holds none, whoever read the file."""
    lines = [f"n{i}\x1b[2J,{i % 3},{i % 2 or 'bad' + chr(7)},{i * 7 % 5},{i}" for i in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["name,hp.\x1b[2J,status,\x1b]0;t\x07m,gap", *lines]))
    assert main([str(tmp_path / "t.csv"), *FAST]) == 0
    printed = capsys.readouterr().out
    assert all(line.isprintable() for line in printed.split("\n")) and "\ufffd]0;t\ufffdm" in printed


def test_a_reader_that_stops_costs_no_file(tmp_path):
    """As with `prunegen judge t.csv --out=verdict | head -1`: no traceback, and the verdict is written."""
    write_csv(make_table(), tmp_path / "t.csv")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "prunegen_jax.judging", str(tmp_path / "t.csv"), f"--out={tmp_path / 'v'}", *FAST]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "v" / "verdict.json").is_file()
