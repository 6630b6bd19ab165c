"""The suite's own scheduling: tests that share a costly server really go to one process."""

import pytest

from tests.helpers.repository import ROOT
from tests.helpers.scheduling import TOGETHER, SharedServersTogether


@pytest.mark.parametrize("start", TOGETHER)
def test_what_is_kept_together_is_there(start):
    assert (ROOT / start).exists()


def test_the_session_is_scheduled_by_it(request):
    plugins = request.config.pluginmanager
    hook = [
        plugin for plugin in plugins.get_plugins() if hasattr(plugin, "pytest_xdist_make_scheduler")
    ]
    assert hook, "no plugin chooses the scheduler"


def test_tests_with_a_server_of_their_own_share_a_process_and_others_do_not():
    scope = SharedServersTogether._split_scope
    one, other = "tests/stack/test_stack.py::test_a", "tests/stack/test_stack.py::test_b"
    assert scope(None, one) == scope(None, other)  # type: ignore[arg-type]
    one, other = "tests/flows/test_cli.py::test_a", "tests/flows/test_cli.py::test_b"
    assert scope(None, one) != scope(None, other)  # type: ignore[arg-type]
