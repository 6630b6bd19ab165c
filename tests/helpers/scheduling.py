"""Which tests go to one process together, and which are begun first."""

from xdist.scheduler import LoadScopeScheduling

TOGETHER = (
    "tests/flows/test_comparison.py",
    "tests/stack/",
    "tests/browser/",
    "tests/store/test_storage.py",
    "tests/store/test_concurrency.py",
    "tests/repository/test_wheel.py",
    "tests/tasks/test_cluster.py",
    "tests/engines/test_vllm_server.py",
    "tests/engines/test_vllm_engine.py",
)
LONGEST = ("test_nightly", "test_any_order", "test_endings")


class SharedServersTogether(LoadScopeScheduling):
    """Tests that share a server of their own (or a build) go to one process, one after the other; others to any.

    xdist's own `--dist loadgroup` groups nothing under pytest 9.2, and says nothing of it.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((start for start in TOGETHER if nodeid.startswith(start)), nodeid)
