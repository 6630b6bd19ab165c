"""The commands that look into a store and look after it: sql, runs, show, compare, plans, verify, gc."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cotpipe.errors import UserError
from cotpipe.runs.catalog import query
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from cotpipe.store.records import SHARDS
from tests.helpers.flow_runs import TINY, assert_one_line_error, cotpipe, cotpipe_process


def run(*arguments: str) -> str:
    done = cotpipe(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def select(store: str, sql: str) -> list[dict]:
    relation = query(open_store(Settings(store=store)), sql)
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def test_every_table_answers(stores):
    tables = [
        "problems",
        "rationales",
        "rejects",
        "lessons",
        "examples",
        "completions",
        "failures",
        "evaluations",
    ]
    for table in [*tables, "training_log", "artifacts", "runs", "run_steps"]:
        (row,) = select(stores, f"select count(*) as n from {table}")
        assert row["n"] > 0, table
    assert select(
        stores,
        "select kind, count(*) as n from evaluations where kind = 'evaluation-base' group by kind",
    ) == [{"kind": "evaluation-base", "n": 11}]
    joined = "select count(*) as n from run_steps join artifacts using (kind, fingerprint)"
    (runs,) = select(stores, "select count(*) as n from runs")
    assert select(stores, joined) == [{"n": runs["n"] * 16}]


def test_sql_writes_csv_json_and_parquet_and_prints_a_table(stores):
    sql = "select problem_id, len(rationales) as n from problems order by 1 limit 3"
    lines = cotpipe_process("sql", sql, "--json", "--store", stores).stdout.splitlines()
    assert [json.loads(line) for line in lines] == select(stores, sql)
    written = cotpipe_process("sql", sql, "--csv", "--store", stores).stdout
    csv = pd.read_csv(io.StringIO(written))
    assert csv["n"].tolist() == [1, 1, 1]
    command = [sys.executable, "-m", "flows.cli", "sql", sql, "--parquet", "--store", stores]
    table = pd.read_parquet(io.BytesIO(subprocess.check_output(command)))
    assert table["problem_id"].tolist() == csv["problem_id"].tolist()
    printed = run("sql", sql, "--store", stores)
    assert all(problem in printed for problem in csv["problem_id"])


@pytest.mark.parametrize(
    "sql",
    [
        "create table x as select 1", "copy (select 1) to '/tmp/x.csv'", "drop view problems", "select 1; select 2",
        "attach '/tmp/x.db'", "install httpfs", "set threads = 1", "",
    ],
)  # fmt: skip
def test_sql_that_writes_is_refused(stores, sql):
    with pytest.raises(UserError, match="one select statement"):
        select(stores, sql)


def test_broken_sql_is_one_line(stores):
    assert_one_line_error(
        cotpipe("sql", "select x from problems", "--store", stores), 2, "x", "problems, rationales"
    )
    assert_one_line_error(cotpipe("sql", "selec 1", "--store", stores), 2, "selec")
    late = "select error('the row is bad') from problems"  # found only while rows are read
    assert_one_line_error(cotpipe_process("sql", late, "--store", stores), 2, "the row is bad")
    as_csv = cotpipe_process("sql", late, "--csv", "--store", stores)
    assert_one_line_error(as_csv, 2, "the row is bad")


def test_an_empty_store_has_empty_tables(tmp_path):
    assert "0" in run(
        "sql",
        "select count(*) from failures where num_samples > 1",
        "--store",
        str(tmp_path / "none"),
    )
    assert "no runs yet" in run("runs", "--store", str(tmp_path / "none"))


def test_runs_show_and_compare(stores):
    runs = select(stores, "select run_id, outcome, seconds from runs order by started_at")
    assert [row["outcome"] for row in runs] == ["completed"] * len(runs)
    listed = run("runs", "--store", stores)
    assert all(row["run_id"] in listed for row in runs)
    shown = run("show", "last", "--store", stores)
    assert runs[-1]["run_id"] in shown
    assert "evaluation-stage3" in shown
    assert "stage 3" in shown
    different = run("compare", runs[0]["run_id"], "last", "--store", stores)
    assert "evaluation.max_problems" in different
    assert "stage1.trainer.learning_rate" not in different
    assert_one_line_error(
        cotpipe("show", "nothing", "--store", stores), 2, "no run is called 'nothing'"
    )


def test_a_plan_says_what_is_reused_what_is_to_run_and_why(stores, tiny_student):
    plan = [
        "run",
        "--recipe",
        TINY,
        "--set",
        f"student.model={tiny_student}",
        "--dry-run",
        "--store",
        stores,
    ]
    assert "16 of 16 steps are reused, 0 will run" in run(*plan)
    changed = run(*plan, "--set", "stage3.trainer.learning_rate=1e-6")
    assert re.search("stage3.trainer.learning_rate [12]e-05 -> 1e-06", changed), changed
    assert "input stage3 changed" in changed
    assert "13 of 16 steps are reused, 3 will run" in changed
    refreshed = run(*plan, "--refresh", "stage3-examples")
    assert "requested with --refresh" in refreshed
    assert "12 of 16 steps are reused, 4 will run" in refreshed
    assert_one_line_error(cotpipe(*plan, "--refresh", "stage9"), 2, "'stage9'", "stage3")


def copy_of(stores: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stores, tmp_path / "store"))


def test_verify_names_what_is_damaged_and_a_plan_rebuilds_it(stores, tmp_path, tiny_student):
    store = copy_of(stores, tmp_path)
    assert "artifacts are intact" in run("verify", "--store", str(store))
    (weights,) = store.glob("stage2/*/*/model/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = cotpipe("verify", "--store", str(store))
    assert done.returncode == 1
    assert f"damaged: stage2/{weights.parts[-4]}: model/model.safetensors" in done.stdout
    options = ["--recipe", TINY, "--set", f"student.model={tiny_student}", "--store", str(store)]
    plan = run("run", "--dry-run", *options)
    assert "its artifact is damaged" in plan
    assert "15 of 16 steps are reused" in plan


def collect(store: Path, keep_runs: int) -> str:
    """Two gc in a row, without a time between: the first sets aside, the second removes."""
    options = ["--keep-runs", str(keep_runs), "--grace-hours", "0", "--store", str(store)]
    return run("gc", *options) + run("gc", *options)


def test_gc_removes_only_what_no_kept_run_needs(stores, tmp_path):
    store = copy_of(stores, tmp_path)
    orphan = store / "stage1" / ("a" * 32) / "dead0000"
    orphan.mkdir(parents=True)
    (orphan / "half").write_text("x" * 100)

    def files() -> set[Path]:
        return {path for path in store.rglob("*") if path.is_file()}

    before = files()
    told = run("gc", "--keep-runs", "1", "--dry-run", "--store", str(store))
    assert files() == before
    assert f"set aside: stage1/{'a' * 32}  0.0 MB  no kept run needs it" in told
    told = run("gc", "--keep-runs", "1", "--store", str(store))
    assert "a gc 24 hours from now, or later, removes what no run has used until then" in told
    assert before < files()
    assert {path.name.split(".", 1)[-1] for path in files() - before} <= {
        "json",
        "json.set-aside.json",
    }
    assert "removed: " in collect(store, 1)
    assert not orphan.exists()
    kept = {path.parent.name: json.loads(path.read_text()) for path in store.rglob("record.json")}
    (last,) = (json.loads(path.read_text()) for path in (store / "runs").iterdir())
    needed = {part["fingerprint"] for record in kept.values() for part in record["parts"]}
    assert len(needed) == 4  # of three evaluations and of mining: stage 3 handed on what it got
    assert {key for key, record in kept.items() if record["kind"] != SHARDS} == set(
        last["artifacts"].values()
    )
    assert {key for key, record in kept.items() if record["kind"] == SHARDS} == needed
    assert "artifacts are intact" in run("verify", "--store", str(store))
    again = files()
    collect(store, 1)
    assert files() == again
    collect(store, 0)
    assert files() == set()


def test_foreign_files_in_the_store_stop_no_command(stores, tmp_path):
    """A backup beside the artifacts, a record where none belongs, an empty one: told, and left."""
    store = copy_of(stores, tmp_path)
    record = next(store.glob("stage1/*/record.json"))
    (record.parent / "record.json").write_text("")
    for foreign in ("store/backup/problems/record.json", "inbox/record.json"):
        (store / foreign).parent.mkdir(parents=True, exist_ok=True)
        (store / foreign).write_text("{}")
    (store / "runs" / "notes.json").write_text("")
    for arguments in (
        ["gc", "--keep-runs", "0", "--grace-hours", "0"],
        ["sql", "select count(*) from artifacts"],
        ["verify"],
        ["runs"],
    ):
        done = cotpipe_process(*arguments, "--store", str(store))
        assert done.returncode == 0, done.stderr
        assert "skipped: " in done.stderr
    assert (store / "store/backup/problems/record.json").exists()
