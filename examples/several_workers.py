# %% [markdown]
# # Many runs on several workers
#
# One run shows little: another seed, or another learning rate, may turn the order of two rules around. In this
# tutorial you will train 12 networks on several processes, stop whenever you like, and go on later. The same code
# runs on a cluster.

# %%
import inspect
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from feedalign.lab.runs import LocalWorkers, run_jobs
from learning_rates import Digits

# %% [markdown]
# ## Describe one run as a job
#
# A job is a frozen dataclass of plain values. All of its fields together decide the result, and they name the folder
# in which the result is kept. The class stands in a module of its own, `learning_rates.py`, because worker processes
# must be able to import it.

# %%
if __name__ == "__main__":
    print(inspect.getsource(Digits))

# %% [markdown]
# ## Run the jobs
#
# `LocalWorkers(2)` starts two processes on this machine. Every finished job is kept in the folder. If you stop the
# script and start it again, only the missing jobs are computed. Worker processes import this file. What they must not
# do again therefore stands below `if __name__ == "__main__":`.

# %%
RATES = (0.03, 0.3)
jobs = [Digits(rule, lr, seed) for rule in ("dfa", "backprop") for lr in RATES for seed in range(3)]

if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())  # a real run has a folder that stays, such as Path("runs")
    runs = run_jobs(jobs, folder, LocalWorkers(2), lambda _done, _total: None)
    print(f"{len(runs)} runs, {sum(run.seconds for run in runs):.0f} seconds of work")

# %% [markdown]
# ## Compare
#
# Points are the mean over three seeds. Bars reach from the smallest to the largest value.

# %%
if __name__ == "__main__":
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    for rule, colour in (("dfa", "#D55E00"), ("backprop", "#0072B2")):
        for lr in RATES:
            ends = [
                float(run.dataset.accuracy[-1])
                for job, run in zip(jobs, runs, strict=True)
                if (job.rule, job.lr) == (rule, lr)
            ]
            mean = sum(ends) / len(ends)
            label = rule if lr == RATES[0] else None
            axes.errorbar(
                lr,
                mean,
                [[mean - min(ends)], [max(ends) - mean]],
                fmt="o",
                color=colour,
                label=label,
            )
            print(f"{rule:9} learning rate {lr:5}: {mean:.3f} ({min(ends):.3f} to {max(ends):.3f})")
    axes.set(xscale="log", xlabel="learning rate", ylabel="test accuracy after 5 epochs")
    axes.set_xticks(RATES, [str(lr) for lr in RATES])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="lower left")
    plt.show()

# %% [markdown]
# ## Use a cluster
#
# Install `feedalign[cluster]`, and give another executor. Nothing else changes:
#
# ```text
# from feedalign.lab.runs.cluster import RayCluster
#
# runs = run_jobs(jobs, Path("runs"), RayCluster("auto"), lambda _done, _total: None)
# ```
#
# Ray starts a job of a lost machine again on another one. A job that saves its state with `desk.checkpoints` goes on
# from the last saved state, and ends at the same bits.
#
# ## Where to go next
#
# * [Run the experiments](../how-to/reproduce.md) explains the folders, and the commands that list and clean them.
# * The reference page [Laboratory](../reference/lab.md) has `Job`, `run_jobs` and the executors.
