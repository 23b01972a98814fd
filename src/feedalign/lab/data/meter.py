"""How far a download is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

_LINE_BYTES = 2**24  # a plain line every 16 MiB: none for MNIST's files, ten for CIFAR-10


class Meter:
    """Context manager that shows progress on stderr; count bytes with `update`.

    Attributes:
        total: size of the download in bytes, set once it is known; 0 if it never is.
    """

    def __init__(self, label: str, show: bool) -> None:
        self.total = 0
        self._label = label
        self._done = 0
        self._console = Console(stderr=True, quiet=not show)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=self._console,
            disable=not (show and self._console.is_terminal),
        )
        self._task = self._bar.add_task(label, total=None)

    def __enter__(self) -> Meter:
        self._bar.start()
        self._line("")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, count: int) -> None:
        """Count further bytes."""
        lines_before = self._done // _LINE_BYTES
        self._done += count
        self._bar.update(self._task, completed=self._done, total=self.total or None)
        if self._done // _LINE_BYTES > lines_before or self._done == self.total > _LINE_BYTES:
            whole = f" of {self.total / 1e6:.0f}" if self.total else ""
            self._line(f": {self._done / 1e6:.0f}{whole} MB")

    def _line(self, text: str) -> None:
        if not self._console.is_terminal:
            self._console.print(f"fetching {self._label}{text}", soft_wrap=True, markup=False, highlight=False)
