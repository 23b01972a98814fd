"""Runs: results on disk. Each is computed once; its folder is named by the hash of its config."""

from feedalign.extras import needs

with needs("lab", __name__):
    from feedalign.lab.runs.folder import StoredRun, config_hash, environment, run_once

__all__ = ["StoredRun", "config_hash", "environment", "run_once"]
