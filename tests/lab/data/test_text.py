"""Text: characters and their numbers, a split that no window crosses, and what counting predicts."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from feedalign.errors import ArgumentError, DataError
from feedalign.lab.data import TextData, every_window, load_text, ngram, windows


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counting(tmp_path: Path, length: int = 1000, **arguments: Any) -> TextData:
    """A text whose characters say where they stand, so that windows can be told."""
    file = tmp_path / "counting.txt"
    file.write_text("".join(chr(0x4E00 + i) for i in range(length)), encoding="utf-8")
    return load_text(file, **{"blocks": 10, "validation": 0.3, **arguments})


def parts_of(data: TextData) -> tuple[set[int], set[int]]:
    return set(data.train.flatten().tolist()), set(data.validation.flatten().tolist())


def test_the_embedded_text_is_english_and_needs_no_file() -> None:
    data = load_text()
    assert data.name == "python-topics"
    text = data.decode(data.train.flatten())
    assert len(text) > 250_000
    assert " the " in text
    assert 80 < len(data.alphabet) < 200
    assert data.train.shape == (45, data.validation.shape[1])
    assert data.validation.shape[0] == 5
    assert data.digest == load_text(seed=1).digest


def test_validation_of_the_embedded_text_holds_few_passages_that_were_trained_on() -> None:
    """Of the topics as they are, 27 % of the windows of 64 characters also stand in a block for training."""
    data = load_text()
    known = {tuple(row) for block in data.train for row in block.unfold(0, 64, 1)[:, ::7].tolist()}
    found = [tuple(row) in known for block in data.validation for row in block.unfold(0, 64, 16)[:, ::7].tolist()]
    assert sum(found) / len(found) < 0.01


def test_the_split_is_of_whole_stretches_and_the_parts_have_nothing_in_common(tmp_path: Path) -> None:
    data = counting(tmp_path, 1009)
    train, validation = parts_of(data)
    assert not train & validation
    assert train | validation == set(range(1000))  # the rest of 9 characters belongs to neither
    assert data.validation.shape == (3, 100)
    for block in (*data.train, *data.validation):
        assert torch.equal(block.diff(), torch.ones(99, dtype=torch.int64))


def test_the_seed_chooses_the_blocks_and_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first, again, other = (counting(tmp_path, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.validation, again.validation)
    assert not torch.equal(first.validation, other.validation)
    assert first.digest == other.digest
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("share", "held_out"), [(0.001, 1), (0.5, 5), (0.999, 9)])
def test_both_parts_get_a_block(tmp_path: Path, share: float, held_out: int) -> None:
    assert len(counting(tmp_path, validation=share).validation) == held_out


def test_characters_come_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("naïve → 雪", encoding="utf-8")
    data = load_text(file, blocks=2, validation=0.5)
    parts = {data.decode(data.train[0]), data.decode(data.validation[0])}
    assert parts == {"naïv", "e → "}
    assert data.alphabet == "".join(sorted(set("naïve → 雪")))


def test_the_digest_is_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    digests = []
    for text in ("one text", "one text", "one texT"):
        file.write_text(text)
        digests.append(load_text(file, blocks=2).digest)
    assert digests[0] == digests[1] != digests[2]
    assert digests[0] == f"sha256:{hashlib.sha256(b'one text').hexdigest()}"


@given(context=st.integers(1, 99), batch=st.integers(1, 20), seed=st.integers(0, 99))
def test_no_window_crosses_a_block(context: int, batch: int, seed: int) -> None:
    blocks = torch.arange(500).reshape(5, 100)
    x, y = windows(blocks, context, batch, seeded(seed))
    assert x.shape == y.shape == (batch, context)
    assert torch.equal(x + 1, y)
    assert torch.equal(x[:, 0] // 100, y[:, -1] // 100)


def test_every_place_of_every_block_is_drawn_equally_often() -> None:
    blocks = torch.arange(40).reshape(4, 10)
    n = 40_000
    x, _ = windows(blocks, 5, n, seeded())
    counts = torch.bincount(x[:, 0], minlength=40).reshape(4, 10).double()
    assert not counts[:, 5:].any()
    p = 1 / 20
    # 20 counts within 5 standard errors: fails by chance once in 85 000 seeds, and the seed is fixed.
    assert (counts[:, :5] - n * p).abs().max() < 5 * math.sqrt(n * p * (1 - p))


def test_windows_come_from_the_given_generator_alone() -> None:
    blocks = torch.arange(500).reshape(5, 100)
    state = torch.get_rng_state()
    first, again, other = (windows(blocks, 8, 4, seeded(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("context", "predicted"), [(1, 9), (4, 8), (9, 9)])
def test_every_window_predicts_each_character_once(context: int, predicted: int) -> None:
    blocks = torch.arange(30).reshape(3, 10)
    x, y = every_window(blocks, context)
    assert torch.equal(x + 1, y)
    expected = torch.cat([block[1 : predicted + 1] for block in blocks])
    assert torch.equal(y.flatten(), expected)


def blocks_of(train: Tensor, validation: Tensor, alphabet: str = "ab") -> TextData:
    return TextData("test", "sha256:0", alphabet, train, validation)


def test_a_uniform_text_has_the_entropy_of_its_alphabet() -> None:
    drawn = torch.randint(8, (2, 20_000), generator=seeded())
    data = blocks_of(drawn[:1], drawn[1:], "abcdefgh")
    for order in (1, 2):
        found = ngram(data, order)
        assert found.entropy_bits == pytest.approx(3, abs=0.01)
        assert found.validation_bits == pytest.approx(3, abs=0.01)
        assert found.validation_bits > found.entropy_bits


def test_a_text_that_alternates_is_predicted_by_pairs_but_not_by_frequencies() -> None:
    text = torch.tensor([[0, 1] * 500])
    assert ngram(blocks_of(text, text), 1).entropy_bits == pytest.approx(1)
    pairs = ngram(blocks_of(text, text), 2)
    assert pairs.entropy_bits == 0
    # Of 500 pairs ab, T = 1 borrows half of 1/501.
    assert pairs.validation_bits == pytest.approx(-math.log2(500.5 / 501), rel=0.05)


def test_the_formula_by_hand() -> None:
    """Text aab over an alphabet with c: N(a) = 2, N(b) = 1, T = 2, so p(a) = (2 + 2/3) / 5, p(b) = (1 + 2/3) / 5."""
    found = ngram(blocks_of(torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1]]), "abc"), 2)
    a, b = (2 + 2 / 3) / 5, (1 + 2 / 3) / 5
    assert a + b + 2 / 3 / 5 == pytest.approx(1)
    after_a = (1 + 2 * b) / 4  # N(aa) = N(ab) = 1, T(a) = 2
    assert found.order == 2
    assert found.entropy_bits == pytest.approx(1)
    assert found.validation_bits == pytest.approx(-math.log2(after_a))
    unseen = ngram(blocks_of(torch.tensor([[0, 0, 1]]), torch.tensor([[1, 2]]), "abc"), 2)
    assert unseen.validation_bits == pytest.approx(-math.log2(2 / 3 / 5))  # nothing follows b, so p_1(c)


def test_held_out_english_is_predicted_better_by_longer_contexts() -> None:
    one, two, three = (ngram(load_text(), order) for order in (1, 2, 3))
    assert 4 < one.validation_bits < 5.5
    assert one.validation_bits > two.validation_bits > three.validation_bits > three.entropy_bits


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"empty.txt is empty; give a file with text"),
        (b"abc\xff", "empty.txt is not text in UTF-8: byte 3 cannot be read; convert the file to UTF-8"),
        (b"abc", "empty.txt has 3 characters, which are no 50 blocks of at least 2; give a longer text, or fewer"),
        (None, "cannot read .*empty.txt: No such file or directory; give the path of a text file"),
    ],
)
def test_a_file_that_is_no_text_says_why(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "empty.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_text(tmp_path / "empty.txt")


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory; give the path of a text file"):
        load_text(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": 1}, "blocks must be a whole number of at least 2, got 1"),
        ({"validation": 0}, r"validation must be a number in \(0, 1\), got 0"),
        ({"validation": 1.0}, r"validation must be a number in \(0, 1\), got 1.0"),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
    ],
)
def test_odd_arguments_say_what_was_expected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        load_text(**arguments)


def test_odd_windows_and_orders_say_what_was_expected() -> None:
    blocks = torch.zeros(2, 10, dtype=torch.int64)
    with pytest.raises(ArgumentError, match="blocks of 10 characters hold no window of context=10 and the character"):
        windows(blocks, 10, 3, seeded())
    with pytest.raises(ArgumentError, match="hold no window of context=12"):
        every_window(blocks, 12)
    with pytest.raises(ArgumentError, match="batch must be a whole number of at least 1, got 0"):
        windows(blocks, 3, 0, seeded())
    with pytest.raises(ArgumentError, match="order must be a whole number of at least 1 and at most 3, got 4"):
        ngram(blocks_of(blocks, blocks), 4)
