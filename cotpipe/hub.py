"""Checking that the Hugging Face hub is reachable and has a model or data set."""

from functools import cache
from typing import Literal

from cotpipe.errors import UserError

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
        first = str(error).strip().splitlines()[0][:200]
        raise UserError(f"cannot get {name} from the hub: {first}; {advice}") from error
    return f"{name} is on the hub"


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
