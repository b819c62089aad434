"""One run of a study in a process of its own: `python -m motif.compare.worker FOLDER`.

The folder holds the resolved recipe. Standard input is a lifeline: when the process of the study ends, for whatever
reason, the run finishes its step, saves, and stops.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path


def main(folder: Path) -> int:
    """Train to the end and return the exit status, 130 if interrupted. An error is printed as one sentence."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    from motif.errors import MotifError
    from motif.run_files import RECIPE
    from motif.runs.folder import write_wall_seconds
    from motif.runs.read import wall_seconds
    from motif.training.loop import train

    start, before = time.monotonic(), wall_seconds(folder) or 0.0
    try:
        result = train(folder / RECIPE, folder, resume=True, settings=["train.stop_when_dead=0"])
    except MotifError as error:
        print(f"motif: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    finally:
        write_wall_seconds(folder, before + time.monotonic() - start)
    return 0 if result.finished else 130


def _follow_parent() -> None:
    # Not through sys.stdin: a thread that waits in it would keep the interpreter from exiting.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
