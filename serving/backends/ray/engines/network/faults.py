"""Faults: what a network's library raised, as an error of ours, and the memory it left behind; used by the runner.

The one invariant: out of memory is retryable and says what to lower; nothing of the failed request stays allocated.
"""

import gc
import sys
from collections.abc import Sequence
from typing import Final

from serving.errors import EngineFailed, OutOfMemory, ReelmeshError, foreign_text

_OUT_OF_MEMORY: Final = ("out of memory", "can't allocate memory", "failed to allocate", "cublas_status_alloc_failed")
"""How libraries without a class for it say it: torch's CPU allocator, CTranslate2, cuBLAS."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch has a class for it on GPUs, other libraries have words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def translated(error: Exception, model: str, lower: Sequence[str]) -> ReelmeshError:
    """The error that leaves the engine.

    Args:
        error: what a library raised.
        model: its name.
        lower: request fields that take memory.
    """
    if isinstance(error, ReelmeshError):
        return error
    if is_out_of_memory(error):
        fix = f"lower {', '.join(lower)}, or give the model a larger share" if lower else "give it a larger share"
        return OutOfMemory(f"{model} ran out of memory", field=lower[0] if lower else None, fix=fix)
    return EngineFailed(f"{model}: {type(error).__name__}: {foreign_text(error)}")


def free_memory(device: str) -> None:
    """Give back what a failed request allocated; torch is asked only where somebody loaded it."""
    gc.collect()
    if device != "cpu" and "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()
