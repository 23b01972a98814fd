"""The same jobs on Ray: finished once, retried when a worker dies, errors as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from tests.cases.jobs import Deadly, Square, Wrong

from feedalign.errors import DataError, OutputError
from feedalign.lab.own_training import TrainConfig
from feedalign.lab.runs import run_jobs
from feedalign.lab.sweep import SweepConfig, compute

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own sockets and files
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one machine that the tests share: Ray takes some seconds to start."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray = pytest.importorskip("ray")
    from feedalign.lab.runs.cluster import RayCluster

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield RayCluster()
    ray.shutdown()


def silent(_done: int, _total: int) -> None:
    """Report nothing."""


def test_every_job_is_computed_once_and_read_in_order(cluster: Any, tmp_path: Path) -> None:
    jobs = [Square(3), Square(1), Square(3)]
    runs = run_jobs(jobs, tmp_path, cluster, silent)
    assert [int(run.dataset.square) for run in runs] == [9, 1, 9]
    run_jobs(jobs, tmp_path, cluster, lambda *_: pytest.fail("computed again"))


def test_a_sweep_gives_the_same_numbers_on_a_cluster_as_here(cluster: Any, tmp_path: Path) -> None:
    train = TrainConfig(train_samples=100, classes=(3, 8), hidden=(8,), epochs=1, batch_size=20, measurements=1)
    sweep = SweepConfig(train, (("rule", ("dfa", "fa")),))
    here, there = compute(sweep, tmp_path / "here"), compute(sweep, tmp_path / "ray", cluster)
    xr.testing.assert_identical(there.dataset, here.dataset)
    assert (there.folder / "table.csv").read_bytes() == (here.folder / "table.csv").read_bytes()


def test_a_killed_worker_is_replaced_and_its_job_computed_again(cluster: Any, tmp_path: Path) -> None:
    (run,) = run_jobs([Deadly(2, str(tmp_path))], tmp_path / "runs", cluster, silent)
    assert int(run.dataset.deaths) == 2


def test_a_job_that_kills_every_worker_is_given_up_by_name(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 processes died while they computed Deadly\(deaths=9"):
        run_jobs([Deadly(9, str(tmp_path))], tmp_path / "runs", cluster, silent)


def test_errors_of_a_job_arrive(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the network has diverged"):
        run_jobs([Wrong(fault=False)], tmp_path, cluster, silent)
    with pytest.raises(RuntimeError, match=r"(?s)Wrong\(fault=True\) failed.*ZeroDivisionError"):
        run_jobs([Wrong(fault=True)], tmp_path, cluster, silent)
