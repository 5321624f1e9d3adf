# Two commands for people: `make app` and `make test`. Both set up what they need in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: app test lint types quick browser bench clean

app: $(VENV)/.app
	$(BIN)/streamlit run app.py

test: lint types $(VENV)/.chromium $(VENV)/.postgres
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check --no-cache .

types: $(VENV)/.dev
	$(BIN)/mypy

quick: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow and not browser"

bench: $(VENV)/.bench
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.app: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@ $(VENV)/.app

$(VENV)/.bench: requirements-bench.txt $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --requirement requirements-bench.txt
	touch $@

# The browser tests drive the system's chromium; where it is missing it is installed with apt.
$(VENV)/.chromium: $(VENV)/.dev
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium fonts-noto-cjk; } \
	  || { sudo apt-get update -qq && sudo apt-get install -y -qq chromium fonts-noto-cjk; }
	touch $@

# One test starts a PostgreSQL server of its own; it is skipped where none can be installed.
$(VENV)/.postgres: $(VENV)/.dev
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null \
	  || { apt-get update -qq && apt-get install -y -qq postgresql; } \
	  || { sudo apt-get update -qq && sudo apt-get install -y -qq postgresql; } || true
	touch $@

clean:
	rm -rf $(VENV) .cache/slimlab
