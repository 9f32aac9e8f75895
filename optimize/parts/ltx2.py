"""Parts of LTX-2: clips with sound, from words and from a picture."""

from optimize.parts import ltx
from optimize.parts.part import Family, Part

PARTS = {
    "transformer": Part(
        at="pipeline.transformer",
        axes={
            "hidden_states": "batch tokens _",
            "audio_hidden_states": "batch audio_tokens _",
            "encoder_hidden_states": "batch _ _",
            "audio_encoder_hidden_states": "batch _ _",
        },
        adapter="ltx2_coordinates",
        fixes=("squeeze",),
        int8="dynamic",
    ),
    "connectors": Part(at="pipeline.connectors", int8="dynamic"),
    "vae_decoder": Part(at="pipeline.vae.decoder", axes={"hidden_states": "batch _ frames height width"}),
    "audio_vae_decoder": Part(at="pipeline.audio_vae.decoder"),
    "vocoder": Part(at="pipeline.vocoder"),
    "text_encoder": Part(at="pipeline.text_encoder", int8="dynamic"),
}

FROM_TEXT = Family(PARTS, ltx.from_text)
FROM_PICTURE = Family(PARTS, ltx.from_picture)
