"""A stand-in of the Hugging Face hub, as far as a model is made and uploaded there."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "hf_of_the_tests"


@dataclass
class Hub:
    """What has been uploaded: the files of each model, by their path."""

    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)  # large files, by SHA-256
    address: str = ""
    full: bool = False  # whether it refuses to store large files

    async def whoami(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid username or password."}, 401)
        return JSONResponse({"type": "user", "name": "me", "orgs": []})

    async def info(self, request: Request) -> Response:
        name = _name(request)
        if name in self.models:
            return JSONResponse({"id": name, "private": name in self.private, "siblings": []})
        return JSONResponse({"error": "not found"}, 404, headers={"X-Error-Code": "RepoNotFound"})

    async def create(self, request: Request) -> Response:
        asked = await request.json()
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.models:
            return JSONResponse({"error": "You already created this model repo"}, 409)
        self.models[name] = {}
        if asked.get("private") or asked.get("visibility") == "private":
            self.private.add(name)
        return JSONResponse({"url": f"{self.address}/{name}"})

    async def modes(self, request: Request) -> Response:
        files = (await request.json())["files"]
        return JSONResponse(
            {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for one in files
                ]
            }
        )

    async def batch(self, request: Request) -> Response:
        if self.full:
            return JSONResponse({"error": "no space is left"}, 403)
        objects = [
            one | {"actions": {"upload": {"href": f"{self.address}/objects/{one['oid']}"}}}
            for one in (await request.json())["objects"]
        ]
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def store(self, request: Request) -> Response:
        self.objects[request.path_params["oid"]] = await request.body()
        return Response()

    async def commit(self, request: Request) -> Response:
        for line in (await request.body()).splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.models[_name(request)][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.models[_name(request)][value["path"]] = self.objects[value["oid"]]
        commit = "0" * 40
        return JSONResponse(
            {"commitUrl": f"{self.address}/{_name(request)}/commit/{commit}", "commitOid": commit}
        )

    async def nothing(self, request: Request) -> Response:
        return JSONResponse({})


def _name(request: Request) -> str:
    return "{org}/{name}".format(**request.path_params)


@contextmanager
def stand_in() -> Iterator[Hub]:
    """Run a hub on a free port for a `with` block."""
    hub = Hub()
    model = "/api/models/{org}/{name}"
    app = Starlette(
        routes=[
            Route("/api/whoami-v2", hub.whoami),
            Route("/api/repos/create", hub.create, methods=["POST"]),
            Route("/api/validate-yaml", hub.nothing, methods=["POST"]),
            Route(model, hub.info),
            Route(f"{model}/preupload/main", hub.modes, methods=["POST"]),
            Route(f"{model}/commit/main", hub.commit, methods=["POST"]),
            Route("/{org}/{name}.git/info/lfs/objects/batch", hub.batch, methods=["POST"]),
            Route("/objects/{oid}", hub.store, methods=["PUT"]),
        ]
    )
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error")
    listener = config.bind_socket()
    hub.address = "http://{}:{}".format(*listener.getsockname()[:2])
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join()
