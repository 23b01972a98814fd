"""What a wrapped model does when its state is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Self

from torch import Tensor, nn

from feedalign.errors import ArgumentError

if TYPE_CHECKING:
    from feedalign.rules.wrapped import Wrapped


def settle(net: Wrapped, *_: Any) -> None:
    """Before a state is taken, see that the feedback holds numbers."""
    net.settle()


def part_tied(net: Wrapped, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """In a state that was taken, give a tied weight memory of its own under its second name.

    Trainers save with safetensors, which refuses Tensors that share memory.
    """
    names: dict[int, str] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        first, held = names.setdefault(id(parameter), name), state.get(f"{prefix}{name}")
        if first != name and isinstance(held, Tensor) and not isinstance(held, nn.Parameter):
            state[f"{prefix}{name}"] = held.clone()


class NotPickled:
    """An object that can be copied, but not pickled.

    A pickled rule would need this version of the package, and reading it could run any code.
    """

    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ArgumentError(
            "a model wrapped in a rule cannot be pickled; save net.state_dict(), which holds the feedback too, and "
            "load it into a model wrapped anew, or pickle the bare model, net.unwrap()"
        )
