"""A student that is handed over: a folder that others load, and a card that says what it is."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from cotpipe.rationale.prompts import question_prompt
from cotpipe.recipe.files import load_recipe
from cotpipe.report.summary import number, percent, summarise
from cotpipe.runs.answers import answers_of
from cotpipe.runs.log import Run, find_run, recipe_of
from cotpipe.store.artifacts import Store
from cotpipe.store.storage import LocalStorage
from tests.helpers.flow_runs import assert_one_line_error, cotpipe
from tests.helpers.polling import PATIENCE
from tests.helpers.repository import ROOT
from tests.helpers.s3 import KEY, SECRET, rclone


@pytest.fixture(scope="module")
def handed(finished, tmp_path_factory) -> Path:
    """The student of the finished run."""
    folder = tmp_path_factory.mktemp("handed") / "student"
    done = cotpipe("export", "last", str(folder), COTPIPE_STORE=str(finished[0]))
    assert done.returncode == 0, done.stderr
    assert str(folder) in done.stdout
    return folder


def run_of(store: Path) -> tuple[Run, Store]:
    opened = Store(LocalStorage(store))
    return find_run(opened.storage, "last"), opened


def model_of(store: Path, stage: str) -> Path:
    run, opened = run_of(store)
    record = opened.find(run.references[stage])
    assert record
    return opened.path(record, "model")


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text()


def change_recipe(store: Path, **sections: object) -> None:
    """Change the recipe in the record of the only run."""
    (file,) = (store / "runs").glob("*.json")
    record = json.loads(file.read_text())
    for name, value in sections.items():
        record["recipe"][name] = (
            record["recipe"][name] | value if isinstance(value, dict) else value
        )
    file.write_text(json.dumps(record))


def greedy(folder: Path, *messages: dict[str, str]) -> str:
    """What transformers answers with the settings that the folder has itself."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    written = model.generate(**inputs, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(written, skip_special_tokens=True))


def test_transformers_loads_the_folder_and_answers_as_the_checkpoint(finished, handed):
    for question in ("What is 5 + 7?", "Tom has 3 pens and buys 4 more. How many has he?"):
        asked = {"role": "user", "content": question}
        assert greedy(handed, asked) == greedy(model_of(finished[0], "stage3"), asked)
    settings = json.loads((handed / "generation_config.json").read_text())
    assert settings.get("do_sample", False) is False
    assert settings["eos_token_id"] == [2]
    assert not {"temperature", "top_p", "top_k"} & settings.keys()


def test_what_it_samples_with_elsewhere_is_left_out(copied, tmp_path):
    from transformers import GenerationConfig

    run, _ = run_of(copied)
    record_file = copied / str(run.references["stage3"]) / "record.json"
    config = model_of(copied, "stage3") / "generation_config.json"
    sampled = json.loads(config.read_text()) | {
        "do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1,
    }  # fmt: skip
    config.write_text(json.dumps(sampled))
    record = json.loads(record_file.read_text())
    (entry,) = (one for one in record["files"] if one["path"] == "model/generation_config.json")
    from cotpipe.store.records import describe_file

    entry |= describe_file(config, config.parents[1]).model_dump()
    record_file.write_text(json.dumps(record))

    assert cotpipe("export", "last", str(tmp_path / "out")).returncode == 0
    written = GenerationConfig.from_pretrained(tmp_path / "out")
    written.save_pretrained(tmp_path)  # raises for one that is not valid
    assert (written.do_sample, written.temperature, written.top_k) == (False, None, None)
    assert written.repetition_penalty == 1.1  # greedy answers hang on it


def test_the_card_has_the_figures_of_the_run(finished, handed):
    run, store = run_of(finished[0])
    card = card_of(handed)
    shown = cotpipe("show", "last", COTPIPE_STORE=str(finished[0])).stdout
    for name, rows in answers_of(run, store).items():
        summary = summarise(name, rows)
        for figure in (percent(summary.accuracy), number(summary.tokens)):
            assert figure in card
            assert figure.split(" [")[0] in shown
    for fingerprint in run.artifacts.values():
        assert fingerprint in card
    assert run.run_id in card


