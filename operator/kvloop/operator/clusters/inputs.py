"""What a PDCluster names: SharedCaches and Secrets of its namespace."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kvloop.operator.build.pd_cluster import Keys, build_keys_secret
from kvloop.operator.build.pd_cluster.context import attachable, keys_name
from kvloop.operator.build.pd_cluster.pod import ADMIN_KEY, NODE_SECRET
from kvloop.operator.conditions import condition, conditions_of
from kvloop.operator.connect import connect
from kvloop.operator.connection import Connection, with_secrets
from kvloop.operator.controllers.base import Api, Manifest, ObjectId
from kvloop.operator.errors import ConnectError, InvalidResource
from kvloop.operator.parse import parse_shared_cache
from kvloop.operator.types.base import API_VERSION, Condition, KeyReference
from kvloop.operator.types.pd_cluster import PDCluster, PDClusterSpec
from kvloop.operator.types.shared_cache import SharedCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why nothing can be built."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Of one look. `problem`: what there is stays as it is."""

    keys: Keys
    connections: Mapping[str, Connection] = field(default_factory=dict)
    """Of all attachable caches, secrets filled in."""
    cache_ready: Condition | None = None
    """Ready of the cache that sharedCacheRef names; None: it tells nothing yet."""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    cluster: PDCluster
    api: Api

    async def secret(self, name: str) -> Mapping[str, str] | None:
        """Its texts by key; what is no text is left out."""
        found = await self._get("v1", "Secret", name)
        return None if found is None else _texts(found)

    async def caches(self) -> list[Manifest]:
        return await self.api.list(API_VERSION, "SharedCache", self.cluster.metadata.namespace)

    async def _get(self, api_version: str, kind: str, name: str) -> Manifest | None:
        namespace = self.cluster.metadata.namespace
        return await self.api.get(
            ObjectId(api_version=api_version, kind=kind, namespace=namespace, name=name)
        )


class InputError(Exception):
    """Carries a problem to where it is told."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(reason=reason, message=message)


async def read_inputs(cluster: PDCluster, api: Api) -> Inputs:
    """ApiError where the API server fails; what else is wrong is in `problem`."""
    reader = _Reader(cluster=cluster, api=api)
    keys = await _keys(reader)
    manifests = {one["metadata"]["name"]: one for one in await reader.caches()}
    reference = cluster.spec.shared_cache_ref
    ready = None
    if reference is not None and (used := manifests.get(reference.name)) is not None:
        ready = condition(conditions_of(used.get("status")), "Ready")
    try:
        admin = await _admin_key(reader)
        keys = replace(keys, admin_key=admin) if admin is not None else keys
        await _check_secrets(reader)
        connections = await _connections(reader, manifests)
    except InputError as error:
        return Inputs(keys=keys, cache_ready=ready, problem=error.problem)
    return Inputs(keys=keys, connections=connections, cache_ready=ready)


async def _keys(reader: _Reader) -> Keys:
    """Made once; who lost the race reads what the other made."""
    name = keys_name(reader.cluster.metadata.name)
    found = await reader.secret(name)
    if found is None:
        made = Keys(admin_key=secrets.token_urlsafe(32), node_secret=secrets.token_urlsafe(32))
        if await reader.api.create(build_keys_secret(reader.cluster, made)) is not None:
            return made
        found = await reader.secret(name) or {}
    return Keys(admin_key=found.get(ADMIN_KEY, ""), node_secret=found.get(NODE_SECRET, ""))


async def _admin_key(reader: _Reader) -> str | None:
    reference = reader.cluster.spec.admin_key_secret
    if reference is None:
        return None
    return await _key(reader, "spec.adminKeySecret", reference)


async def _check_secrets(reader: _Reader) -> None:
    for where, reference in _named_secrets(reader.cluster.spec):
        await _key(reader, where, reference)


def _named_secrets(spec: PDClusterSpec) -> Iterator[tuple[str, KeyReference]]:
    if spec.router.api_keys_secret is not None:
        yield "spec.router.apiKeysSecret", spec.router.api_keys_secret
    if spec.model.hugging_face is not None and spec.model.hugging_face.token_secret is not None:
        yield "spec.model.huggingFace.tokenSecret", spec.model.hugging_face.token_secret


async def _key(reader: _Reader, where: str, reference: KeyReference) -> str:
    """Its text; InputError naming the field."""
    found = await reader.secret(reference.name)
    if found is None:
        words = f"{where}: there is no Secret {reference.name} in this namespace; make it"
        raise InputError("SecretNotFound", words)
    text = found.get(reference.key, "").strip()
    if not text:
        words = f"{where}: Secret {reference.name} has no text under key {reference.key}"
        raise InputError("SecretNotFound", words)
    return text


async def _connections(
    reader: _Reader, manifests: Mapping[str, Manifest]
) -> Mapping[str, Connection]:
    spec = reader.cluster.spec
    caches = dict(_parsed(manifests))
    found: dict[str, Connection] = {}
    for name in [one.name for one in attachable(spec)]:
        where = "sharedCacheRef" if not spec.attachable_caches else "attachableCaches"
        if name not in manifests:
            words = f"spec.{where}: there is no SharedCache {name} in this namespace; make it, "
            words += "or remove it here"
            raise InputError("CacheNotReady", words)
        if name not in caches:
            words = f"spec.{where}: SharedCache {name} is not as it must be; see its Ready"
            raise InputError("CacheNotReady", words)
        found[name] = await _connected(reader, name, caches)
    return found


def _parsed(manifests: Mapping[str, Manifest]) -> Iterator[tuple[str, SharedCache]]:
    for name, manifest in manifests.items():
        try:
            yield name, parse_shared_cache(manifest)
        except InvalidResource:
            continue


async def _connected(reader: _Reader, name: str, caches: Mapping[str, SharedCache]) -> Connection:
    try:
        connection = connect(caches[name], caches)
    except ConnectError as error:
        raise InputError("CacheNotReady", f"SharedCache {name}: spec.{error}") from None
    texts: dict[tuple[str, str], str] = {}
    for one in {one.secret for one in connection.secrets}:
        for key, text in (await reader.secret(one) or {}).items():
            texts[one, key] = text
    config, missing = with_secrets(connection, texts)
    if missing:
        named = ", ".join(f"{one.secret}/{one.key}" for one in missing)
        words = f"SharedCache {name}: not there, or no JSON where it must be: Secret {named}"
        raise InputError("SecretNotFound", words)
    return replace(connection, extra_config=config)


def _texts(secret: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for key, encoded in (secret.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(encoded).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
    return found
