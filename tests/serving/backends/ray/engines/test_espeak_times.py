"""Events of espeak-ng become times: fused phonemes share, merged words share, nothing overlaps."""

import numpy as np
import pytest

from serving.backends.ray.engines.espeak_pool import Spoken
from serving.backends.ray.engines.espeak_text import SaidWord
from serving.backends.ray.engines.espeak_times import place_phonemes, place_words, sounding_phonemes


def spoken(words: list[tuple[int, int, int]], phonemes: list[tuple[int, str]], length: int = 1000) -> Spoken:
    return Spoken(np.zeros(length, dtype=np.int16), 1000, words, phonemes)


def test_silences_end_a_phoneme_and_are_none_themselves() -> None:
    sound = spoken([(0, 2, 0)], [(100, "ˈa"), (300, ""), (500, "n"), (700, "")])
    assert sounding_phonemes(sound) == [(100, 300, "ˈa"), (500, 700, "n")]


def test_a_phoneme_without_length_takes_the_end_of_the_one_before_it() -> None:
    sound = spoken([(0, 4, 0)], [(0, "w"), (100, "ˈɛ"), (300, "l"), (300, "")])
    assert sounding_phonemes(sound) == [(0, 100, "w"), (100, 220, "ˈɛ"), (220, 300, "l")]


def test_a_nameless_event_with_sound_in_it_is_the_onset_of_the_next_phoneme() -> None:
    pcm = np.zeros(1000, dtype=np.int16)
    pcm[200:400] = 1000
    sound = Spoken(pcm, 1000, [(0, 1, 0)], [(0, ""), (200, ""), (250, "a"), (400, "")])
    assert sounding_phonemes(sound) == [(200, 400, "a")]


def test_marks_of_a_language_switch_are_not_phonemes() -> None:
    assert sounding_phonemes(spoken([], [(0, "(en)"), (10, "h"), (20, "(fr)")])) == [(10, 20, "h")]


def test_words_that_espeak_says_together_share_the_time() -> None:
    words = [SaidWord("of", 0, 2), SaidWord("thee", 3, 7), SaidWord("sea", 8, 11)]
    sound = spoken([(0, 7, 0), (8, 3, 600)], [(0, "v"), (300, "ə"), (600, "s"), (900, "")])
    placed = place_words(words, sound, sounding_phonemes(sound), 0.001, 10.0)
    assert [word.text for word in placed] == ["of", "thee", "sea"]
    assert [word.start_s for word in placed] == pytest.approx([10.0, 10.2, 10.6])
    assert [word.end_s for word in placed] == pytest.approx([10.2, 10.6, 10.9])


def test_a_clause_without_any_event_still_gives_every_word_a_time() -> None:
    placed = place_words([SaidWord("a", 0, 1), SaidWord("b", 2, 3)], spoken([], []), [], 0.001, 0.0)
    assert [(word.start_s, word.end_s) for word in placed] == [(0.0, 0.5), (0.5, 1.0)]


def test_phonemes_are_moved_to_the_programme() -> None:
    assert [(p.symbol, p.start_s, p.end_s) for p in place_phonemes([(0, 500, "a")], 0.001, 2.0)] == [("a", 2.0, 2.5)]
