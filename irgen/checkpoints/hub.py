"""Find pretrained weights on the hub that timm uses, and keep one copy on this machine."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from irgen.errors import WeightsError
from irgen.files.digests import file_digest

FILE = "model.safetensors"
FOLDER = "weights"  # where a message tells to put a file that was fetched by hand
SECONDS = 5.0  # to wait for the hub before saying that it does not answer


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """Weights of encoder `name` on the hub: file `filename` of repository `repo`."""

    name: str
    repo: str
    filename: str

    @property
    def url(self) -> str:
        """Return the file's address, on the hub or the mirror that HF_ENDPOINT names."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, self.filename, endpoint=_endpoint())

    @property
    def cached(self) -> Path | None:
        """Return the copy on this machine, if there is one."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.repo, self.filename)
        return Path(path) if isinstance(path, str) else None


def find_hub_file(name: str) -> HubFile | None:
    """Return the file with the weights of a timm model; None if timm keeps them elsewhere. Raises
    WeightsError if there are no pretrained weights."""
    import timm  # takes seconds

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsError(
            f"encoder: weights: hub: timm knows no pretrained weights of {name!r}; choose another "
            "encoder.name, or give the path of a safetensors file"
        )
    if not config.hf_hub_id:
        return None
    return HubFile(name=name, repo=config.hf_hub_id, filename=config.hf_hub_filename or FILE)


def check_hub(name: str) -> str:
    """Return where the weights of a timm model come from, in words. Raises WeightsError, within
    seconds, if they are neither on this machine nor to be had."""
    file = find_hub_file(name)
    if file is None:
        return "from timm's own addresses"
    if path := file.cached:
        return f"from the hub, already on this machine ({path.stat().st_size / 1e6:.0f} MB)"
    size = _ask_size(file)
    return f"from the hub, {size / 1e6:.0f} MB to fetch" if size else "from the hub"


def fetch_weights(name: str) -> Path | None:
    """Return a copy of the weights of a timm model, fetched if it is not on this machine yet.

    None: timm must find them itself, because they lie at another address, or the repository has no
    safetensors file. Raises WeightsError, within seconds, if the hub does not answer, and if the
    copy is damaged.
    """
    file = find_hub_file(name)
    if file is None:
        return None
    if path := file.cached:
        _check_blob(path)
        return path  # without asking the hub: the same file in every stage
    if _ask_size(file) is None:
        return None
    from huggingface_hub import hf_hub_download

    print(f"fetching the weights of {name} from {file.url}", flush=True)
    try:
        return Path(hf_hub_download(file.repo, file.filename, endpoint=_endpoint()))
    except Exception as error:  # the hub's client and its libraries share no base class
        raise _explain_failure(file, error) from error


def _check_blob(path: Path) -> None:
    """Raise WeightsError if a file of the hub's cache differs from the SHA-256 that it is named
    by."""
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and file_digest(blob) != blob.name:
        raise WeightsError(
            f"{path} is damaged (its checksum differs): delete {blob}, then run again, which "
            "fetches it anew"
        )


def _ask_size(file: HubFile) -> int | None:
    """Return the size of the file in bytes, 0 if it is not told; None if there is no such file."""
    import requests

    try:
        answer = requests.head(file.url, timeout=SECONDS, allow_redirects=True)
        if answer.status_code == requests.codes.not_found:
            return None
        answer.raise_for_status()
    except requests.RequestException as error:
        raise _explain_failure(file, error) from error
    return int(answer.headers.get("X-Linked-Size") or answer.headers.get("Content-Length") or 0)


def _explain_failure(file: HubFile, error: Exception) -> WeightsError:
    reason = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    answer = f"answers {status}" if status else f"does not answer ({reason})"
    host = "/".join(file.url.split("/")[:3])
    target = f"{FOLDER}/{file.name.split('.')[0]}.safetensors"
    return WeightsError(
        f"the weights of {file.name} are not on this machine, and {host} {answer}. Fetch "
        f"{file.url} on a machine that reaches it, put the file at {target} in this project, and "
        f"set encoder.weights to {target} in params.yaml (or run irgen init PATH --weights "
        f"{target})"
    )


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")
