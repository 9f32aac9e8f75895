"""Scripts as people write them, into turns, scenes and paragraphs; used by the graphs that speak.

The one invariant: parsing is pure and total: any text gives its parts, or a BadInput that names the line or part.
"""

import difflib
import re
from collections.abc import Sequence

from serving.errors import BadInput
from serving.protocol.tasks import Message

MAX_TURNS = 500
MAX_TURN_CHARS = 2_000
MAX_SCENES = 100
MAX_NAME_WORDS = 3
SHOWN_CHARS = 40

_SPOKEN = re.compile(r"^\s*(?P<name>[^\W\d_][\w .'-]{0,59}?)\s*:\s*(?P<text>.*)$")
_HEADING = re.compile(
    r"^\s*(?:#{1,6}\s+(?P<hash>.+)|scene(?:\s+\w+)?\s*[:.-]\s*(?P<scene>.+)|(?P<slug>(?:INT|EXT)[./ ].+))$",
    re.IGNORECASE,
)
_DIRECTION = re.compile(r"^\s*\[\s*(?P<key>\w+)\s*:\s*(?P<value>[^\[\]]*?)\s*\]\s*$")
_DIRECTIONS = ("image", "motion")


class Turn(Message):
    """What one speaker says before the other answers; ``line`` counts from 1 in the script."""

    speaker: int
    text: str
    line: int


class Scene(Message):
    """One scene: its title, the narration, and how its picture is chosen and moved."""

    title: str
    narration: str
    image: str | None = None
    motion: str | None = None
    line: int


def parse_turns(script: str, speakers: Sequence[str]) -> list[Turn]:
    """Read ``Name: what they say`` lines; a line without a name continues the turn before it.

    Names are compared without regard to case. Empty lines and lines that start with ``#`` are skipped.

    Raises:
        BadInput: no turn at all, a name that is no speaker, a turn without words, too many or too long turns.
    """
    by_name = {name.casefold(): index for index, name in enumerate(speakers)}
    turns: list[Turn] = []
    for number, line in enumerate(script.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        spoken = _SPOKEN.match(line)
        name = spoken["name"].strip() if spoken else ""
        if spoken and name.casefold() in by_name:
            turns.append(Turn(speaker=by_name[name.casefold()], text=spoken["text"].strip(), line=number))
        elif turns and not (spoken and _is_name(name)):
            text = f"{turns[-1].text} {line.strip()}".strip()
            turns[-1] = turns[-1].model_copy(update={"text": text})
        else:
            raise _unknown_speaker(name or line.strip(), speakers, number)
    _check_turns(turns, speakers)
    return turns


def parse_scenes(script: str) -> list[Scene]:
    """Read scenes: a heading (``# Title``, ``Scene 2: Title`` or ``EXT. RIVER - DAWN``), then the narration.

    A line ``[image: name]`` or ``[motion: zoom_in]`` belongs to its scene. Text before the first heading is a scene of
    its own.

    Raises:
        BadInput: no narration at all, a scene without words, too many scenes, or a direction nobody knows, which would
            else be read aloud.
    """
    scenes: list[Scene] = []
    for number, line in enumerate(script.splitlines(), start=1):
        if not line.strip():
            continue
        heading, direction = _HEADING.match(line), _DIRECTION.match(line)
        if heading:
            title = next(part for part in heading.groups() if part).strip()
            scenes.append(Scene(title=title, narration="", line=number))
            continue
        if not scenes:
            scenes.append(Scene(title="", narration="", line=number))
        if direction:
            changed = _direction(direction["key"].lower(), direction["value"], number)
        else:
            changed = {"narration": f"{scenes[-1].narration} {line.strip()}".strip()}
        scenes[-1] = scenes[-1].model_copy(update=changed)
    _check_scenes(scenes)
    return scenes


def _direction(key: str, value: str, line: int) -> dict[str, str]:
    if key not in _DIRECTIONS or not value:
        raise BadInput(
            f"line {line}: there is no direction '[{key}: {value}]'",
            field="script",
            fix="write [image: name] or [motion: zoom_in], or take the brackets away",
        )
    return {key: value}


def _is_name(text: str) -> bool:
    """Whether text before a colon reads as a speaker's name rather than as part of a sentence."""
    words = text.split()
    return 0 < len(words) <= MAX_NAME_WORDS and all(word[0].isupper() for word in words)


def _unknown_speaker(name: str, speakers: Sequence[str], line: int) -> BadInput:
    shown = name if len(name) <= SHOWN_CHARS else name[: SHOWN_CHARS - 3] + "..."
    near = difflib.get_close_matches(name, speakers, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"start the line with one of: {', '.join(speakers)}"
    return BadInput(f"line {line}: {shown!r} is not a speaker", field="script", fix=hint)


def paragraphs(text: str, *, field: str) -> list[str]:
    """A text's paragraphs, which empty lines part; each is spoken, animated and repeated by itself.

    Raises:
        BadInput: no words at all, a paragraph without words, too many or too long ones.
    """
    parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]
    if not parts:
        raise BadInput("there is nothing to say", field=field, fix="write what shall be said")
    _check_count(len(parts), "paragraphs", MAX_TURNS, field=field)
    for number, part in enumerate(parts, start=1):
        check_spoken(part, f"paragraph {number}", field=field)
    return parts


def check_spoken(text: str, where: str, *, field: str) -> None:
    """Refuse a piece of text that cannot be spoken at once.

    Args:
        text: what shall be said.
        where: what a person calls the piece, for the message.
        field: the request's field, for the message.
    """
    if not any(character.isalnum() for character in text):
        raise BadInput(f"{where} has no words", field=field, fix="write a sentence or remove it")
    if len(text) > MAX_TURN_CHARS:
        raise BadInput(
            f"{where} is over the bound with {len(text)} characters",
            field=field,
            fix=f"split it; what is said at once holds at most {MAX_TURN_CHARS}",
        )


def _check_count(count: int, what: str, most: int, *, field: str = "script") -> None:
    if count > most:
        raise BadInput(f"{count} {what} are over the bound", field=field, fix=f"use at most {most}")


def _check_turns(turns: Sequence[Turn], speakers: Sequence[str]) -> None:
    if not turns:
        example = speakers[0] if speakers else "Name"
        raise BadInput("there is nothing to say", field="script", fix=f"write lines such as '{example}: Hello.'")
    _check_count(len(turns), "turns", MAX_TURNS)
    for turn in turns:
        check_spoken(turn.text, f"line {turn.line}: the turn", field="script")


def _check_scenes(scenes: Sequence[Scene]) -> None:
    if not scenes:
        raise BadInput("there is no scene", field="script", fix="write a heading ('# Title') and narration under it")
    _check_count(len(scenes), "scenes", MAX_SCENES)
    for scene in scenes:
        check_spoken(scene.narration, f"line {scene.line}: the narration of scene {scene.title!r}", field="script")
