# `make sweep` and `make test` need Python 3.11+ and nothing else of ours: they make .venv and install the pins.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: sweep smoke test check bench clean

$(READY): requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	touch $@

sweep: $(READY)
	$(RUN) run.py --config=configs/sweep.py --workdir=runs/sweep

smoke: $(READY)
	$(RUN) run.py --config=configs/sweep.py:smoke --workdir=runs/smoke

test: $(READY)
	$(RUN) -m pytest -n 2 --dist loadfile

# Slower, and in need of Chromium: the report in a browser.
check: $(READY)
	$(RUN) -m pytest -m browser

# The peers that the benchmarks compare with; DATA is where TFDS keeps its prepared sets.
bench: $(READY)
	$(RUN) -m pip install --quiet --requirement requirements-bench.txt
	PYTHONPATH=. $(RUN) benchmarks/judging.py
	PYTHONPATH=. $(RUN) benchmarks/prunability.py $(if $(DATA),--dir=$(DATA))
	PYTHONPATH=. $(RUN) benchmarks/curvature.py $(if $(DATA),--dir=$(DATA))

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache build *.egg-info
