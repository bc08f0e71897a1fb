"""Checkpoints from the model hub, through huggingface_hub and its cache.

A download that was cut off goes on where it was, and what was fetched once is found without a network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors, metadata_load
from huggingface_hub.utils import tqdm

from basert import progress
from basert.errors import ExportError
from basert.manifest import Source
from export.fetched import Fetched, folder_hash
from export.workspace import require_space

WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt", "README.md"]
UNWANTED = ["*/*", "consolidated*"]  # other formats of the same weights


def fetch(repo: str, revision: str | None) -> Fetched:
    """The repository's checkpoint at `revision` (a branch, tag or commit; default: its main branch).

    Raises ExportError when the hub is not reachable and the cache does not have it, when the repository or
    revision does not exist, is gated, or holds no safetensors.
    """
    try:
        folder = _snapshot(repo, revision)
    except (errors.HTTPError, errors.HFValidationError, OSError) as error:
        raise ExportError(_why_not(repo, revision, error)) from None
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ExportError(f"hf:{repo} holds no checkpoint that basert reads (config.json and safetensors).")
    source = Source(f"hf:{repo}@{folder.name}", folder.name, folder_hash(folder), _licence(folder))
    return Fetched(folder, source)


def _snapshot(repo: str, revision: str | None) -> Path:
    wanted: dict[str, Any] = {"revision": revision, "allow_patterns": WANTED, "ignore_patterns": UNWANTED}
    with progress.task(f"download hf:{repo}", unit="B") as show:
        try:
            files = huggingface_hub.snapshot_download(repo, dry_run=True, tqdm_class=Silent, **wanted)
            missing = sum(file.file_size for file in files if file.will_download)
            require_space(Path(huggingface_hub.constants.HF_HUB_CACHE), missing, f"downloading hf:{repo}")
        except errors.DryRunError:
            pass  # the hub is out of reach: what is in the cache decides
        return Path(huggingface_hub.snapshot_download(repo, tqdm_class=_reporting(show), **wanted))


class Silent(tqdm):  # type: ignore[misc]
    """A bar that shows nothing; huggingface_hub wants a tqdm class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.name = kwargs.get("name", "")
        super().__init__(*args, **{**kwargs, "disable": True})


def _reporting(show: progress.Show) -> type[Silent]:
    class Reporting(Silent):
        """Hands on what the bar of bytes written to disk would show; its total grows file by file."""

        count = 0

        def update(self, n: float | None = 1) -> None:
            if self.name == "huggingface_hub.snapshot_download":
                self.count += int(n or 0)
                show(self.count, int(self.total or 0))

    return Reporting


def _why_not(repo: str, revision: str | None, error: Exception) -> str:
    match error:
        case errors.GatedRepoError():
            return (
                f"hf:{repo} is gated: accept its terms on the hub, then log in (`hf auth login` or HF_TOKEN)."
            )
        case errors.RepositoryNotFoundError():
            return f"the hub has no model {repo!r}, or it is private: check the name, or log in (HF_TOKEN)."
        case errors.RevisionNotFoundError():
            return f"hf:{repo} has no revision {revision!r}."
        case errors.HFValidationError():
            return f"{repo!r} is no repository name; say hf:org/name or hf:org/name@revision."
        case errors.HfHubHTTPError() if error.response is not None:
            return f"the hub refused hf:{repo} (HTTP {error.response.status_code}); try again later."
        case errors.IncompleteSnapshotError():
            return (
                f"the hub cannot be reached, and hf:{repo} is here in part only; run this again when online."
            )
        case errors.EntryNotFoundError() | errors.HTTPError():
            return (
                f"the hub cannot be reached, and hf:{repo} is not in its cache; go online, or name a folder."
            )
    return f"hf:{repo} cannot be fetched: {error}."


def _licence(folder: Path) -> str | None:
    card = folder / "README.md"
    fields = metadata_load(card) if card.is_file() else None
    return (fields or {}).get("license")
