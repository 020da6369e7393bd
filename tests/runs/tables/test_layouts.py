"""Tables as other tools write them, with made-up values: every column plays its part without an option."""

import gzip
import json

import numpy as np
import pytest

from prunegen_jax.cli.judge import main
from prunegen_jax.runs.tables import read_csv
from tests.support.tables import write

QUICK = ["--draws=0", "--permutations=0", "--added-permutations=0", "--baseline-draws=0"]
ZOO = """config.activation,config.learning_rate,config.random_seed,config.dataset,modeldir,step,laststep,\
train_accuracy,train_loss,test_accuracy,test_loss,sharpness
relu,.1,7,mnist,/zoo/a,0,False,.1,2.3,.1,2.3,1
relu,.1,7,mnist,/zoo/a,86,True,.9,.3,.85,.5,3
tanh,.1,8,mnist,/zoo/b,86,True,.8,.5,.7,.9,4
tanh,.1,8,mnist,/zoo/b,0,False,.1,2.3,.1,2.3,1
relu,.2,9,mnist,/zoo/c,0,False,.1,2.3,.1,2.3,1
relu,.2,9,mnist,/zoo/c,86,True,.95,.2,.9,.4,5
"""
WANDB = """"Name","State","Notes","User","Created","Runtime","Sweep","learning_rate","optimizer","width","val/acc",\
"train_acc","path_norm","sharpness","_runtime"
"bold-sea-1","finished","-","me","2024-01-01T00:00:00","60","s1","0.1","sgd","8","0.8","0.9","1","5","60"
"deep-sky-2","crashed","-","me","2024-01-01T00:00:00","5","s1","0.1","adam","8","0.1","0.1","9","9","5"
"calm-sun-3","finished","-","me","2024-01-01T00:00:00","61","s1","0.2","sgd","16","0.7","1.0","2","6","61"
"""
OPTUNA = """,number,value,datetime_start,datetime_complete,duration,params_lr,params_opt,user_attrs_sharpness,state
0,0,.31,2024-01-01,2024-01-01,0 days,.1,sgd,5,COMPLETE
1,1,,2024-01-01,,0 days,.2,sgd,9,PRUNED
2,2,.25,2024-01-01,2024-01-01,0 days,.3,adam,4,COMPLETE
"""
MLFLOW = """run_id,experiment_id,status,artifact_uri,start_time,end_time,params.lr,params.model,metrics.test_accuracy,\
metrics.train_accuracy,metrics.sharpness,tags.mlflow.user
r1,0,FINISHED,s3://x,1,2,.1,cnn,.8,.9,5,me
r2,0,FAILED,s3://x,1,2,.2,cnn,,,,me
r3,0,FINISHED,s3://x,1,2,.3,mlp,.7,1.0,6,me
"""
RGM = """hp.lr,hp.model_depth,hp.seed,is.converged,is.high_train_accuracy,complexity.l2,complexity.path_norm,gen.gap
.1,2,0,True,True,1,5,.2
.2,2,0,False,True,2,6,.3
.3,3,0,True,True,3,7,.1
"""
OURS = """name,status,hp.model.width,hp.seed,prunability,gap,test_error,confounder.train_loss,test_size
a,converged,8,0,.5,.1,.2,.01,100
b,diverged: nan,8,1,,,,,100
c,converged,16,0,.4,.2,.3,.01,100
"""
# name of the layout, text, hyperparameters, measures, targets, gap, models left out
LAYOUTS = {
    "Small CNN Zoo": (ZOO, ["activation", "learning_rate", "seed"], ["train_loss", "sharpness"],
                      ["gap", "test_error", "test_loss"], [0.05, 0.1, 0.05], []),
    "W&B": (WANDB, ["learning_rate", "optimizer", "width"], ["path_norm", "sharpness"], ["gap", "test_error"],
            [0.1, 0.3], ["crashed"]),
    "Optuna": (OPTUNA, ["lr", "opt"], ["sharpness"], ["value"], None, ["PRUNED"]),
    "MLflow": (MLFLOW, ["lr", "model"], ["sharpness"], ["gap", "test_error"], [0.1, 0.3], ["FAILED"]),
    "robust-generalization-measures": (RGM, ["lr", "model_depth", "seed"], ["l2", "path_norm"], ["gap"], [0.2, 0.1],
                                       ["False"]),
    "prunegen_jax": (OURS, ["model.width", "seed"], ["prunability"], ["gap", "test_error"], [0.1, 0.2],
                     ["diverged: nan"]),
}  # fmt: skip


