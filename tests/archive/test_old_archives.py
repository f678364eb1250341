"""Archives of every schema that was ever written are read, and folded, for ever."""

from pathlib import Path

import pytest

from fractopt.archive.store import load
from fractopt.optimizer.study import Study

ARCHIVES = sorted((Path(__file__).resolve().parents[1] / "data" / "archives").glob("*.h5"))


@pytest.mark.parametrize("path", ARCHIVES, ids=lambda path: path.stem)
def test_an_old_archive_is_read_and_folded(path: Path) -> None:
    history = load(path)
    manifest = history.manifest
    study = Study(
        history.space,
        manifest.optimizer,
        history.budget,
        seed=manifest.seed,
        direction="maximize" if manifest.direction == "maximize" else "minimize",
        anchors=["default"] if "default" in manifest.anchors else [],
        default=manifest.default,
        settings=manifest.optimizer_settings,
    )
    study.fold(history.events)
    assert study.told == len(history.evaluations) == history.budget == 25
    assert history.best is not None
    assert (study.best.id, study.best.value) == (history.best.id, history.best.value)
    assert [e.params for e in study.evaluations] == [row.params for row in history.evaluations]


def test_there_is_one_of_each_schema() -> None:
    assert {path.stem for path in ARCHIVES} >= {"schema-1"}
