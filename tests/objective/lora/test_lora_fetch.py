"""Fetching from a hub of our own: model, data, interruptions, and what is said where it cannot be done."""

from __future__ import annotations

import gc
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("litgpt")

import small_llama
from fakehub import FakeHub

from fractopt.objective.base import UnusableError
from fractopt.objective.lora import architecture
from fractopt.objective.lora.files import TINY
from fractopt.objective.lora.model_files import find_checkpoint, model_home, model_version
from fractopt.objective.lora.records import ALPACA_FILE, data_home, find_data, read_records
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Data, Model

pytestmark = pytest.mark.llm

TOKEN = "hf_CANARYcanaryCANARYcanaryCANARYcanary"
NAME = f"org/{small_llama.NAME}"
ROWS = [{"instruction": f"Say {n}.", "input": "", "output": str(n)} for n in range(20)]


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with nothing on it, and a machine with nothing on it."""
    import huggingface_hub.constants
    import litgpt.config

    # Other tests set what evaluation processes have in their environment, and the client reads it once.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for table in (litgpt.config, architecture._litgpt()):
        monkeypatch.setitem(table.name_to_config, small_llama.NAME, small_llama.known)
        monkeypatch.setattr(table, "configs", [*table.configs, small_llama.known])
    gc.freeze()  # litgpt's converter collects the garbage, which takes a second of all that torch imported
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_TOKEN", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with FakeHub(allowed=(TOKEN,)) as served:
        for name, value in served.environment().items():
            monkeypatch.setenv(name, value)
        yield served
    gc.unfreeze()


def settings(model: Model | None = None, data: Data | None = None) -> LoraSettings:
    return LoraSettings("tiny/acc", model or Model(name=TINY), data or Data(name=TINY))


def fetched(model: Model | None = None, data: Data | None = None, update: bool = False) -> list[str]:
    """What was said."""
    said: list[str] = []
    settings(model, data).fetch(said.append, update)
    return said


def refusal(model: Model | None = None, data: Data | None = None) -> str:
    with pytest.raises(UnusableError) as error:
        fetched(model, data)
    return str(error.value)


def test_what_is_fetched_is_there_at_its_commit_and_is_not_fetched_again(hub: FakeHub) -> None:
    commit = hub.add(NAME, small_llama.files())
    of_data = hub.add("org/data", {"data/train.jsonl": lines(ROWS)}, kind="dataset")
    wanted = Model(name=NAME), Data(name="org/data")
    assert len(settings(*wanted).absences()) == 2
    said = "\n".join(fetched(*wanted))
    assert f"the model {NAME} at main ({commit})" in said
    assert settings(*wanted).absences() == []
    assert find_checkpoint(NAME, None) == model_home(NAME) / commit
    assert read_records(find_data("org/data", None)) == ROWS
    pinned = settings(*wanted).pinned()
    assert (pinned.model.revision, pinned.data.revision) == (commit, of_data)
    assert settings(pinned.model, pinned.data).absences() == []

    hub.seen.clear()
    again = fetched(*wanted)
    assert [line[:7] for line in again] == ["is here", "is here", "all is "]
    assert hub.downloads() == []


def test_the_model_computes_what_its_weights_say(hub: FakeHub) -> None:
    import torch
    from litgpt.model import GPT, Config

    hub.add(NAME, small_llama.files())
    fetched(Model(name=NAME))
    from fractopt.objective.lora.model import BaseModel

    base = BaseModel(Model(name=NAME, precision="32-true"))
    given = small_llama.weights()
    torch.testing.assert_close(base.weights["lm_head.weight"], given["lm_head.weight"])
    query, key = (given[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qk")
    torch.testing.assert_close(base.weights["transformer.h.1.attn.qkv.weight"][:32], query)
    torch.testing.assert_close(base.weights["transformer.h.1.attn.qkv.weight"][32:48], key)
    assert isinstance(GPT(Config.from_file(base.directory / "model_config.yaml")), torch.nn.Module)


def test_a_download_that_broke_off_goes_on_where_it_did(hub: FakeHub) -> None:
    files = small_llama.files()
    commit = hub.add(NAME, files)
    fetched(Model(name=NAME))
    # As a process that is killed leaves it: a part of the blob, under another name, and no checkpoint.
    shutil.rmtree(model_home(NAME))
    cache = Path(os.environ["HF_HOME"]) / "hub" / f"models--{NAME.replace('/', '--')}"
    link = cache / "snapshots" / commit / "model.safetensors"
    blob = link.resolve()
    blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    link.unlink()
    os.truncate(f"{blob}.incomplete", 1000)
    half_converted = model_home(NAME) / f".{commit}.0.tmp"
    half_converted.mkdir(parents=True)
    hub.seen.clear()
    fetched(Model(name=NAME))
    (asked,) = (seen for seen in hub.seen if seen.path in hub.downloads() and seen.method == "GET")
    assert asked.path.endswith("model.safetensors")
    assert asked.first == 1000
    assert link.read_bytes() == files["model.safetensors"]
    assert not half_converted.exists()


def test_a_network_that_breaks_once_is_no_obstacle(hub: FakeHub) -> None:
    hub.add(NAME, small_llama.files())
    hub.cut_after = 5000
    fetched(Model(name=NAME))
    assert hub.cut_after is None
    assert settings(Model(name=NAME)).absences() == []


def test_a_download_that_came_out_damaged_is_not_converted(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fakehub

    hub.add(NAME, small_llama.files())
    right = fakehub._file

    def wrong(path: str, data: bytes) -> dict[str, Any]:
        return right(path, data) if path != "model.safetensors" else right(path, data[::-1])

    monkeypatch.setattr(fakehub, "_file", wrong)
    assert refusal(Model(name=NAME)).startswith(
        "model.safetensors of org/Small-Llama was damaged and is removed"
    )
    monkeypatch.undo()


def test_a_checkpoint_that_lost_something_is_made_again(hub: FakeHub) -> None:
    hub.add(NAME, small_llama.files())
    fetched(Model(name=NAME))
    weights = find_checkpoint(NAME, None) / "lit_model.pth"
    whole = weights.read_bytes()
    os.truncate(weights, 10)
    (absence,) = settings(Model(name=NAME)).absences()
    assert "has 10 bytes and was made with" in absence.what
    assert absence.command
    fetched(Model(name=NAME))
    assert weights.read_bytes() == whole


def test_a_branch_that_moved_is_said_and_taken_on_request(hub: FakeHub) -> None:
    first = hub.add(NAME, small_llama.files(), tag="v1")
    fetched(Model(name=NAME))
    second = hub.add(NAME, small_llama.files(seed=1))
    said = "\n".join(fetched(Model(name=NAME)))
    assert f"the hub's main is {second} by now, which fractopt fetch --update takes" in said
    assert find_checkpoint(NAME, None).name == first
    fetched(Model(name=NAME), update=True)
    assert find_checkpoint(NAME, None).name == second
    # A run that began with the first one finds it still.
    assert find_checkpoint(NAME, None, first).name == first
    fetched(Model(name=NAME, revision="v1"))
    assert find_checkpoint(NAME, None, "v1").name == first


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (
            None,
            "accept it at https://huggingface.co/org/Small-Llama, make a token at .*/tokens and set HF_TOKEN",
        ),
        ("hf_somebodyElsesTokenOfManyLetters", "org/Small-Llama, with the account that HF_TOKEN belongs to"),
        ("hf_expiredTokenOfManyLettersIndeed", "the hub does not know the token in HF_TOKEN"),
    ],
)
def test_a_gated_model_says_what_helps(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, token: str | None, says: str
) -> None:
    hub.add(NAME, small_llama.files(), gated=True)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    said = refusal(Model(name=NAME))
    assert re.search(says, said)
    assert "\n" not in said


def test_a_token_opens_a_gated_model_and_is_written_nowhere(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.add(NAME, small_llama.files(), gated=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = fetched(Model(name=NAME))
    assert {seen.token for seen in hub.seen} == {TOKEN}
    assert "CANARY" not in "".join(said)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not any(b"CANARY" in path.read_bytes() for path in files)


def test_a_token_that_the_client_saved_is_not_used(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(NAME, small_llama.files())
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(TOKEN)
    fetched(Model(name=NAME))
    assert {seen.token for seen in hub.seen} == {""}


def test_all_that_cannot_be_had_is_said_at_once(hub: FakeHub) -> None:
    model, data = refusal(Model(name="meta-llama/Llama-3.2-1B"), Data(name="org/absent")).splitlines()
    assert model.startswith("the hub shows no model 'meta-llama/Llama-3.2-1B'")
    assert data.startswith(
        "the hub shows no data set 'org/absent'. It may also be a private one: HF_TOKEN is not"
    )
    near = refusal(Model(name="meta-llama/Lama-3.2-1B"))
    assert "did you mean meta-llama/Llama-3.2-1B" in near
    hub.add(NAME, small_llama.files())
    assert "has no branch, tag or commit 'v9'" in refusal(Model(name=NAME, revision="v9"))
    assert hub.downloads() == []


def test_trouble_with_the_hub_has_a_sentence_of_its_own(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    hub.add(NAME, small_llama.files())
    hub.trouble = 403
    assert "the hub answered 403 when it was asked for the model org/Small-Llama" in refusal(Model(name=NAME))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = refusal(Model(name=NAME))
    assert said.startswith("there is no network to http://127.0.0.1:9 from here (ConnectError)")
    assert "login node" in said
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert refusal(Model(name=NAME)).startswith("HF_HUB_OFFLINE is set")


def test_what_is_here_needs_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, small_llama.files())
    fetched(Model(name=NAME))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = fetched(Model(name=NAME))
    assert "not compared with the hub: there is no network" in said[0]
    assert said[-1].startswith("all is here")


def test_a_full_disk_is_said_before_anything_is_downloaded(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, small_llama.files())
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    said = refusal(Model(name=NAME))
    assert said.startswith("there is no room: ")
    assert "1.0 kB are free there" in said
    assert hub.downloads() == []


# --- weights


def as_bin(state: Any) -> bytes:
    import io

    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_weights_in_torchs_format_become_the_same_checkpoint(hub: FakeHub) -> None:
    hub.add(NAME, small_llama.files())
    other = {k: v for k, v in small_llama.files().items() if k != "model.safetensors"}
    hub.add(f"other/{small_llama.NAME}", {**other, "pytorch_model.bin": as_bin(small_llama.weights())})
    for name in (NAME, f"other/{small_llama.NAME}"):
        fetched(Model(name=name))
    import torch

    one, two = (
        torch.load(find_checkpoint(name, None) / "lit_model.pth", weights_only=True)
        for name in (NAME, f"other/{small_llama.NAME}")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


class Hidden:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("pack", [as_bin, pickle.dumps])
def test_code_that_hides_in_weights_is_not_run(
    hub: FakeHub, tmp_path: Path, pack: Callable[[Any], bytes]
) -> None:
    files = {k: v for k, v in small_llama.files().items() if k != "model.safetensors"}
    state = {**small_llama.weights(), "more": Hidden(f"touch {tmp_path / 'ran'}")}
    hub.add(NAME, {**files, "pytorch_model.bin": pack(state)})
    assert "does not hold weights alone; nothing of it was run" in refusal(Model(name=NAME))
    assert not (tmp_path / "ran").exists()
    assert list(model_home(NAME).iterdir()) == []


def test_another_model_than_its_name_says_is_refused(hub: FakeHub) -> None:
    from safetensors.torch import save

    changed = small_llama.weights() | {"lm_head.weight": small_llama.weights()["lm_head.weight"][:700]}
    hub.add(NAME, {**small_llama.files(), "model.safetensors": save(changed)})
    assert "another model than litgpt's Small-Llama: lm_head.weight differ" in refusal(Model(name=NAME))
    more = small_llama.weights() | {"model.layers.0.extra.weight": changed["lm_head.weight"]}
    hub.add(NAME, {**small_llama.files(), "model.safetensors": save(more)})
    assert "litgpt cannot convert" in refusal(Model(name=NAME))
    hub.add("nobody/model", small_llama.files())
    assert "litgpt knows no model 'nobody/model'" in refusal(Model(name="nobody/model"))
    fetched(Model(name="nobody/model", architecture=small_llama.NAME))
    assert find_checkpoint("nobody/model", None).is_dir()


def test_hugging_face_files_on_this_machine_are_converted(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.add(NAME, small_llama.files())
    fetched(Model(name=NAME))
    source = tmp_path / "mine"
    source.mkdir()
    for name, content in small_llama.files().items():
        (source / name).write_bytes(content)
    os.chmod(source, 0o555)
    mine = Model(path=str(source), architecture=small_llama.NAME)
    (absence,) = settings(mine).absences()
    assert "not converted" in absence.what
    fetched(mine)
    made = find_checkpoint(None, str(source))
    assert settings(mine).absences() == []
    version = model_version(made)
    assert version is not None
    assert version.startswith("sha256:")
    ours = (model_home(NAME) / commit / "lit_model.pth").read_bytes()
    assert len((made / "lit_model.pth").read_bytes()) == len(ours)


# --- data


def test_data_sets_are_read_in_the_ways_that_the_hub_has(hub: FakeHub, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    table = (tmp_path / "t.parquet").read_bytes()
    card = "configs:\n- config_name: a\n  data_files: a.json\n- config_name: b\n  data_files: b.json\n"
    both = {"a.json": json.dumps(ROWS[:3]).encode(), "b.json": b"[]"}
    hub.add("org/parquet", {"data/train-00000-of-00001.parquet": table}, "dataset")
    hub.add("org/both", {"README.md": f"---\n{card}---\n".encode(), **both}, "dataset")
    hub.add("mhenrichsen/alpaca_2k_test", {"alpaca_2000.parquet": table}, "dataset")
    for data, rows in (
        (Data(name="org/parquet"), ROWS),
        (Data(name="org/both", subset="a"), ROWS[:3]),
        (Data(name="alpaca-2k"), ROWS),
    ):
        fetched(data=data)
        assert read_records(find_data(data.name, None, subset=data.subset)) == rows


def test_a_data_set_of_another_form_says_which(hub: FakeHub) -> None:
    hub.add("org/other", {"train.jsonl": lines([{"prompt": "a", "completion": "b"}])}, "dataset")
    said = refusal(data=Data(name="org/other"))
    assert 'org/other, record 1: expected the columns "instruction" and "output"' in said
    assert said.endswith("found prompt, completion")
    hub.add("org/test", {"test.jsonl": lines(ROWS)}, "dataset")
    assert 'org/test has no split "train", but test' in refusal(data=Data(name="org/test"))
    hub.add("org/empty", {"README.md": b"nothing"}, "dataset")
    assert "org/empty cannot be read" in refusal(data=Data(name="org/empty"))
    assert not any(data_home("org/other").rglob("*.jsonl"))


def test_alpaca_comes_from_where_litgpt_has_it(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from fractopt.objective.lora.fetch import data

    monkeypatch.setattr(data, "ALPACA_URL", f"{hub.url}/alpaca.json")
    hub.pages["/alpaca.json"] = json.dumps(ROWS).encode()[:-9]
    assert "cannot be read" in refusal(data=Data(name="alpaca"))
    assert list(data_home("alpaca").iterdir()) == []
    hub.pages["/alpaca.json"] = json.dumps(ROWS).encode()
    fetched(data=Data(name="alpaca"))
    assert find_data("alpaca", None) == data_home("alpaca") / ALPACA_FILE
    shutil.rmtree(data_home("alpaca"))
    monkeypatch.setattr(data, "ALPACA_URL", "http://127.0.0.1:9/alpaca.json")
    assert "alpaca's file cannot be had from http://127.0.0.1:9/alpaca.json" in refusal(
        data=Data(name="alpaca")
    )
