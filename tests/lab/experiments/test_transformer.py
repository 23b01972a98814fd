"""What is special to the experiment transformer, and that each part of its check can fail."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import feedalign as fa
from feedalign.errors import DataError
from feedalign.lab.experiments import transformer, transformer_job
from feedalign.lab.experiments.transformer_job import Arm, CharacterTraining
from feedalign.lab.runs import Checkpoints, Desk, compute_job, config_hash

SHARED, NORM, FROZEN, RECOVERY, EMBEDDING = range(5)
BEST = "dfa, shared, post-norm"
TinyConfig = Callable[[str], transformer.Config]


@pytest.fixture
def job(tiny_config: TinyConfig) -> CharacterTraining:
    """A training of three seconds under DFA."""
    config = replace(tiny_config("transformer"), windows=64)
    return next(job for job in transformer.jobs(config) if job.arm.name == BEST)


def test_every_arm_of_both_presets_trains(tiny_config: TinyConfig) -> None:
    config = replace(tiny_config("transformer"), arms=transformer.CONFIGS["paper"].arms, seeds=1)
    assert {arm.name for arm in config.arms} >= {arm.name for arm in transformer.CONFIGS["quick"].arms}
    for each in transformer.jobs(config):
        result = compute_job(each)
        assert np.isfinite(result.bits).all()
        sends = bool(each.arm.feedback)
        assert bool(result.gradient_alignment.notnull().all()) is sends
        taught = each.arm.rule == "dfa" and each.arm.embedding
        assert bool(result.embedding_alignment.notnull().all()) is taught


def test_the_paper_has_the_arms_seeds_and_draws_of_its_claim() -> None:
    config = transformer.CONFIGS["paper"]
    names = {arm.name for arm in config.arms}
    assert len(names) == len(config.arms)
    for norm in ("post-norm", "pre-norm"):
        for rule in ("backprop", "frozen", "fa", "sign-symmetry"):
            assert f"{rule}, {norm}" in names
        for rule in ("dfa", "direct-kolen-pollack"):
            assert {f"{rule}, own, {norm}", f"{rule}, shared, {norm}"} <= names
    assert {"readout-only, post-norm", "backprop, one block, post-norm", "backprop, no blocks"} <= names
    assert (config.seeds, config.draws) >= (3, 2)
    assert len(config.factors) >= 3


def test_arms_without_feedback_have_one_run_for_every_draw(tiny_config: TinyConfig) -> None:
    config = replace(tiny_config("transformer"), draws=2, arms=(Arm("backprop", 1e-2), Arm("dfa", 1e-2, "post", "own")))
    jobs = transformer.jobs(config)
    assert [(job.arm.rule, job.seed, job.draw) for job in jobs] == [
        ("backprop", 0, 0), ("backprop", 1, 0), ("dfa", 0, 0), ("dfa", 0, 1), ("dfa", 1, 0), ("dfa", 1, 1),
    ]  # fmt: skip
    results = [xr.Dataset({"bits": ("step", [float(i)])}, coords={"step": [0]}) for i in range(6)]
    bits = transformer.gather(config, results).bits.squeeze(("rate", "step"))
    assert bits.sel(arm="backprop, post-norm").values.tolist() == [[0, 0], [1, 1]]
    assert bits.sel(arm="dfa, own, post-norm").values.tolist() == [[2, 3], [4, 5]]


def test_networks_of_one_seed_begin_with_the_same_bits_and_draws_differ(job: CharacterTraining) -> None:
    begin, end = (compute_job(job).bits.values[i] for i in (0, -1))
    other = compute_job(replace(job, draw=1)).bits.values
    frozen = compute_job(replace(job, arm=Arm("frozen", 1e-2))).bits.values
    assert begin == other[0] == frozen[0]
    assert len({end, other[-1], frozen[-1]}) == 3


class KilledError(Exception):
    """The process ends."""


def test_a_killed_training_goes_on_to_the_same_bits(job: CharacterTraining, tmp_path: Path) -> None:
    whole = compute_job(replace(job, measurements=5))

    def desk(until: int) -> Desk:
        def progress(done: int, _total: int) -> None:
            if done == until:
                raise KilledError

        return Desk(progress, Checkpoints(tmp_path, every=0.0))

    with pytest.raises(KilledError, match=r"^$"):
        replace(job, measurements=5).compute(desk(3))
    assert list(tmp_path.glob("checkpoint-*"))
    xr.testing.assert_identical(replace(job, measurements=5).compute(desk(-1)), whole)


def test_the_text_belongs_to_the_job(job: CharacterTraining) -> None:
    other = replace(job, text="sha256:0")
    assert config_hash(job.kind, job) != config_hash(job.kind, other)
    with pytest.raises(DataError, match="run the job with the version of Python that made its config"):
        compute_job(other)


def test_what_chooses_what_judges_and_what_trains_are_three_parts_of_the_text() -> None:
    text, chosen, judged = transformer_job.held_out_twice(transformer.CONFIGS["quick"].text, 0)
    blocks = [tuple(block.tolist()) for part in (text.train, chosen, judged) for block in part]
    assert len(set(blocks)) == len(blocks) == transformer_job.BLOCKS
    assert (len(chosen), len(judged)) == (20, 20)


def test_thinned_windows_are_windows_of_the_part() -> None:
    part = torch.arange(100).reshape(2, 50)
    x, y = transformer_job.thinned(part, 7, 5)
    assert x.shape == y.shape == (5, 7)
    assert torch.equal(y, x + 1)
    assert len(transformer_job.thinned(part, 7, 1000)[0]) == 14


def test_backprop_sends_the_embedding_its_true_gradient() -> None:
    model = fa.networks.Transformer(10, width=8, blocks=2, context=8)
    x = torch.randint(10, (3, 8), generator=torch.Generator().manual_seed(0))
    assert transformer_job.embedding_alignment(fa.Backprop(model, example_input=x), x, x) == pytest.approx(1)


def test_a_learning_rate_at_the_edge_of_the_grid_is_told(tiny_result: Callable[[str], xr.Dataset]) -> None:
    one = tiny_result("transformer")
    three = xr.concat([one.isel(rate=0)] * 3, "rate").transpose("arm", "rate", ...)
    for rate, bits in enumerate((3.0, 2.0, 3.0)):
        three.choosing_bits.loc[{"rate": rate}] = bits
    assert transformer.at_the_edge(three) == []
    assert "at the edge of the grid: none." in transformer.caption(three)
    three.choosing_bits.loc[{"rate": 0, "arm": BEST}] = 1.0
    assert transformer.at_the_edge(three) == [BEST]
    assert f"at the edge of the grid: {BEST}." in transformer.caption(three)
    three.choosing_bits.loc[{"rate": 0, "arm": BEST}] = math.nan  # a training that diverged is not the best
    assert transformer.at_the_edge(three) == []


def test_the_best_rate_is_chosen_by_the_other_part(tiny_result: Callable[[str], xr.Dataset]) -> None:
    one = tiny_result("transformer")
    two = xr.concat([one.isel(rate=0)] * 2, "rate").transpose("arm", "rate", ...)
    two.choosing_bits.loc[{"rate": 0}] = 1.0
    two.bits.loc[{"rate": 0}] = 9.0
    assert (transformer.at_best_rates(two).bits == 9).all()


def ideal() -> xr.Dataset:
    """Numbers as the claim describes them, and a little noise over seeds."""
    arms = [arm.name for arm in transformer.CONFIGS["quick"].arms]
    end = dict.fromkeys(arms, 3.6) | {
        "backprop, post-norm": 2.0, BEST: 2.5, "frozen, post-norm": 3.5,
    }  # fmt: skip
    aligned = dict.fromkeys(arms, math.nan) | {
        BEST: 0.6, "dfa, own, post-norm": 0.4, "dfa, shared, pre-norm": 0.3, "dfa, own, pre-norm": 0.1,
    }  # fmt: skip
    noise = 0.01 * np.random.default_rng(0).standard_normal((len(arms), 1, 4, 1, 2))
    bits = np.array([[6.0, end[arm]] for arm in arms])[:, None, None, None] + noise
    cosines = np.array([aligned[arm] for arm in arms])[:, None, None, None, None, None] + noise[..., None]
    dims = ("arm", "rate", "seed", "draw", "step")
    return xr.Dataset(
        {
            "bits": (dims, bits),
            "choosing_bits": (dims, bits.copy()),
            "gradient_alignment": ((*dims, "block"), np.repeat(cosines, 2, axis=-1)),
            "embedding_alignment": (dims, cosines[..., 0].copy()),
        },
        coords={"arm": arms, "step": [0, 100], "block": [1, 2]},
    )


def own_is_as_good(dataset: xr.Dataset) -> None:
    for norm in ("post", "pre"):
        shared = dataset.gradient_alignment.sel(arm=f"dfa, shared, {norm}-norm")
        dataset.gradient_alignment.loc[{"arm": f"dfa, own, {norm}-norm"}] = shared


def the_norm_does_not_matter(dataset: xr.Dataset) -> None:
    dataset.gradient_alignment.loc[{"arm": "dfa, shared, pre-norm"}] = dataset.gradient_alignment.sel(arm=BEST)


def blocks_learn_nothing(dataset: xr.Dataset) -> None:
    dataset.bits.loc[{"arm": "frozen, post-norm"}] = dataset.bits.sel(arm=BEST)


def a_third_is_recovered(dataset: xr.Dataset) -> None:
    dataset.bits.loc[{"arm": "backprop, post-norm"}] = 0.5


def the_embedding_is_taught_nothing(dataset: xr.Dataset) -> None:
    dataset.embedding_alignment[:] = 0.0


# Every change of an ideal result, and the verdicts that fail on it.
FAILING: list[tuple[Callable[[xr.Dataset], None], set[int]]] = [
    (own_is_as_good, {SHARED}),
    (the_norm_does_not_matter, {NORM}),
    (blocks_learn_nothing, {FROZEN, RECOVERY}),
    (a_third_is_recovered, {RECOVERY}),
    (the_embedding_is_taught_nothing, {EMBEDDING}),
]


def test_recovery_is_zero_for_frozen_blocks_and_one_for_backprop() -> None:
    dataset = ideal()
    np.testing.assert_allclose(transformer.recovery(dataset, "frozen, post-norm"), 0)
    np.testing.assert_allclose(transformer.recovery(dataset, "backprop, post-norm"), 1)
    dataset.bits.loc[{"arm": "backprop, post-norm"}] = 9.0
    assert transformer.recovery(dataset, BEST).isnull().all()
