# `make demo` runs the main job, `make test` the tests; both set up .venv first, with the versions of
# constraints.txt. `make demo CONSTRAINTS=` takes the newest version of everything, in .venv-newest.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV ?= $(if $(CONSTRAINTS),.venv,.venv-newest)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test checked types figures docs notebooks bench truth lock matrix clean

demo: $(STAMP)
	$(BIN)/brewlens run

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder -m "not slow and not accelerator"

# Annotations checked as tests run, each test once; without what generates or trains much: two minutes on two cores.
checked: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --checked --once -n auto --dist loadscope -m "not slow and not accelerator" \
	  tests/stats tests/decoding tests/intervention tests/lifecycle/test_lifecycle.py tests/lifecycle/test_onsets.py \
	  tests/lifecycle/test_signals.py tests/lifecycle/test_paper.py tests/tasks/test_own_family.py tests/tasks/test_sources.py \
	  tests/test_model.py tests/test_capturing.py tests/test_injection_taps.py tests/test_pieces.py \
	  --deselect tests/intervention/test_learned.py::TestPlanted

types: $(STAMP)
	$(BIN)/pyright

# Every figure of README and docs, from docs/run and benchmarks/results: the same bytes each time.
figures: $(STAMP)
	$(BIN)/python -m docs.draw

docs: $(STAMP)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# The notebooks with their outputs, for those who read them without running them.
notebooks: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python -m notebooks.render

# About ten minutes on two cores; let the machine do nothing else meanwhile.
bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Simulated nulls, planted models, coverage: about forty minutes on two cores.
truth: $(STAMP)
	$(BIN)/python -m benchmarks.truth

# The exact versions of everything but torch, renewed; then what changed.
lock: $(STAMP)
	cp constraints.txt $(VENV)/constraints.before
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --quiet \
	  --override .ci/no-torch.txt --no-annotate --custom-compile-command "make lock" --output-file constraints.txt
	@diff $(VENV)/constraints.before constraints.txt | grep '^[<>]' || echo "nothing changed"

# The suite on the lowest, the locked and the newest set, each in an environment of its own.
matrix:
	$(PYTHON) .ci/matrix.py $(ROWS)

# Without torch, the small CPU build; a torch that is there is left alone. Of CPU builds, 2.13.0 is tested.
$(STAMP): pyproject.toml brewlens/__init__.py $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -c "import torch; print(f'torch=={torch.__version__}')" > $(VENV)/torch.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/torch.txt $(CONSTRAINTS:%=--constraint %) -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf .venv .venv-newest .matrix runs
