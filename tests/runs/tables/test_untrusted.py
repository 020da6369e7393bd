"""Tables in files that anyone may have written: bounded, readable, refused in one sentence."""

import os

import pytest

from prunegen_jax.judging.grid import grid_of
from prunegen_jax.runs.tables import read_csv, read_pgdl, text_files
from tests.support.tables import write


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,m,gap\nx,1,2\ny,3,4\n".encode("utf-16"), r"t\.csv' is not text in UTF-8"),
        ("name,m,gap\nx,1,2\ny,3,4\n".encode("utf-16-le"), r"t\.csv' is not text in UTF-8"),
        (b"name,m,gap\nx,1,2\n" + b"y" * 200_000 + b",3,4\n", r"line 3 of .*t\.csv' is not CSV: field larger"),
        (b"name," + b"m" * 201 + b",gap\nx,1,2\n", r"column of .*m'\.\.\., has 201 characters; the limit is 200"),
        (b"," * 10_000 + b"\n", r"has 10001 cells; the limit is 10000"),
        (b"name,m\x1b,m\x07,gap\nx,1,2,3\n", "two columns 'm\ufffd'"),
        (b"gap,m,test_size\n1,2,inf\n", r"has 'inf' for model '0' \(line 2\); test_size must be a positive finite"),
        (b"gap,m,test_size\n1,2,1e300\n", r"test_size must be a positive finite number"),
        (b"gap,m,test_size\n1,2,9\n2,3,0\n", r"'0' for model '1' \(line 3\); test_size must be a positive"),
        (b"gap,m,test_size\n1,2,-5\n", r"test_size must be a positive finite number"),
        (b"gap,m\n1,2\n2," + b"z" * 100_000 + b"\n", r"has 'z{60}\.\.\.'; leave the cell empty"),
        (b"a," * 5000 + b"b\n1\n", r"two columns 'a'"),
    ],
)
def test_untrusted_csv(tmp_path, content, message):
    """Whatever the file, the answer is one sentence that anyone can read."""
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_csv(tmp_path / "t.csv")
    assert str(error.value).isprintable() and len(str(error.value)) < 600


def test_files_and_tables_have_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_MOST_BYTES", 40)
    monkeypatch.setattr(text_files, "_MOST_MODELS", 3)
    with pytest.raises(ValueError, match=r"is larger than 0 MB"):
        read_csv(write(tmp_path / "t.csv", "m,gap\n" + "1,2\n" * 20))
    with pytest.raises(ValueError, match=r"has more than 3 lines"):
        read_csv(write(tmp_path / "t.csv", "m,gap\n" + "1,2\n" * 4))
    assert len(read_csv(write(tmp_path / "t.csv", "m,gap\n" + "1,2\n" * 3))) == 3


def test_only_regular_files_are_read(tmp_path):
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
