"""Records, CSV files and PGDL files to read tables from."""

import json

import numpy as np

PARTS = ("hyperparameters", "measures", "targets", "confounders")


def record(
    depth,
    width,
    seed,
    *,
    status="converged",
    reason="",
    gap=0.1,
    prunability=0.5,
    accuracies=(1.0, None),
    sizes=(1000, 797),
    **extra,
):
    train, test = accuracies
    test = {"loss": 0.7, "accuracy": 1 - gap if test is None else test} if status != "diverged" else None
    train = {"loss": 0.01, "accuracy": train}
    for split, size in zip((train, test), sizes, strict=True):
        if size and split:
            split["size"] = size
    return {
        "name": f"depth={depth},width={width},seed={seed}",
        "point": {"model.depth": depth, "model.width": width, "train.batch_size": 32, "seed": seed} | extra,
        "axes": ["model.depth", "model.width", "seed"],
        "status": status,
        "reason": reason,
        "train": train,
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
