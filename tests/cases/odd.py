"""Values that no argument expects: each has a name, and is made anew for every call."""

from __future__ import annotations

import decimal
import fractions
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from feedalign.geometry import Geometry


class Unreadable:
    """Raises wherever it is asked for numbers, length or words."""

    def __array__(self, dtype: object = None, copy: object = None) -> Any:
        raise RuntimeError("no numbers in this")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __repr__(self) -> str:
        raise RuntimeError("no words")


# Iterators are made anew for every call: one that is used up would be another value.
ODD: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "numpy bool": lambda: np.False_,
    "zero": lambda: 0,
    "minus one": lambda: -1,
    "two": lambda: 2,
    "half": lambda: 0.5,
    "NaN": lambda: math.nan,
    "infinity": lambda: math.inf,
    "minus infinity": lambda: -math.inf,
    "numpy NaN": lambda: np.float32("nan"),
    "longdouble": lambda: np.longdouble("1e400"),
    "huge float": lambda: 1e300,
    "tiny float": lambda: 5e-324,
    "huge int": lambda: 10**30,
    "endless int": lambda: 10**5000,
    "uint64": lambda: np.uint64(2**64 - 1),
    "Decimal": lambda: decimal.Decimal(1),
    "Fraction": lambda: fractions.Fraction(3, 2),
    "complex": lambda: 1 + 2j,
    "time span": lambda: np.timedelta64(1, "s"),
    "Tensor": lambda: torch.tensor(1.0),
    "Tensor with gradient": lambda: torch.ones(2, requires_grad=True),
    "Tensor matrix": lambda: torch.ones(3, 3),
    "bfloat16 Tensor": lambda: torch.ones(2, dtype=torch.bfloat16),
    "str": lambda: "many",
    "empty str": lambda: "",
    "bytes": lambda: b"1",
    "list": lambda: [1],
    "empty list": list,
    "list of str": lambda: ["1", "2"],
    "list of None": lambda: [None, None],
    "ragged list": lambda: [[1.0], [1.0, 2.0]],
    "list of huge ints": lambda: [10**30, 10**30],
    "list of NaN": lambda: [math.nan, 1.0],
    "list of Decimals": lambda: [decimal.Decimal(1)] * 2,
    "list of complex": lambda: [1j, 2j],
    "list of objects": lambda: [Unreadable(), Unreadable()],
    "list of arrays": lambda: [np.ones((3, 3)), np.ones(2)],
    "tuple": lambda: (1, 2),
    "tuple without a hash": lambda: (([1],), 0),
    "dict": lambda: {"a": 1},
    "set": lambda: {1, 2},
    "range": lambda: range(2),
    "generator": lambda: (i for i in (1.0, 2.0)),
    "endless iterator": lambda: iter(int, 1),
    "object": object,
    "Unreadable": Unreadable,
    "class": lambda: Geometry,
    "function": lambda: print,
    "array without axes": lambda: np.array(1.0),
    "vector": lambda: np.ones(2),
    "zero vector": lambda: np.zeros(2),
    "huge vector": lambda: np.full(2, 1e200),
    "empty array": lambda: np.empty((0, 3)),
    "object array": lambda: np.array([1.0, 2.0], object),
    "bool array": lambda: np.ones((3, 3), bool),
    "complex array": lambda: np.ones((3, 3), complex),
    "infinite array": lambda: np.full((3, 4), np.inf),
    "zero array": lambda: np.zeros((3, 4)),
    "huge array": lambda: np.full((3, 4), 1e200),
    "tiny array": lambda: np.full((3, 4), 1e-200),
    "array with four axes": lambda: np.ones((4, 3, 3, 3)),
    "masked array": lambda: np.ma.masked_equal([1.0, 2.0], 2.0),
    "structured array": lambda: np.zeros(2, [("a", float)]),
    "generator of random numbers": lambda: np.random.default_rng(0),
    "legacy random state": lambda: np.random.RandomState(0),
}
