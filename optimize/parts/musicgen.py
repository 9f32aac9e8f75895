"""Parts of MusicGen: T5, the decoder of tokens with its caches, and EnCodec's decoder.

The one invariant: rows are requests, and twice as many with guidance; the decoder has four of tokens for each.
"""

from collections.abc import Sequence

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import MusicRequest

MUSICGEN_PARTS = {
    "text_encoder": Part(
        at="network.text_encoder",
        axes={"input_ids": "batch source", "attention_mask": "batch source"},
        adapter="without_guidance",
        int8="dynamic",
    ),
    "decoder": Part(
        at="network.decoder",
        axes={
            "input_ids": "rows _",
            "encoder_hidden_states": "batch source _",
            "encoder_attention_mask": "batch source",
            "past_key_values.*.[01]": "batch _ past _",
            "past_key_values.*.[23]": "batch _ source _",
        },
        int8="weight_only",  # rows of one token, whoever else is in the batch
    ),
    "codec": Part(
        at="network.audio_encoder.decoder",
        axes={"hidden_states": "batch _ frames"},
        fixes=["integer_padding", "lstm"],
    ),
}


async def music(samples: Samples) -> Sequence[MusicRequest]:
    """Three lengths and prompts, one of them without guidance, which halves the batch."""
    asked = [("calm piano", 0.4, 3.0), ("bright strings and drums", 0.3, 3.0), ("a slow song", 0.5, 1.0)]
    return [
        MusicRequest(prompt=prompt, duration_s=seconds, guidance=guidance, seed=index)
        for index, (prompt, seconds, guidance) in enumerate(asked)
    ]


MUSICGEN = Family(MUSICGEN_PARTS, music)
