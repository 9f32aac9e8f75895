"""Parts of LTX-2: clips with sound, from words and from a picture.

The one invariant: every number of picture and sound tokens is a size of the transformer's inputs, and none a constant.
"""

from optimize.parts import ltx
from optimize.parts.part import Family, Part

_TRANSFORMER_AXES = {
    "hidden_states": "batch tokens _",
    "audio_hidden_states": "batch sounds _",
    "encoder_hidden_states": "batch _ _",
    "audio_encoder_hidden_states": "batch _ _",
    "encoder_attention_mask": "batch _",
    "video_coords": "batch _ tokens _",
    "audio_coords": "batch _ sounds _",
    "audio_timestep": "batch",
    "sigma": "batch",
}


def _parts(timestep: str) -> dict[str, Part]:
    """All of them; a picture's tokens have a time of their own, so that there is one for each token."""
    return {
        "transformer": Part(
            at="pipeline.transformer",
            axes={**_TRANSFORMER_AXES, "timestep": timestep},
            adapter="ltx2_coordinates",
            fixes=("squeeze", "repeat_interleave", "doubles"),
            int8="dynamic",
        ),
        "connectors": Part(
            at="pipeline.connectors",
            axes={"text_encoder_hidden_states": "batch _ _", "attention_mask": "batch _"},
            fixes=("argsort", "doubles"),
            int8="dynamic",
        ),
        "vae_decoder": Part(at="pipeline.vae.decoder", axes={"hidden_states": "batch _ frames height width"}),
        "audio_vae_decoder": Part(at="pipeline.audio_vae.decoder", axes={"sample": "batch _ length _"}),
        "vocoder": Part(at="pipeline.vocoder", axes={"hidden_states": "batch _ length _"}),
        "text_encoder": Part(
            at="pipeline.text_encoder.model.language_model",
            axes={"inputs_embeds": "batch _ _", "attention_mask.*": "batch _ _ _"},
            fixes=("attention",),
            int8="dynamic",
        ),
    }


FROM_TEXT = Family(_parts("batch"), ltx.from_text)
FROM_PICTURE = Family(_parts("batch tokens"), ltx.from_picture)
