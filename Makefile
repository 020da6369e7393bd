# `make sweep` and `make test` need Python 3.11+ and nothing else: they make .venv, install the pins, and the checkout itself.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PINNED := $(VENV)/.pinned
READY := $(VENV)/.ready
CHECKED := $(VENV)/.checked
BENCHMARKS := convolutions training sweep scaling report judging growth zoo tpu
BENCHMARKS_ON_CIFAR10 := prunability curvature large
BENCHMARKS_ON_DEVICE := device

.PHONY: install sweep smoke test check networks table faults docs readme notebooks bench bench-device bench-smoke clean

$(PINNED): requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	touch $@

# The package itself, as an editable install. It needs no network: setuptools is among the pins.
$(READY): $(PINNED) setup.cfg setup.py
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(CHECKED): $(READY) requirements-check.txt
	$(RUN) -m pip install --quiet --requirement requirements-check.txt
	touch $@

install: $(READY)

sweep: $(READY)
	$(RUN) run.py --config=configs/sweep.py --workdir=runs/sweep

smoke: $(READY)
	$(RUN) run.py --config=configs/sweep.py:smoke --workdir=runs/smoke

# Tests on eight host devices need a process of their own: JAX fixes the number of devices once.
test: $(READY)
	$(RUN) -m pytest -n 2 --dist loadfile
	$(RUN) -m pytest -m devices

# Notebooks, the code of the documentation, all measures of many kinds of networks, benchmarks in short, the report in a
# browser: slower, and need Chromium.
check: $(CHECKED)
	$(RUN) -m pytest -n 2 --dist worksteal -m "benchmark or browser or document or networks and not slow or notebook"

# All measures of every kind of network that the tests have: an hour.
networks: $(READY)
	$(RUN) -m pytest -n 2 --dist load -m networks

# What is missing in the table of measures and networks, docs/networks.csv: an hour for all of it.
table: $(READY)
	$(RUN) -m docs.make_table

# Kills, stops, fills and damages what sweeps run on, Ray's nodes too.
faults: $(CHECKED)
	$(RUN) -m pytest -n 2 --dist load -m faults

# Installs only where the generator is missing: the pages need nothing else.
docs:
	$(RUN) -c "import furo, myst_parser, sphinx" 2>/dev/null || $(MAKE) $(CHECKED)
	$(RUN) -m sphinx -W --keep-going -q -b html docs docs/_build

# The verdict and the picture in README.md, from a sweep; the picture needs Chromium.
readme: sweep
	$(RUN) docs/make_readme.py runs/sweep

# Runs the notebooks and keeps their outputs, to be read on the web.
notebooks: $(CHECKED)
	$(RUN) docs/make_notebooks.py

# The peers that the benchmarks compare with; DATA is where TFDS keeps its prepared sets.
bench: $(CHECKED)
	$(RUN) -m pip install --quiet --requirement requirements-bench.txt
	$(RUN) -m pytest tests/measures/test_curvature_of_pytorch.py
	for name in $(BENCHMARKS); do $(RUN) benchmarks/$$name.py || exit 1; done
	for name in $(BENCHMARKS_ON_CIFAR10); do $(RUN) benchmarks/$$name.py $(if $(DATA),--dir=$(DATA)) || exit 1; done

# All that depends on the device, in nine minutes: with the JAX that is there, a GPU's or a TPU's for example.
bench-device:
	PYTHONPATH=. $(if $(wildcard $(RUN)),$(RUN),$(PYTHON)) benchmarks/$(BENCHMARKS_ON_DEVICE).py --out=$(or $(OUT),device.json)

# Every benchmark in seconds, without the peers that are not installed.
bench-smoke: $(CHECKED)
	$(RUN) -m pytest -m benchmark --durations=0

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache build docs/_build *.egg-info
