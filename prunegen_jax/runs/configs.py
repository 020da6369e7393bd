"""The configs that come with the package, found by name wherever it was installed."""

from __future__ import annotations

import pathlib
import runpy
import sys

from ml_collections import ConfigDict

_PACKAGE = pathlib.Path(__file__).parents[1]
# An installed package holds `experiments/configs`; in a checkout `configs` is next to the package.
FOLDER = (_PACKAGE / "experiments" if (_PACKAGE / "experiments").is_dir() else _PACKAGE.parent) / "configs"


def names() -> list[str]:
    """The names of the shipped configs, which `find` and `get_config` take."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def find(config: str) -> str:
    """The file that `config`, a path or a name with or without `:variant`, stands for.

    A file that exists is taken as it is. Otherwise `sweep`, `sweep.py` and `configs/sweep.py` all stand for the shipped
    config of that name; anything else is returned unchanged, and fails when it is read.
    """
    path, colon, variant = config.partition(":")
    shipped = FOLDER / f"{pathlib.PurePath(path).stem}.py"
    is_name = pathlib.PurePath(path).parent.name in {"", "configs"} and shipped.is_file()
    return config if pathlib.Path(path).is_file() or not is_name else f"{shipped}{colon}{variant}"


def get_config(config: str = "sweep") -> ConfigDict:
    """The shipped config `name` or `name:variant`, such as "sweep:smoke", to change and to give to `pipeline.run`.

    Raises:
        ValueError: for a name that is not among `names()`, or a variant that the config does not know.
    """
    name, _, variant = config.partition(":")
    if name not in names():
        raise ValueError(f"config {name!r} is unknown; choose among {', '.join(names())}")
    make_importable()
    made = runpy.run_path(str(FOLDER / f"{name}.py"))["get_config"]
    return made(variant) if variant else made()


def make_importable() -> None:
    """Lets `from configs import default` find the shipped configs, after any other `configs` folder."""
    if str(FOLDER.parent) not in sys.path:
        sys.path.append(str(FOLDER.parent))
