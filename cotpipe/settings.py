"""Where a run works and stores: settings from the environment (`COTPIPE_...`), never part of the recipe."""

from pathlib import Path

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from environment variables that begin with `COTPIPE_`, or from a file `.env`."""

    model_config = SettingsConfigDict(env_prefix="COTPIPE_", env_file=".env", extra="ignore", frozen=True)

    store: Path = Field(Path("store"), description="Folder that holds all artifacts")
    engine_batch: PositiveInt = Field(100, description="Answers that the transformers engine writes at a time")
    num_processes: PositiveInt = Field(1, description="Training processes, one per GPU")
