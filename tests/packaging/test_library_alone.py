"""`pip install feedalign` without extras: rules, measures and checks work with torch, numpy and two small packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

Process = Callable[[str], "subprocess.CompletedProcess[str]"]

# Slow to import, or not installed with the library.
HEAVY = {
    "PIL", "h5netcdf", "h5py", "jinja2", "matplotlib", "numba", "pandas", "pooch", "ray", "requests", "rich",
    "safetensors", "scipy", "sklearn", "tyro", "xarray",
}  # fmt: skip

DENSE = """
import torch
from torch.nn.functional import cross_entropy
import feedalign as fa

x, y = torch.randn(16, 6), torch.randint(3, (16,))
net = fa.DFA(fa.networks.MLP([6, 8, 7, 3], seed=0), seed=1)
"""
CONVOLUTIONAL = """
import torch
from torch import nn
from torch.nn.functional import cross_entropy
import feedalign as fa

x, y = torch.randn(4, 2, 6, 6), torch.randint(3, (4,))
model = nn.Sequential(
    nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
)
net = fa.DFA(model, seed=1)
"""
TRAIN = """
optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
losses = []
for _ in range(30):
    optimizer.zero_grad()
    loss = cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    losses.append(float(loss.detach()))
assert losses[-1] < losses[0], losses
"""
MEASURE = """
assert len(fa.gradient_alignment(net, cross_entropy, x, y).layers) == 2
fa.validate(net.model, "auto", x)
fa.check_rule(net, cross_entropy, x, y)
"""
DENSE_ONLY = """
assert len(fa.weight_alignment(net).layers) == 2
fa.conditioning(net, cross_entropy, x, y)
fa.AlignmentMonitor(net, cross_entropy, x, y).measure(0)
"""
RULES = """
for rule in (fa.FA, fa.SignSymmetry, fa.KolenPollack, fa.DirectKolenPollack, fa.ReadoutOnly, fa.Frozen):
    cross_entropy(rule(fa.networks.MLP([6, 8, 7, 3], seed=0))(x), y).backward()
ensemble = fa.DFA(fa.networks.EnsembleMLP(2, [6, 8, 3]))
cross_entropy(ensemble(x).mT, y.expand(2, -1)).backward()
"""
# A process that imports torch takes seconds, so each does all that is asked of one model.
USES = {
    "a dense network": DENSE + TRAIN + MEASURE + DENSE_ONLY,
    "a convolutional network": CONVOLUTIONAL + TRAIN + MEASURE,
    "other rules and ensembles": DENSE + RULES,
}


@pytest.mark.parametrize("use", USES)
def test_the_library_needs_no_extra(library_alone: Process, use: str) -> None:
    done = library_alone("import torch\ntorch.manual_seed(0)\n" + USES[use])
    assert done.returncode == 0, done.stderr


def test_packages_outside_the_library_are_really_hidden(library_alone: Process) -> None:
    """The control of the tests above."""
    done = library_alone("import scipy")
    assert done.returncode == 1
    assert "No module named 'scipy'" in done.stderr


@pytest.mark.parametrize(
    "names", ["feedalign.DFA", "feedalign.DFA, feedalign.AlignmentMonitor, feedalign.networks.MLP"]
)
def test_using_the_library_loads_no_package_of_an_extra(names: str) -> None:
    code = f"import feedalign; {names}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not loaded & HEAVY
