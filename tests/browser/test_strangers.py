"""What other users of the machine and pages of other sites get of a stack that `cotpipe up` made: nothing."""

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import psutil
import pytest

ATTACK = {"job_variables": {"command": "touch attacked"}}


@pytest.fixture
def start(stack) -> str:
    """Where a run of the curriculum is started."""
    found = stack.client.get("/deployments/name/curriculum/curriculum").raise_for_status().json()
    return f"{stack.address}/api/deployments/{found['id']}/create_flow_run"


def number_of_runs(stack) -> int:
    return stack.client.post("/flow_runs/count", json={}).raise_for_status().json()


def test_nobody_starts_a_run_without_the_password(stack, start):
    before = number_of_runs(stack)
    token = dict(stack.client.headers)  # even with a CSRF token
    for headers in ({}, {"Origin": "http://evil.example"}, token, {"Content-Type": "text/plain"}):
        content = b'{"job_variables": {"command": "touch attacked"}}'
        answer = httpx.post(start, content=content, headers=headers)
        assert answer.status_code in (401, 403)
    for auth in (("admin", ""), ("admin", "pass"), ("", "")):
        assert httpx.post(start, json=ATTACK, headers=token, auth=auth).status_code == 401
    assert httpx.get(f"{stack.address}/api/flows/count").status_code in (401, 405)
    assert httpx.get(f"{stack.address}/api/admin/settings").status_code == 401
    assert number_of_runs(stack) == before


def test_a_page_of_another_site_may_not_even_ask(stack, start):
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,authorization",
        }
        answer = httpx.options(start, headers=asked)
        assert answer.status_code == 400
        assert "access-control-allow-origin" not in answer.headers


@contextmanager
def page_of_another_site() -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>Free models</title>")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_browser_of_someone_who_is_logged_in_starts_nothing_for_another_site(
    stack, start, page
):
    before = number_of_runs(stack)
    with page_of_another_site() as address:
        page.goto(address)  # the same browser, in which the UI is logged in
        attack = """async ([url, mode, type]) => {
            const body = JSON.stringify({job_variables: {command: "touch attacked"}});
            const request = {method: "POST", mode, credentials: "include", body, headers: {"Content-Type": type}};
            try { return (await fetch(url, request)).type } catch (error) { return "refused" }
        }"""
        refused = page.evaluate(attack, [start, "cors", "application/json"])
        page.evaluate(attack, [start, "no-cors", "text/plain"])  # sent; the answer is hidden
    assert refused == "refused"
    assert number_of_runs(stack) == before


def test_whoever_has_the_password_cannot_choose_the_command_of_a_run(stack, start):
    before = number_of_runs(stack)
    for variables in ({"command": "touch attacked"}, {"env": {"PYTHONPATH": "/tmp"}},
                      {"working_dir": "/tmp"}, {"env.PATH": "/tmp"}):  # fmt: skip
        answer = stack.client.post(start, json={"job_variables": variables})
        assert answer.status_code == 422
        assert "Additional properties are not allowed" in answer.text
    template = stack.client.get("/work_pools/cotpipe").json()["base_job_template"]
    assert "{{" not in str(template["job_configuration"])
    assert number_of_runs(stack) == before


def test_the_password_is_shown_once_and_kept_for_its_owner_alone(stack):
    kept = stack.folder / "prefect" / "cotpipe" / "password"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert f"password: {stack.password}" in stack.told
    assert stack.password not in stack.up()  # the second time
    secret = stack.password.partition(":")[2]
    for log in kept.parent.glob("*.log"):
        assert secret not in log.read_text()
    for process in psutil.process_iter(["cmdline"]):
        assert secret not in " ".join(process.info["cmdline"] or [])


def test_the_server_listens_on_this_machine_only(stack):
    listening = {
        one.laddr.ip
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == stack.port
    }
    assert listening == {"127.0.0.1"}


def test_commands_find_the_password_themselves_and_tell_it_to_no_other_server(stack):
    for address, state in ((f"{stack.address}/api", "ok"), (f"{stack.address}/api/", "fail")):
        assert stack.doctor_on_prefect(PREFECT_API_URL=address).startswith(state)
