"""What of images, compose file and Kubernetes template can be checked without a Docker engine."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from flows.cli.main import app
from tests.helpers.polling import PATIENCE
from tests.helpers.repository import ROOT

BIN = Path(sys.executable).parent
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
TEMPLATE = json.loads((ROOT / "docker" / "kubernetes-gpu.json").read_text())


def check(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_passes_hadolint():
    check(str(BIN / "hadolint"), "--failure-threshold", "info", "docker/Dockerfile")


def test_the_compose_file_follows_its_schema():
    check(
        str(BIN / "check-jsonschema"),
        "--builtin-schema",
        "vendor.compose-spec",
        "docker/compose.yaml",
    )


def test_every_path_that_an_image_takes_is_there_and_none_is_a_secret():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = shlex.split(line)
        for source in sources:
            assert (ROOT / source).exists(), source
    assert "docker/.env" in ignored
    assert not re.search(r"^(ARG|ENV)[^\n]*(KEY|SECRET|PASSWORD|TOKEN)", DOCKERFILE, re.MULTILINE)


def test_the_slim_image_installs_a_part_of_what_the_project_needs():
    names = re.findall(
        r"^([a-z0-9-]+)", (ROOT / "docker" / "requirements-slim.txt").read_text(), re.MULTILINE
    )
    pinned = re.findall(
        r"^([A-Za-z0-9_.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    assert {name.lower() for name in names} <= {
        name.lower().replace("_", "-") for name in pinned
    } | {"asyncpg"}
    assert not {"torch", "transformers", "trl", "vllm"} & set(names)


def test_targets_and_commands_exist():
    targets = set(re.findall(r"^FROM \S+ AS (\w+)", DOCKERFILE, re.MULTILINE))
    assert targets == {"slim", "cpu", "gpu"}
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name, service in SERVICES.items():
        if "build" in service:
            target = service["build"]["target"].removeprefix("${WORKER_IMAGE:-").removesuffix("}")
            assert target in targets, name
            assert (
                ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]
            ).is_file()
        if service["image"].startswith("cotpipe") and "entrypoint" not in service:
            command, *options = service["command"]
            assert command in commands, name
            known = {option for parameter in commands[command].params for option in parameter.opts}
            assert {option for option in options if option.startswith("-")} <= known
    check(sys.executable, "-m", "prefect", "server", "start", "--help")
    for variable in re.findall(r"(COTPIPE_\w+):", (ROOT / "docker" / "compose.yaml").read_text()):
        from cotpipe.settings import Settings

        assert variable.removeprefix("COTPIPE_").lower() in Settings.model_fields, variable


def test_every_service_is_watched_pinned_and_behind_a_password():
    example = (ROOT / "docker" / ".env.example").read_text()
    for name, service in SERVICES.items():
        assert "healthcheck" in service, name
        assert ":" in service["image"], name
        assert not service["image"].endswith(":latest"), name
        for key, value in service.get("environment", {}).items():
            if re.search(r"KEY|SECRET|PASSWORD|AUTH|TOKEN", key):
                from_outside = re.search(r"\$\{(\w+):[?-]", value)
                assert from_outside, f"{name}: {key}"
                assert from_outside[1] + "=" in example
    assert "PREFECT_SERVER_API_AUTH_STRING" in SERVICES["server"]["environment"]
    for service in SERVICES.values():
        for needed in service.get("depends_on", {}):
            assert needed in SERVICES
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if not volume.startswith("./")
    }
    assert used == set(COMPOSE["volumes"])


def test_only_the_tls_proxy_is_open_to_other_machines():
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            if name == "proxy":
                assert service["profiles"] == ["tls"]
            else:
                assert re.match(r"\$\{PUBLISH:-127\.0\.0\.1\}:", port), f"{name}: {port}"
    (mounted,) = (one for one in SERVICES["proxy"]["volumes"] if one.startswith("./"))
    caddyfile = (ROOT / "docker" / mounted.split(":")[0]).read_text()
    assert re.search(r"^\{\$SITE\} \{\s+reverse_proxy server:4200\s+\}$", caddyfile, re.MULTILINE)
    assert SERVICES["proxy"]["environment"]["SITE"] == "${SITE:-localhost}"
    server = SERVICES["server"]["environment"]
    assert server["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "https://${SITE:-localhost}"
    assert server["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"


@pytest.fixture
def job() -> dict:
    """The Kubernetes job that the template makes with its defaults."""
    properties = TEMPLATE["variables"]["properties"]
    given = {"labels": {"app": "cotpipe"}}

    def fill(node):
        if isinstance(node, dict):
            return {key: fill(value) for key, value in node.items()}
        if isinstance(node, list):
            return [fill(value) for value in node]
        if isinstance(node, str) and (found := re.fullmatch(r"\{\{ (\w+) \}\}", node)):
            assert found[1] in properties, f"{found[1]} is no variable of the template"
            return given.get(found[1], properties[found[1]].get("default"))
        return node

    return fill(TEMPLATE["job_configuration"]["job_manifest"])


CHOSEN_BY_ITS_OWNER = {
    "command", "env", "image", "secret_name", "service_account_name", "namespace"
}  # fmt: skip
"""What decides which code a run is, and which secrets it gets: no variable, so that no run chooses it."""


def test_the_kubernetes_job_is_valid_and_asks_for_a_gpu(job):
    kubernetes_validate.validate(job, "1.31", strict=True)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert not CHOSEN_BY_ITS_OWNER & set(TEMPLATE["variables"]["properties"])
    assert TEMPLATE["variables"]["additionalProperties"] is False
    assert container["envFrom"] == [{"secretRef": {"name": "cotpipe"}}]
