"""Argument checks for the whole house: each function returns its argument as plain Python or numpy, or refuses it.

Every refusal is an `ArgumentError` that says which argument, what was expected, what was got, and what to do. A bool is
never a number here, and neither is text, a `Decimal`, a complex number or a `Tensor`. NaN and infinity are numbers
only where a function says so.
"""

from feedalign.checks.arrays import finite_array, real_array
from feedalign.checks.values import (
    finite_number,
    flag,
    instance_of,
    names_in,
    number_at_least,
    number_between,
    one_of,
    positive_number,
    random_generator,
    refused,
    sequence,
    shown,
    whole_number,
    whole_numbers,
)

__all__ = [
    "finite_array",
    "finite_number",
    "flag",
    "instance_of",
    "names_in",
    "number_at_least",
    "number_between",
    "one_of",
    "positive_number",
    "random_generator",
    "real_array",
    "refused",
    "sequence",
    "shown",
    "whole_number",
    "whole_numbers",
]
