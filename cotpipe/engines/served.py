"""A model on an OpenAI-compatible server, named by an address instead of a setting."""

from dataclasses import dataclass

import httpx

from cotpipe.errors import UserError
from cotpipe.settings import Settings

_SECONDS_TO_LIST = 30.0


@dataclass(frozen=True)
class Served:
    """A model that a server serves."""

    address: str  # as in COTPIPE_SERVERS: http://127.0.0.1:8000/v1
    name: str

    def identity(self) -> dict[str, str]:
        """What its answers are kept under; whatever it serves there later counts as the same."""
        return {"server": self.address, "model": self.name}

    def on(self, settings: Settings) -> Settings:
        """Settings with this server alone."""
        return settings.model_copy(update={"servers": (self.address,)})


def is_address(model: str) -> bool:
    """Whether the name of a model is a server's address."""
    return model.startswith(("http://", "https://"))


def headers_of(settings: Settings) -> dict[str, str]:
    """The headers with the key for the servers, if one is set."""
    key = settings.server_key
    return {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}


def find_served(model: str, settings: Settings) -> Served:
    """The model at `ADDRESS` or `ADDRESS#NAME`; without a name, the only one that is served.

    Raises `UserError` if the server does not answer, serves another model, or several.
    """
    address, _, name = model.partition("#")
    address = address.rstrip("/")
    url = f"{address}/models"
    try:
        response = httpx.get(url, headers=headers_of(settings), timeout=_SECONDS_TO_LIST)
        response.raise_for_status()
        served = [str(one["id"]) for one in response.json()["data"]]
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise UserError(
            f"{url} returned status {status}; "
            + (
                "set COTPIPE_SERVER_KEY to a valid key"
                if status in (401, 403)
                else "give the address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1"
            )
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"{address}: no server responds: {str(error) or type(error).__name__}; start one (vllm "
            "serve CHECKPOINT), or correct the address"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{url} sent no list of models; give the address of an OpenAI-compatible server, such as "
            "http://127.0.0.1:8000/v1"
        ) from error
    if (name and name not in served) or (not name and len(served) != 1):
        raise UserError(
            f"{address} serves {', '.join(served) or 'no model'}"
            + (f", not {name}" if name else "")
            + f"; name one: {address}#NAME"
        )
    return Served(address, name or served[0])
