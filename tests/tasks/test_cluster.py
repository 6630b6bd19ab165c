"""Shards on a real Ray cluster of this machine: each is made once, whatever becomes of nodes and engines."""

import os
import threading
from collections import Counter
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect import flow

pytest.importorskip("ray", reason="Ray is not installed: pip install 'cotpipe[ray]'")

from cotpipe.engines.cluster import require_cluster
from cotpipe.engines.nodes import needs_of_nodes
from cotpipe.errors import RunError, UserError
from cotpipe.recipe.files import load_recipe
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.store.artifacts import open_store
from cotpipe.store.records import SHARDS, Record, Reference
from tasks.steps import prepare
from tests.helpers.flow_runs import assert_one_line_error, cotpipe, cotpipe_process
from tests.helpers.polling import PATIENCE, wait_until
from tests.helpers.ray_nodes import RayNodes, ray_nodes
from tests.helpers.servers import free_port
from tests.helpers.task_runs import task_runs_of

KEY = "a-key-that-nobody-may-see"
ENGINE = """
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

from cotpipe.engines import Generated

HERE, NODE = Path(__file__).parent, os.environ.get("NODE", "")

def log(name, line):
    with (HERE / name).open("a") as file:
        file.write(line + "\\n")

class Scripted:
    asked = 0

    def generate(self, requests, sampling, progress):
        ids = sorted(one.problem_id for one in requests)
        log("begun", " ".join(ids))
        self.asked += 1
        if NODE == "doomed" and self.asked == 3:
            (HERE / "stuck").touch()
            threading.Event().wait()  # until the node is killed
        deadly = HERE / "deadly"  # how many engines end when they are asked
        if deadly.exists() and (left := int(deadly.read_text())):
            deadly.write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        log("made", " ".join(ids))
        return [
            [Generated(f"Step 1: {one.problem_id} {number}\\nAnswer: 1", 5, False) for number in range(sampling.num_samples)]
            for one in requests
        ]

@contextmanager
def opened(model, settings):
    log("opened", f"{NODE} {os.getpid()}")
    yield Scripted()
"""


@flow
def teach(recipe: Recipe) -> tuple[UUID, Reference]:
    from prefect.runtime import flow_run

    found: dict[str, Reference] = {}
    for kind in ("problems", "rationales"):
        found[kind] = prepare(kind, recipe, dict(found)).result().reference
    return UUID(flow_run.get_id()), found["rationales"]


