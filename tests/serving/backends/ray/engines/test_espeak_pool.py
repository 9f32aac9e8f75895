"""The espeak-ng processes: equal sound for equal requests, mended when they die, gone with their parent."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import numpy as np
import psutil
import pytest

from serving.backends.ray.engines import espeak_pool
from serving.backends.ray.engines.espeak_pool import EspeakPool, Utterance
from serving.errors import EngineFailed, Unavailable

HELLO = Utterance("Hello there, my friend.", "en+f2")


@pytest.fixture
async def pool() -> AsyncIterator[EspeakPool]:
    pool = EspeakPool(2)
    yield pool
    await pool.close()


async def test_sound_comes_with_word_and_phoneme_events(pool: EspeakPool) -> None:
    spoken = await pool.speak(HELLO)
    assert spoken.rate_hz == 22050
    assert 1.0 < len(spoken.pcm) / spoken.rate_hz < 2.5
    assert np.abs(spoken.pcm).max() > 5000
    assert [HELLO.text[first : first + length] for first, length, _ in spoken.words] == [
        "Hello",
        "there",
        "my",
        "friend",
    ]
    assert [name.strip("ˈˌ") for _, name in spoken.phonemes][:3] == ["h", "ə", "l"]


async def test_what_was_said_before_does_not_change_the_sound(pool: EspeakPool) -> None:
    first = await pool.speak(HELLO)
    await pool.speak(Utterance("Something else altogether!", "hi+whisper", rate=300, pitch=90))
    again = await pool.speak(HELLO)
    assert first.pcm.tobytes() == again.pcm.tobytes()
    assert (first.words, first.phonemes) == (again.words, again.phonemes)


async def test_markup_is_read_out_and_never_obeyed(pool: EspeakPool) -> None:
    spoken = await pool.speak(Utterance("<speak>one<break time='9s'/>two</speak>", "en"))
    assert len(spoken.pcm) / spoken.rate_hz < 8


async def test_a_process_that_died_while_idle_is_replaced(pool: EspeakPool) -> None:
    first = await pool.speak(HELLO)
    os.kill(pool.idle_pids[0], signal.SIGKILL)
    assert (await pool.speak(HELLO)).pcm.tobytes() == first.pcm.tobytes()


async def test_a_wrong_voice_is_an_error_and_the_process_lives_on(pool: EspeakPool) -> None:
    with pytest.raises(EngineFailed, match="nonesuch"):
        await pool.speak(Utterance("Hello", "nonesuch"))
    pids = pool.idle_pids
    await pool.speak(HELLO)
    assert pool.idle_pids == pids


async def test_a_cancelled_conversation_ends_its_process(pool: EspeakPool) -> None:
    await pool.speak(HELLO)
    (pid,) = pool.idle_pids
    task = asyncio.create_task(pool.speak(Utterance("word " * 2000, "en")))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.idle_pids == []
    assert not psutil.pid_exists(pid)
    await pool.speak(HELLO)


async def test_no_more_processes_are_started_than_allowed(pool: EspeakPool) -> None:
    await asyncio.gather(*(pool.speak(HELLO) for _ in range(8)))
    assert 1 <= len(pool.idle_pids) <= 2


async def test_a_closed_pool_says_so(pool: EspeakPool) -> None:
    await pool.close()
    with pytest.raises(Unavailable):
        await pool.speak(HELLO)


async def test_phonemes_of_a_text_come_without_sound(pool: EspeakPool) -> None:
    assert "".join(await pool.phonemes("cat", "en-us")) == "kˈæt"


async def test_a_text_in_ipa_keeps_its_words_apart(pool: EspeakPool) -> None:
    assert await pool.ipa("a cat, a dog", "en-us") == "ɐ kˈæt ɐ dˈɑːɡ"
    assert "(" not in await pool.ipa("le football anglais", "fr")


def test_processes_die_with_a_killed_parent() -> None:
    program = (
        "import asyncio, sys\n"
        "from serving.backends.ray.engines.espeak_pool import EspeakPool, Utterance\n"
        "async def main():\n"
        "    pool = EspeakPool(1)\n"
        "    await pool.speak(Utterance('hello', 'en'))\n"
        "    print(pool.idle_pids[0], flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_a_conversation_that_is_cut_off_in_a_long_answer_ends_its_process(
    pool: EspeakPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: asyncio waited for ever for the end of a pipe that it had stopped reading."""

    async def never_reading(process: asyncio.subprocess.Process, line: bytes) -> None:
        assert process.stdin is not None
        process.stdin.write(line)
        await asyncio.sleep(60)

    monkeypatch.setattr(espeak_pool, "_HEADER_LIMIT_BYTES", 1024)
    monkeypatch.setattr(espeak_pool, "_exchange", never_reading)
    task = asyncio.create_task(pool.speak(Utterance("word " * 100, "en")))
    await asyncio.sleep(1)  # the answer has begun to come
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
