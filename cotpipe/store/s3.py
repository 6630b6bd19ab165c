"""The S3 storage backend, through s3fs."""

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import override

from cotpipe.errors import RunError, TransientError, UserError, first_line
from cotpipe.settings import Settings
from cotpipe.store.storage import CLOCK, FileInfo, Storage

CALLS_AT_ONCE = 32
"""Small requests, such as reads of records, that are made side by side."""
_PART_BYTES = 16 * 2**20
"""Part size for large objects."""
_PARTS_AT_ONCE = 4
_FILES_AT_ONCE = 4
_REFUSALS = ("NotImplemented", "InvalidArgument", "InvalidRequest")
"""Error codes of servers that do not know conditional writes."""


class S3Storage(Storage):
    """A prefix in an S3 bucket; large files are transferred in parallel parts."""

    def __init__(self, address: str, settings: Settings) -> None:
        self.address = address.rstrip("/")
        self.filesystem = _connect(settings)
        self._root = self.address.removeprefix("s3://")

    @override
    def check(self) -> None:
        try:
            with self._reporting_errors():
                bucket, _, prefix = self._root.partition("/")
                self.filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except RunError as error:
            raise UserError(str(error)) from error

    @override
    def read(self, name: str) -> bytes | None:
        with self._reporting_errors():
            try:
                path = self._path(name)
                # In parts, s3fs would ask for the size first: a second request per file.
                data: bytes = self.filesystem.cat_file(path, max_concurrency=1)
            except FileNotFoundError:
                return None
        return data

    @override
    def create(self, name: str, data: bytes) -> bool:
        if self.read(name) is not None:
            return False
        self._create(name, data)
        # Read back: a retry is refused if the lost first request did write, and on a server without
        # conditional writes the last writer wins.
        return self.read(name) == data

    @override
    def creates_once(self) -> bool:
        name = f"{CLOCK}/{uuid.uuid4().hex}"
        try:
            self._create(name, b"1")
            return not self._create(name, b"2")
        finally:
            self.remove(name)

    def _create(self, name: str, data: bytes) -> bool:
        """Write a file if there is none; False if the server says that there is one."""
        with self._reporting_errors():
            try:
                self.filesystem.pipe_file(self._path(name), data, mode="create")
            except OSError as error:
                status, code = _answer(error)
                if status == 501 or code in _REFUSALS:
                    raise RunError(
                        f"the store {self.address}: the S3 server refuses conditional writes "
                        f"(If-None-Match: {status} {first_line(error)}), without which two runs would "
                        "overwrite each other; use a server that knows them, see cotpipe doctor"
                    ) from error
                if not isinstance(error, FileExistsError) and status not in (409, 412):
                    raise
                return False
        return True

    @override
    def replace(self, name: str, data: bytes) -> None:
        with self._reporting_errors():
            self.filesystem.pipe_file(self._path(name), data)

    @override
    def remove(self, name: str) -> None:
        with self._reporting_errors():
            if paths := list(self.filesystem.find(self._path(name))):
                self.filesystem.rm(paths)

    @override
    def remove_files(self, names: Sequence[str]) -> None:
        with self._reporting_errors():
            if names:
                self.filesystem.rm([self._path(name) for name in names])

    @override
    def files(self, folder: str) -> dict[str, FileInfo]:
        root = self._path(folder)
        with self._reporting_errors():
            found = self.filesystem.find(root, detail=True)
        return {
            path.removeprefix(f"{root}/"): FileInfo(
                int(info["size"]), info["LastModified"].timestamp(), info["ETag"].strip('"')
            )
            for path, info in found.items()
            if path != root
        }

    @override
    def put_folder(self, source: Path, name: str) -> None:
        files = [path for path in source.rglob("*") if path.is_file()]
        with self._reporting_errors(), ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            list(
                pool.map(
                    lambda path: self._put(path, f"{name}/{path.relative_to(source).as_posix()}"),
                    files,
                )
            )

    def _put(self, source: Path, name: str) -> None:
        self.filesystem.put_file(
            str(source), self._path(name), chunksize=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
        )

    @override
    def fetch(self, name: str, target: Path) -> None:
        with self._reporting_errors():
            self.filesystem.get_file(
                self._path(name), str(target), chunksize=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
            )

    @override
    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with (
            self._reporting_errors(),
            self.filesystem.open(self._path(name), "rb", block_size=_PART_BYTES) as stream,
        ):
            while part := stream.read(_PART_BYTES):
                digest.update(part)
            if stream.tell() != stream.size:
                raise OSError(f"{name} was cut off after {stream.tell()} bytes")
        return digest.hexdigest()

    @override
    def local_path(self, name: str) -> None:
        return None

    @override
    def location(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        """Turn S3 and network errors into one-line errors that say what to do."""
        from aiohttp import ClientError
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except PermissionError as error:
            raise RunError(
                f"the store {self.address} denies access ({first_line(error)}); check AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or COTPIPE_S3_ACCESS_KEY_ID and COTPIPE_S3_SECRET_ACCESS_KEY"
            ) from error
        except FileNotFoundError as error:
            raise RunError(
                f"the store {self.address}: {first_line(error)}; create the bucket or set COTPIPE_STORE; if "
                "another run's gc has removed the file, run again to rebuild it"
            ) from error
        except (OSError, BotoCoreError, ClientError, TimeoutError) as error:
            raise TransientError(
                f"the store {self.address} cannot be used: {first_line(error)}; check the address, the "
                "credentials and COTPIPE_S3_ENDPOINT_URL, then run again: finished steps are kept"
            ) from error


def _connect(settings: Settings) -> Any:
    """An s3fs filesystem with timeouts and bounded retries (standard mode: backoff with jitter)."""
    import s3fs  # a local store does not need it

    key, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    return s3fs.S3FileSystem(
        key=key.get_secret_value() if key else None,
        secret=secret.get_secret_value() if secret else None,
        endpoint_url=settings.s3_endpoint_url,
        client_kwargs={"region_name": settings.s3_region} if settings.s3_region else {},
        config_kwargs={
            "connect_timeout": 5,
            "read_timeout": settings.s3_timeout,
            "retries": {"mode": "standard", "total_max_attempts": 6},
            "max_pool_connections": CALLS_AT_ONCE,
        },
        use_listings_cache=False,  # other runs write concurrently
        skip_instance_cache=True,
    )


def _answer(error: OSError) -> tuple[int | None, str | None]:
    """The HTTP status and S3's error code of the answer that s3fs turned into this error."""
    response = getattr(error.__cause__, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return int(status) if status else None, response.get("Error", {}).get("Code")
