"""Garbage in cycles is still found, only later."""

from __future__ import annotations

import subprocess
import sys


def test_cycles_are_still_freed() -> None:
    program = (
        "import weakref\n"
        "from monitor.garbage import NEW_OBJECTS, look_rarely\n"
        "look_rarely()\n"
        "class Node: pass\n"
        "node = Node(); node.me = node; gone = weakref.ref(node); del node\n"
        "kept = [[i] for i in range(2 * NEW_OBJECTS)]\n"
        "print(gone() is None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
