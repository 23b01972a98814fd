"""Every argument check returns its argument as plain Python or numpy, or refuses it in the house's words."""

from __future__ import annotations

import decimal
import fractions
import math
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feedalign import checks
from feedalign.errors import ArgumentError


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no words for this")


class Unreadable:
    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray[Any, Any]:
        raise RuntimeError("no numbers in this")


NO_NUMBERS = [
    None, True, False, np.True_, "1", b"1", "", 1 + 0j, np.complex128(1), decimal.Decimal(1), torch.tensor(1.0),
    torch.tensor(1.0, requires_grad=True), [1.0], (1,), {}, {1}, np.array([1.0]), np.array(True), np.timedelta64(1),
    np.datetime64(1, "s"), object(), Unprintable(), len, iter([1]), range(1), ...,
]  # fmt: skip
NOT_FINITE = [
    math.nan,
    math.inf,
    -math.inf,
    np.float32("nan"),
    np.float64("inf"),
    10**400,
    -(10**400),
    np.array(np.nan),
]
ONES = [1, 1.0, np.int8(1), np.uint64(1), np.float16(1), np.float32(1), np.longdouble(1), np.array(1), np.array(1.0),
        fractions.Fraction(1)]  # fmt: skip

NUMBERS: list[Callable[[object], float]] = [
    lambda value: checks.finite_number("x", value),
    lambda value: checks.positive_number("x", value),
    lambda value: checks.number_at_least("x", value, 0),
    lambda value: checks.number_between("x", value, 0, 2),
    lambda value: checks.whole_number("x", value),
    lambda value: checks.whole_number("x", value, at_least=0, at_most=10),
]


@pytest.mark.parametrize("check", NUMBERS)
class TestEveryCheckOfANumber:
    @pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
    def test_refuses_what_is_no_number(self, check: Callable[[object], float], value: object) -> None:
        with pytest.raises(ArgumentError, match=r"^x must be a .*number.*, got .+; (write|convert)"):
            check(value)

    @pytest.mark.parametrize("value", NOT_FINITE, ids=lambda value: checks.shown(value)[:20])
    def test_refuses_what_is_not_finite(self, check: Callable[[object], float], value: object) -> None:
        with pytest.raises(ArgumentError, match=r"^x must be a .*number.*, got "):
            check(value)

    @pytest.mark.parametrize("value", ONES, ids=lambda value: type(value).__name__)
    def test_returns_a_plain_number(self, check: Callable[[object], float], value: object) -> None:
        found = check(value)
        assert type(found) in (int, float)
        assert found == 1

    @given(value=st.one_of(st.floats(), st.integers(), st.text(), st.none(), st.complex_numbers(), st.decimals()))
    def test_returns_the_number_it_was_given_or_refuses_it(
        self, check: Callable[[object], float], value: object
    ) -> None:
        try:
            found = check(value)
        except ArgumentError:
            return
        assert isinstance(value, int | float)
        assert math.isclose(found, value, rel_tol=1e-15)
        assert math.isfinite(found)


class TestLimits:
    def test_a_positive_number_is_above_zero(self) -> None:
        assert checks.positive_number("lr", 5e-324) == 5e-324
        for wrong in (0, 0.0, -1e-300):
            with pytest.raises(ArgumentError, match=rf"lr must be a finite number above 0, got {wrong!r}"):
                checks.positive_number("lr", wrong)

    def test_the_least_number_is_allowed(self) -> None:
        assert checks.number_at_least("noise_std", 0, 0) == 0.0
        with pytest.raises(ArgumentError, match=r"noise_std must be a finite number of at least 0, got -1$"):
            checks.number_at_least("noise_std", -1, 0)

    @pytest.mark.parametrize(("ends", "low", "high"), [("[]", 1, 1), ("[)", 1, 0), ("(]", 0, 1), ("()", 0, 0)])
    def test_the_ends_of_an_interval(self, ends: str, low: int, high: int) -> None:
        for end, belongs in ((0.0, low), (1.0, high)):
            if belongs:
                assert checks.number_between("share", end, 0, 1, ends=ends) == end
            else:
                with pytest.raises(ArgumentError, match=re.escape(f"in {ends[0]}0, 1{ends[1]}, got {end}")):
                    checks.number_between("share", end, 0, 1, ends=ends)

    def test_whole_numbers_have_limits_and_no_fraction(self) -> None:
        assert checks.whole_number("steps", 1e3) == 1000
        assert checks.whole_number("steps", 2**63 - 1) == 2**63 - 1
        with pytest.raises(ArgumentError, match=r"steps must be a whole number of at least 1, got 0$"):
            checks.whole_number("steps", 0, 1)
        with pytest.raises(ArgumentError, match=r"a whole number of at least 1 and at most 3, got 4$"):
            checks.whole_number("steps", 4, 1, 3)
        with pytest.raises(ArgumentError, match=r"a whole number of at most 3, got 4$"):
            checks.whole_number("steps", 4, at_most=3)
        with pytest.raises(ArgumentError, match=r"a whole number, got 1\.5$"):
            checks.whole_number("steps", 1.5)
        with pytest.raises(ArgumentError, match=r"a whole number within 64 bits, got 9223372036854775808$"):
            checks.whole_number("steps", 2**63)

    def test_advice_ends_the_message(self) -> None:
        with pytest.raises(ArgumentError, match=r"got 0; 1 is a good start$"):
            checks.positive_number("lr", 0, advice="1 is a good start")


