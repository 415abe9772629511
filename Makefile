# Two commands: `make demo` (nothing to a report) and `make test`; `make real PTBXL=DIR` is the demo on real records
# (PTBXL="DIR DIR": on those of several folders), `make comparison PTBXL=DIR` sets every comparison system beside it,
# `make nano` trains anew the model that ships.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo real comparison nano test cluster check words docs crashes kills faults fuzz mutants licences wheel sbom lock audit clean

# torch goes first and alone: with a CPU build at hand the rest then finds it satisfied and pulls no CUDA build.
.venv/.complete: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/.complete
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash demo.sh

real: .venv/.complete
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash real.sh $(PTBXL)

comparison: .venv/.complete
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash comparison.sh $(PTBXL)

nano: .venv/.complete
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash nano.sh

# In two processes, a whole file of tests in one of them: its tests share what they make.
test: .venv/.complete
	$(BIN)/python -m pytest -n 2 --dist loadfile

# A Ray cluster of processes of this machine, which should have nothing else to do.
cluster: .venv/.complete
	ECG_VLM_CLUSTER_TESTS=1 $(BIN)/python -m pytest tests/test_cluster.py
	ECG_VLM_CLUSTER_TESTS=1 $(BIN)/python -m pytest tests/test_train.py -k sharded

check: .venv/.complete
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Names in the field's standard words: bare participles and public names with two homes are counted.
words: .venv/.complete
	$(BIN)/python benchmarks/words.py

# The process ends at every point where it opens, renames or removes a file, and goes on to the same bytes.
crashes: .venv/.complete
	rm -rf runs/crashes && mkdir -p runs/crashes
	$(BIN)/ecg-vlm render simulated runs/crashes/pages --limit 6 --width 784
	$(BIN)/python tests/crash_points.py 1 runs/crashes/a/out render simulated runs/crashes/a/out --limit 3 --shard-size 2
	$(BIN)/python tests/crash_points.py 1 runs/crashes/b/out render simulated runs/crashes/b/out --limit 3 --format llava
	$(BIN)/python tests/crash_points.py 1 runs/crashes/c/out evaluate nano --data runs/crashes/pages --out runs/crashes/c/out
	OMP_NUM_THREADS=1 $(BIN)/python tests/crash_points.py 1 runs/crashes/d/out $(FINETUNE) --out runs/crashes/d/out
	OMP_NUM_THREADS=1 $(BIN)/python tests/crash_points.py 1 runs/crashes/e/out $(BASELINE) --out runs/crashes/e/out

# The process is killed at random moments of its work and goes on to the same bytes; one thread adds up in one order.
FINETUNE = finetune quickstart data.train=runs/crashes/pages train.images_per_batch=2 train.max_steps=3 \
    train.save_every=1 train.log_to=none lora.rank=2
BASELINE = baseline train wavelet_nn --data simulated --limit 6 --epochs 3
KILLS ?= 100
kills: .venv/.complete
	rm -rf runs/crashes && mkdir -p runs/crashes
	$(BIN)/ecg-vlm render simulated runs/crashes/pages --limit 6 --width 784
	$(BIN)/python tests/crash_points.py random:$(KILLS) runs/crashes/a/out render simulated runs/crashes/a/out --limit 6 \
	    --shard-size 2
	$(BIN)/python tests/crash_points.py random:$(KILLS) runs/crashes/b/out evaluate nano --data runs/crashes/pages \
	    --out runs/crashes/b/out
	OMP_NUM_THREADS=1 $(BIN)/python tests/crash_points.py random:$(KILLS) runs/crashes/c/out $(FINETUNE) \
	    --out runs/crashes/c/out
	OMP_NUM_THREADS=1 $(BIN)/python tests/crash_points.py random:$(KILLS) runs/crashes/d/out $(BASELINE) \
	    --out runs/crashes/d/out
	$(BIN)/python tests/crash_points.py random:$(KILLS) runs/crashes/e/out serve --port 8599 --workers 1

# The main commands on a full or read-only disk, without memory, descriptors, network or rights, on odd paths.
faults: .venv/.complete
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults

# Every reader on changed files; INPUTS that get past the first check of each, at most SECONDS of CPU time for each.
INPUTS ?= 10000
SECONDS ?= 1800
fuzz: .venv/.complete
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --inputs $(INPUTS) --seconds $(SECONDS)

