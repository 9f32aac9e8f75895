"""The espeak-ng process: a program of its own that :mod:`espeak_pool` starts by path and talks to over its pipes.

The one invariant: it imports nothing of the mesh and the mesh loads nothing of espeak-ng, so espeak-ng's licence
(GPL-3.0-or-later) ends at this process; and it dies with its parent, because it ends when its standard input does.

Every message is one JSON line. ``{"op": "speak", "text", "voice", "rate", "pitch", "range", "gap", "seed"}`` gets
``{"rate_hz", "bytes", "words": [[first, length, sample]], "phonemes": [[sample, ipa]]}`` and then ``bytes`` bytes of
mono 16-bit PCM; ``first`` counts characters from 0 and a phoneme ``""`` is a silence. ``{"op": "phonemes", "text",
"voice"}`` is answered by ``{"bytes": 0, "phonemes": [[-1, ipa], ...]}``, ``{"op": "ipa", "text", "voice"}`` by
``{"bytes": 0, "ipa"}``, a text with spaces between its words. A request that cannot be served is answered by
``{"error"}``.
"""

import ctypes
import json
import os
import re
import signal
import sys
from typing import Any, BinaryIO, ClassVar

SYNCHRONOUS, PHONEME_EVENTS, PHONEME_IPA, DONT_EXIT = 2, 1, 2, 1 << 15
UTF8 = 1
WORD_EVENT, PHONEME_EVENT = 1, 7
RATE, PITCH, RANGE, WORD_GAP = 1, 3, 4, 7
IPA_SEPARATED_BY_UNDERSCORE = 0x02 | (ord("_") << 8)
REQUEST_LIMIT_S = 60
"""A request that takes longer has hung inside the library: the alarm ends the process and the mesh starts another."""
PR_SET_PDEATHSIG = 1


class _Name(ctypes.Union):
    _fields_: ClassVar = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h, API revision 12."""

    _fields_: ClassVar = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """The library, initialised once per process (it keeps global state)."""

    def __init__(self, library: str, data: str) -> None:
        self._lib = ctypes.CDLL(library)
        self._libc = ctypes.CDLL(None)
        self._lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        options = PHONEME_EVENTS | PHONEME_IPA | DONT_EXIT
        self.rate_hz = int(self._lib.espeak_Initialize(SYNCHRONOUS, 0, data.encode(), options))
        if self.rate_hz <= 0:
            raise OSError(f"espeak_Initialize found no usable data in {data}")
        self._pcm: list[bytes] = []
        self._words: list[tuple[int, int, int]] = []
        self._phonemes: list[tuple[int, str]] = []
        self._callback = _Callback(self._collect)
        self._lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: int | None, count: int, events: Any) -> int:  # noqa: ANN401 (ctypes pointer)
        index = 0
        while events[index].type:
            event = events[index]
            if event.type == WORD_EVENT:
                self._words.append((event.text_position - 1, event.length, event.sample))
            elif event.type == PHONEME_EVENT:
                name = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0]
                self._phonemes.append((event.sample, name.decode("utf-8", "ignore")))
            index += 1
        if samples and count > 0:
            self._pcm.append(ctypes.string_at(samples, count * 2))
        return 0

    def _set_voice(self, voice: str) -> None:
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")

    def speak(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """PCM and events of one text; the seed makes breath and flutter repeatable."""
        self._set_voice(request["voice"])
        for parameter, key in ((RATE, "rate"), (PITCH, "pitch"), (RANGE, "range"), (WORD_GAP, "gap")):
            self._lib.espeak_SetParameter(parameter, int(request[key]), 0)
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(int(request["seed"])))
        self._libc.srand(ctypes.c_uint(int(request["seed"])))
        self._pcm, self._words, self._phonemes = [], [], []
        text = request["text"].encode()
        if self._lib.espeak_Synth(text, len(text) + 1, 0, 1, 0, UTF8, None, None) != 0:
            raise ValueError("espeak-ng refused the text")
        pcm = b"".join(self._pcm)
        header = {
            "rate_hz": self.rate_hz,
            "bytes": len(pcm),
            "words": self._words,
            "phonemes": self._phonemes,
        }
        return header, pcm

    def phonemes(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """The pronunciation of a text, without sound."""
        names = [name for part in self._parts(request) for name in part.replace(" ", "_").split("_")]
        return {"bytes": 0, "phonemes": [(-1, name) for name in names if name]}, b""

    def ipa(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """The pronunciation of a text, word by word; languages of foreign words, which it marks, are left out."""
        told = " ".join(part.strip().replace("_", "") for part in self._parts(request))
        return {"bytes": 0, "ipa": re.sub(r"\([a-z-]+\)", "", told)}, b""

    def _parts(self, request: dict[str, Any]) -> list[str]:
        """Clauses in IPA, underscores between their phonemes."""
        self._set_voice(request["voice"])
        pointer = ctypes.c_char_p(request["text"].encode())
        parts: list[str] = []
        while pointer.value is not None:
            part = self._lib.espeak_TextToPhonemes(ctypes.byref(pointer), UTF8, IPA_SEPARATED_BY_UNDERSCORE)
            parts.append((part or b"").decode("utf-8", "ignore"))
        return parts


_OPERATIONS = {"speak": Espeak.speak, "phonemes": Espeak.phonemes, "ipa": Espeak.ipa}


def answer(espeak: Espeak, line: bytes, answers: BinaryIO) -> None:
    """Answer one request and leave; runs in a fork of its own."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.alarm(REQUEST_LIMIT_S)
    try:
        request = json.loads(line)
        header, pcm = _OPERATIONS[request["op"]](espeak, request)
    except (ValueError, KeyError, TypeError) as error:
        header, pcm = {"error": f"{type(error).__name__}: {error}", "bytes": 0}, b""
    answers.write(json.dumps(header).encode() + b"\n" + pcm)
    answers.flush()


def serve(espeak: Espeak, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the input ends, each in a fork (1 ms).

    The library keeps state from one text to the next (phase of the flutter, echo), so only a fresh copy of it gives
    equal sound for equal requests. When a fork dies its half-written answer cannot be mended, so the process ends too.
    """
    for line in requests:
        child = os.fork()
        if child == 0:
            answer(espeak, line, answers)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(1)


def main() -> None:
    """Run as ``python espeak_worker.py LIBRARY DATA_FOLDER``; the library may print, so it gets no pipe to print on."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Espeak(sys.argv[1], sys.argv[2]), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
