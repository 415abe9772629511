# Two commands: `make demo` (nothing to a report) and `make test`; `make real PTBXL=DIR` is the demo on real records,
# `make nano` trains anew the model that ships.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo real nano test check words docs clean

# torch goes first and alone: with a CPU build at hand the rest then finds it satisfied and pulls no CUDA build.
.venv/.complete: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/.complete
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash demo.sh

real: .venv/.complete
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash real.sh "$(PTBXL)"

nano: .venv/.complete
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash nano.sh

test: .venv/.complete
	$(BIN)/python -m pytest

check: .venv/.complete
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Names in the field's standard words: bare participles and public names with two homes are counted.
words: .venv/.complete
	$(BIN)/python benchmarks/words.py

# The API pages from the docstrings, with results and log: site/index.html.
docs: .venv/.complete
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs]"
	$(BIN)/mkdocs build

clean:
	rm -rf .venv runs site