# Changed lines that no test notices, a sample of each room; nightly, not for every commit.
mutants: .venv/.complete
	$(BIN)/python benchmarks/mutants.py eval/metrics --sample 60 --tests tests/test_metrics.py tests/test_calibration.py \
	    tests/test_boundaries.py tests/test_evaluation.py::test_ecgbench_style_goes_wrong_where_the_parser_does_not \
	    tests/test_evaluation.py::test_text_metrics_reward_shared_words_and_skip_what_has_no_reference \
	    tests/test_evaluation.py::test_rouge_l_by_hand tests/test_evaluation.py::test_rouge_l_equals_the_package \
	    tests/test_evaluation.py::test_calibration_is_frozen_beside_the_scores_and_refused_on_its_own_records \
	    tests/test_evaluation.py::test_reports_on_the_same_records_are_compared_in_pairs \
	    tests/test_unreadable.py::test_unreadable_pages_count_among_the_refusals_alone \
	    tests/test_more.py::test_recall_beside_chance \
	    tests/test_prediction_files.py::test_any_subset_of_the_statements_counts_and_the_rest_is_named \
	    tests/test_prediction_files.py::test_classes_alone_are_judged_on_their_own_tasks \
	    tests/test_tables.py::test_the_published_schema_is_that_of_the_code_and_fits_a_report \
	    tests/test_report.py::test_headlines tests/test_report.py::test_text_table_is_narrow_and_complete \
	    tests/test_report.py::test_the_report_says_what_the_metrics_say \
	    tests/test_report.py::test_evaluations_that_cannot_be_judged_are_named \
	    tests/test_report.py::test_figures_of_decisions_and_of_probabilities_never_share_a_place \
	    tests/test_report.py::test_controls_say_whether_the_score_needs_the_page \
	    tests/test_report.py::test_report_json_holds_everything_and_no_nan \
	    tests/test_report.py::test_a_task_without_records_is_a_dash_and_no_error
	$(BIN)/python benchmarks/mutants.py eval/parser --sample 60 --tests tests/test_parse.py tests/test_boundaries.py \
	    tests/test_unreadable.py::test_refusals_are_told_from_findings \
	    tests/test_unreadable.py::test_our_own_refusals_are_recognised_and_say_nothing_else \
	    tests/test_questions.py::test_normality_is_the_same_in_yes_no_and_open_answers \
	    tests/test_dialogues.py::test_a_choice_has_one_right_option_and_it_is_the_answer \
	    tests/test_dialogues.py::test_composed_answers_say_exactly_the_statements \
	    tests/test_dialogues.py::test_another_name_of_a_statement_means_that_statement \
	    tests/test_acute_infarct.py::test_statements_agree_with_each_other \
	    tests/test_limits.py::test_long_answers_are_read_in_a_second
	$(BIN)/python benchmarks/mutants.py recipes/packing.py --sample 60 --tests tests/test_batching.py tests/test_packing.py \
	    tests/test_qwen3_vl.py::test_packed_dialogues_equal_separate_rows_of_stock_transformers \
	    tests/test_qwen3_vl.py::test_no_dialogue_attends_to_another_and_all_see_the_image
	$(BIN)/python benchmarks/mutants.py render/pages --sample 60 --tests tests/test_page.py tests/test_layout.py \
	    tests/test_geometry.py tests/test_style.py tests/test_boundaries.py tests/test_augment.py \
	    tests/test_unreadable.py::test_a_turned_page_has_its_geometry_and_mask_turned_with_it \
	    tests/test_unreadable.py::test_the_leads_named_are_those_of_which_most_is_gone

# Licences of all that an install brings: docs/licences.md; fails where one is unknown or not compatible.
licences: .venv/.complete
	$(BIN)/python -m benchmarks.licences

# dist/*.whl with the pinned build tool; the same sources give the same bytes anywhere (tests/test_supply_chain.py).
wheel: .venv/.complete
	env -u SOURCE_DATE_EPOCH $(BIN)/python -m hatchling build -t wheel -d dist
	$(BIN)/python -m pip hash dist/*.whl

# Tools that look at the environment from outside, so that they are no part of it.
.venv/release: constraints.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install -q -c constraints.txt cyclonedx-bom pip-audit uv
	touch $@

# The bill of materials of the tested set, without developers' tools: dist/sbom.json (CycloneDX).
sbom: .venv/.complete .venv/release
	mkdir -p dist
	.venv/release/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible -o dist/sbom.json
	$(BIN)/python -m benchmarks.sbom dist/sbom.json

# The versions of constraints.txt for all extras, with the hashes of every platform's files: pip checks each file of
# `pip install --require-hashes -r requirements.lock`.
lock: .venv/release
	.venv/release/bin/uv --no-config pip compile -q pyproject.toml --extra all -c constraints.txt --generate-hashes \
	    --no-annotate --universal --python-version 3.11 --custom-compile-command "make lock" -o requirements.lock

# Weaknesses of the tested set that are known to the Python Packaging Advisory Database. --strict: a package that the
# service does not know, or a service that does not answer, is a failure; without it pip-audit calls both clean.
audit: .venv/release
	.venv/release/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt

# The API pages from the docstrings, with results and log: site/index.html.
docs: .venv/.complete
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs]"
	$(BIN)/mkdocs build

clean:
	rm -rf .venv runs site
