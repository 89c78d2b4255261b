"""Index the documents, and stop for good where the test can kill: `killed.py <folder> <batch to stop before>`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.retrieval.toy import Toy

from bothways.retrieval.index import Index

DOCUMENTS = [(f"{number:02}", f"document number {number} " + "word " * (number % 5) * 10) for number in range(24)]
BATCH = 4


def stop(batch: int) -> None:
    if batch == int(sys.argv[2]):
        print("stopped", flush=True)
        signal.pause()


if __name__ == "__main__":
    toy = Toy()
    toy.before = stop
    Index.create_or_update(Path(sys.argv[1]), DOCUMENTS, toy, batch=BATCH)
