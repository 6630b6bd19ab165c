"""The Hugging Face hub: whether it has a model or data set, and handing a student over to it."""

import shlex
from functools import cache
from pathlib import Path
from typing import Literal

from cotpipe.errors import RunError, UserError, first_line

_SECONDS = 10.0


def require_on_hub(kind: Literal["model", "dataset"], name: str, revision: str | None) -> str:
    """Check that the hub has a model or data set; returns a confirmation message.

    Raises `UserError` if it does not, or if the hub cannot be reached.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    advice = "check the name, the network and HF_TOKEN, or use a local folder"
    if why := _why_unreachable():
        raise UserError(f"cannot get {name} from the hub: {why}; {advice}")
    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        ask(name, revision=revision, timeout=_SECONDS)
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        why = first_line(error)
        raise UserError(f"cannot get {name} from the hub: {why}; {advice}") from error
    return f"{name} is on the hub"


def require_free_on_hub(name: str) -> None:
    """Raise `UserError` if a model `ORG/NAME` cannot be made: it is there, or we are not known."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if "/" not in name:
        raise UserError(f"--push {name}: give the organization or user, too: ORG/{name}")
    api = HfApi()
    try:
        taken = api.repo_exists(name)
        api.whoami()
    except HFValidationError as error:
        raise UserError(f"--push {name}: {first_line(error)}") from error
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        raise UserError(
            f"--push {name}: the hub does not let us in ({first_line(error)}); log in with "
            "`hf auth login` or set HF_TOKEN to a token that may write, and check the network"
        ) from error
    if taken:
        raise UserError(
            f"--push {name}: the hub has a model of that name; choose another, or add to that one with: "
            f"hf upload {name} FOLDER"
        )


def push_to_hub(folder: Path, name: str) -> str:
    """Upload a folder as a new private model `ORG/NAME`; returns its address.

    Raises `RunError` if the hub refuses it or the upload breaks off; the folder stays as it is.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        made = api.create_repo(name, private=True)
        api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="A student distilled with cotpipe"
        )
    except (HfHubHTTPError, httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise RunError(
            f"{folder} is not on the hub as {name}: {first_line(error)}; when that is repaired: "
            f"hf upload --private {name} {shlex.quote(str(folder))}"
        ) from error
    return str(made)


@cache
def _why_unreachable() -> str | None:
    """Why the hub cannot be reached, or None if it can; checked once per process."""
    import httpx
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        httpx.head(constants.ENDPOINT, timeout=_SECONDS)
    except httpx.HTTPError as error:
        # Otherwise huggingface_hub would retry every file lookup six times over half a minute.
        constants.HF_HUB_OFFLINE = True
        return f"{constants.ENDPOINT} cannot be reached ({error})"
    return None
