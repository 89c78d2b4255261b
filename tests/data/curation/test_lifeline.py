"""A process whose parent has ended before it could be tied to it ends by itself."""

from __future__ import annotations

import os
import signal

import pytest

from bothways.data.curation.lifeline import children_die_with_us, die_with_parent


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("lives", [True, False])
def test_a_parent_that_has_ended_before(lives: bool) -> None:
    """The kernel tells of no death that was before it was asked to."""
    child = os.fork()
    if not child:
        die_with_parent(lambda: lives)
        os._exit(7)
    assert ended(child) == (7 if lives else 1)


def test_a_forked_child_dies_with_its_parent() -> None:
    hold, held = os.pipe()  # closed when nobody lives who could write to it
    parent = os.fork()
    if not parent:
        with children_die_with_us():
            if not os.fork():
                os.close(hold)
                signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(held)
    assert ended(parent) == -signal.SIGKILL
    assert os.read(hold, 1) == b""
    os.close(hold)


def test_one_forked_as_its_parent_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the parent had ended between the fork and the child's first step."""
    hold, held = os.pipe()
    child = os.fork()
    if not child:
        os.close(hold)
        with children_die_with_us():
            monkeypatch.setattr(os, "getppid", lambda: 1)
            if not os.fork():
                os.write(held, b"lives")
            os._exit(ended(-1))
    os.close(held)
    assert ended(child) == 1
    assert os.read(hold, 5) == b""
    os.close(hold)
