# One word per act. PYTHON chooses the interpreter the virtual environment is made from.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup demo test test-promise test-all check format docs bench curves mutants gpu-wheels clean

help:
	@echo "make demo         train the embedded data set (about 3 minutes on 2 cores) and say where to look"
	@echo "make test         the tests, without those that take about ten seconds or more each"
	@echo "make test-promise slow tests of what must never break: kills, ranks, servers that go away"
	@echo "make test-all     all tests"
	@echo "make check        format, lint, types, import rules"
	@echo "make docs         the documentation as a site in build/site, with the notebooks' outputs (they are run: some minutes)"
	@echo "make bench        what is claimed about speed, measured"
	@echo "make curves       record learning curves that the sweeper's rules are tried on (hours; goes on where it stopped)"
	@echo "make mutants      small bugs put into copies of the code: how many do the tests notice? (at most 90 minutes)"
	@echo "make gpu-wheels   what must travel to a GPU machine without a network (docs/gpu.md)"
	@echo "make setup        only the virtual environment in .venv"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'winnow needs Python 3.11 or newer, this is ' + sys.version.split()[0])"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python train.py hydra.run.dir=outputs/demo/$$(date +%Y-%m-%d_%H-%M-%S)
	@echo
	@echo "Compare runs in the browser:   $(BIN)/winnow ui"
	@echo "It prints the address of MLflow's page; the run folder printed above holds the log, report.html and checkpoints."

# One thread per process: two test processes with a thread pool each would wait for one another. With bytecode, for the tests
# start hundreds of processes, and without it each compiles winnow first. In the order of tests/conftest.py: long files first.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: setup
	$(PYTEST) -m "not slow and not gpu"

test-promise: setup
	$(PYTEST) -m "promise and not gpu"

test-all: setup
	$(PYTEST) -m "not gpu"

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup $(patsubst notebooks/%,build/notebooks/%,$(wildcard notebooks/*.ipynb))
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "open build/site/index.html, or, to search in it: $(BIN)/python -m http.server --directory build/site"

# A notebook with its outputs, for the site; notebooks/ keeps none. It runs beside what it makes, in build/notebooks.
build/notebooks/%.ipynb: notebooks/%.ipynb
	@mkdir -p $(@D)
	@cp $< $@
	$(BIN)/python -m pytest --quiet -p no:cacheprovider --nbmake --overwrite --nbmake-timeout=600 $@ || (rm -f $@; exit 1)

bench: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@for file in $(filter-out benchmarks/mutants.py,$(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

# A sample of 300; MUTANTS='--seed 1' draws another, MUTANTS=--all takes them all. What was tried is kept in .mutants/.
mutants: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py $(MUTANTS)

# What winnow needs and the GPU machine lacks, as wheels for its Python; at most 50 MB.
curves: setup
	$(BIN)/python benchmarks/curves/record.py

gpu-wheels: setup
	$(BIN)/python benchmarks/gpu_parts/wheels.py .gpu-wheels

clean:
	rm -rf .gpu-wheels .mutants .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build
