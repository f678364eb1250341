"""Computations beside a loop: their results, their errors, and nobody who waits for them at the end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from fractopt.parallel.beside import Beside


def test_a_computation_goes_on_beside_and_gives_its_result() -> None:
    go_on = threading.Event()

    def computed(base: int, *, add: int) -> tuple[int, str]:
        assert go_on.wait(60)
        return base + add, threading.current_thread().name

    future = Beside().submit(computed, 40, add=2)
    assert not future.done()
    go_on.set()
    number, where = future.result(60)
    assert number == 42
    assert where != threading.current_thread().name


def test_its_error_is_that_of_whoever_asks_for_the_result() -> None:
    future = Beside().submit(int, "no number")
    with pytest.raises(ValueError, match="no number"):
        future.result(60)


def test_a_process_ends_without_what_nobody_waits_for() -> None:
    code = """
import numpy as np
from fractopt.parallel.beside import Beside

def endless():
    matrix = np.eye(300)
    print("begun", flush=True)
    while True:
        np.linalg.inv(matrix)

began = Beside().submit(endless)
try:
    began.result(0.5)
except TimeoutError:
    print("ended")
"""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\nended\n", "")
    assert time.monotonic() - began < 30
