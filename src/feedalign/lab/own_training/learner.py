"""The network of a run, wrapped in its rule."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from feedalign.diagnosis import kind_of, seeded, told
from feedalign.errors import ArgumentError
from feedalign.lab.options import TrainConfig
from feedalign.lab.own_code import at_home, called, names_of_points, take_in
from feedalign.lab.own_training.checking import LEARNED
from feedalign.lab.own_training.samples import Samples, samples_of
from feedalign.lab.recipes import recipe_of
from feedalign.networks import MLP, ConvNet
from feedalign.rules import Wrapped, get


@contextmanager
def prepared(config: TrainConfig) -> Iterator[None]:
    """Within this context the user's code finds its neighbours, and the global random numbers begin at the seed.

    Networks of the laboratory have generators of their own. A network of the user's may draw from the global ones,
    when it is made and while it is trained (dropout).
    """
    seed = config.seed_weights
    assert seed is not None  # the config is resolved
    with at_home() if ":" in config.network else nullcontext(), seeded(seed):
        yield


def learner_of(config: TrainConfig, samples: Samples) -> tuple[Wrapped, str]:
    """Return the network in its rule, with its feedback drawn, and a digest of the user's code, if there is any.

    Called within `prepared`.

    Raises:
        ArgumentError: there is no such network, or network, rule, feedback and data do not fit together.
    """
    network, points, code = _network(config, samples)
    options: dict[str, Any] = {}
    if config.rule in LEARNED:
        options = {"lr": config.feedback_lr, "weight_decay": config.feedback_decay}
    shape = list(samples.train_x.shape[1:])
    with told("wrapping the network", f"it is given samples of shape {shape}; see feedalign.validate(model, points)"):
        recipe = recipe_of(config.feedback, config.feedback_scale)
        example = samples.train_x[: config.batch_size]
        learner = get(config.rule)(network, points, recipe, config.seed_feedback, example_input=example, **options)  # type: ignore[arg-type]
    digest = hashlib.sha256()
    take_in(digest, [code, repr(network), dict(network.state_dict())])
    return learner.train(), digest.hexdigest()[:16] if code else ""


def optimizer_of(config: TrainConfig, learner: Wrapped) -> torch.optim.Optimizer:
    """Return the optimizer of the learner's weights."""
    weights, lr, decay = learner.parameters(), config.lr, config.weight_decay
    assert lr is not None  # the config is resolved
    if config.optimizer == "sgd":
        return torch.optim.SGD(weights, lr, config.momentum, weight_decay=decay)
    adam = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return adam(weights, lr, weight_decay=decay)


def try_out(config: TrainConfig, data: str) -> str:
    """Make the learner, let it learn from one batch of each size that will occur, and throw it away.

    Args:
        config: resolved, with checked values.
        data: as `digest_of_file` gave it.

    Returns:
        The digest of the user's code, as `learner_of` gives it.

    Raises:
        ArgumentError: something does not fit together; says what.
        DataError: the data set was not fetched, or is damaged.
    """
    with prepared(config):
        samples = samples_of(config, data)
        learner, digest = learner_of(config, samples)
        for size in {config.batch_size, len(samples.train_x) % config.batch_size or config.batch_size}:
            with told(
                f"the network, on a batch of {size} samples of shape {list(samples.train_x.shape[1:])},",
                f"it must return one number for each of the {samples.classes} classes, [batch, classes]",
            ):
                cross_entropy(learner(samples.train_x[:size]), samples.train_y[:size]).backward()
    return digest


def _network(config: TrainConfig, samples: Samples) -> tuple[nn.Module, Any, tuple[bytes, ...]]:
    """Return the bare network, its feedback points, and the user's source files."""
    shape, seed = samples.train_x.shape[1:], config.seed_weights
    assert seed is not None
    if config.network == "mlp":
        sizes = [shape[0], *config.hidden, samples.classes]
        return MLP(sizes, config.activation, config.bias, seed), "auto", ()
    if config.network == "convnet":
        if len(shape) != 3:
            raise ArgumentError(f"network=convnet is for images, and {config.dataset} holds vectors; take mlp")
        in_shape = (shape[0], shape[1], shape[2])
        net = ConvNet(in_shape, config.channels, samples.classes, activation=config.activation, seed=seed)
        return net, "auto", ()
    if ":" not in config.network:
        raise ArgumentError(
            f"network={config.network!r} is unknown; expected mlp, convnet, or package.module:function for a network "
            "of your own"
        )
    made, code = called("network", config.network)
    model, *rest = made if isinstance(made, tuple) and made else (made,)
    if not isinstance(model, nn.Module) or isinstance(model, Wrapped) or len(rest) > 1:
        raise ArgumentError(
            f"network={config.network!r}: the function returned {kind_of(made)}, expected the bare model, a "
            "torch.nn.Module without a rule, or (model, points)"
        )
    named = names_of_points("network", config.network, *rest) if rest else ()
    return model, config.points or named or "auto", code
