"""Text as numbers of its characters, in blocks for training and other blocks for validation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from feedalign.checks import number_between, whole_number
from feedalign.errors import ArgumentError, DataError
from feedalign.streams import torch_generator

# Shorter lines, such as "}" or "Example:", stand in many places and carry no passage from one place to the other.
_SHORT = 20


@dataclass(frozen=True, eq=False)
class TextData:
    """A text in blocks of equal length, split into train and validation; a character is its place in the alphabet.

    Attributes:
        name: "python-topics" for the embedded text, else the file's name.
        digest: "sha256:..." of the text in UTF-8. It belongs into the config of whatever is computed from the text: the
            embedded text is another one in each version of Python, and a file may change.
        alphabet: the different characters of the text, sorted.
        train: int64 [blocks, characters].
        validation: int64 [blocks, characters]. The blocks are stretches of the text, so no window of characters that
            lies within one block crosses into the other part.
    """

    name: str
    digest: str
    alphabet: str
    train: Tensor
    validation: Tensor

    def decode(self, characters: Tensor) -> str:
        """Return numbers of characters, [n], as text."""
        return "".join(self.alphabet[i] for i in characters.tolist())


def load_text(path: str | Path | None = None, *, seed: int = 0, validation: float = 0.1, blocks: int = 50) -> TextData:
    """Return a text with its alphabet, cut into blocks of which some, chosen at random, are for validation.

    Args:
        path: a file in UTF-8. Unless given, the documentation that comes with Python (`pydoc_data.topics`), each line
            of it once.
        seed: seed of the choice of the blocks.
        validation: share of the blocks that are for validation, above 0 and below 1. Both parts get at least one block.
        blocks: how many blocks of equal length the text is cut into. Up to `blocks` − 1 characters at the end of the
            text are left over, and belong to neither part.

    Raises:
        ArgumentError: `seed` or `blocks` is no whole number, there are fewer than two blocks, or `validation` is out of
            range.
        DataError: the file cannot be read, is empty or is not UTF-8, or the text has fewer than two characters for
            each block.
    """
    blocks = whole_number("blocks", blocks, 2)
    share = number_between("validation", validation, 0, 1, ends="()")
    generator = torch_generator(whole_number("seed", seed), "split")
    name, text = ("python-topics", python_topics()) if path is None else (Path(path).name, _read(Path(path)))
    length = len(text) // blocks
    if length < 2:
        raise DataError(
            f"{name} has {len(text)} characters, which are no {blocks} blocks of at least 2; give a longer text, or "
            "fewer blocks"
        )
    alphabet = "".join(sorted(set(text)))
    place = {character: i for i, character in enumerate(alphabet)}
    cut = torch.tensor([place[character] for character in text[: blocks * length]]).reshape(blocks, length)
    held_out = min(max(round(share * blocks), 1), blocks - 1)
    order = torch.randperm(blocks, generator=generator)
    return TextData(
        name=name,
        digest=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        alphabet=alphabet,
        train=cut[order[held_out:].sort().values],
        validation=cut[order[:held_out].sort().values],
    )


def python_topics() -> str:
    """Return the text of Python's `help()` topics, 0.3 to 0.7 million characters depending on Python's version.

    Many passages stand in several topics. Each line of at least 20 characters is kept once, where it stands first in
    the order of the topics' names. Otherwise a held-out part of the text would hold passages that were trained on.
    """
    from pydoc_data.topics import topics as found  # half a megabyte, which nothing else needs

    seen: set[str] = set()
    kept: list[str] = []
    for name in sorted(found):
        for line in found[name].splitlines():
            words = line.strip()
            if words in seen or not (words or (kept and kept[-1])):  # no two empty lines after each other
                continue
            if len(words) >= _SHORT:
                seen.add(words)
            kept.append(line.rstrip())
    return "\n".join(kept)


def windows(part: Tensor, context: int, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return characters and, for each of them, the one that follows: two int64 [batch, context], drawn at random.

    Args:
        part: blocks of a text, int64 [blocks, characters].
        context: length of a window. A window and the character after it lie within one block.
        batch: number of windows.
        generator: where random numbers come from; the global one is not touched.

    Raises:
        ArgumentError: context or batch is no whole number of at least one, or the blocks are too short.
    """
    starts = _starts(part, context)
    batch = whole_number("batch", batch, 1)
    block = torch.randint(len(part), (batch, 1), generator=generator)
    place = torch.randint(starts, (batch, 1), generator=generator) + torch.arange(context + 1)
    drawn = part[block, place]
    return drawn[:, :-1], drawn[:, 1:]


def every_window(part: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Return the same for all windows that follow one another in the blocks, two int64 [windows, context].

    The windows do not overlap, and each character but the first of a block and a rest shorter than a window at the end
    of a block is predicted once.

    Raises:
        ArgumentError: context is no whole number of at least one, or the blocks are too short.
    """
    _starts(part, context)
    cut = part.unfold(1, context + 1, context).flatten(0, 1)  # [windows, context + 1]
    return cut[:, :-1], cut[:, 1:]


def _starts(part: Tensor, context: int) -> int:
    """Return how many windows begin in a block; ArgumentError if there is none."""
    if part.shape[1] <= whole_number("context", context, 1):
        raise ArgumentError(
            f"blocks of {part.shape[1]} characters hold no window of context={context} and the character after it; "
            "give a smaller context, fewer blocks or a longer text"
        )
    return part.shape[1] - context


def _read(path: Path) -> str:
    """Return the text of a file; DataError, which says what to do, if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in UTF-8: byte {error.start} cannot be read; convert the file to UTF-8, for example "
            "with iconv"
        ) from error
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {path}: {reason}; give the path of a text file") from error
    if not text:
        raise DataError(f"{path} is empty; give a file with text")
    return text
