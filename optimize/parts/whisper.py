"""Parts of Whisper in transformers: the encoder, and the decoder with its caches.

The one invariant: windows are 30 s long, as the network was trained; only how many there are varies.
"""

from collections.abc import Sequence

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import TranscriptionRequest

CACHE = {
    "past_key_values.*.[01]": "batch _ past _",
    "past_key_values.*.[23]": "batch _ _ _",
}
"""Keys and values of every layer: of the tokens so far, and of the encoder's frames, which never change."""

WHISPER_PARTS = {
    "encoder": Part(at="network.model.encoder", axes={"input_features": "batch _ _"}, int8="dynamic"),
    "decoder": Part(
        at="network.model.decoder",
        axes={"input_ids": "batch tokens", "encoder_hidden_states": "batch _ _", **CACHE},
        keeps=True,  # the times of words come from the attention of some of its heads, in a pass by torch
        int8="weight_only",  # a few rows at a time, and results that do not rest on who else is in the batch
    ),
}


async def speech(samples: Samples) -> Sequence[TranscriptionRequest]:
    """One window, two and three of them."""
    language = samples.card.languages[0] if samples.card.languages else "en"
    sounds = [await samples.sound(seconds, seed=index) for index, seconds in enumerate((4.0, 35.0, 65.0))]
    return [TranscriptionRequest(audio=sound, language=language) for sound in sounds]


WHISPER = Family(WHISPER_PARTS, speech)
