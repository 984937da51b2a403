# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One thread per process: threads of several tests would wait for each other.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

.PHONY: demo test slow check docs bench clean
.DEFAULT_GOAL := help

help:            ## list the targets
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.package: pyproject.toml hatch_build.py $(wildcard src/secateurs/realise/*/*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: $(VENV)/.package
	$(BIN)/python -m pip install --quiet --editable '.[test,timm,export]'
	touch $@

$(VENV)/.check: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[check,docs]'
	touch $@

demo: $(VENV)/.package   ## train, prune, measure and report on embedded data
	$(BIN)/secateurs demo --out demo-run

test: $(VENV)/.test      ## run the tests and doctests
	$(PYTEST) -n auto

slow: $(VENV)/.test      ## run the reproductions that take minutes
	$(PYTEST) -m slow

check: $(VENV)/.check    ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -n auto

docs: $(VENV)/.check     ## build the reference pages into site/
	$(BIN)/pdoc --docformat google --output-directory site secateurs '!secateurs.*_test'

bench: $(VENV)/.test     ## time the library against its alternatives
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python bench/speed.py

clean:           ## remove what the other targets made
	rm -rf $(VENV) demo-run site build dist

.PHONY: fuzz
fuzz: $(VENV)/.test      ## damage files for ten minutes and read them
	$(BIN)/python -m secateurs.realise.coding.fuzz --seconds 600

SPARSE := src/secateurs/realise/sparse
CHECK := -std=gnu11 -pthread $(SPARSE)/kernels_check.c -lm

.PHONY: sanitize arm
sanitize:        ## check the sparse kernels for memory errors
	mkdir -p build
	$(or $(CC),cc) -O0 -g -fsanitize=address,undefined -fno-sanitize-recover=all $(CHECK) -o build/check-sanitized
	build/check-sanitized 300

arm:             ## cross-compile the C files for ARM and check the kernels under emulation
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet ziglang
	mkdir -p build
	$(BIN)/python -m ziglang cc -target aarch64-linux-gnu -O3 -std=gnu11 -shared -fPIC -pthread \
		src/secateurs/realise/coding/coder.c -o build/coder-arm.so
	$(BIN)/python -m ziglang cc -target aarch64-linux-gnu -O3 -std=gnu11 -shared -fPIC -pthread \
		$(SPARSE)/kernels.c -o build/kernels-arm.so
	$(BIN)/python -m ziglang cc -target aarch64-linux-musl -O2 -static $(CHECK) -o build/check-arm
	qemu-aarch64-static build/check-arm 100
