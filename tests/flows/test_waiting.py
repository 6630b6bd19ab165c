"""Whoever waits is told, again and again, what for and for how long."""

import io
from contextlib import redirect_stderr

from flows import temporary_server
from flows.cli import store as commands
from flows.temporary_server import announce_slow_start
from tests.helpers.polling import polls


def wait_for_lines(log: io.StringIO, number: int) -> list[str]:
    for _ in polls():
        if log.getvalue().count("\n") >= number:
            break
    return log.getvalue().splitlines()


def test_a_server_that_starts_for_minutes_says_so_again_and_again(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(temporary_server, "_SECONDS_OF_SILENCE", 0.01)
    monkeypatch.setattr(temporary_server, "_SECONDS_BETWEEN_LINES", 0.05)
    with redirect_stderr(log), announce_slow_start():
        lines = wait_for_lines(log, 4)
    assert all(line.startswith("The Prefect server is starting") for line in lines)
    assert "the first start on a machine" in lines[0]
    assert lines[-1].endswith(" s so far")
    ended = log.getvalue()
    with redirect_stderr(log), announce_slow_start():
        pass  # a quick one says nothing
    assert log.getvalue() == ended


def test_a_long_check_of_a_store_says_how_far_it_is_where_no_bar_shows(monkeypatch, tmp_path):
    log = io.StringIO()

    def slow(_store, report):
        report(2_500_000_000, 10_000_000_000)
        assert wait_for_lines(log, 2)
        return []

    monkeypatch.setattr(commands, "_SECONDS_OF_LINES", (0.01, 0.01))
    monkeypatch.setattr("cotpipe.runs.upkeep.verify", slow)
    monkeypatch.setenv("COTPIPE_STORE", str(tmp_path))
    with redirect_stderr(log):
        commands.verify()
    assert "checking: 2.5 of 10.0 GB, for 0 s so far" in log.getvalue()
