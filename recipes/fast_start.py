"""A fast start of nano and of `doctor`: `ecg-vlm ask` in two seconds instead of ten, with the stock classes.

Nearly all of the ten seconds is the import of what one answer on the CPU never uses: compiler, distributed tensors,
shape inference, accelerate, scipy, and an index of some 500 other models. Here their import is deferred or omitted
*before* torch is imported. For a process that answers with nano, or counts what a recipe needs, and ends: it can
neither train, nor compile, nor shard, nor load another model. Everything else starts the plain way.
"""

from __future__ import annotations

import gc
import importlib
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
"""Switches of transformers: what it takes to be not installed, it does not import."""

_MODELS = ("auto", "mllama")
"""The folders of transformers/models that nano needs."""


def prepare(models: tuple[str, ...] = _MODELS) -> bool:
    """Import torch and transformers without the rest. False, without an import, where it is too late or switched off.

    Where another version of the two fails in it, the command starts again the plain way.
    """
    if os.environ.get(PLAIN) == "1" or "torch" in sys.modules or "transformers" in sys.modules:
        return False
    gc.disable()  # a seventh of the time of a large import is garbage collection, which finds nothing
    try:
        for name, attributes in _DEFERRED_MODULES.items():
            _defer(name, **attributes)
        _index_few_models(models)
        utils = sys.modules["transformers.utils"]
        for name in _ABSENT:
            for module in (utils, utils.import_utils):
                setattr(module, name, _never)
        import torch  # noqa: F401  # here, where it may fail
    except Exception:
        restart_without_fast_start()
    return True


def prepare_to_count() -> bool:
    """`prepare`, with what a training step on the meta device needs besides: the shapes of what operators return.

    Checkpointing reads one setting of the compiler. The module of the settings runs without the compiler's.
    """
    if not prepare((*_MODELS, "qwen3_vl")):
        return False
    try:
        _run(sys.modules["torch._meta_registrations"])
        importlib.import_module("torch._dynamo.config")
    except Exception:
        restart_without_fast_start()
    return True


def load_nano() -> tuple[Any, Any]:
    """Nano in float32 on the CPU, and its processor. Call `prepare` first."""
    import torch
    from transformers import MllamaForConditionalGeneration, MllamaProcessor, core_model_loading

    from recipes.model import nano_path

    core_model_loading.re = _LateCompilation()
    # A layer of nano ends before a second thread is awake. Where the cores are busy, two threads wait a time slice of
    # the scheduler for each other in every layer, which is longer than the whole answer.
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


class _LateCompilation:
    """Python's `re` for transformers, which compiles patterns for the weight names of all models and uses nano's."""

    compile = _LatePattern

    def __getattr__(self, name: str) -> Any:
        return getattr(re, name)


def restart_without_fast_start() -> NoReturn:
    """Run the same command again in place of this process, without a fast start."""
    os.environ[PLAIN] = "1"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _as_is(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator that only the compiler needs, where there is none."""
    return function if function is not None else _as_is


def _never(*_: Any, **__: Any) -> bool:
    return False


_DEFERRED_MODULES: dict[str, dict[str, Any]] = {
    "torch._meta_registrations": {},  # shape inference of the operators that torch has in Python only
    "torch._dynamo": {"disable": _as_is, "assume_constant_result": _as_is, "allow_in_graph": _as_is},
}
"""Modules that torch and transformers import early and one answer does not use, in the order in which they must run,
and their attributes that are used all the same: decorators that only the compiler reads."""


class _DeferredModule(ModuleType):
    """A module that runs when an attribute is read that it does not have yet.

    importlib.util.LazyLoader runs a package as soon as one of its submodules is imported; this one waits.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        for module in [sys.modules[name] for name in _DEFERRED_MODULES if name in sys.modules]:
            if isinstance(module, _DeferredModule):
                _run(module)
        return getattr(self, name)


def _defer(name: str, **attributes: Any) -> ModuleType | None:
    """Put a module into `sys.modules` without running it, with `attributes` until then. None: no such module."""
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
    module.__class__ = _DeferredModule
    module.__dict__.update(attributes)
    sys.modules[name] = module
    return module


def _run(module: ModuleType) -> None:
    module.__class__ = ModuleType
    spec = module.__spec__
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module)


def _index_few_models(models: tuple[str, ...]) -> None:
    """Import transformers, which reads 1600 files to index all models, with an index of the few we need."""
    package = _defer("transformers", __version__=version("transformers"))
    assert package is not None
    from transformers.utils import import_utils

    index: Callable[[str], Any] = import_utils.create_import_structure_from_path

    def of_few(path: str) -> Any:
        folder = Path(path).parent if Path(path).is_file() else Path(path)
        if folder.name != "models":
            return index(path)
        return {name: index(str(folder / name)) for name in models}

    import_utils.create_import_structure_from_path = of_few
    _run(package)
