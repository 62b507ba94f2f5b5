"""Where stage processes leave their talk: `logs/<task>/attempt-N.log` below the run, numbered and never overwritten."""

from __future__ import annotations

import re
from pathlib import Path

from dail_runtime.errors import StoreError
from dail_runtime.store import Store
from dailctl.runs import local_path

NUMBERED = re.compile(r"attempt-(\d+)\.log$")
TAIL = 8192


class Logs:
    """The logs of one run. A run that lives elsewhere is logged on this machine first, and uploaded after each attempt."""

    def __init__(self, run: Store, name: str) -> None:
        import platformdirs

        self._run = run
        folder = local_path(run)
        self._upload = folder is None
        self._folder = folder if folder is not None else platformdirs.user_log_path("dail") / name

    def new(self, task: str) -> Path:
        """A fresh, empty log file for the next attempt of `task`."""
        prefix = f"logs/{task}/"
        folder = self._folder / prefix
        try:
            folder.mkdir(parents=True, exist_ok=True)
            names = [entry.name for entry in folder.iterdir()]
            if self._upload:
                names += [info.key for info in self._run.list(prefix)]
            numbers = [int(found.group(1)) for found in map(NUMBERED.search, names) if found]
            path = folder / f"attempt-{max(numbers, default=0) + 1}.log"
            path.touch(exist_ok=False)
        except OSError as err:
            raise StoreError(f"{folder}: no log can be written there ({err.strerror}); make it writable or free some space") from None
        return path

    def keep(self, task: str, path: Path) -> None:
        """Bring a finished log to the run's store, where that is elsewhere."""
        if self._upload:
            self._run.put_file(f"logs/{task}/{path.name}", path)


def last_words(path: Path) -> str:
    """The last line of a log that says anything; '' where nothing does."""
    with path.open("rb") as log:
        log.seek(0, 2)
        log.seek(max(0, log.tell() - TAIL))
        lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith('{"event"')), "")
