"""Prompts against the tokenizers that will read them; asked by the families while a request is prepared.

The one invariant: a prompt that passes is read to its last word.
"""

from collections.abc import Sequence
from typing import Any

from serving.backends.ray.engines.network.inputs import check_tokens


def check_prompt(text: str, field: str, tokenizers: Sequence[Any], most: int | None = None) -> None:
    """Refuse a text that a tokenizer would cut.

    Args:
        text: of the request.
        field: of the request, for the message.
        tokenizers: transformers' own; every one of them reads the text.
        most: tokens, those that mark begin and end included; None takes what each tokenizer's file says
            (77 for CLIP). Pipelines that read T5 have a bound of their own, ``max_sequence_length``.

    Raises:
        BadInput: says how many tokens there are and how many are read.
    """
    for tokenizer in tokenizers:
        count = len(tokenizer(text, truncation=False, verbose=False).input_ids)
        check_tokens(count, most or int(tokenizer.model_max_length), field)
