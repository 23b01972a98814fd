"""No private name of torch, numba or any other library stands in the source, except in `torch_private.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import feedalign

SOURCE = Path(feedalign.__file__).parent
ALLOWED = "torch_private.py"

# The methods of named tuples. Their underscore only keeps them apart from the fields, and Python documents them.
OF_NAMED_TUPLES = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}
# A function that Python's manual documents under this name: it ends the process at once.
OF_PYTHON = {"_exit"}
# Private names of torch and numba that need no other sign: they are refused on `self` too, and as strings.
KNOWN = {
    "BackwardCFunction", "_backward_hooks", "_backward_pre_hooks", "_buffers", "_cache_file", "_forward_hooks",
    "_forward_pre_hooks", "_is_view", "_load_from_state_dict", "_modules", "_parameters", "_save_to_state_dict",
    "_version",
}  # fmt: skip
# Modules that their libraries call internal, though no underscore says so.
INTERNAL = ("numba.core",)


def is_private(name: str) -> bool:
    dunder = name.startswith("__") and name.endswith("__")
    return name in KNOWN or (
        name.startswith("_") and name != "_" and not dunder and name not in OF_NAMED_TUPLES | OF_PYTHON
    )


def is_private_path(dotted: str) -> bool:
    """Return whether a dotted path to a module or a name leads through a private one of another package."""
    parts = dotted.split(".")
    if parts[0] in ("", "__future__", "feedalign"):
        return False
    return any(map(is_private, parts)) or any(f"{dotted}.".startswith(f"{internal}.") for internal in INTERNAL)


def path_of(node: ast.expr) -> str:
    """Return an expression such as a.b.c as it is written; "" for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inside := path_of(node.value)):
        return f"{inside}.{node.attr}"
    return ""


def modules_of_feedalign(tree: ast.Module) -> set[str]:
    """Return the names under which a file knows modules of feedalign, or what it took from them."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "feedalign"):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            own = (alias for alias in node.names if alias.name.split(".")[0] == "feedalign")
            names |= {alias.asname or "feedalign" for alias in own}
    return names


def is_own(node: ast.expr, own_modules: set[str]) -> bool:
    """Return whether private attributes of an expression are feedalign's own."""
    if isinstance(node, ast.Call):
        # super().f is this class; super(Other, self).f is another one.
        return isinstance(node.func, ast.Name) and node.func.id == "super" and not node.args
    return isinstance(node, ast.Name) and (node.id in {"self", "cls"} or node.id in own_modules)


def is_name_of_node(node: ast.expr) -> bool:
    """Return whether an expression is `something.name()`, as one asks an operation of autograd."""
    return (
        isinstance(node, ast.Call)
        and not node.args
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "name"
    )


def speaks_strings(node: ast.expr) -> bool:
    return any(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in ast.walk(node))


