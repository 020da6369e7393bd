"""The results table: what is taken as what, what is left out, and that it reads back as it was written."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from prunegen_jax.judging.grid import grid_of
from prunegen_jax.judging.table import Table
from prunegen_jax.runs.tables import from_records, read_csv, read_pgdl, text_files, write_csv

PARTS = ("hyperparameters", "measures", "targets", "confounders")


def record(depth, width, seed, *, status="converged", reason="", gap=0.1, prunability=0.5, **extra):
    test = {"loss": 0.7, "accuracy": 1 - gap, "size": 797} if status != "diverged" else None
    return {
        "name": f"depth={depth},width={width},seed={seed}",
        "point": {"model.depth": depth, "model.width": width, "train.batch_size": 32, "seed": seed} | extra,
        "axes": ["model.depth", "model.width", "seed"],
        "status": status,
        "reason": reason,
        "train": {"loss": 0.01, "accuracy": 1.0, "size": 1000},
        "test": test,
        "measures": {
            "prunability": {"value": prunability, "status": "ok"},
            "params": {"value": 100.0 * width},
            "broken": {"value": None},
        },
    }


RECORDS = [
    record(d, w, s, gap=(d + w + s) / 797, prunability=d / 7 + w / 100) for d in (2, 3) for w in (8, 16) for s in (0, 1)
]
RECORDS[3] |= {"status": "not_converged", "reason": "loss 0.2, after 9 updates"}
RECORDS[5] = record(3, 8, 1, status="diverged", reason="the loss is nan", prunability="inf")


def assert_equal(one, other):
    assert one.names == other.names
    for part in PARTS:
        left, right = getattr(one, part), getattr(other, part)
        assert list(left) == list(right)
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
            assert left[name].dtype.kind == right[name].dtype.kind


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_records():
    table = from_records(RECORDS, families={"prunability": "pruning", "absent": "x"}, signs={"prunability": 1})
    assert len(table) == 6
    assert set(table.hyperparameters) == {"model.depth", "model.width", "seed"}
    assert table.left_out == (
        ("depth=2,width=16,seed=1", "not_converged: loss 0.2, after 9 updates"),
        ("depth=3,width=8,seed=1", "diverged: the loss is nan"),
    )
    np.testing.assert_allclose(table.targets["gap"][0], (2 + 8) / 797)
    np.testing.assert_allclose(table.targets["test_error"], table.targets["gap"], atol=1e-12)
    np.testing.assert_array_equal(table.targets["test_loss"], 0.7)
    assert np.isnan(table.measures["broken"]).all()
    assert table.test_size == 797 and table.families == {"prunability": "pruning"}
    np.testing.assert_array_equal(table.confounders["parameters"], table.measures["params"])
    np.testing.assert_array_equal(table.confounders["batch_size"], 32)
    whole = table.with_left_out()
    assert len(whole) == 8 and whole.measures["prunability"][-1] == math.inf and math.isnan(whole.targets["gap"][-1])


def test_a_converged_model_may_have_a_remark():
    assert len(from_records([record(2, 8, 0, reason="took long"), record(3, 8, 0)])) == 2


def test_records_of_a_field_beside_the_axes():
    """A field that the axes determine is no axis; one that they do not is, and both are said."""
    table = from_records([record(d, w, 0, lr=d / 10, data=w % 3 + d) for d in (2, 3) for w in (8, 16)])
    assert "lr" not in table.hyperparameters and any("lr varies with the axes" in note for note in table.notes)
    other = from_records([record(2, 8, 0, lr=0.1), record(2, 8, 0, lr=0.2)])
    assert list(other.hyperparameters["lr"]) == [0.1, 0.2] and any("lr varies between" in note for note in other.notes)


def test_csv_reads_back(tmp_path):
    table = from_records(RECORDS)
    measures = dict(sorted(table.measures.items()))
    table = dataclasses.replace(table, measures=measures)
    write_csv(table, tmp_path / "results.csv")
    back = read_csv(tmp_path / "results.csv")
    assert_equal(table, back)
    assert_equal(table.left_out_rows, back.left_out_rows)
    assert back.left_out == table.left_out and back.test_size == table.test_size
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]
    header = (tmp_path / "results.csv").read_text().splitlines()[0].split(",")
    assert header[:5] == ["name", "status", "hp.model.depth", "hp.model.width", "hp.seed"]
    assert header[5:11] == ["measure.broken", "params", "prunability", "gap", "test_error", "test_loss"]


def test_csv_of_awkward_names_and_values(tmp_path):
    """Measures that are called like something else, numbers with all their digits, text axes."""
    rng = np.random.default_rng(0)
    names = ("complexity.x", "gen_gap", "hp.y", "index", "status", "train_loss", "with,comma", "zeta")
    table = Table(
        names=("a", "b,c", 'd"e'),
        hyperparameters={"optimizer": np.array(["sgd", "adam", "sgd"]), "lr": np.array([1e-3, 0.1 + 0.2, 1e300])},
        measures={name: rng.normal(size=3) * 10.0 ** rng.integers(-300, 300) for name in names},
        targets={"gap": np.array([0.1, np.nan, np.inf])},
    )
    write_csv(table, tmp_path / "t.csv")
    assert_equal(
        dataclasses.replace(table, confounders={"train_loss": table.measures["train_loss"]}),
        read_csv(tmp_path / "t.csv"),
    )


def test_csv_finds_its_columns(tmp_path):
    path = write(
        tmp_path / "rgm.csv",
        "id,hp.lr,hp.depth,seed,is.converged,complexity.l2,complexity.params,gen.gap,test_accuracy\n"
        "0,0.1,2,0,True,1.5,10,0.2,0.8\n1,0.2,2,0,False,1.5,10,0.2,0.8\n2,0.2,3,0,True,,10,0.3,0.7\n",
    )
    table = read_csv(path)
    assert list(table.hyperparameters) == ["lr", "depth", "seed"]
    assert list(table.measures) == ["l2", "params"] and list(table.targets) == ["gap"]
    assert table.names == ("0", "2") and table.left_out == (("1", "False"),)
    assert math.isnan(table.measures["l2"][1])
    assert "taken as targets: gen.gap (gap)" in table.notes
    assert any("columns not used: test_accuracy" in note for note in table.notes)


def test_csv_by_pattern(tmp_path):
    path = write(tmp_path / "t.csv", "width,depth,sharpness,norm,drop\n1,2,3,4,5\n2,2,5,4,6\n")
    table = read_csv(path, target="drop", hyperparameters="*th", measures="sharp*,norm")
    assert list(table.hyperparameters) == ["width", "depth"]
    assert list(table.measures) == ["sharpness", "norm"] and list(table.targets) == ["drop"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,gap\n1,2\n", {"target": "nope"}, r"--target: no column matches 'nope'; the columns are a, gap"),
        ("a,gap\n1,2\n", {"measures": "z*"}, r"--measures: no column matches 'z\*'"),
        ("a,gap\n1,2\n", {"hyperparameters": "hp*"}, r"--hyperparameters: no column matches 'hp\*'"),
        ("name,a,b\nx,1,2\n", {}, r"no target column found among name, a, b; name one with --target"),
        ("name,gap\nx,1\n", {}, r"no measure column found"),
        ("name,a,gap\nx,1,2\ny,large,3\n", {"measures": "a"}, r"column 'a' .* model 'y' \(line 3\) has 'large'"),
        ("name,a,gap\nx,1,2\ny,large,3\n", {}, r"column 'a' .* model 'y' \(line 3\) has 'large'"),
        ("name,a,gap\nx,1,2\ny,3,bad\n", {}, r"column 'gap' has to hold numbers"),
        ("a,gap\n", {}, r"holds no models"),
        ("a,a,gap\n1,2,3\n", {}, r"two columns 'a'"),
        ("a,gap\n1,2,3\n", {}, r"line 2 of .* has 3 cells; the header has 2"),
    ],
)
def test_wrong_csv(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(tmp_path / "t.csv", text), **options)


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*nothing\.csv"):
        read_csv(tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match="no records"):
        from_records([])


def test_missing_hyperparameter(tmp_path):
    table = read_csv(write(tmp_path / "t.csv", "hp.a,m,gap\n1,2,3\n,2,3\n2,4,5\n"))
    assert len(table) == 2 and table.left_out == (("1", "no value of hyperparameter a"),)


def pgdl_files(folder, predictions):
    configs = {
        str(i): {
            "hparams": {
                "units": {"possible_values": [1, 2], "current_value": 1 + i % 2},
                "act": {"current_value": "ab"[i // 2]},
            },
            "metrics": {"train_acc": 1.0, "test_acc": 0.9 - i / 100},
        }
        for i in range(4)
    }
    (folder / "model_configs.json").write_text(json.dumps(configs))
    (folder / "m.predict").write_text(predictions if isinstance(predictions, str) else json.dumps(predictions))
    return folder / "model_configs.json", [folder / "m.predict"]


def test_pgdl(tmp_path):
    table = read_pgdl(*pgdl_files(tmp_path, {f"model_{i}": i for i in (3, 1, 0, 2)}))
    assert table.names == ("model_0", "model_1", "model_2", "model_3")
    np.testing.assert_array_equal(table.measures["m"], [0, 1, 2, 3])
    np.testing.assert_array_equal(table.targets["gap"], 1.0 - (0.9 - np.arange(4) / 100))
    assert list(table.hyperparameters["act"]) == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({"model_0": 1, "model_2": 3}, r"lacks 2 of 4 models, the first is 'model_1'"),
        ({f"model_{i}": "high" for i in range(4)}, r"has 'high' for 'model_0'; it has to be a number"),
        ("not json", r"is not JSON"),
        ([1, 2], r"holds a list"),
    ],
)
def test_wrong_pgdl(tmp_path, predictions, message):
    with pytest.raises(ValueError, match=message):
        read_pgdl(*pgdl_files(tmp_path, predictions))


def test_wrong_columns():
    with pytest.raises(ValueError, match=r"column 'm' of measures has shape \(2,\)"):
        Table(("a",), {}, {"m": np.zeros(2)}, {"gap": np.zeros(1)})
    with pytest.raises(ValueError, match=r"sign of measure 'm' is 0; choose 1 or -1"):
        Table(("a",), {}, {"m": np.zeros(1)}, {"gap": np.zeros(1)}, signs={"m": 0})


def test_no_jax():
    """Judging a table needs no JAX."""
    code = "import sys, prunegen_jax.judging, prunegen_jax.runs.tables; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,m,gap\nx,1,2\ny,3,4\n".encode("utf-16"), r"t\.csv' is not text in UTF-8"),
        ("name,m,gap\nx,1,2\ny,3,4\n".encode("utf-16-le"), r"t\.csv' is not text in UTF-8"),
        (b"name,m,gap\nx,1,2\n" + b"y" * 200_000 + b",3,4\n", r"line 3 of .*t\.csv' is not CSV: field larger"),
        (b"name," + b"m" * 201 + b",gap\nx,1,2\n", r"column of .*'mmmmmmmmmmmmmmmmmmmm'\.\.\., has 201 letters; 200"),
        (b"," * 10_000 + b"\n", r"has 10001 cells; 10000 are the most"),
        (b"name,m\x1b,m\x07,gap\nx,1,2,3\n", "two columns 'm\ufffd'"),
        (b"gap,m,test_size\n1,2,inf\n", r"has 'inf' for model '0' \(line 2\); test_size has to be a positive finite"),
        (b"gap,m,test_size\n1,2,1e300\n", r"test_size has to be a positive finite number"),
        (b"gap,m,test_size\n1,2,9\n2,3,0\n", r"'0' for model '1' \(line 3\); test_size has to be a positive"),
        (b"gap,m,test_size\n1,2,-5\n", r"test_size has to be a positive finite number"),
        (b"gap,m\n1,2\n2," + b"z" * 100_000 + b"\n", r"has 'z{60}\.\.\.'; leave the cell empty"),
        (b"a," * 5000 + b"b\n1\n", r"two columns 'a'"),
    ],
)
def test_csv_of_a_stranger(tmp_path, content, message):
    """Whatever the file, the answer is one sentence that anyone can read."""
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_csv(tmp_path / "t.csv")
    assert str(error.value).isprintable() and len(str(error.value)) < 600


def test_no_bound_on_a_file_is_passed(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_MOST_BYTES", 40)
    monkeypatch.setattr(text_files, "_MOST_MODELS", 3)
    with pytest.raises(ValueError, match=r"is larger than 0 MB"):
        read_csv(write(tmp_path / "t.csv", "m,gap\n" + "1,2\n" * 20))
    with pytest.raises(ValueError, match=r"has more than 3 lines"):
        read_csv(write(tmp_path / "t.csv", "m,gap\n" + "1,2\n" * 4))
    assert len(read_csv(write(tmp_path / "t.csv", "m,gap\n" + "1,2\n" * 3))) == 3


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match="is not a regular file"):
            read_csv(path)
        with pytest.raises(ValueError, match="is not a regular file"):
            read_pgdl(path, ["m.predict"])


def test_names_are_readable(tmp_path):
    """No name of a column, model, level or status gives a terminal a command or spoils a line."""
    text = 'na"me,hp.a\x1b[2J,status,"m\x07\nx",gap\na\x1b]0;t\x07,\u202eone,ok,1,2\nb,two,"left\r\nout\x9b",1,2\n'
    table = read_csv(write(tmp_path / "t.csv", text.replace('na"me', "name")))
    assert table.names == ("a\ufffd]0;t\ufffd",) and table.left_out == (("b", "left  out\ufffd"),)
    assert list(table.hyperparameters) == ["a\ufffd[2J"] and list(table.measures) == ["m\ufffd x"]
    assert table.hyperparameters["a\ufffd[2J"].tolist() == ["\ufffdone"]
    assert all(note.isprintable() for note in table.notes)


def test_one_long_level_is_kept_once(tmp_path):
    """An array of text would keep room for it in every row."""
    text = "hp.a,m,gap\n" + "x" * 100_000 + ",1,2\n" + "y,1,2\n" * 2000
    table = read_csv(write(tmp_path / "t.csv", text))
    assert table.hyperparameters["a"].nbytes < 100_000 and len(table.hyperparameters["a"][0]) == 100_000
    assert grid_of(table)[0].codes[:3, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ("[" * 100_000, r"m\.predict' is nested too deeply"),
        ('{"a":' * 100_000, r"m\.predict' is nested too deeply"),
        ('{"0": 1' + "0" * 400 + "}", r"m\.predict' cannot be read: a number of 401 digits is too large"),
        ('{"0": ' + "9" * 5000 + "}", r"m\.predict' cannot be read: a number of 5000 digits is too large"),
        ('{"0": ' + "[" * 500 + "]" * 500 + ', "1": 1, "2": 1, "3": 1}', r"for 'model_0'; it has to be a number"),
        (json.dumps({"m" * 201: 1}), r"the name, 'm{20}'\.\.\., has 201 letters"),
        ('{"a\\u001b": 1, "a\\ud800": 2}', r"two of its names differ only in characters that cannot be shown"),
        ("\ufeff{}".encode("utf-16"), r"is not text in UTF-8"),
    ],
)
def test_prediction_of_a_stranger(tmp_path, predictions, message):
    configs, (path,) = pgdl_files(tmp_path, "")
    path.write_bytes(predictions if isinstance(predictions, bytes) else predictions.encode())
    with pytest.raises(ValueError, match=message) as error:
        read_pgdl(configs, [path])
    assert str(error.value).isprintable() and len(str(error.value)) < 600


def test_configs_of_a_stranger(tmp_path):
    path, predictions = pgdl_files(tmp_path, {f"model_{i}": i for i in range(4)})
    text = path.read_text()
    path.write_text(text.replace("1.0", "1" + "0" * 400))
    with pytest.raises(ValueError, match=r"a number of 401 digits is too large"):
        read_pgdl(path, predictions)
    path.write_text(text.replace('"act"', '"a\\u001bt\\ud800"').replace('"a"}', '"a\\u0007"}'))
    table = read_pgdl(path, predictions)
    assert table.hyperparameters["a\ufffdt\ufffd"].tolist() == ["a\ufffd", "a\ufffd", "b", "b"]
