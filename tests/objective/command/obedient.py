"""A program that does what the parameter `do` says. Like those of users, it knows nothing of fractopt."""

import json
import os
import signal
import subprocess
import sys
import time

with open(os.environ["FRACTOPT_EVALUATION"]) as file:
    given = json.load(file)
outcome = os.environ["FRACTOPT_OUTCOME"]
x = given["parameters"].get("x", 0.0)


def answer(record):
    with open(outcome + ".part", "w") as file:
        json.dump(record, file)
    os.replace(outcome + ".part", outcome)


def progress(line):
    with open(os.environ["FRACTOPT_PROGRESS"], "a") as file:
        file.write(line + "\n")


def tell():
    """All that it was told, as another file in the directory it runs in."""
    told = {"argv": sys.argv[1:], "environment": dict(os.environ), "given": given, "cwd": os.getcwd()}
    with open("told.json", "w") as file:
        json.dump(told, file)
    answer({"value": x, "stderr": 0.25, "metrics": {"steps": 7}})


def test():
    asked = dict.fromkeys(given["test_metrics"], 0.5)
    answer({"value": x, "metrics": {"test/acc": 0.75, "flag": float(os.environ["FRACTOPT_TEST"])} | asked})


def diverge():
    answer({"status": "diverged", "message": "the loss became nan at step 3"})


def fail():
    print("loading\nTraceback\nRuntimeError: no such file", file=sys.stderr)
    answer({"value": 0.0})
    sys.exit(3)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def silent():
    pass


def confess():
    print("a token is", os.environ["HF_TOKEN"], "and", os.environ["WANDB_API_KEY"])
    print("401 for", os.environ["HF_TOKEN"], file=sys.stderr)
    sys.exit(1)


def babble():
    os.write(1, b"latin \xe9\n" + b"x" * 300_000 + b"\rhalf")
    for i in range(5_000):
        print("line", i, file=sys.stderr)
    answer({"value": x})


def train():
    for step in range(1, 4):
        progress(f"train {step} 3 {1 / step}")
        time.sleep(0.45)
    answer({"value": x})


def leave():
    """Go, with a child in the group and one in a session of its own left behind."""
    for own in (False, True):
        child = subprocess.Popen(["sleep", "600"], start_new_session=own)
        with open("children", "a") as file:
            print(child.pid, file=file)
    answer({"value": x})


def wait():
    with open("pids", "w") as file:
        child = subprocess.Popen(["sleep", "600"])
        print(os.getpid(), child.pid, file=file, flush=True)
    for _ in range(1200):
        if given["parameters"].get("talk"):
            print("still here", flush=True)
        time.sleep(0.1)


def last_words():
    def on_term(*_):
        time.sleep(0.3)
        print("checkpoint written", flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, on_term)
    print("ready", flush=True)
    time.sleep(600)


def swell():
    held = b"x" * 250_000_000
    time.sleep(600)
    print(len(held))


globals()[given["parameters"].get("do", "tell")]()
