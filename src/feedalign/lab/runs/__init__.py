"""Runs: results on disk, each computed once and named by what decides it."""

from feedalign.extras import needs

with needs("lab", __name__):
    from feedalign.lab.runs.folder import Run, config_hash, environment, run_once

__all__ = ["Run", "config_hash", "environment", "run_once"]