class Place:
    """A store of its own, and an engine that says what it is asked."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        folder.mkdir()
        (folder / "engine.py").write_text(ENGINE)
        self.store = open_store(Settings(store=str(folder / "store")))

    def teach(self, address: str | None, num_problems: int = 24) -> tuple[UUID, Record]:
        for name, value in {
            "STORE": str(self.folder / "store"), "SHARD_SIZE": "2", "RAY_CPUS": "1", "SERVER_KEY": KEY, "RAY_ADDRESS": address,
        }.items():  # fmt: skip
            if value:
                self._patch.setenv(f"COTPIPE_{name}", value)
            else:
                self._patch.delenv(f"COTPIPE_{name}", raising=False)
        recipe = load_recipe(
            "demo",
            [f"problems.source.num_problems={num_problems}", f"teacher.engine={self.folder}/engine.py:opened",
             "teacher.model=scripted", "teacher.max_rejected_share=1"],
        )  # fmt: skip
        run, reference = teach(recipe)
        return run, self.store.require(reference)

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def shards(self) -> dict[str, list[str]]:
        """The contents of every shard, by its fingerprint."""
        return {
            one.fingerprint: [file.sha256 for file in one.files]
            for one in self.store.records(SHARDS)
        }


@pytest.fixture
def place(prefect, tmp_path, monkeypatch) -> Place:
    return Place(tmp_path / "place", monkeypatch)


@pytest.fixture
def nodes():
    before = ray_processes()
    with ray_nodes() as nodes:
        yield nodes
    wait_until(lambda: ray_processes() <= before)  # none survives


def ray_processes() -> set[int]:
    def is_of_ray(one: psutil.Process) -> bool:
        line = one.info["cmdline"] or []
        return any("ray/core" in part or part.startswith("ray::") for part in line)

    return {one.pid for one in psutil.process_iter(["cmdline"]) if is_of_ray(one)}


def test_a_node_is_killed_and_every_shard_is_made_once(
    nodes: RayNodes, place, tmp_path, monkeypatch
):
    nodes.join("doomed")

    def kill() -> None:
        wait_until((place.folder / "stuck").exists)
        nodes.kill("doomed")

    killer = threading.Thread(target=kill)
    killer.start()
    run, record = place.teach(nodes.address)
    killer.join(PATIENCE)
    shards = place.shards()
    made = Counter(place.lines("made"))
    assert len(made) == len(shards) > 8
    assert set(made.values()) == {1}
    again = Counter(place.lines("begun"))
    assert sorted(again.values())[-2:] == [1, 2]  # the one that was under way on the killed node
    assert sorted(line.split()[0] for line in place.lines("opened")) == ["doomed", "head"]
    attempts = [path for path in (place.folder / "store" / SHARDS).glob("*/*") if path.is_dir()]
    assert len([path for path in attempts if list(path.iterdir())]) == len(shards)

    def are_seen() -> bool:
        states = Counter(
            one.state_name for one in task_runs_of(run) if one.name.startswith("shard")
        )
        return states["Completed"] == len(shards)

    wait_until(are_seen)
    alone = Place(tmp_path / "alone", monkeypatch)
    _, other = alone.teach(None)
    assert {file.path: file.sha256 for file in record.files} == {
        file.path: file.sha256 for file in other.files
    }
    assert sorted(alone.shards().values()) == sorted(shards.values())
    for path in [*nodes.folder.rglob("*"), *place.folder.rglob("*")]:
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_an_engine_that_ends_is_replaced_but_not_for_ever(nodes: RayNodes, place):
    (place.folder / "deadly").write_text("2")
    place.teach(nodes.address)
    made = Counter(place.lines("made"))
    assert len(made) == len(place.shards())
    assert set(made.values()) == {1}
    assert len(place.lines("opened")) == 3
    place.teach(nodes.address)  # all is there, so no engine is opened
    assert len(place.lines("opened")) == 3
    (place.folder / "deadly").write_text("99")
    with pytest.raises(RunError, match=r"shard \d+: its engine ended 3 times"):
        place.teach(nodes.address, num_problems=40)


def test_a_node_of_another_version_is_refused(nodes: RayNodes, place, tmp_path):
    # Not cotpipe itself: Ray lets nodes look into the folder of the run first, which may have its metadata.
    package = tmp_path / "other" / "prefect-9.9.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: prefect\nVersion: 9.9\n")
    nodes.join("other", PYTHONPATH=str(package.parent))
    settings = Settings(ray_address=nodes.address, ray_cpus=1, store=str(tmp_path / "store"))
    with pytest.raises(
        UserError, match=r"node .* has Prefect 9\.9, this run 3\.7\.7; install the same"
    ):
        require_cluster(settings, None)
    place.teach(nodes.address)  # one that joins later is left aside
    assert [line.split()[0] for line in place.lines("opened")] == ["head"]
    nodes.kill("other")
    wait_until(lambda: "1 nodes with room for 1 engines" in _said(settings))
    with pytest.raises(UserError, match="no node of .* without GPUs 2 CPUs.*COTPIPE_RAY_CPUS"):
        require_cluster(settings.model_copy(update={"ray_cpus": 2}), None)


def _said(settings: Settings) -> str:
    try:
        return require_cluster(settings, None)
    except UserError as error:
        return str(error)


def test_an_address_that_does_not_answer_is_told_before_anything_starts(tmp_path, prefect):
    nobody = f"127.0.0.1:{free_port()}"
    done = cotpipe_process(
        "run", "--recipe", "demo", "--store", str(tmp_path / "store"), COTPIPE_RAY_ADDRESS=nobody, PREFECT_API_URL=prefect,
    )  # fmt: skip
    assert_one_line_error(done, 2, f"COTPIPE_RAY_ADDRESS: {nobody}: no Ray cluster answers within")
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    web = prefect.removeprefix("http://").removesuffix("/api")  # a server, but none of Ray's
    done = cotpipe("doctor", "--store", str(tmp_path / "store"), COTPIPE_RAY_ADDRESS=web)
    assert done.returncode == 1
    assert f"COTPIPE_RAY_ADDRESS: {web}: no Ray cluster answers" in done.stdout


def test_a_node_knows_what_it_does_not_reach(tmp_path, prefect):
    settings = Settings(store=str(tmp_path))
    with needs_of_nodes(settings, prefect) as needs:
        assert needs.missing() == ""
    assert needs.missing().startswith("does not see the store; set COTPIPE_STORE")
    assert not list(tmp_path.iterdir())
    with needs_of_nodes(settings, f"http://127.0.0.1:{free_port()}/api") as needs:
        assert "set PREFECT_API_URL to a server that all nodes reach" in needs.missing()


def test_without_an_address_ray_is_not_loaded():
    import subprocess
    import sys

    code = "import sys, flows.curriculum, tasks.steps; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=PATIENCE)
