# Two commands do everything on a fresh machine: `make demo` and `make test`. Both make their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEMO := $(VENV)/.ready-demo
SHELL := bash
LOGS ?= logs
PYTEST_N ?= 4

.PHONY: demo demo-script demo-real incident test test-full test-minimum lint types pytest docs format snapshots bench clean

# what a demo needs: the daemon's packages. What the tests need comes with `make test`. Without a graphics card, torch
# from this address is a tenth of the size: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
define venv
	@$(PYTHON) -c 'import sys; sys.exit("eegwatch needs Python >= 3.11, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || { echo "1/2 making the environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
endef
PIP = $(BIN)/pip install --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# one line a package, as it comes: minutes of silence look like a failure
SHOWN = awk '/^Collecting|^  Downloading|^Installing|^ERROR|^WARNING/ { sub(/^ +/, ""); print substr($$0, 1, 110); fflush() }'

$(READY_DEMO): pyproject.toml constraints.txt
	$(venv)
	@echo "2/2 installing what a demo needs"
	@set -o pipefail; $(PIP) -e '.[daemon]' 2>&1 | $(SHOWN)
	@touch $@

$(READY): pyproject.toml constraints.txt
	$(venv)
	@echo "2/2 installing what the tests need"
	@set -o pipefail; $(PIP) -e '.[daemon,dev]' 2>&1 | $(SHOWN)
	@touch $@ $(READY_DEMO)

demo: $(READY_DEMO)  ## train the demo and watch it
	@$(BIN)/python -m eegpt_daemon.demo configs/demo.yaml --logs $(LOGS)
	@test -t 1 || { $(BIN)/eegpt-daemon status --logs $(LOGS); echo; }
	@$(BIN)/eegwatch $(LOGS) --wait-steps 60

incident: $(READY_DEMO)  ## the historical bug, on purpose
	@$(BIN)/python -m eegpt_daemon.demo configs/incident.yaml --logs $(LOGS)
	@$(BIN)/eegwatch $(LOGS) --wait-steps 60

demo-script: $(READY_DEMO)  ## a training script of a user's under the daemon
	@$(BIN)/python -m eegpt_daemon.demo configs/script_example.yaml --logs $(LOGS)
	@$(BIN)/eegwatch $(LOGS) --wait-steps 60

demo-real: $(READY_DEMO)  ## the same on real, labelled EEG, fetched by name
	@$(BIN)/python -m eegpt_daemon.data.scp1 ~/.cache/eegwatch/scp1
	@$(BIN)/python -m eegpt_daemon.demo configs/real_scp1.yaml --logs $(LOGS)
	@$(BIN)/eegwatch $(LOGS) --wait-steps 60
	@$(BIN)/python -m eegpt_daemon.demo_report configs/real_scp1.yaml --logs $(LOGS)

test: lint types pytest  ## everything that CI runs

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@$(BIN)/mypy

# more than there are cores: most of the end-to-end tests wait for a daemon, and those of the screen for a screen
pytest: $(READY)
	@$(BIN)/pytest -n $(PYTEST_N) --dist worksteal --durations=10 $(PYTEST_ARGS)

test-full: lint types  ## every crash point under every command too: half an hour more
	@EEGWATCH_FULL=1 $(BIN)/pytest -n 2 --dist worksteal

format: $(READY)  ## let ruff put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

snapshots: $(READY)  ## accept the screens as they are now
	@$(BIN)/pytest tests/tui --snapshot-update

clean:
	rm -rf $(VENV) $(VENV)-minimum build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

docs: $(VENV)/.ready-docs  ## the pages of docs/ as a site in build/site, links checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/site
	@echo "build/site/index.html"

$(VENV)/.ready-docs: $(READY)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

test-minimum:  ## the unit tests with the oldest versions that pyproject.toml admits
	@$(PYTHON) -m venv $(VENV)-minimum
	@$(VENV)-minimum/bin/pip install --quiet --disable-pip-version-check -c constraints-minimum.txt -e '.[daemon,minimum]'
	@$(VENV)-minimum/bin/pytest tests/unit
