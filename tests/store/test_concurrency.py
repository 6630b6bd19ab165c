"""Four runs that need the same artifacts at the same moment: each is made once."""

import json
import subprocess
import sys

import pytest

from cotpipe.settings import Settings
from cotpipe.store.artifacts import Store, open_storage
from tests.helpers.polling import PATIENCE
from tests.helpers.repository import ROOT
from tests.helpers.s3 import KEY, SECRET

PROGRAM = """
import json, sys
from cotpipe.steps.curriculum import steps_of
from cotpipe.recipe.model import Recipe
from cotpipe.settings import Settings
from cotpipe.progress import Silent
from cotpipe.steps.runner import StepRunner
from cotpipe.store.artifacts import open_store

recipe, settings = Recipe(), Settings()
runner, artifacts, made = StepRunner(open_store(settings), settings, Silent()), {}, []
print("ready", flush=True)
sys.stdin.readline()
for kind in ("problems", "rationales", "lessons", "stage1-examples", "stage2-examples"):
    outcome = runner.run(steps_of(recipe)[kind], recipe, {name: artifacts[name] for name in steps_of(recipe)[kind].inputs})
    artifacts[kind] = outcome.reference
    made += [kind] * (not outcome.reused)
print(json.dumps(made))
"""


@pytest.mark.parametrize("server", ["disk", "seaweed"])
def test_each_artifact_is_made_once(server, request, tmp_path):
    environment = {
        "COTPIPE_STORE": str(tmp_path / "store"),
        "COTPIPE_CACHE": str(tmp_path / "cache"),
    }
    if server == "seaweed":
        environment |= {
            "COTPIPE_STORE": "s3://bucket/together", "COTPIPE_S3_ENDPOINT_URL": request.getfixturevalue("seaweed"),
            "COTPIPE_S3_REGION": "us-east-1", "COTPIPE_S3_ACCESS_KEY_ID": KEY, "COTPIPE_S3_SECRET_ACCESS_KEY": SECRET,
        }  # fmt: skip
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", **environment},
        )
        for _ in range(4)
    ]  # fmt: skip
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    made = [kind for run in runs for kind in json.loads(run.communicate(timeout=PATIENCE)[0])]
    assert sorted(made) == [
        "lessons",
        "problems",
        "rationales",
        "stage1-examples",
        "stage2-examples",
    ]
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        storage = open_storage(Settings())
    if server == "disk":
        records = Store(storage).records()
        assert len(records) == 5
        for record in records:  # nothing is left of attempts, leases or training states
            assert {name.split("/")[0] for name in storage.sizes(str(record.reference))} == {
                "record.json",
                record.attempt,
            }
