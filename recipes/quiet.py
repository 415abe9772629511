"""Libraries that load a model keep their messages, bars and warnings to themselves."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("transformers", "huggingface_hub", "peft", "accelerate", "bitsandbytes", "torch", "tokenizers")
_VERBOSITY = "TRANSFORMERS_VERBOSITY"


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No message below an error, no bar and no warning of a library while the block runs; then all is as before.

    For a function that other programs call; of the command line `ecg_vlm.cli.progress.configure` decides. Who wants the
    messages sets transformers' own variable, TRANSFORMERS_VERBOSITY=warning.
    """
    if os.environ.get(_VERBOSITY, "error") not in ("error", "critical"):
        yield
        return
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    levels = {logging.getLogger(name): logging.getLogger(name).level for name in _LOGGERS}
    shows_bars, hub_shows_bars = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in levels:
            logger.setLevel(logging.ERROR)
        transformers_logging.disable_progress_bar()
        disable_progress_bars()
        try:
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)
            if shows_bars:
                transformers_logging.enable_progress_bar()
            (enable_progress_bars if hub_shows_bars else disable_progress_bars)()
