"""Prompts against the tokenizers that will read them; asked by DiffusionEngine while a request is prepared.

The one invariant: a prompt that passes is read to its last word, and counting it disturbs no pass that runs meanwhile:
a tokenizer keeps its truncation between calls, so two threads never share one.
"""

import copy
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from serving.backends.ray.engines.network.inputs import check_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Prompts:
    """Counts with copies of a pipeline's tokenizers, one text at a time.

    Args:
        tokenizers: transformers' own; every one of them reads the text.
    """

    def __init__(self, tokenizers: "Sequence[PreTrainedTokenizerBase]") -> None:
        self._pairs = [(tokenizer, copy.deepcopy(tokenizer)) for tokenizer in tokenizers]
        self._lock = threading.Lock()

    def check(self, text: str, field: str, most: int | None = None) -> None:
        """Refuse a text that a tokenizer would cut.

        Args:
            text: of the request.
            field: of the request, for the message.
            most: tokens, those that mark begin and end included; None takes the pipeline's ``model_max_length`` as it
                is now (77 for CLIP). Pipelines that read T5 have a bound of their own, ``max_sequence_length``.

        Raises:
            BadInput: says how many tokens there are and how many are read.
        """
        for (tokenizer, _), count in zip(self._pairs, self.count(text), strict=True):
            check_tokens(count, most or int(tokenizer.model_max_length), field)

    def count(self, text: str) -> list[int]:
        """Tokens of a text for each tokenizer, those that mark begin and end included."""
        with self._lock:
            return [len(copied(text, truncation=False, verbose=False).input_ids) for _, copied in self._pairs]
