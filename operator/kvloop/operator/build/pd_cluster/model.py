"""Where a pod finds the model: a flag, volumes, and who brings it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kvloop.operator.build.pod import container_security
from kvloop.operator.names import MODEL_DIR
from kvloop.operator.types.chat_model import ChatModel, HuggingFace, ModelClaim, ModelImage

VOLUME = "model"
_WORDS = ("*.json", "*.txt", "*.model", "*.jinja")
"""Files of a tokenizer: all that a router needs."""
_DOWNLOAD = """\
import sys
from huggingface_hub import snapshot_download
name, revision, directory, *patterns = sys.argv[1:]
snapshot_download(name, revision=revision, local_dir=directory, allow_patterns=patterns or None)
"""
_COPY_ALL = 'cp -R "$0"/. "$1"/'
_COPY_WORDS = (
    'for f in "$0"/*.json "$0"/*.txt "$0"/*.model "$0"/*.jinja; do '
    '[ ! -e "$f" ] || cp "$f" "$1"/ || exit 1; done'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """What a pod is given for the model."""

    flag: str
    """For --model."""
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    init_containers: tuple[dict[str, Any], ...] = ()


def model_source(
    model: ChatModel, *, image: str, pull_policy: str, words_only: bool
) -> ModelSource:
    """`image` downloads from a hub; `words_only`: the tokenizer's files are enough."""
    if model.hugging_face is not None:
        return _from_hub(model.hugging_face, image, pull_policy, words_only)
    if model.claim is not None:
        return _from_claim(model.claim)
    if model.image is not None:
        return _from_image(model.image, words_only)
    assert model.demo is not None
    return ModelSource(flag=model.demo)


def served_name(model: ChatModel) -> str:
    """Its name in the API."""
    if model.served_name is not None:
        return model.served_name
    if model.hugging_face is not None:
        return model.hugging_face.id
    if model.claim is not None:
        return (model.claim.path or model.claim.claim).rpartition("/")[2]
    if model.image is not None:
        repository = model.image.reference.partition("@")[0].rpartition("/")[2]
        return repository.partition(":")[0]
    assert model.demo is not None
    return model.demo


def _from_claim(claim: ModelClaim) -> ModelSource:
    source = {"claimName": claim.claim, "readOnly": True}
    return ModelSource(
        flag=f"{MODEL_DIR}/{claim.path}".rstrip("/"),
        volumes=({"name": VOLUME, "persistentVolumeClaim": source},),
        mounts=({"name": VOLUME, "mountPath": MODEL_DIR, "readOnly": True},),
    )


def _from_image(brought: ModelImage, words_only: bool) -> ModelSource:
    copy = {
        "name": "copy-model",
        "image": brought.reference,
        "imagePullPolicy": brought.pull_policy,
        "command": ["sh", "-ec", _COPY_WORDS if words_only else _COPY_ALL],
        "args": [brought.path.rstrip("/") or "/", MODEL_DIR],
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": VOLUME, "mountPath": MODEL_DIR}],
    }
    return ModelSource(
        flag=MODEL_DIR,
        volumes=({"name": VOLUME, "emptyDir": {}},),
        mounts=({"name": VOLUME, "mountPath": MODEL_DIR, "readOnly": True},),
        init_containers=(copy,),
    )


def _from_hub(hub: HuggingFace, image: str, pull_policy: str, words_only: bool) -> ModelSource:
    """Each in a directory of its own: a claim may keep several models and revisions."""
    directory = f"{MODEL_DIR}/{hub.id.replace('/', '--')}--{hub.revision.replace('/', '--')}"
    kept = {"persistentVolumeClaim": {"claimName": hub.cache_claim}}
    download: dict[str, Any] = {
        "name": "download-model",
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": ["python", "-c", _DOWNLOAD],
        "args": [hub.id, hub.revision, directory, *(_WORDS if words_only else ())],
        "env": _hub_env(hub),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": VOLUME, "mountPath": MODEL_DIR},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    return ModelSource(
        flag=directory,
        volumes=({"name": VOLUME, **(kept if hub.cache_claim else {"emptyDir": {}})},),
        mounts=({"name": VOLUME, "mountPath": MODEL_DIR, "readOnly": True},),
        init_containers=(download,),
    )


def _hub_env(hub: HuggingFace) -> list[dict[str, Any]]:
    env: list[dict[str, Any]] = [
        {"name": "HOME", "value": "/tmp"},
        {"name": "HF_HOME", "value": "/tmp/huggingface"},
    ]
    if hub.token_secret is not None:
        reference = {"name": hub.token_secret.name, "key": hub.token_secret.key}
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    return env
