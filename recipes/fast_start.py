"""A quick start of nano: `ecg-vlm ask` in two seconds instead of ten, by the stock classes all the same.

Nearly all of the ten goes into importing what one answer on the processor never uses: compiler, distributed tensors,
shape inference, accelerate, scipy, and an index of some 500 other models. Here those are put off or left out *before*
torch is imported. For a process that answers with nano and ends: it can neither train, nor compile, nor shard, and
knows no other model. Everything else starts the plain way.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import version
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

PLAIN = "ECG_VLM_PLAIN_START"
"""Environment variable: set to 1, everything starts the plain way."""

_ABSENT = ("is_torch_distributed_available", "is_accelerate_available", "is_scipy_available")
"""Switches of transformers: what it believes is not installed, it does not import."""

_MODELS = ("auto", "mllama")
"""The folders of transformers/models that nano needs."""


def prepare() -> bool:
    """Import torch and transformers without the rest. False, and nothing done, where it is too late or unwanted.

    Where other versions of the two do not bear it, the command starts again plainly.
    """
    if os.environ.get(PLAIN) == "1" or "torch" in sys.modules or "transformers" in sys.modules:
        return False
    gc.disable()  # a seventh of the time of a large import is the collector looking through what is all still needed
    try:
        for name, known in _PUT_OFF.items():
            _put_off(name, **known)
        _index_few_models()
        utils = sys.modules["transformers.utils"]
        for name in _ABSENT:
            for module in (utils, utils.import_utils):
                setattr(module, name, _never)
        import torch  # noqa: F401  # here, where it may fail
    except Exception:
        restart_without_fast_start()
    return True


def load_nano() -> tuple[Any, Any]:
    """Nano in float32 on the processor, and its chat and image processor. Ask `prepare` first."""
    import torch
    from transformers import MllamaForConditionalGeneration, MllamaProcessor, core_model_loading

    from recipes.base_models import nano_path

    core_model_loading.re = _CompilesLate()
    # A layer of nano's is done before a second thread is awake. Where the cores are busy, two threads wait a
    # scheduler's slice for each other in every layer, which is longer than the whole answer.
    torch.set_num_threads(1)
    model = MllamaForConditionalGeneration.from_pretrained(
        nano_path(), dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    )
    processor = MllamaProcessor.from_pretrained(nano_path(), local_files_only=True)
    gc.freeze()
    gc.enable()
    return model.eval(), processor


class _LatePattern:
    """A regular expression that is compiled when it is used."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def __getattr__(self, name: str) -> Any:
        return getattr(re.compile(self._pattern), name)


class _CompilesLate:
    """Python's `re` for transformers, which compiles the renamings of the weights of all models to use nano's."""

    compile = _LatePattern

    def __getattr__(self, name: str) -> Any:
        return getattr(re, name)


def restart_without_fast_start() -> NoReturn:
    """Run this same command again in place of this process, without a quick start."""
    os.environ[PLAIN] = "1"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _as_is(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator for the compiler alone, where there is none."""
    return function if function is not None else _as_is


def _never(*_: Any, **__: Any) -> bool:
    return False


_PUT_OFF: dict[str, dict[str, Any]] = {
    "torch._meta_registrations": {},  # shape inference of the operators that torch has in Python only
    "torch._dynamo": {"disable": _as_is, "assume_constant_result": _as_is, "allow_in_graph": _as_is},
}
"""Modules that torch and transformers import early and one answer does not use, in the order in which they must run,
and what they are asked for all the same: decorators that only the compiler reads."""


class _PutOff(ModuleType):
    """A module that runs when something of it is asked for that it has not.

    importlib.util.LazyLoader runs a package as soon as one of its submodules is imported; this one waits.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        for module in [sys.modules[put_off] for put_off in _PUT_OFF if put_off in sys.modules]:
            if isinstance(module, _PutOff):
                _run(module)
        return getattr(self, name)


def _put_off(name: str, **known: Any) -> ModuleType | None:
    """Stand a module in `sys.modules` without running it; `known` is what it has until then. None: no such module."""
    spec: ModuleSpec | None = None
    path = None
    parts = name.split(".")
    for k in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:k]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    assert spec is not None
    module = module_from_spec(spec)
    module.__class__ = _PutOff
    module.__dict__.update(known)
    sys.modules[name] = module
    return module


def _run(module: ModuleType) -> None:
    module.__class__ = ModuleType
    spec = module.__spec__
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module)


def _index_few_models() -> None:
    """Import transformers, which on its way reads 1600 files to learn which model is where, with the few we need."""
    package = _put_off("transformers", __version__=version("transformers"))
    assert package is not None
    from transformers.utils import import_utils

    index: Callable[[str], Any] = import_utils.create_import_structure_from_path

    def of_few(path: str) -> Any:
        folder = Path(path).parent if Path(path).is_file() else Path(path)
        if folder.name != "models":
            return index(path)
        return {name: index(str(folder / name)) for name in _MODELS}

    import_utils.create_import_structure_from_path = of_few
    _run(package)
