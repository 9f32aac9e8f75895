"""EspeakPool: a few espeak-ng processes and the calls into them; used by the speech and alignment engines.

The one invariant: a process whose conversation broke off (cancelled, died, timed out) is killed, never used again.
"""

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import EngineFailed, MissingDependency, Unavailable, foreign_text
from serving.media.ffmpeg import reaped

_WORKER: Final = Path(__file__).with_name("espeak_worker.py")
_HEADER_LIMIT_BYTES: Final = 8 << 20
_REQUEST_LIMIT_S: Final = 60.0
_SECONDS_TO_WAIT_FOR_A_PROCESS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of text for espeak-ng, in its own units.

    Args:
        text: plain text; markup in it is read out, never obeyed.
        voice: an espeak-ng voice with an optional variant, for example ``en+f3``.
        rate: words per minute, 80 to 450.
        pitch: 0 to 99, 50 is the voice's own.
        pitch_range: 0 (monotone) to 99, 50 is the voice's own.
        gap: pause between words in units of 10 ms.
        seed: makes breath noise and flutter repeatable.
    """

    text: str
    voice: str
    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50
    gap: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Spoken:
    """What espeak-ng made of an utterance.

    Args:
        pcm: int16 (samples,), mono.
        rate_hz: its sample rate.
        words: (first character from 0, length in characters, first sample) in order of speech.
        phonemes: (first sample, IPA); ``""`` is a silence.
    """

    pcm: NDArray[np.int16]
    rate_hz: int
    words: list[tuple[int, int, int]]
    phonemes: list[tuple[int, str]]


def library_paths() -> tuple[str, str]:
    """Paths of the espeak-ng library and its data folder, without loading either.

    Raises:
        MissingDependency: the espeakng-loader package is not installed.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise MissingDependency(
            "the espeakng-loader package is not installed", fix="pip install espeakng-loader"
        ) from error
    return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())


class EspeakPool:
    """Up to ``size`` espeak-ng processes, started on demand; belongs to one event loop.

    Args:
        size: processes alive at a time (about 15 MiB each).
    """

    def __init__(self, size: int) -> None:
        self._command = (sys.executable, "-I", "-S", str(_WORKER), *library_paths())
        self._free = asyncio.Semaphore(size)
        self._idle: list[Process] = []
        self._closed = False

    @property
    def idle_pids(self) -> list[int]:
        """Process ids that are waiting for work."""
        return [process.pid for process in self._idle]

    async def speak(self, utterance: Utterance) -> Spoken:
        """Synthesize one utterance; raises :class:`EngineFailed`."""
        header, pcm = await self._ask(
            {
                "op": "speak",
                "text": utterance.text,
                "voice": utterance.voice,
                "rate": utterance.rate,
                "pitch": utterance.pitch,
                "range": utterance.pitch_range,
                "gap": utterance.gap,
                "seed": utterance.seed,
            }
        )
        return Spoken(
            pcm=np.frombuffer(pcm, dtype="<i2"),
            rate_hz=int(header["rate_hz"]),
            words=[(int(first), int(length), int(sample)) for first, length, sample in header["words"]],
            phonemes=[(int(sample), str(name)) for sample, name in header["phonemes"]],
        )

    async def phonemes(self, text: str, voice: str) -> list[str]:
        """The IPA phonemes of a text, stress marks included; raises :class:`EngineFailed`."""
        header, _ = await self._ask({"op": "phonemes", "text": text, "voice": voice})
        return [str(name) for _, name in header["phonemes"]]

    async def ipa(self, text: str, voice: str) -> str:
        """A text in IPA, spaces between its words, without its punctuation; raises :class:`EngineFailed`."""
        header, _ = await self._ask({"op": "ipa", "text": text, "voice": voice})
        return str(header["ipa"])

    async def close(self) -> None:
        """Stop every process; later calls raise :class:`Unavailable`."""
        self._closed = True
        idle, self._idle = self._idle, []
        for process in idle:
            await _kill(process)

    async def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        try:
            # Not wait_for, which may lose a cancel that comes together with the place.
            async with asyncio.timeout(_SECONDS_TO_WAIT_FOR_A_PROCESS):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable("every espeak-ng process is busy", fix="try again, or add replicas") from None
        try:
            return await self._ask_living(json.dumps(request).encode() + b"\n")
        finally:
            self._free.release()

    async def _ask_living(self, line: bytes) -> tuple[dict[str, Any], bytes]:
        """Ask an idle process; one that died while idle is replaced once by a fresh one."""
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                try:
                    return await self._converse(process, line)
                except (ConnectionError, asyncio.IncompleteReadError):
                    break
        try:
            return await self._converse(await self._start(), line)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise EngineFailed("the espeak-ng process ended without an answer", fix="shorten the text") from error

    async def _start(self) -> Process:
        if self._closed:
            raise Unavailable("the speech engine is closed")
        return await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=_HEADER_LIMIT_BYTES, env={}
        )

    async def _converse(self, process: Process, line: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            async with asyncio.timeout(_REQUEST_LIMIT_S):
                header, pcm = await _exchange(process, line)
        except TimeoutError as error:
            await _kill(process)
            raise EngineFailed(f"espeak-ng did not answer within {_REQUEST_LIMIT_S:.0f} s") from error
        except BaseException:
            await _kill(process)
            raise
        if self._closed:
            await _kill(process)
        else:
            self._idle.append(process)
        if "error" in header:
            raise EngineFailed(f"espeak-ng: {foreign_text(header['error'])}")
        return header, pcm


async def _exchange(process: Process, line: bytes) -> tuple[dict[str, Any], bytes]:
    if process.stdin is None or process.stdout is None:
        raise ConnectionError("the process has no pipes")
    process.stdin.write(line)
    await process.stdin.drain()
    answer = await process.stdout.readline()
    if not answer.endswith(b"\n"):
        raise asyncio.IncompleteReadError(answer, None)
    header: dict[str, Any] = json.loads(answer)
    return header, await process.stdout.readexactly(header["bytes"])


async def _kill(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await reaped(process)
