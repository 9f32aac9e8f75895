"""Parts of neural voices: VITS of transformers and of Coqui, and XTTS.

The one invariant: how long a text and its sound are varies; the noise is an input, so that a part has no chance in it.
"""

from collections.abc import Sequence

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import SpeechRequest

VITS_PARTS = {
    "text_encoder": Part(
        at="network.text_encoder",
        axes={"input_ids": "batch symbols", "padding_mask": "batch symbols _", "attention_mask": "batch symbols"},
        int8="dynamic",
    ),
    "duration_encoder": Part(
        at="network.duration_predictor.conv_dds",
        axes={"inputs": "batch _ symbols", "padding_mask": "batch _ symbols"},
    ),
    "flow": Part(
        at="network.flow",
        axes={"inputs": "batch _ frames", "padding_mask": "batch _ frames", "global_conditioning": "batch _ _"},
    ),
    "decoder": Part(
        at="network.decoder",
        axes={"spectrogram": "_ _ frames"},
    ),
}
COQUI_VITS_PARTS = {
    "text_encoder": Part(at="_network.text_encoder.encoder", axes={"x": "_ _ symbols", "x_mask": "_ _ symbols"}),
    "flow": Part(at="_network.flow", axes={"x": "_ _ frames", "x_mask": "_ _ frames"}),
    "decoder": Part(at="_network.waveform_decoder", axes={"x": "_ _ frames"}),
}
XTTS_PARTS = {
    "conditioning_encoder": Part(at="_network.gpt.conditioning_encoder", axes={"x": "_ _ frames"}),
    "conditioning_perceiver": Part(at="_network.gpt.conditioning_perceiver", axes={"x": "_ frames _"}),
    "decoder": Part(at="_network.hifigan_decoder.waveform_decoder", axes={"x": "_ frames"}),
}


async def sentences(samples: Samples) -> Sequence[SpeechRequest]:
    """One sentence, two and three of them, which go through the network together."""
    voice, language = next(iter(samples.card.voices)), samples.card.languages[0]
    said = SAID.get(language.partition("-")[0], SAID["en"])
    return [
        SpeechRequest(text=" ".join(said[:count]), voice=voice, language=language, seed=count) for count in (1, 2, 3)
    ]


async def cloned(samples: Samples) -> Sequence[SpeechRequest]:
    """The same at three speeds, each in the voice of a sample, which are of several lengths."""
    sounds = [await samples.sound(seconds, seed=index) for index, seconds in enumerate((2.0, 3.0, 4.5))]
    asked = await sentences(samples)
    return [
        request.model_copy(update={"sample": sound, "speed": speed})
        for request, sound, speed in zip(asked, sounds, (1.0, 0.8, 1.25), strict=True)
    ]


SAID = {
    "en": ("the light is on", "people say that good stories make long winters shorter.", "a bus is far away."),
    "hi": ("हर शाम सूरज ढलता है।", "लोग कहते हैं कि अच्छी कहानियाँ लंबी सर्दियों को छोटा कर देती हैं।", "वह बूढ़ा है।"),
}
VITS = Family(VITS_PARTS, sentences)
COQUI_VITS = Family(COQUI_VITS_PARTS, sentences)
XTTS = Family(XTTS_PARTS, cloned)
