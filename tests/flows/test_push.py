"""A student that is uploaded to the hub, or a stand-in of it."""

from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

import pytest

from tests.helpers.flow_runs import assert_one_line_error, cotpipe_process
from tests.helpers.hub import TOKEN, Hub, stand_in


@pytest.fixture
def hub() -> Iterator[Hub]:
    with stand_in() as hub:
        yield hub


@pytest.fixture
def push(hub, finished, tmp_path) -> Callable[..., CompletedProcess]:
    """Export the finished run's student to `student`, and push it."""

    def run(name: str, **environment: str) -> CompletedProcess:
        own = {
            "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "COTPIPE_STORE": str(finished[0]),
        }  # fmt: skip
        command = ("export", "last", str(tmp_path / "student"), "--push", name)
        return cotpipe_process(*command, **own | environment)

    return run


def test_the_whole_folder_is_uploaded_as_a_private_model(push, hub, tmp_path):
    done = push("org/student")
    assert done.returncode == 0, done.stderr
    assert f"on the hub, private: {hub.address}/org/student" in done.stdout
    assert hub.private == {"org/student"}
    folder = tmp_path / "student"
    assert hub.models["org/student"] == {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_name_that_is_taken_is_refused_before_anything_is_written(push, hub, tmp_path):
    hub.models["org/student"] = {"README.md": b"another's"}
    refused = push("org/student")
    assert_one_line_error(refused, 2, "--push org/student: the hub has a model of that name")
    assert hub.models == {"org/student": {"README.md": b"another's"}}
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("token", ["", "hf_of_another", "hf_…"])
def test_who_is_not_logged_in_is_told_how(push, hub, tmp_path, token):
    assert_one_line_error(push("org/student", HF_TOKEN=token), 2, "hf auth login", "HF_TOKEN")
    assert hub.models == {}
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize(
    ("name", "told"), [("org/a student", "--push org/a student: "), ("student", "ORG/student")]
)
def test_a_name_that_is_no_name_is_refused(push, name, told):
    assert_one_line_error(push(name, HF_TOKEN=""), 2, told)


def test_an_upload_that_is_refused_leaves_the_folder_and_says_how_to_go_on(push, hub, tmp_path):
    hub.full = True
    folder = tmp_path / "student"
    failed = push("org/student")
    assert_one_line_error(failed, 1, f"hf upload --private org/student {folder}")
    assert (folder / "README.md").is_file()