def test_an_export_of_wandb_with_few_columns(tmp_path):
    """A table of W&B is exported with the columns that are shown: all others can be hidden."""
    text = "Name,State,lr,width,test/acc,train/acc,grad_norm\nsea,finished,.1,8,.8,.9,1\nsun,crashed,.2,16,.7,.9,2\n"
    table = read_csv(write(tmp_path / "table.csv", text))
    assert list(table.hyperparameters) == ["lr", "width"] and list(table.measures) == ["grad_norm"]
    lower = read_csv(write(tmp_path / "lower.csv", text.replace("Name,State", "name,state")))
    assert not lower.hyperparameters and list(lower.measures) == ["lr", "width", "grad_norm"]
    assert "taken as hyperparameters: none; name the columns that were varied (hyperparameters=" in str(lower.notes)


def test_an_unnamed_column_is_not_listed(tmp_path):
    notes = read_csv(write(tmp_path / "table.csv", OPTUNA)).notes
    assert "columns ignored, as they do not describe a model: datetime_start, datetime_complete, duration" in notes


@pytest.mark.parametrize("name", LAYOUTS)
def test_everything_is_found(name, tmp_path, capsys):
    text, hyperparameters, measures, targets, gap, left_out = LAYOUTS[name]
    path = write(tmp_path / "table.csv", text)
    table = read_csv(path)
    assert table.notes[0].startswith(f"the table is recognised as one of {name}")
    assert list(table.hyperparameters) == hyperparameters and sorted(table.measures) == sorted(measures)
    assert sorted(table.targets) == targets
    if gap:
        np.testing.assert_allclose(table.targets["gap"], gap, atol=1e-12)
    assert [reason for _, reason in table.left_out] == left_out
    assert main([str(path), *QUICK]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"note: the table is recognised as one of {name}")


def test_columns_may_be_named_as_the_file_names_them(tmp_path):
    path = write(
        tmp_path / "trials.csv", OPTUNA.replace("user_attrs_sharpness", "user_attrs_sharpness,user_attrs_cost")
    )
    path.write_text(path.read_text().replace(",5,", ",5,7,").replace(",9,", ",9,8,").replace(",4,", ",4,9,"))
    table = read_csv(path, target="user_attrs_cost", hyperparameters="params_*", measures="user_attrs_sharp*")
    assert list(table.targets) == ["cost"] and list(table.hyperparameters) == ["lr", "opt"]
    assert list(table.measures) == ["sharpness"]
    with pytest.raises(ValueError, match="no column matches 'params_width'"):
        read_csv(path, hyperparameters="params_width")


def test_steps_of_a_training_are_one_model(tmp_path):
    path = tmp_path / "metrics.csv.gz"
    path.write_bytes(gzip.compress(ZOO.encode()))
    last, first = read_csv(path), read_csv(path, step=0)
    assert last.names == first.names == ("/zoo/a", "/zoo/b", "/zoo/c")
    assert last.measures["sharpness"].tolist() == [3, 4, 5] and first.measures["sharpness"].tolist() == [1, 1, 1]
    assert "6 rows are steps of training runs: the last of each is judged, 3 models" in last.notes
    with pytest.raises(ValueError, match=r"--step=3: no row has this value in the column 'step'"):
        read_csv(path, step=3)
    with pytest.raises(ValueError, match=r"--step=3: the table does not have several steps"):
        read_csv(write(tmp_path / "t.csv", RGM), step=3)


