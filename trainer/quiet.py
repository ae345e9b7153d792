"""Quiet libraries: the messages that say nothing about this run.

Owns the list of third-party messages that are held back, each with the reason why it is harmless here.
Everything that is not on the list is shown.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Final

_HARMLESS: Final = (
    # transformers renamed the option; TRL and PEFT still use its old name.
    r"`(is_)?gradient_checkpointing` is deprecated",
    # The rank of a padded row does not change a loss that counts completion tokens only.
    r".*`use_reentrant` parameter should be passed explicitly",
    # `machine_warnings` says it, before the run.
    r"Paged optimizers are not supported on CPU",
)
"""Starts of warnings, as regular expressions."""

_HARMLESS_LOGS: Final = (
    # bitsandbytes asks for an optional kernel package and goes on with its own.
    ("bitsandbytes", "Failed to load CPU gemm_4bit_forward"),
    # The recipe decides; the base's config only had another default.
    ("transformers", "`use_cache=True` is incompatible with gradient checkpointing"),
)
"""Logger name and start of the message."""


class _Without(logging.Filter):
    def __init__(self, start: str) -> None:
        super().__init__()
        self._start = start

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self._start)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Holds back progress bars, telemetry and harmless messages of the training libraries.

    The switches are process-wide, like the libraries that they belong to; leaving the block sets them back.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    from transformers.utils import logging as transformers_logging

    bars = datasets.utils.are_progress_bars_disabled(), transformers_logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    filters = [(logging.getLogger(name), _Without(start)) for name, start in _HARMLESS_LOGS]
    for logger, without in filters:
        for handler in (logger, *logger.handlers):
            handler.addFilter(without)
    try:
        with warnings.catch_warnings():
            for message in _HARMLESS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, without in filters:
            for handler in (logger, *logger.handlers):
                handler.removeFilter(without)
        if not bars[0]:
            datasets.enable_progress_bars()
        if bars[1]:
            transformers_logging.enable_progress_bar()
