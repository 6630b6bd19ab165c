"""Where a run works and stores: settings from the environment (`COTPIPE_...`), never part of the recipe."""

from pathlib import Path

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


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
    engine_batch: PositiveInt = Field(100, description="Answers that the transformers engine writes at a time")
    num_processes: PositiveInt = Field(1, description="Training processes, one per GPU")
