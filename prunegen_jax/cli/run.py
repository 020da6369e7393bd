"""The command line of a sweep. For a wrong flag, config or workdir it prints one sentence and sets the exit status."""

from __future__ import annotations

import os
import sys
import time

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from prunegen_jax.runs import configs as shipped
from prunegen_jax.runs import processes

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "An experiment: a file such as configs/sweep.py, or the name of a config of the package.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder or bucket for records, checkpoints and the verdict.")
_STAGE = flags.DEFINE_list("stage", ["train", "measure", "judge", "report"], "Which stages to run, in this order.")
_EVERY = flags.DEFINE_float(
    "report_every", 0.0, "Seconds between refreshes of the report while the sweep runs; 0: none."
)
_EXECUTOR = flags.DEFINE_string("executor", "local", "Where networks are trained and measured: local or ray.")
_ADDRESS = flags.DEFINE_string(
    "ray_address", "", "Address of the Ray cluster; auto: the cluster that this machine belongs to."
)
_TIMING = flags.DEFINE_bool("timing", False, "Print at the end how long the parts of the command took.")
_SHARD = flags.DEFINE_string(
    "shard", "", "i/n: run only every n-th group of networks, starting with the i-th, counted from 0."
)


def main() -> None:
    """Runs the sweep that the command line describes; exits with one sentence and a status if something is wrong.

    The status is 2 for a wrong command or files that cannot be reached, 1 if some networks failed, 143 if SIGTERM and
    130 if Ctrl-C stopped it.
    """
    processes.open_streams()
    app.run(_run, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    shipped.make_importable()
    try:
        rest = flags.FLAGS(_with_shipped(argv))
    except flags.Error as error:
        _fail(
            str(error).strip().splitlines()[-1].removeprefix("ValueError: ")
            if "Traceback" in str(error)
            else str(error)
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a locked config refuses an override
        text = str(error).encode().decode("unicode_escape")  # ml_collections quotes a name and a sentence, twice
        text = text.strip("'").replace("'\n", ". ")
        _fail(f"invalid config override: {text}")
    for name, flag in (("--config", _CONFIG), ("--workdir", _WORKDIR)):
        if not flag.present:
            _fail(f"{name} is missing; try --config=sweep --workdir=runs/sweep")
    if not isinstance(_CONFIG.value, ConfigDict):  # ml_collections raises no error for a file that it cannot read
        path = flags.FLAGS["config"].config_filename
        known = ", ".join(shipped.names())
        problem = f"{path} cannot be read" if os.path.exists(path) else f"there is no file {path!r}"
        _fail(f"{problem}; --config takes a Python file with get_config(), or one of {known}")
    if len(rest) > 1:
        _fail(f"unknown flag {rest[1]!r}; write --name=value")
    return rest


def _with_shipped(argv: list[str]) -> list[str]:
    """The command line, with the name of a shipped config replaced by its path."""
    resolved = list(argv)
    for i, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag in {"--config", "-config"} and equals:
            resolved[i] = f"{flag}={shipped.find(value)}"
        elif flag in {"--config", "-config"} and i + 1 < len(argv):
            resolved[i + 1] = shipped.find(argv[i + 1])
    return resolved


def _run(argv: list[str]) -> None:
    started, begin = time.process_time(), time.monotonic()
    import jax  # noqa: PLC0415 - a wrong flag is reported before JAX is loaded

    from prunegen_jax.runs import driver, pipeline  # noqa: PLC0415
    from prunegen_jax.runs import points as sweeps  # noqa: PLC0415
    from prunegen_jax.runs.timing import Timing  # noqa: PLC0415

    del argv
    timing = Timing({"start": started, "imports": time.monotonic() - begin}, detailed=_TIMING.value)
    logging.set_verbosity(logging.ERROR)  # Orbax logs every save
    config = _CONFIG.value
    if _EXECUTOR.value == "ray":  # the accelerators of the driver's machine are for the workers there
        jax.config.update("jax_platforms", "cpu")
    try:
        lost = sweeps.overridden_axes(config, config_flags.get_override_values(flags.FLAGS["config"]))
        if lost:
            raise ValueError(f"--config.{lost[0]} would have no effect, because the sweep varies {lost[0]!r}")
        pipeline.run(
            config,
            _WORKDIR.value,
            stages=_STAGE.value,
            shard=_SHARD.value,
            report_every=_EVERY.value,
            executor=_EXECUTOR.value,
            address=_ADDRESS.value,
            source=os.path.abspath(flags.FLAGS["config"].config_filename.partition(":")[0]),
            timing=timing,
        )
    except (ValueError, OSError) as error:
        _fail(str(error))
    except driver.FailedError as error:
        _fail(f"{error}. Run the same command again to retry them", status=1)
    except processes.StoppedError as error:
        _fail(f"{error}; run the same command again to continue", status=processes.TERMINATED)
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to continue", status=130)
    finally:
        if _TIMING.value:
            print(timing.table(), file=sys.stderr)


def _fail(sentence: str, *, status: int = 2) -> None:
    from prunegen_jax.runs.tables.text_files import readable  # noqa: PLC0415 - it may quote a file, whose text is not for terminals

    print(readable(" ".join(sentence.split())), file=sys.stderr)
    sys.exit(status)
