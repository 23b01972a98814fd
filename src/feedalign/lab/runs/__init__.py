"""Runs: results on disk. Each is computed once; its folder is named by the hash of its config."""

from feedalign.extras import needs

with needs("lab", __name__):
    from feedalign.lab.runs.checkpoints import Checkpoints, State
    from feedalign.lab.runs.jobs import Desk, Job, compute_job, run_once
    from feedalign.lab.runs.listing import Entry, clean, description, entries, show, table
    from feedalign.lab.runs.running import Executor, ThisProcess, chosen_executor, gathered, run_jobs
    from feedalign.lab.runs.store import RunStore, StoredRun, config_hash, environment
    from feedalign.lab.runs.workers import LocalWorkers

__all__ = [
    "Checkpoints",
    "Desk",
    "Entry",
    "Executor",
    "Job",
    "LocalWorkers",
    "RunStore",
    "State",
    "StoredRun",
    "ThisProcess",
    "chosen_executor",
    "clean",
    "compute_job",
    "config_hash",
    "description",
    "entries",
    "environment",
    "gathered",
    "run_jobs",
    "run_once",
    "show",
    "table",
]
