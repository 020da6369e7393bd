"""Tables in the files of the PGDL competition."""

import json

import numpy as np
import pytest

from prunegen_jax.runs.tables import read_pgdl
from tests.support.tables import pgdl_files


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
        ({f"model_{i}": "high" for i in range(4)}, r"has 'high' for 'model_0'; it must be a number"),
        ("not json", r"is not JSON"),
        ([1, 2], r"contains a list"),
    ],
)
def test_wrong_pgdl(tmp_path, predictions, message):
    with pytest.raises(ValueError, match=message):
        read_pgdl(*pgdl_files(tmp_path, predictions))


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ("[" * 100_000, r"m\.predict' is nested too deeply"),
        ('{"a":' * 100_000, r"m\.predict' is nested too deeply"),
        ('{"0": 1' + "0" * 400 + "}", r"m\.predict' cannot be read: a number of 401 digits is too large"),
        ('{"0": ' + "9" * 5000 + "}", r"m\.predict' cannot be read: a number of 5000 digits is too large"),
        ('{"0": ' + "[" * 500 + "]" * 500 + ', "1": 1, "2": 1, "3": 1}', r"for 'model_0'; it must be a number"),
        (json.dumps({"m" * 201: 1}), r"the name, 'm{20}'\.\.\., has 201 characters"),
        ('{"a\\u001b": 1, "a\\ud800": 2}', r"two of its names differ only in characters that cannot be shown"),
        ("\ufeff{}".encode("utf-16"), r"is not text in UTF-8"),
    ],
)
def test_untrusted_predictions(tmp_path, predictions, message):
    configs, (path,) = pgdl_files(tmp_path, "")
    path.write_bytes(predictions if isinstance(predictions, bytes) else predictions.encode())
    with pytest.raises(ValueError, match=message) as error:
        read_pgdl(configs, [path])
    assert str(error.value).isprintable() and len(str(error.value)) < 600


def test_untrusted_configs(tmp_path):
    path, predictions = pgdl_files(tmp_path, {f"model_{i}": i for i in range(4)})
    text = path.read_text()
    path.write_text(text.replace("1.0", "1" + "0" * 400))
    with pytest.raises(ValueError, match=r"a number of 401 digits is too large"):
        read_pgdl(path, predictions)
    path.write_text(text.replace('"act"', '"a\\u001bt\\ud800"').replace('"a"}', '"a\\u0007"}'))
    table = read_pgdl(path, predictions)
    assert table.hyperparameters["a\ufffdt\ufffd"].tolist() == ["a\ufffd", "a\ufffd", "b", "b"]