def test_folder_of_a_model_zoo(tmp_path, capsys):
    """params.json and a line of JSON for each epoch; the last line may be cut off."""
    for i in range(4):
        folder = tmp_path / "zoo" / f"NN_tune_{i}"
        folder.mkdir(parents=True)
        (folder / "params.json").write_text(json.dumps({"optim::lr": 0.1 * (i % 2), "model::nlin": "tanh", "seed": i}))
        lines = [
            {"train_acc": 0.5 + epoch / 20, "test_acc": 0.5 + epoch / 30 - i / 100, "train_loss": 1 / epoch + i,
             "test_loss": 2 / epoch, "ggap": 0.1, "training_iteration": epoch, "time_total_s": 3.0, "trial_id": "x"}
            for epoch in (1, 2, 3)
        ]  # fmt: skip
        (folder / "result.json").write_text("\n".join(map(json.dumps, lines)) + '\n{"train_a')
        (folder / "checkpoint.pkl").write_bytes(b"never read")
    table = read_csv(tmp_path / "zoo")
    assert table.notes[0].startswith("the table is recognised as one of model zoo (Schürholt")
    assert sorted(table.hyperparameters) == ["model::nlin", "optim::lr", "seed"]
    assert list(table.measures) == ["train_loss"] and sorted(table.targets) == ["gap", "test_error", "test_loss"]
    np.testing.assert_allclose(table.targets["gap"], [0.05 + i / 100 for i in range(4)], atol=1e-12)
    assert table.names == tuple(f"NN_tune_{i}" for i in range(4))
    np.testing.assert_allclose(read_csv(tmp_path / "zoo", step=1).measures["train_loss"], [1, 2, 3, 4])
    assert main([str(tmp_path / "zoo"), *QUICK]) == 0 and "model zoo" in capsys.readouterr().out


def test_pgdl_finds_its_predictions(tmp_path, capsys):
    configs = {
        str(i): {
            "hparams": {"depth": {"current_value": i % 2}, "width": {"current_value": i // 2}},
            "metrics": {"train_acc": 1.0, "test_acc": 0.8 - i / 100},
        }
        for i in range(4)
    }
    (tmp_path / "model_configs.json").write_text(json.dumps(configs))
    (tmp_path / "norm.predict").write_text(json.dumps({str(i): i * 1.5 for i in range(4)}))
    assert main([str(tmp_path / "model_configs.json"), *QUICK]) == 0
    assert "PGDL task with 4 models, axes depth, width; measures norm" in capsys.readouterr().out


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"hp.lr": [0.1, 0.2], "sharpness": [1.0, None], "gap": [0.1, 0.3], "hp.opt": ["sgd", "adam"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    table = read_csv(tmp_path / "t.parquet")
    assert list(table.hyperparameters) == ["lr", "opt"] and table.targets["gap"].tolist() == [0.1, 0.3]
    assert np.isnan(table.measures["sharpness"][1])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read_csv(tmp_path / "bad.parquet")


@pytest.mark.parametrize("content", [gzip.compress(ZOO.encode())[:-20], b"\x1f\x8b\x08\x00junkjunkjunk"])
def test_damaged_gzip(tmp_path, content):
    (tmp_path / "t.csv.gz").write_bytes(content)
    with pytest.raises(ValueError, match="is not a complete gzip file"):
        read_csv(tmp_path / "t.csv.gz")


def test_options_may_be_repeated(tmp_path, capsys):
    path = write(tmp_path / "t.csv", "width,depth,sharpness,norm,drop\n1,2,3,4,5\n2,2,5,4,6\n3,2,1,2,4\n")
    arguments = ["--target=drop", "--hyperparameters=width", "--hyperparameters=depth", "--measures=sharp*"]
    assert main([str(path), *arguments, "--measures=norm", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "taken as hyperparameters: width, depth" in out and "taken as measures: sharpness, norm" in out
