"""Where a run works and stores: settings from the environment (`COTPIPE_...`), never part of the recipe."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

LocalEngine = Literal["auto", "vllm", "transformers"]


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Settings(BaseSettings):
    """Read from environment variables that begin with `COTPIPE_`, or from a file `.env`."""

    model_config = SettingsConfigDict(env_prefix="COTPIPE_", env_file=".env", extra="ignore", frozen=True)

    store: str = Field("store", description="Where all artifacts lie: a folder, or s3://bucket/prefix")
    s3_endpoint_url: str | None = Field(None, description="Address of the S3 server; default: AWS_ENDPOINT_URL, or AWS")
    s3_region: str | None = Field(None, description="Region of the bucket; default: AWS_REGION")
    s3_access_key_id: SecretStr | None = Field(None, description="Default: AWS_ACCESS_KEY_ID, a profile, or a role")
    s3_secret_access_key: SecretStr | None = Field(None, description="Default: as for the access key")
    s3_timeout: PositiveFloat = Field(20.0, description="Longest wait for an answer of the S3 server (seconds)")
    cache: Path = Field(
        Path("~/.cache/cotpipe"), description="Folder for local copies of what lies on S3, and for drafts of it"
    )
    cache_gb: PositiveFloat = Field(50.0, description="Most that these copies may take (GB)")
    lease_seconds: PositiveFloat = Field(60.0, description="Silence after which another run may take over a step")
    checkpoint_seconds: NonNegativeFloat = Field(
        600.0, description="Time between checkpoints in training (seconds); 0 saves after each optimizer step"
    )
    engine: LocalEngine = Field("auto", description="What runs the student: at mining and evaluation")
    engine_batch: PositiveInt = Field(100, description="Answers that the transformers engine writes at a time")
    shard_size: PositiveInt = Field(500, description="Problems per shard: what a crash of a generation costs at most")
    shards_at_once: PositiveInt = Field(4, description="Shards that are generated side by side")
    tensor_parallel: PositiveInt = Field(1, description="GPUs that one copy of a model in vLLM is spread over")
    gpu_memory_share: float = Field(0.9, gt=0, le=1, description="Share of a GPU's memory that vLLM may take")
    context_length: PositiveInt | None = Field(
        None, description="Longest prompt and answer together that vLLM makes room for (tokens); default: the model's"
    )
    servers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="Addresses of OpenAI-compatible servers, separated by commas: http://127.0.0.1:8000/v1"
    )
    server_key: SecretStr | None = Field(None, description="Key that these servers ask for")
    server_concurrency: PositiveInt = Field(256, description="Requests under way at a time, on all servers together")
    server_timeout: PositiveFloat = Field(600.0, description="Longest wait for one answer (seconds)")
    server_attempts: PositiveInt = Field(30, description="Attempts at one answer, with growing waits between them")
    requests_per_minute: PositiveInt | None = Field(None, description="Most requests in any 60 seconds")
    tokens_per_minute: PositiveInt | None = Field(
        None, description="Most tokens of prompts and longest answers in any 60 seconds"
    )
    step_hours: PositiveFloat = Field(48.0, description="Longest that one step may take (hours)")
    gpu_limit: str | None = Field(
        None, description="Prefect's global concurrency limit whose slots are the GPUs; default: nobody counts them"
    )
    num_processes: PositiveInt = Field(1, description="Training processes, one per GPU")
