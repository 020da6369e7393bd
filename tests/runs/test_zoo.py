"""A made-up zoo in the format of the Small CNN Zoo: what is read, the networks, and measures beside the plain ones."""

import csv
import gzip

import jax
import numpy as np
import pytest

from prunegen_jax import TrainedModel, measure
from prunegen_jax.cli import main as console
from prunegen_jax.runs import zoo as zoos
from prunegen_jax.types import Dataset
from tests.support.zoos import write_zoo

NAMES = ["parameter_norm", "prunability_prefix", "training_cross_entropy"]


def test_the_network_is_the_one_described(tmp_path):
    """Against loops over positions: 3x3, stride 2, no padding, mean over positions, a dense layer."""
    write_zoo(tmp_path, networks=2)
    zoo = zoos.read_zoo(tmp_path)
    params = zoo.params(1)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == zoo.weights.shape[1]
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
    x = images.astype(np.float64)
    for layer in list(params)[:-1]:
        kernel, bias = (np.asarray(params[layer][name], np.float64) for name in ("kernel", "bias"))
        side = (x.shape[1] - 3) // 2 + 1
        out = np.zeros((2, side, side, kernel.shape[3]))
        for i in range(side):
            for j in range(side):
                window = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                out[:, i, j] = np.einsum("nhwc,hwco->no", window, kernel) + bias
        x = np.tanh(out) if zoo.activation(1) == "tanh" else np.maximum(out, 0)
    last = params[list(params)[-1]]
    expected = x.mean(axis=(1, 2)) @ np.asarray(last["kernel"], np.float64) + np.asarray(last["bias"])
    found = zoos.network(tuple(params), zoo.activation(1))(params, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_measured_together_and_judged(tmp_path, capsys):
    """The command writes a table that `judge` reads; its numbers are those of the networks alone."""
    images, labels = write_zoo(tmp_path, networks=6)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    out = tmp_path / "out.csv"
    arguments = [f"--zoo={tmp_path}", f"--data={tmp_path / 'data.npz'}", f"--csv={out}", "--lanes=2", "--train-size=60"]
    assert console.main(["measure", *arguments, f"--measures={','.join(NAMES)}"]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["modeldir"] for row in rows] == [f"/zoo/{i}" for i in range(6)] and {r["step"] for r in rows} == {"86"}
    zoo = zoos.read_zoo(tmp_path)
    train = Dataset(zoos.images_of(images[:60]), labels[:60])
    for number in (1, 9):  # the last step of the first training and of the fifth
        layers = tuple(zoo.params(number))
        model = TrainedModel(zoos.network(layers, zoo.activation(number)), zoo.params(number), train)
        alone = measure(model, NAMES)
        for name in NAMES:
            assert float(rows[number // 2][f"measure.{name}"]) == pytest.approx(alone[name].value, rel=1e-5)
    capsys.readouterr()
    quick = ["--draws=0", "--permutations=0", "--added-permutations=0", "--baseline-draws=0"]
    assert console.main(["judge", str(out), *quick]) == 0
    assert "recognised as one of Small CNN Zoo" in capsys.readouterr().out


def test_wrong_zoos(tmp_path, capsys):
    write_zoo(tmp_path, networks=2)
    good = (tmp_path / "layout.csv").read_text()
    for text, message in (
        (good.replace("(3, 3, 1, 4)", "(3, 3, 1, 5)"), "is not a valid layout"),
        (good.replace("(3, 3, 1, 4)", "__import__('os')"), "is not a valid layout"),
        ("\n".join(good.splitlines()[:-1]) + "\n", r"weights.npy is \(4, .*\), but there are 4 lines"),
    ):
        (tmp_path / "layout.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            zoos.read_zoo(tmp_path)
    (tmp_path / "layout.csv").write_text(good)
    np.save(tmp_path / "weights.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read"):
        zoos.read_zoo(tmp_path)
    (tmp_path / "metrics.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(ValueError, match=r"no column 'config.activation'"):
        (np.save(tmp_path / "weights.npy", np.zeros((1, 3))), zoos.read_zoo(tmp_path))
    assert console.main(["measure", f"--zoo={tmp_path}"]) == 2
    assert "--zoo needs --data=NAME and --csv=FILE" in capsys.readouterr().err
    assert console.main(["measure"]) == 2 and "or --zoo=DIR" in capsys.readouterr().err
