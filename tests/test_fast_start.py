"""The fast start: it does not import what it leaves out, and its answers are those of the plain start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEAVY = ("torch", "transformers", "numpy", "scipy", "matplotlib", "datasets", "pyarrow", "numba", "neurokit2", "PIL")
"""What the command line must not import before it knows the command."""

UNUSED_MODULES = (
    *("torch._inductor", "torch.distributed.tensor", "torch._dynamo.utils", "torch._decomp.decompositions", "sympy"),
    *("peft", "accelerate", "bitsandbytes", "trl", "sklearn", "pandas", "matplotlib", "datasets"),
    *("pyarrow", "neurokit2", "transformers.models.llama", "eval.report.write", "ecg_vlm.evaluation"),
)
"""What one answer of nano's must not import. (Digitizing the page takes scipy and numba.)"""

UNUSED_BY_COUNTING = (
    *("torch._inductor", "torch.distributed.tensor", "torch._dynamo.utils", "peft", "accelerate", "bitsandbytes"),
    *("trl", "scipy", "pandas", "numba", "matplotlib", "datasets", "pyarrow", "transformers.models.llama"),
)
"""What `doctor` must not import to count a training step."""

_ASK = """
import json, sys
from ecg_vlm.cli import main
code = main()
print(json.dumps([code, sorted(sys.modules)]))
"""


def python(program: str, *words: object, **environment: str) -> list[str]:
    """The lines that a fresh process prints."""
    command = [sys.executable, "-c", program, *map(str, words)]
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    """Paper with a dark wave on it."""
    pixels = np.full((300, 600, 3), 240, np.uint8)
    columns = np.arange(600)
    pixels[150 + (60 * np.sin(columns / 20)).astype(int), columns] = 0
    path = tmp_path_factory.mktemp("quick") / "page.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def quick(picture) -> tuple[dict, set[str]]:
    """What the fast start answers, and which modules it imports."""
    answers, facts = python(
        _ASK, "ask", picture, "What is the rhythm?", "--statements", "--json", ECG_VLM_PLAIN_START=""
    )
    code, modules = json.loads(facts)
    assert code == 0
    return json.loads(answers), set(modules)


@pytest.fixture(scope="module")
def plain(picture) -> tuple[dict, set[str]]:
    """The same where the fast start fails: the program starts again as it was called, the plain way."""
    failing_start = """
from recipes import fast_start
def load_nano():
    raise ImportError("another version of the library")
fast_start.load_nano = load_nano
"""
    words = ("ask", picture, "What is the rhythm?", "--statements", "--json")
    answers, facts = python(failing_start + _ASK, *words, ECG_VLM_PLAIN_START="")
    return json.loads(answers), set(json.loads(facts)[1])


def test_the_command_line_is_light():
    (modules,) = python("import json, sys, ecg_vlm.cli; print(json.dumps(sorted(sys.modules)))")
    assert not set(HEAVY) & set(json.loads(modules))


def test_one_answer_imports_no_more_than_it_needs(quick):
    assert not set(UNUSED_MODULES) & quick[1]
    assert {"torch", "transformers.models.mllama.modeling_mllama"} <= quick[1]


def test_a_fast_start_that_fails_starts_again_the_plain_way_with_all_modules(plain):
    libraries = [name for name in UNUSED_MODULES if name.startswith(("torch.", "sympy", "accelerate"))]
    assert set(libraries) <= plain[1]


def test_both_starts_answer_and_score_alike(quick, plain):
    assert quick[0]["answers"] == plain[0]["answers"] and quick[0]["answers"][0]["answer"]
    assert quick[0]["scores"].keys() == plain[0]["scores"].keys()
    np.testing.assert_allclose(list(quick[0]["scores"].values()), list(plain[0]["scores"].values()), atol=1e-5)


def test_counting_a_step_imports_no_more_than_it_needs_and_counts_as_the_plain_start_does():
    words = ("doctor", "nano", "train.gradient_checkpointing=true", "--json")
    (quick_text, quick_facts), (plain_text, _) = (python(_ASK, *words, ECG_VLM_PLAIN_START=way) for way in ("", "1"))
    code, modules = json.loads(quick_facts)
    assert code == 0 and "torch._meta_registrations" in modules
    assert not set(UNUSED_BY_COUNTING) & set(modules)
    needs = json.loads(quick_text)["needs"]
    assert needs == json.loads(plain_text)["needs"] and needs["activations"] > 0


def test_counting_that_fails_after_a_fast_start_starts_again_the_plain_way():
    failing = """
from recipes import fast_start
def prepare_to_count():
    fast_start.prepare()  # without what counting needs
    return True
if fast_start.os.environ.get(fast_start.PLAIN) != "1":
    fast_start.prepare_to_count = prepare_to_count
"""
    text, facts = python(failing + _ASK, "doctor", "nano", "--json", ECG_VLM_PLAIN_START="")
    assert json.loads(text)["needs"]["activations"] > 0
    assert "torch.distributed.tensor" in json.loads(facts)[1]


def test_a_program_that_has_imported_torch_is_left_alone():
    (line,) = python("import torch\nfrom recipes import fast_start\nprint(fast_start.prepare())")
    assert line == "False"


def test_a_deferred_module_runs_when_an_attribute_is_read():
    program = """
from recipes import fast_start
assert fast_start.prepare()
import sys, torch
deferred = sys.modules["torch._dynamo"]
assert "torch._dynamo.utils" not in sys.modules
torch.compiler.reset()
assert "torch._dynamo.utils" in sys.modules and torch._dynamo is deferred and deferred.disable is not fast_start._as_is
print("ran")
"""
    assert python(program) == ["ran"]
