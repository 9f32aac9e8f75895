"""Parts of translators in transformers: Marian, M2M100, NLLB and Seamless; encoders, and the decoder with its caches.

The one invariant: lengths of texts vary in both languages, and so do the rows, which are texts times beams.
"""

from collections.abc import Sequence

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import TranslationRequest

WORDS = "the old lighthouse keeper climbed stairs every evening at sunset people say good stories make winters shorter"


def encoder(at: str) -> Part:
    """Of texts."""
    return Part(at=at, axes={"input_ids": "batch source", "attention_mask": "batch source"}, int8="dynamic")


def decoder(at: str) -> Part:
    """One token and those before it, by caches of both attentions; its first call makes the encoder's."""
    axes = {
        "input_ids": "batch _",
        "encoder_hidden_states": "batch source _",
        "encoder_attention_mask": "batch source",
        "past_key_values.*.[01]": "batch _ past _",
        "past_key_values.*.[23]": "batch _ source _",
    }
    return Part(at=at, axes=axes, int8="weight_only")  # rows of one token, whoever else is in the batch


TRANSLATION_PARTS = {"encoder": encoder("network.model.encoder"), "decoder": decoder("network.model.decoder")}
SEAMLESS_PARTS = {
    "encoder": encoder("network.text_encoder"),
    "speech_encoder": Part(
        at="network.speech_encoder",
        axes={"input_features": "batch frames _", "attention_mask": "batch frames"},
        int8="dynamic",
    ),
    "decoder": decoder("network.text_decoder"),
}


async def texts(samples: Samples) -> Sequence[TranslationRequest]:
    """One text, two and three of them, of several lengths: those of a request are filled up to the longest."""
    words = WORDS.split()
    lengths = [(5,), (3, 7), (2, 4, 9)]
    return [
        TranslationRequest(
            texts=[" ".join(words[index : index + length]) for index, length in enumerate(some)],
            source_language="en",
            target_language="hi",
        )
        for some in lengths
    ]


async def texts_and_speech(samples: Samples) -> Sequence[TranslationRequest]:
    """The same, and speech; what is longer than 30 s is two rows."""
    sounds = [await samples.sound(seconds, seed=index) for index, seconds in enumerate((2.0, 3.5, 34.0))]
    spoken = [TranslationRequest(audio=sound, source_language="en", target_language="hi") for sound in sounds]
    return [*await texts(samples), *spoken]


TRANSLATION = Family(TRANSLATION_PARTS, texts)
SEAMLESS = Family(SEAMLESS_PARTS, texts_and_speech)
