"""What the doctor says about recipes and places that fit, and about those that do not."""

import pytest

from cotpipe.runs.doctor import judge_memory
from cotpipe.training.memory import Need
from tests.helpers.flow_runs import assert_one_line_error, cotpipe, cotpipe_process
from tests.helpers.servers import OldPrefect, ScriptedModel, free_port


def lines(done) -> dict[str, tuple[str, str]]:
    found = {}
    for line in done.stdout.strip().splitlines():
        state, _, rest = line.partition(" ")
        name, _, text = rest.strip().partition(": ")
        found[name] = (state, text)
    return found


def test_the_demo_can_run_here(tmp_path):
    done = cotpipe("doctor", "--store", str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    found = lines(done)
    assert list(found) == [
        "versions", "store", "Prefect", "problems", "student", "teacher", "memory of stage1", "memory of stage2",
        "memory of stage3",
    ]  # fmt: skip
    assert {state for state, _ in found.values()} <= {"ok", "warn"}
    assert "x 4 bytes" in found["memory of stage1"][1]
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("needed", "state", "part"),
    [
        (10, "ok", "up to about 10.0 GB of 24.0 GB of memory, of which 16.0 GB are free"),
        (15, "warn", "close to the limit"),
        (20, "warn", "wait until other processes have ended, or lower stage1.trainer.micro_batch"),
        (25, "fail", "lower stage1.trainer.micro_batch"),
    ],
)
def test_memory_that_others_hold_is_a_warning(needed, state, part):
    """Other work on the machine ends; a machine that is too small stays so."""
    judged = judge_memory("stage1", [Need("weights", needed, "")], 16, 24, "of memory")
    assert judged[0] == state
    assert part in judged[1]


def test_every_failure_has_a_line_with_the_way_out(tmp_path):
    (tmp_path / "file").write_text("x")
    nobody = f"http://127.0.0.1:{free_port()}/api"
    with ScriptedModel(lambda messages, body: "", models=("other",)) as model:
        done = cotpipe(
            "doctor", "--recipe", "gsm8k-qwen2.5-3b", "--store", str(tmp_path / "file"),
            "--set", "teacher.engine=openai", "--set", "teacher.model=mine",
            PREFECT_API_URL=nobody, COTPIPE_SERVERS=model.address, HF_HUB_OFFLINE="1",
        )  # fmt: skip
    assert done.returncode == 1
    assert "checks failed" in done.stderr
    found = lines(done)
    for name, part in {
        "store": "is a file, not a folder; set COTPIPE_STORE",
        "Prefect": "start it, or unset PREFECT_API_URL",
        "problems": "cannot get openai/gsm8k from the hub",
        "student": "cannot get Qwen/Qwen2.5-3B from the hub",
        "teacher": "serves other, not mine; set teacher.model",
        "memory of stage1": "cannot read the configuration",
    }.items():
        assert found[name][0] == "fail", found[name]
        assert part in found[name][1]


def test_a_recipe_that_is_too_large_says_what_to_lower(tmp_path):
    done = cotpipe(
        "doctor",
        "--store",
        str(tmp_path),
        "--set",
        "stage1.trainer.micro_batch=4096",
        "--set",
        "stage1.trainer.batch_size=4096",
    )
    assert done.returncode == 1
    state, text = lines(done)["memory of stage1"]
    assert state == "fail"
    assert "lower stage1.trainer.micro_batch" in text


def test_a_server_of_another_version_is_refused(tmp_path):
    with OldPrefect("2.20.4") as server:
        done = cotpipe("doctor", "--store", str(tmp_path), PREFECT_API_URL=server.address)
        assert lines(done)["Prefect"] == (
            "fail", f"{server.address} is Prefect 2.20.4, this is 3.7.7; install the same version on both"
        )  # fmt: skip
        done = cotpipe_process(
            "up",
            "--store",
            str(tmp_path),
            PREFECT_API_URL=server.address,
            PREFECT_HOME=str(tmp_path),
        )
    assert_one_line_error(
        done, 2, "is Prefect 2.20.4, this is 3.7.7; install the same version on both"
    )
    assert not (tmp_path / "cotpipe").exists()  # no worker was started


def test_without_a_network_it_is_told_once_and_at_once(tmp_path):
    nobody = f"http://127.0.0.1:{free_port()}"
    done = cotpipe_process(  # what is set here is read where the library is loaded
        "doctor", "--recipe", "gsm8k-qwen2.5-3b", "--store", str(tmp_path),
        HF_HUB_OFFLINE="0", HF_ENDPOINT=nobody, HF_HOME=str(tmp_path / "hub"),
    )  # fmt: skip
    assert_one_line_error(done, 1, "checks failed")  # no attempts, one after the other
    found = lines(done)
    for name in ("problems", "student", "teacher"):
        assert found[name][0] == "fail"
        assert f"{nobody} cannot be reached" in found[name][1]
    assert "cannot read the configuration" in found["memory of stage3"][1]
