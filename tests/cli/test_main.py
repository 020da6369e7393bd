"""The command `prunegen`, and the configs that come with the package: the same from a checkout and installed."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import prunegen_jax
from prunegen_jax import judging, report
from prunegen_jax.cli import main as console
from prunegen_jax.runs import configs as shipped
from prunegen_jax.runs import tables
from tests.support import installed, report_cases

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A judged workdir without runs behind it."""
    folder = tmp_path_factory.mktemp("judged")
    table = report_cases.table(12, 3)
    tables.write_csv(table, folder / "results.csv")
    judging.write(judging.judge(table, draws=20, permutations=0, added_permutations=0, baseline_draws=0), folder)
    return folder


@pytest.mark.parametrize("given", ["sweep", "sweep.py", "configs/sweep.py"])
def test_a_shipped_config_goes_by_its_name(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.find(given) == str(ROOT / "configs" / "sweep.py")
    assert shipped.find(f"{given}:smoke") == f"{ROOT / 'configs' / 'sweep.py'}:smoke"


def test_a_file_that_is_there_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.py").write_text("")
    assert shipped.find("sweep.py:x") == "sweep.py:x"
    assert shipped.find("sweep") == str(ROOT / "configs" / "sweep.py")
    for other in ("elsewhere/sweep.py", "nothing", "nothing.py:x", str(tmp_path / "missing" / "sweep.py")):
        assert shipped.find(other) == other


def test_shipped_configs_from_python():
    assert set(shipped.names()) >= {"default", "sweep"}
    assert len(prunegen_jax.get_config("sweep:smoke").sweep.axes) == 3
    assert len(prunegen_jax.get_config("sweep").sweep.axes) == 5
    with pytest.raises(ValueError, match="config 'sweeep' is unknown; choose among cifar10, default, "):
        shipped.get_config("sweeep")
    with pytest.raises(ValueError, match="smok is unknown; choose among digits, smoke"):
        shipped.get_config("sweep:smok")


@pytest.fixture
def laid_out(tmp_path):
    """The command as an installation lays it out: the package elsewhere, its configs inside, a script in `bin`."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "prunegen_jax", tmp_path / "site" / "prunegen_jax", ignore=ignored)
    shutil.copytree(ROOT / "configs", tmp_path / "site" / "prunegen_jax" / "experiments" / "configs", ignore=ignored)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "prunegen"
    script.write_text("import sys\n\nfrom prunegen_jax.cli.main import main\n\nsys.exit(main())\n")
    variables = os.environ | {"PYTHONPATH": str(tmp_path / "site")}

    def call(*arguments):
        command = [sys.executable, str(script), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    return call


def test_run_is_run_py(laid_out, tmp_path):
    """From another folder, with a neighbour of the config and a shipped one imported by it."""
    (tmp_path / "mine.py").write_text(
        "from configs import default\nimport neighbour\n\n\ndef get_config():\n    config = default.get_config()\n"
        "    config.measures.names = neighbour.NAMES\n    return config\n"
    )
    (tmp_path / "neighbour.py").write_text("NAMES = ('prunabilty',)\n")
    for config, sentence in (("mine.py", "measure 'prunabilty' is unknown"), ("sweep:x", "sweep.py:x is unknown")):
        done = laid_out("run", f"--config={config}", "--workdir=w")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(sentence) and len(done.stderr.splitlines()) == 1
    done = laid_out("run", "--config", "sweep:y", "--workdir=w")
    assert done.stderr.startswith("sweep.py:y is unknown")
    done = laid_out("run", "--config", "nothing", "--workdir=w")
    assert done.returncode == 2
    assert (
        "there is no file 'nothing'; --config takes a Python file with get_config(), or one of cifar10, default, "
        in done.stderr
    )


def test_judge_is_the_module(workdir, tmp_path):
    arguments = ["results.csv", "--target=gap", "--draws=20", "--permutations=0", "--added-permutations=0"]

    def judge(module, out):
        command = [sys.executable, "-m", *module, *arguments, f"--out={tmp_path / out}"]
        variables = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=workdir, env=variables, capture_output=True, text=True, check=True)

    ours, theirs = judge(["prunegen_jax", "judge"], "a"), judge(["prunegen_jax.judging"], "b")
    assert "prunability" in ours.stdout
    assert ours.stdout == theirs.stdout.replace(str(tmp_path / "b"), str(tmp_path / "a"))
    assert (tmp_path / "a" / "verdict.json").read_bytes() == (tmp_path / "b" / "verdict.json").read_bytes()


def test_report_is_made_again(workdir, capsys):
    page = workdir / "report" / "index.html"
    page.unlink(missing_ok=True)
    assert console.main(["report", str(workdir)]) == 0
    assert capsys.readouterr().out == f"report: {page}\n"
    assert page.stat().st_size > 100_000


def test_what_does_not_fit_is_one_sentence(tmp_path, capsys):
    for arguments, sentence in (
        ([], "a command is missing; choose among run, measure, judge, report"),
        (["jugde"], "unknown command 'jugde'; choose among run, measure, judge, report"),
        (["report", str(tmp_path)], f"{tmp_path} "),
        (["judge", "nothing.csv"], "there is no file 'nothing.csv'"),
    ):
        assert console.main(arguments) == 2
        told = capsys.readouterr()
        assert told.err.startswith(sentence) and told.out == ""


def test_the_person_says_where_the_report_finds_data(workdir, monkeypatch, capsys):
    given = {}
    monkeypatch.setattr(report, "write", lambda folder, **options: given.update(options) or "page")
    assert console.main(["report", str(workdir), "--data_dir=/sets", "--cache_dir=/cache"]) == 0
    assert given == {"make_curves": True, "data_dir": "/sets", "cache_dir": "/cache"}
    assert console.main(["report", str(workdir), "--no-curves"]) == 0
    assert given == {"make_curves": False, "data_dir": None, "cache_dir": None}
    assert capsys.readouterr().out == "report: page\n" * 2


def test_a_terminal_obeys_no_file(workdir, monkeypatch, capsys):
    def write(folder, **options):
        raise ValueError("the column 'a\x1b[2J\x9b1m\r' is not ours – b")

    monkeypatch.setattr(report, "write", write)
    assert console.main(["report", str(workdir)]) == 2
    assert capsys.readouterr().err == "the column 'a\ufffd[2J\ufffd1m ' is not ours – b\n"


def test_help_and_version(capsys):
    assert console.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"prunegen {command} " in told for command in ("run", "measure", "judge", "report"))
    assert console.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == prunegen_jax.__version__


@pytest.mark.document
def test_installed_outside_of_the_checkout(tmp_path):
    """`prunegen` of an installed package trains, measures, judges and reports a shipped config in an empty folder."""
    variables, folder = installed.install(tmp_path), tmp_path / "empty"
    folder.mkdir()
    command = ["prunegen", "run", "--config=configs/sweep.py:smoke", "--workdir=w", "--config.judge.draws=20"]
    command += ["--config.measures.names=('parameter_norm','inverse_margin')"]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "w" / "report" / "index.html").exists()
    assert len((folder / "w" / "results.csv").read_text().splitlines()) == 9
    where = (
        "import prunegen_jax, prunegen_jax.runs.configs as s; print(prunegen_jax.__file__); print(s.FOLDER, s.names())"
    )
    done = subprocess.run(
        ["python", "-c", where], cwd=folder, env=variables, capture_output=True, text=True, check=True
    )
    assert all(line.startswith(str(tmp_path / "venv")) for line in done.stdout.splitlines())
    assert "'default'" in done.stdout and "'sweep'" in done.stdout
