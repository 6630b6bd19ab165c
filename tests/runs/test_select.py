"""SQL over a store: whatever is asked, it reads the store's tables and nothing else, and writes nothing."""

import hashlib
import shutil
from pathlib import Path

import duckdb
import pytest

from cotpipe.errors import UserError
from cotpipe.runs.catalog import query, sql_errors
from cotpipe.settings import Settings
from cotpipe.store.artifacts import Store, open_store
from tests.helpers.repository import ROOT
from tests.helpers.s3 import rclone, s3_settings

STORED = ROOT / "tests" / "store_before" / "store"
SECRET = "the-content-of-a-private-file"

WRITES = """\
copy (select 1) to 'OUT'
explain analyze copy (select 1) to 'OUT'
explain select 1
with x as (copy (select 1) to 'OUT') select 1
select (with x as (copy (select 1) to 'OUT') select 1)
select 1 union all (with x as (copy (select 1) to 'OUT') select 2)
from (with x as (copy (select 1 as y) to 'TABLE' (format parquet, use_tmp_file false)) select 1)
from query('with x as (copy (select 1) to ''OUT'') select 1')
from system.main.query('select 1')
from json_execute_serialized_sql(json_serialize_sql('select 1'))
with x as (insert into runs values (1) returning *) from x
with x as (delete from runs returning *) from x
with x as (update runs set run_id = '1' returning *) from x
select 1; copy (select 1) to 'OUT'
attach 'OUT' as other
export database 'OUT'
import database 'OUT'
create table x as select 1
create macro x() as table select 1
drop view problems
insert into problems values (1)
set enable_external_access = true
reset lock_configuration
pragma enable_profiling
call force_checkpoint()
install httpfs
load httpfs
create secret (type s3)
prepare x as select 1
execute x
checkpoint
vacuum
use other
begin
""".splitlines()

READS = """\
from read_text('PRIVATE')
from read_blob('PRIVATE')
from read_csv('PRIVATE')
from read_json('PRIVATE')
from 'PRIVATE'
from 'PRIVATE.csv'
from read_parquet('PRIVATE.parquet')
from parquet_metadata('PRIVATE.parquet')
from sniff_csv('PRIVATE.csv')
from glob('FOLDER/*')
from read_text('TABLE/../../../../../private.csv')
from read_text('STORE/runs/*')
from read_text('/proc/self/environ')
from read_text('/dev/stdout')
from read_csv('http://127.0.0.1:1/x.csv')
from read_parquet('s3://bucket/x.parquet')
from duckdb_secrets()
from secret_rows
from SECRET
""".splitlines()

ALLOWED = """\
from problems
select kind, count(*) from evaluations group by all order by all
with recursive x as (select 1 as n union all select n + 1 from x where n < 3) select sum(n) from x
with x as materialized (from lessons) select count(*) from x union select count(*) from problems
describe runs
show tables
summarize runs
select "copy" from (select 'copy (select 1) to x' as "copy")
select list_transform([1, 2], lambda x: x + 1), row_number() over () from runs qualify true
""".splitlines()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    folder = shutil.copytree(STORED, tmp_path / "store")
    (tmp_path / "private").write_text(SECRET)
    (tmp_path / "private.csv").write_text(f"key\n{SECRET}\n")
    duckdb.sql(f"select '{SECRET}' as key").write_parquet(str(tmp_path / "private.parquet"))
    return open_store(Settings(store=str(folder)))


def content(folder: Path) -> dict[Path, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def filled_in(sql: str, folder: Path) -> str:
    table = next((folder / "store" / "problems").rglob("problems.parquet"))
    names = {
        "PRIVATE": folder / "private", "OUT": folder / "out", "TABLE": table, "STORE": folder / "store",
        "FOLDER": folder,
    }  # fmt: skip
    for name, path in names.items():
        sql = sql.replace(name, str(path))
    return sql


def ask(store: Store, sql: str) -> list[tuple]:
    with sql_errors():
        return query(store, sql).fetchall()


@pytest.mark.parametrize("sql", ["", *WRITES])
def test_a_statement_that_writes_is_refused_and_leaves_everything_as_it_is(store, sql, tmp_path):
    before = content(tmp_path)
    with pytest.raises(UserError):
        ask(store, filled_in(sql, tmp_path))
    assert content(tmp_path) == before


@pytest.mark.parametrize("sql", READS)
def test_no_file_but_the_stores_tables_can_be_read(store, sql, tmp_path):
    secret_rows = duckdb.sql(f"select '{SECRET}' as key").df()  # a variable is no table either
    assert len(secret_rows) == 1
    with pytest.raises(UserError) as refused:
        ask(store, filled_in(sql, tmp_path))
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "nested", ["+".join(["1"] * 900), "+".join(["1"] * 3000), "(" * 3000 + "1" + ")" * 3000]
)
def test_a_statement_that_is_nested_too_deeply_is_one_line(store, nested):
    with pytest.raises(
        UserError, match="^sql: .*(nested too deeply|[Ee]xpression depth|syntax error)"
    ):
        ask(store, f"select {nested}")


@pytest.mark.parametrize("sql", ALLOWED)
def test_what_only_reads_is_answered(store, sql):
    assert ask(store, sql)


def test_a_store_on_s3_is_read_and_nothing_beside_it(tmp_path, monkeypatch):
    with rclone(tmp_path / "s3") as address:
        shutil.copytree(STORED, tmp_path / "s3" / "bucket" / "store")
        shutil.copy(
            next(STORED.rglob("problems.parquet")), tmp_path / "s3" / "bucket" / "other.parquet"
        )
        store = open_store(s3_settings(address, tmp_path / "cache"))
        (counted,) = ask(store, "select count(*) from problems")
        assert (
            counted
            == duckdb.sql(
                f"select count(*) from '{STORED}/problems/*/*/problems.parquet'"
            ).fetchall()[0]
        )
        for sql in ("from 's3://bucket/other.parquet'", "from read_text('/etc/hostname')"):
            with pytest.raises(UserError):
                ask(store, sql)
