# `make sweep` and `make test` need Python 3.11+ and nothing else of ours: they make .venv and install the pins.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
CHECKED := $(VENV)/.checked

.PHONY: sweep smoke test check faults docs bench clean

$(READY): requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	touch $@

$(CHECKED): $(READY) requirements-check.txt
	$(RUN) -m pip install --quiet --requirement requirements-check.txt
	touch $@

sweep: $(READY)
	$(RUN) run.py --config=configs/sweep.py --workdir=runs/sweep

smoke: $(READY)
	$(RUN) run.py --config=configs/sweep.py:smoke --workdir=runs/smoke

test: $(READY)
	$(RUN) -m pytest -n 2 --dist loadfile

# The notebooks, the code of the documentation, and the report in a browser: slower, and in need of Chromium.
check: $(CHECKED)
	$(RUN) -m pytest -n 2 --dist worksteal -m "browser or document or notebook"

# Kills, stops, fills and damages what sweeps run on, Ray's nodes too.
faults: $(CHECKED)
	$(RUN) -m pytest -n 2 --dist load -m faults

docs: $(CHECKED)
	$(RUN) -m sphinx -W --keep-going -q -b html docs docs/_build

# The peers that the benchmarks compare with; DATA is where TFDS keeps its prepared sets.
bench: $(CHECKED)
	$(RUN) -m pip install --quiet --requirement requirements-bench.txt
	for name in convolutions training sweep scaling report judging; do PYTHONPATH=. $(RUN) benchmarks/$$name.py || exit 1; done
	for name in prunability curvature; do PYTHONPATH=. $(RUN) benchmarks/$$name.py $(if $(DATA),--dir=$(DATA)) || exit 1; done

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache build docs/_build *.egg-info
