"""Our optimizers against the peers that researchers use: paired seeds, asynchronous workers, kept results.

    pip install -e '.[bench]'
    python -m bench.comparison run --methods soo,optuna-tpe --settings 8x50 --seeds 0-9 [--problems subset]
    python -m bench.comparison table
    python -m bench.comparison prune            # forget what other versions of a method gave

`run` does what is not in bench/results/comparison/ yet, one run after the other; interrupted, it loses the
run under way. A setting WxN is W workers and N evaluations. `table` writes bench/results/comparison.md and
its figure from what is there.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser

from bench.comparison import cache, methods, problems, table
from bench.comparison.simulation import simulate

SETTINGS = ("1x50", "8x50", "1x200", "8x200", "64x256")


def main() -> None:
    parser = ArgumentParser(prog="python -m bench.comparison", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what is not there yet")
    run.add_argument("--methods", required=True, help="names with commas between them")
    run.add_argument("--problems", default="all", help="names, 'subset' or 'all'")
    run.add_argument("--settings", default=",".join(SETTINGS), help="workers x evaluations: 8x50,64x256")
    run.add_argument("--seeds", default="0-9", help="0-9, or 3,5; from 100 on for tuning")
    show = commands.add_parser("table", help="write the tables from what is there")
    show.add_argument("--methods", help="only these; default: all that have results")
    show.add_argument("--seeds", default="0-9")
    prune = commands.add_parser("prune", help="forget results of other versions")
    prune.add_argument("--methods", help="default: all that have results")
    options = parser.parse_args()
    named = options.methods.split(",") if options.methods else cache.known_methods()
    if options.command == "run":
        run_missing(named, _problems(options.problems), options.settings.split(","), _seeds(options.seeds))
    elif options.command == "table":
        table.write(named, SETTINGS, _seeds(options.seeds))
    else:
        cache.prune(named)


def run_missing(named: list[str], wanted: list[str], settings: list[str], seeds: list[int]) -> None:
    """All seeds of the first setting come before the second setting: the tables grow evenly."""
    versions = {method: cache.current_version(method) for method in named}
    known = {method: cache.load(method, versions[method]) for method in named}
    for setting in settings:
        workers, budget = (int(part) for part in setting.split("x"))
        for seed in seeds:
            for name in wanted:
                for method in named:
                    entry = methods.find(method)
                    key = cache.Key(name, seed, workers, budget)
                    if (entry.sequential and workers > 1) or cache.answer(known[method], entry, key):
                        continue
                    problem = problems.make(name, seed)
                    began = time.perf_counter()
                    run = simulate(methods.make(method, problem, workers, budget), problem, workers, budget)
                    known[method][key] = run
                    cache.store(method, versions[method], key, run)
                    took = time.perf_counter() - began
                    regret = run.curve[budget]
                    print(f"{method} {setting} {name} seed {seed}: {regret:.4g} in {took:.1f} s", flush=True)


def _problems(text: str) -> list[str]:
    if text in ("all", "subset"):
        return list(problems.PROBLEMS if text == "all" else problems.SUBSET)
    for name in text.split(","):
        if name not in problems.PROBLEMS:
            raise SystemExit(f"unknown problem {name!r}; expected some of {', '.join(problems.PROBLEMS)}")
    return text.split(",")


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if last else [int(part) for part in text.split(",")]


main()
