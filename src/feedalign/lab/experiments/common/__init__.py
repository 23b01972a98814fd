"""What several experiments share: verdicts, progress, statistics, image tasks, outputs. Import from its files."""

__all__ = ()