def complaints(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the private name of every use in a file."""
    own_modules = modules_of_feedalign(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Import():
                yield from ((line, f"import {alias.name}") for alias in node.names if is_private_path(alias.name))
            case ast.ImportFrom(module=str(module), level=0):
                paths = [f"{module}.{alias.name}" for alias in node.names]
                yield from (
                    (line, f"from {module} import {path.rpartition('.')[2]}") for path in paths if is_private_path(path)
                )
            case ast.Attribute(attr=attr) if attr in KNOWN or (
                is_private(attr) and not is_own(node.value, own_modules)
            ):
                yield line, ast.unparse(node)
            case ast.Attribute() if path_of(node) in INTERNAL:
                yield line, ast.unparse(node)
            case ast.Attribute(attr="data", ctx=ast.Store(), value=value) if path_of(value) not in {"self", "cls"}:
                yield line, f"{ast.unparse(node)} ="
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"),
                args=[thing, ast.Constant(str(name)), *_],
            ):
                if is_private(name) and name not in KNOWN and not is_own(thing, own_modules):
                    yield line, ast.unparse(node)
                if name == "data" and isinstance(node.func, ast.Name) and node.func.id == "setattr":
                    yield line, ast.unparse(node)
            case ast.Call(func=ast.Attribute(attr="startswith" | "endswith", value=value)) if is_name_of_node(value):
                yield line, ast.unparse(node)
            case ast.Compare():
                sides = [node.left, *node.comparators]
                if any(map(is_name_of_node, sides)) and any(map(speaks_strings, sides)):
                    yield line, ast.unparse(node)
            case ast.Constant(value=str(text)) if text in KNOWN:
                yield line, repr(text)
            case ast.Name(id="BackwardCFunction"):
                yield line, "BackwardCFunction"


def found_in(text: str) -> list[str]:
    return [what for _, what in complaints(ast.parse(text))]


FILES = sorted(file for file in SOURCE.rglob("*.py") if file.relative_to(SOURCE).as_posix() != ALLOWED)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_no_private_name_of_a_library_is_used(file: Path) -> None:
    assert [f"line {line}: {what}" for line, what in complaints(ast.parse(file.read_text(encoding="utf-8")))] == []


def test_the_files_are_found() -> None:
    assert {"entry.py", "slot.py", "ensemble.py"} <= {file.name for file in FILES}


def test_the_one_file_of_private_names_gives_a_reason_for_each() -> None:
    tree = ast.parse((SOURCE / ALLOWED).read_text(encoding="utf-8"))
    users = [node for node in tree.body if list(complaints(ast.Module([node], [])))]
    assert users
    for node in users:
        assert isinstance(node, ast.FunctionDef)
        assert "Why:" in (ast.get_docstring(node) or ""), node.name
    assert "Tested with torch" in (ast.get_docstring(tree) or "")


@pytest.mark.parametrize(
    "text",
    [
        "import torch._dynamo",
        "import torch._C as C",
        "from torch._C import _functions",
        "from torch import _C",
        "from torch.utils import _python_dispatch",
        "from torch.utils._python_dispatch import TorchDispatchMode",
        "import numba.core.caching",
        "from numba.core import caching",
        "from numba.core.caching import FunctionCache",
        "from numba import core\nfrom numba import core as c",
        "def f(numba): return numba.core.config",
        "def f(torch): return torch._C._current_graph_task_id()",
        "def f(model): return model._anything",
        "def f(): return g()._anything",
        "def f(self): return self.model._anything",
        "def f(self): return super(Other, self)._anything",
        "def f(self): return self._modules",
        "def f(self): self._buffers['x'] = 1",
        "def f(module): module._parameters.clear()",
        "def f(tensor): return tensor._version",
        "def f(tensor): return tensor._is_view()",
        "def f(module): return module._forward_hooks",
        "class A(nn.Module):\n    def f(self): super()._load_from_state_dict()",
        "from torch.autograd.function import BackwardCFunction",
        "def f(torch): return torch.autograd.function.BackwardCFunction",
        "def f(tensor, other): tensor.data = other",
        "def f(tensor, other): tensor.data += other",
        "def f(tensor, other): tensor.data, x = other",
        "def f(tensor, other): setattr(tensor, 'data', other)",
        "def f(tensor): return getattr(tensor, '_anything')",
        "def f(module): return getattr(module, '_modules')",
        "def f(module): return vars(module)['_buffers']",
        "def f(node): return node.name() == 'ViewBackward0'",
        "def f(node): return node.name() in ('ViewBackward0', 'TBackward0')",
        "def f(tensor): return 'View' in tensor.grad_fn.name()",
        "def f(node): return node.name().startswith('View')",
    ],
)
def test_a_private_name_is_caught(text: str) -> None:
    assert found_in(text), text


@pytest.mark.parametrize(
    "text",
    [
        "import torch",
        "from torch.utils.checkpoint import checkpoint",
        "from __future__ import annotations",
        "from feedalign.rules import _own",
        "from feedalign import rules\ndef f(): return rules._own",
        "import feedalign\ndef f(): return feedalign._own",
        "def f(self): return self._own",
        "def f(cls): return cls._own",
        "class A:\n    def f(self): return super()._own()",
        "def f(thing): return thing.__dict__",
        "def f(row): return row._asdict(), row._replace(x=1), row._fields, type(row)._make([1])",
        "def f(tensor): return tensor.data",
        "class A:\n    def __init__(self, data): self.data = data",
        "def f(_module, _inputs): return _module.weight",
        "def f(node): return node.name()",
        "def f(node, other): return node.name() == other.name()",
    ],
)
def test_what_is_public_or_feedaligns_own_is_let_through(text: str) -> None:
    assert found_in(text) == []
