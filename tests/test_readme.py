"""The README's promises that a machine can check: its snippet, its two commands, its links."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_snippet_runs_as_it_stands_and_finds_the_minimum(tmp_path: Path) -> None:
    snippet = blocks("python")[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1e-2


def test_ci_runs_the_readmes_second_command() -> None:
    second = blocks("bash")[1].strip()
    ci = (ROOT / ".ci" / "run").read_text()
    between = ci.split("# README-BEGIN\n")[1].split("# README-END")[0].strip()
    assert between == second


def test_every_file_that_the_readme_names_is_there() -> None:
    links = re.findall(r"\]\((?!http|#)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_contributing_says_how_golden_answers_are_made_as_the_suite_does() -> None:
    suite = (ROOT / "tests" / "contract" / "test_optimizers.py").read_text()
    command = "FRACTOPT_REGENERATE_GOLDEN=1 python -m pytest tests/contract -k golden"
    assert command in suite
    assert command in (ROOT / "CONTRIBUTING.md").read_text()