class TestSequences:
    @pytest.mark.parametrize("value", [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), np.array([1.0, 2.0]), [1.0, 2]])
    def test_become_lists_of_integers(self, value: object) -> None:
        found = checks.whole_numbers("sizes", value, 1, length=2)
        assert found == [1, 2]
        assert {type(entry) for entry in found} == {int}

    @pytest.mark.parametrize(
        "value", [None, 1, "12", b"12", {1: 2}, {1, 2}, iter([1]), (i for i in [1]), torch.tensor([1]), np.array(1)]
    )
    def test_are_ordered_and_have_a_length(self, value: object) -> None:
        with pytest.raises(ArgumentError, match=r"sizes must be a sequence of whole numbers, got .*; (make|give) a"):
            checks.whole_numbers("sizes", value)

    def test_say_which_entry_is_wrong(self) -> None:
        with pytest.raises(ArgumentError, match=r"sizes\[1\] must be a whole number of at least 1, got 0"):
            checks.whole_numbers("sizes", [1, 0], 1)

    def test_say_how_many_there_should_be(self) -> None:
        with pytest.raises(ArgumentError, match=r"sizes must have 3 whole numbers, got 2: \[1, 2\]"):
            checks.whole_numbers("sizes", [1, 2], length=3)


class TestWordsAndObjects:
    def test_one_of_a_few_words(self) -> None:
        assert checks.one_of("rule", "dfa", ("dfa", "bp")) == "dfa"
        for wrong in ("fa", None, 1, ["dfa"], torch.tensor(1), np.array(["dfa", "bp"]), Unprintable()):
            with pytest.raises(ArgumentError, match=r"rule=.* is unknown; expected one of dfa, bp$"):
                checks.one_of("rule", wrong, ("dfa", "bp"))

    def test_flags_are_bools(self) -> None:
        assert checks.flag("bias", True) is True
        assert checks.flag("bias", np.False_) is False
        for wrong in (0, 1, None, "True", torch.tensor(True), np.array([True])):
            with pytest.raises(ArgumentError, match=r"bias must be True or False, got "):
                checks.flag("bias", wrong)

    def test_generators_are_numpys(self) -> None:
        rng = np.random.default_rng(0)
        assert checks.random_generator("rng", rng) is rng
        for wrong in (0, None, np.random.RandomState(0), torch.Generator()):
            with pytest.raises(ArgumentError, match=r"rng must be a Generator, got .*; make one with numpy\.random"):
                checks.random_generator("rng", wrong)

    def test_a_message_is_short_and_on_one_line_whatever_it_shows(self) -> None:
        for value in (Unprintable(), 10**5000, "x" * 10**6, list(range(10**6)), np.zeros((300, 300)), [[1] * 99] * 99):
            text = checks.shown(value)
            assert len(text) < 300
            assert "\n" not in text


class TestArrays:
    @pytest.mark.parametrize(
        "value", [[1, 2], (1.0, 2.0), np.array([1, 2], np.uint8), np.array([1, 2], np.float16), torch.tensor([1, 2])]
    )
    def test_become_new_floats(self, value: Any) -> None:
        found = checks.finite_array("v", value, ("K",))
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, [1, 2])

    def test_are_copies_that_can_be_written_to(self) -> None:
        given = np.ones(3)
        given.setflags(write=False)
        found = checks.finite_array("v", given)
        found[0] = 2
        assert given[0] == 1

    @pytest.mark.parametrize(
        "value",
        [
            None, True, [True], "12", ["1", "2"], [1 + 1j], [None], [decimal.Decimal(1)], [10**30], [[1], [1, 2]],
            {1: 2}, iter([1.0]), np.array([1.0], object), np.array(["a"]), np.array([1], "datetime64[s]"), object(),
            Unreadable(), torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16), [Unreadable()],
            np.ma.masked_equal([1.0, 2.0], 2.0),
        ],
        ids=lambda value: checks.shown(value)[:30],
    )  # fmt: skip
    def test_refuse_what_is_no_real_number(self, value: Any) -> None:
        with pytest.raises(ArgumentError, match=r"^v must be an array of real numbers of shape \[K\], got .*; "):
            checks.finite_array("v", value, ("K",))

    @pytest.mark.parametrize("value", [math.nan, math.inf, np.longdouble("1e400")])
    def test_finite_ones_refuse_what_is_not_and_say_where(self, value: Any) -> None:
        with pytest.raises(ArgumentError, match=r"Q must hold finite numbers only, got (nan|inf) at Q\[1, 0\]; check"):
            checks.finite_array("Q", np.array([[1, 2], [value, 3]]))
        assert checks.real_array("Q", [value]).shape == (1,)

    @pytest.mark.parametrize("value", [1.0, [], [[1.0, 2.0]], [1.0, 2.0, 3.0], np.ones((2, 0)), np.ones((2, 2, 1))])
    def test_have_the_shape_that_is_asked_for(self, value: Any) -> None:
        with pytest.raises(ArgumentError, match=r"W must be an array of shape \[2, N\], got shape \["):
            checks.finite_array("W", value, (2, "N"))
        assert checks.finite_array("W", np.ones((2, 7)), (2, "N")).shape == (2, 7)


def test_the_checks_load_numpy_alone() -> None:
    code = "import sys, feedalign.checks; print(sorted({'torch', 'scipy', 'numba'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
