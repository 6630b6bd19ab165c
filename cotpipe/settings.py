"""Settings from the environment (`COTPIPE_...`): where a run works and stores its artifacts."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cotpipe.errors import UserError

Tracker = Literal["trackio", "wandb", "mlflow", "tensorboard"]
"""An experiment tracker, by the name of its package."""

Precision = Literal["auto", "bfloat16", "float16", "float32"]
"""A number format of computations, or the faster one."""

_RAY_ADDRESS = re.compile(r"(ray://)?[\w.\-]+:\d{1,5}")


Parallel = Literal["ddp", "fsdp"]
"""How training processes share the work: rows alone, or weights and optimizer state, too."""


def _split(value: Any) -> Any:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, str)
        else value
    )


def _installed(trackers: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
    for name in trackers:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # without an origin, a mere folder of that name
            raise ValueError(f"{name} is not installed; pip install {name}")
    return trackers


def _of_a_head(address: str | None) -> str | None:
    if address is not None and not _RAY_ADDRESS.fullmatch(address):
        raise ValueError(
            f"{address!r} is not the address of a Ray head; give HOST:6379, or ray://HOST:10001"
        )
    return address


class Settings(BaseSettings):
    """Read from environment variables with the prefix `COTPIPE_`, or from a file `.env`.

    Raises `UserError` for a value that is not possible.
    """

    model_config = SettingsConfigDict(
        env_prefix="COTPIPE_", env_file=".env", extra="ignore", frozen=True
    )

    store: str = Field(
        "store", description="Location of all artifacts: a directory, or s3://bucket/prefix"
    )
    recipes: Path | None = Field(
        None,
        description="Folder of your own recipes on a worker: the only files that start_from may name",
    )
    s3_endpoint_url: str | None = Field(
        None, description="URL of the S3 server; default: AWS_ENDPOINT_URL, else AWS"
    )
    s3_region: str | None = Field(None, description="Region of the bucket; default: AWS_REGION")
    s3_access_key_id: SecretStr | None = Field(
        None, description="Default: AWS_ACCESS_KEY_ID, a profile, or a role"
    )
    s3_secret_access_key: SecretStr | None = Field(
        None, description="Default: as for the access key"
    )
    s3_timeout: PositiveFloat = Field(20.0, description="Timeout of an S3 request (seconds)")
    cache: Path = Field(
        Path("~/.cache/cotpipe"),
        description="Directory for local copies of S3 objects, and for the list of verified files",
    )
    cache_gb: PositiveFloat = Field(50.0, description="Maximum size of the local copies (GB)")
    lease_seconds: PositiveFloat = Field(
        60.0, description="Seconds without a heartbeat before another run takes over"
    )
    training_state_seconds: NonNegativeFloat = Field(
        600.0,
        description="Interval between training states (seconds); 0 saves one per optimizer step",
    )
    engine: str = Field(
        "auto",
        description="Engine that runs the student in mining and evaluation: auto, vllm, "
        "transformers, or your own as path/to/file.py:function",
    )
    precision: Precision = Field(
        "auto",
        description="Number format in which models are run and trained: bfloat16, float16 (GPUs only; "
        "with loss scaling), float32, or, with auto, bfloat16 where this machine is faster in it, float16 "
        "on GPUs that have no bfloat16 but tensor cores (T4, V100), else float32",
    )
    engine_batch: PositiveInt = Field(100, description="Batch size of the transformers engine")
    shard_size: PositiveInt = Field(
        500, description="Problems per shard: the most that a crash during generation can lose"
    )
    shards_at_once: PositiveInt = Field(4, description="Shards generated concurrently")
    tensor_parallel: PositiveInt = Field(
        1, description="Tensor-parallel GPUs per model replica in vLLM"
    )
    gpu_memory_share: float = Field(
        0.9, gt=0, le=1, description="Share of GPU memory that vLLM may use"
    )
    context_length: PositiveInt | None = Field(
        None,
        description="Maximum length of prompt plus answer in vLLM (tokens); default: the model's",
    )
    servers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        description="URLs of OpenAI-compatible servers, separated by commas: http://127.0.0.1:8000/v1",
    )
    server_key: SecretStr | None = Field(None, description="API key of these servers")
    server_concurrency: PositiveInt = Field(
        256, description="Maximum concurrent requests, over all servers"
    )
    server_timeout: PositiveFloat = Field(600.0, description="Timeout of one answer (seconds)")
    server_attempts: PositiveInt = Field(
        30, description="Maximum attempts per answer, with exponential backoff"
    )
    requests_per_minute: PositiveInt | None = Field(
        None, description="Maximum requests in any 60 seconds"
    )
    tokens_per_minute: PositiveInt | None = Field(
        None, description="Maximum tokens (prompts plus maximum answer lengths) in any 60 seconds"
    )
    step_hours: PositiveFloat = Field(48.0, description="Timeout of one step (hours)")
    gpu_limit: str | None = Field(
        None,
        description="Prefect global concurrency limit whose slots are the GPUs; default: no limit",
    )
    ray_address: Annotated[str | None, AfterValidator(_of_a_head)] = Field(
        None,
        description="Ray cluster that makes the shards of teacher, mining and evaluation: HOST:6379 on one "
        "of its nodes, ray://HOST:10001 from elsewhere; default: this machine alone makes them",
    )
    ray_cpus: PositiveInt = Field(4, description="CPUs per engine on a Ray cluster without GPUs")
    num_processes: PositiveInt = Field(
        1, description="Training processes, one per GPU; they share the rows of an optimizer step"
    )
    parallel: Parallel = Field(
        "ddp",
        description="What several training processes share: ddp: the rows, and each holds the whole student; "
        "fsdp: also weights, gradients and optimizer state, for students that are too large for one GPU",
    )
    trackers: Annotated[
        tuple[Tracker, ...], NoDecode, BeforeValidator(_split), AfterValidator(_installed)
    ] = Field(
        (),
        description="Experiment trackers that trainings report to, separated by commas: trackio, wandb, "
        "mlflow, tensorboard; default: none",
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = (
                f"COTPIPE_{str(one['loc'][0]).upper()}: {one['msg'].removeprefix('Value error, ')}"
                for one in error.errors()
            )
            raise UserError("; ".join(wrong)) from None