def test_the_front_matter_is_what_the_hub_reads(handed):
    from huggingface_hub import ModelCard

    data = ModelCard.load(handed / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert {"cotpipe", "sft", "grpo", "arxiv:2602.17686"} <= set(data.tags or [])
    assert data.base_model is None  # a folder, which the hub does not have


def test_a_data_set_and_a_base_model_of_the_hub_are_named(copied, tmp_path):
    source = {"kind": "hub", "dataset": "openai/gsm8k"}
    run, _ = run_of(copied)
    change_recipe(copied, problems=run.recipe["problems"] | {"source": source})
    change_recipe(copied, student={"model": "owner/tiny"})
    record = copied / str(run.references["student"]) / "record.json"
    fields = {"student": {"model": "owner/tiny", "revision": None}}
    record.write_text(json.dumps(json.loads(record.read_text()) | {"fields": fields}))
    assert cotpipe("export", "last", str(tmp_path / "out")).returncode == 0
    front = yaml.safe_load(card_of(tmp_path / "out").split("---\n")[1])
    assert (front["base_model"], front["datasets"]) == ("owner/tiny", ["openai/gsm8k"])
    assert "not known: see `https://huggingface.co/owner/tiny`" in card_of(tmp_path / "out")


def test_the_example_of_the_card_asks_as_an_evaluation_does(handed):
    (block,) = (one for one in MarkdownIt().parse(card_of(handed)) if one.type == "fence")
    assert block.info == "python"
    names: dict[str, Any] = {}
    exec(block.content.replace("FOLDER", str(handed)), names)
    recipe = load_recipe(str(handed / "recipe.yaml"))
    assert names["messages"] == question_prompt("What is 17 + 25?", recipe.instruction)
    (answer,) = names["answer"]
    assert answer["generated_text"][-1]["content"] == greedy(handed, *names["messages"])


def test_the_recipe_beside_is_that_of_the_run(finished, handed):
    assert load_recipe(str(handed / "recipe.yaml")) == recipe_of(run_of(finished[0])[0])


def test_the_command_of_the_card_measures_the_same(finished, handed, tmp_path):
    (line,) = re.findall(r"^    cotpipe (evaluate .*)$", card_of(handed), re.MULTILINE)
    arguments = line.replace("FOLDER", str(handed)).split()
    done = cotpipe(*arguments, "--json", COTPIPE_STORE=str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    figures = {row["name"]: row["value"] for row in map(json.loads, done.stdout.splitlines())}
    run, store = run_of(finished[0])
    summary = summarise("stage3", answers_of(run, store)["stage3"])
    assert figures["accuracy"] == pytest.approx(summary.accuracy.value)
    assert summary.tokens.value in figures.values()


def test_another_stage_can_be_taken(finished, tmp_path):
    folder = tmp_path / "deep" / "one"
    done = cotpipe(
        "export", "last", "--stage", "stage1", str(folder), COTPIPE_STORE=str(finished[0])
    )
    assert done.returncode == 0, done.stderr
    weights = "model.safetensors"
    expected = (model_of(finished[0], "stage1") / weights).read_bytes()
    assert (folder / weights).read_bytes() == expected
    assert "tiny, stage 1" in card_of(folder)
    assert "completion, by GRPO" not in card_of(folder)


def test_the_promoted_student_can_be_taken(copied, tmp_path):
    folder = tmp_path / "out"
    assert_one_line_error(
        cotpipe("export", "promoted", str(folder)), 2, "nothing is promoted", "cotpipe promote"
    )
    assert cotpipe("promote", "last").returncode == 0
    refused = cotpipe("export", "promoted", str(folder), "--stage", "stage1")
    assert_one_line_error(refused, 2, "stage1", "stage3")
    assert cotpipe("export", "promoted", str(folder)).returncode == 0
    assert "tiny, stage 3" in card_of(folder)

    for file in (copied / "runs").glob("*.json"):
        file.unlink()  # as `gc` does with old runs
    refused = cotpipe("export", "promoted", str(tmp_path / "again"))
    assert_one_line_error(refused, 2, "no longer in the store", "promote")


def test_a_folder_with_something_in_it_is_left_alone(finished, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("out", "file"):
        done = cotpipe("export", "last", str(tmp_path / name), COTPIPE_STORE=str(finished[0]))
        assert_one_line_error(done, 2, str(tmp_path / name))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "notes", "out"]


def test_a_store_on_s3_gives_the_same(copied, handed, tmp_path):
    shutil.copytree(copied, tmp_path / "s3" / "bucket" / "store")
    with rclone(tmp_path / "s3") as address:
        done = cotpipe(
            "export", "last", str(tmp_path / "out"), "--store", "s3://bucket/store",
            COTPIPE_S3_ENDPOINT_URL=address, COTPIPE_S3_REGION="us-east-1", COTPIPE_S3_ACCESS_KEY_ID=KEY,
            COTPIPE_S3_SECRET_ACCESS_KEY=SECRET, COTPIPE_CACHE=str(tmp_path / "cache"),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for file in handed.iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_an_empty_folder_is_filled(finished, tmp_path):
    (tmp_path / "out").mkdir()
    done = cotpipe("export", "last", str(tmp_path / "out"), COTPIPE_STORE=str(finished[0]))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "config.json").exists()


def test_what_a_run_does_not_have_is_refused(copied, tmp_path):
    folder = str(tmp_path / "out")
    assert_one_line_error(cotpipe("export", "nothing", folder), 2, "'nothing'")
    refused = cotpipe("export", "last", folder, "--stage", "stage9")
    assert_one_line_error(refused, 2, "stage9", "stage1, stage2, stage3")

    weights = model_of(copied, "stage3") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    refused = cotpipe("export", "last", folder)
    assert refused.returncode == 2
    assert "damaged; make it with: cotpipe rerun" in refused.stderr
    assert list(tmp_path.iterdir()) == [copied]


def test_an_unfinished_run_gives_what_it_has(copied, tmp_path):
    (file,) = (copied / "runs").glob("*.json")
    record = json.loads(file.read_text()) | {"outcome": "failed"}
    steps = record["steps"]
    for stage, done in (("stage2", 0), (None, 2)):
        kept = ["problems", "student", *(["stage1", "stage2"] if stage else [])]
        file.write_text(json.dumps(record | {"steps": {kind: steps[kind] for kind in kept}}))
        answer = cotpipe("export", "last", str(tmp_path / "out"))
        assert answer.returncode == done, answer.stderr
        if stage:
            assert "tiny, stage 2" in card_of(tmp_path / "out")
            assert cotpipe("export", "last", f"{tmp_path}/3", "--stage", "stage3").returncode == 2
            (tmp_path / "out").rename(tmp_path / "before")
        else:
            assert_one_line_error(answer, 2, "has no checkpoint yet", "cotpipe rerun")


def test_names_in_the_card_are_text(copied, tmp_path):
    evil = "x](http://evil.example) <script>alert(1)</script> ![p](q.png)\n# heading\n---\n```"
    change_recipe(copied, name="a_b_c.d-e", teacher={"model": evil, "engine": "transformers"})
    change_recipe(copied, student={"model": f"/models/{evil}"})
    assert cotpipe("export", "last", str(tmp_path / "out")).returncode == 0
    card = card_of(tmp_path / "out")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "transformers"
    parsed = MarkdownIt("commonmark").parse(body)
    inside = [child for token in parsed for child in token.children or ()]
    kinds = {token.type for token in [*parsed, *inside]}
    assert not kinds & {"html_inline", "html_block", "image", "hr"}
    links = [token.attrGet("href") for token in inside if token.type == "link_open"]
    assert links == ["https://arxiv.org/abs/2602.17686"]
    headings = [
        parsed[place + 1].content
        for place, token in enumerate(parsed)
        if token.type == "heading_open"
    ]
    assert "heading" not in headings
    assert load_recipe(str(tmp_path / "out" / "recipe.yaml")).teacher.model == evil


def test_a_name_that_no_recipe_can_have_is_refused(copied, tmp_path):
    change_recipe(copied, name="<b>\n---\nx: 1")
    refused = cotpipe("export", "last", str(tmp_path / "out"))
    assert_one_line_error(refused, 2, "recipe is not valid", "name")
    assert not (tmp_path / "out").exists()


INTERRUPTED = """
import os, signal, sys
from cotpipe.runs import export
def stopped(folder, handed):
    print(*sorted(path.name for path in folder.parent.iterdir()), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
export.write_card = stopped
from flows.cli.main import main
main()
"""


def test_an_interrupted_export_leaves_nothing(finished, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "export", "last", str(tmp_path / "out"), "--store", str(finished[0])],
        capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode in (-signal.SIGINT, 1, 130), done.stderr
    assert done.stdout  # it had come as far as the card
    assert list(tmp_path.iterdir()) == []
