"""The Hugging Face hub: an exported student and its card as one commit of a repository."""

import importlib.util
from pathlib import Path

from pipeline.errors import ConfigError, ExportError
from pipeline.wording import one_line


def require_hub() -> None:
    """Raise ConfigError where nothing can be pushed to the hub."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ConfigError(
            "push_to_hub needs huggingface_hub, not installed here; install the extra hub (uv sync "
            "--extra hub)"
        )


def push_to_hub(name: str, model: Path, card: Path) -> str:
    """Commit a model and its card to a repository, and return where it is.

    A repository that is not there yet is created, private: to publish it is its owner's decision.

    name: USER/NAME, or NAME of one's own.

    Raises:
        ExportError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        repository = api.create_repo(name, private=True, exist_ok=True)
        operations = [
            CommitOperationAdd(model.name, str(model)),
            CommitOperationAdd("README.md", str(card)),
        ]
        message = f"Add {model.name}"
        return str(
            api.create_commit(repository.repo_id, operations, commit_message=message).commit_url
        )
    except Exception as error:  # of the network, of the hub, of a missing token: all say why
        raise ExportError(
            f"{model} was written, but not pushed to {name}: {one_line(error)}; log in with `hf "
            "auth login`, or leave --push-to-hub out"
        ) from error
