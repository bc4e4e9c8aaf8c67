"""Which namespaces and pages of a store a command works on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvloop.cli.cache.wanted import Wanted
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.manifest import Manifest
from kvloop.shared_cache.page_object import FORMAT_VERSION, PageShape
from kvloop.shared_cache.storage_errors import StorageError, StorageUnsupported
from kvloop.shared_cache.store_tools.address import StoreAddress, leaves
from kvloop.shared_cache.store_tools.listing import ListedPage, Listing, by_use
from kvloop.shared_cache.store_tools.survey import look, read_manifest

DIGITS = 64
"""Of a whole namespace, or key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One namespace in one store that is made of no others."""

    tier: str
    address: StoreAddress
    namespace: bytes
    listing: Listing | None
    """None: not asked for, as the keys were given."""
    manifest: Manifest | None
    keys: Sequence[bytes]
    """Of complete pages, the least recently used first; or those that were given."""
    given_shape: PageShape | None = None

    @property
    def head_groups(self) -> int:
        """As the manifest has it, else as the listing lets it seem."""
        shape = self.known_shape
        if shape is not None:
            return shape.head_groups
        return self.listing.head_groups if self.listing is not None else 1

    @property
    def num_incomplete(self) -> int:
        """Pages that lack head groups."""
        return len(self.listing.pages) - len(self.keys) if self.listing is not None else 0

    @property
    def misfits(self) -> set[bytes]:
        """Pages whose objects are not as long as they must be."""
        pages = self.listing.pages.values() if self.listing is not None else ()
        return {page.key for page in pages if not page.fits(self.shape)}

    @property
    def known_shape(self) -> PageShape | None:
        """Of the manifest or of the flag."""
        return self.manifest.shape if self.manifest is not None else self.given_shape

    @property
    def shape(self) -> PageShape:
        """The same; ConfigError where it must be known and is not."""
        if self.manifest is not None and self.manifest.format_version != FORMAT_VERSION:
            raise ConfigError(
                f"namespace {self.namespace.hex()[:12]} holds page objects of format "
                f"{self.manifest.format_version}; this version reads format {FORMAT_VERSION}"
            )
        if self.known_shape is None:
            raise ConfigError(
                f"namespace {self.namespace.hex()[:12]} of {self.address.label} has no manifest, "
                "which nodes write as they attach the store: start one, or give --shape"
            )
        return self.known_shape

    @property
    def shape_for_names(self) -> PageShape:
        """Enough of a shape to name and remove objects."""
        groups = self.head_groups
        return self.known_shape or PageShape(
            num_layers=1,
            page_size=1,
            num_kv_heads=groups,
            head_size=1,
            itemsize=1,
            head_groups=groups,
        )


def choose(wanted: Wanted) -> list[Chosen]:
    """Ask the store; ConfigError where the flags do not fit it, StorageError where it fails."""
    chosen = list(_each(wanted))
    if not chosen and wanted.namespace is not None:
        raise ConfigError(
            f"--namespace: no namespace of {wanted.address.label} begins with {wanted.namespace}; "
            "`kvloop cache stat` lists them"
        )
    found = {one.namespace.hex()[:16] for one in chosen}
    if wanted.namespace is not None and len(found) > 1:
        raise ConfigError(
            f"--namespace: {wanted.namespace} begins several namespaces: {', '.join(sorted(found))}"
        )
    return chosen


def complete_pages(listing: Listing, head_groups: int) -> list[ListedPage]:
    """The least recently used first."""
    return by_use(page for page in listing.pages.values() if page.is_complete(head_groups))


def _each(wanted: Wanted) -> Iterator[Chosen]:
    manifests = Manifests(wanted.address, wanted.deadline_s)
    if wanted.keys is not None:
        yield from _by_keys(wanted, wanted.keys, manifests)
        return
    for tier, address in leaves(wanted.address):
        for listing in _listings(tier, address, wanted):
            manifest = manifests.of(listing.namespace)
            shape = manifest.shape if manifest is not None else wanted.shape
            groups = shape.head_groups if shape is not None else listing.head_groups
            yield Chosen(
                tier=tier,
                address=address,
                namespace=listing.namespace,
                listing=listing,
                manifest=manifest,
                keys=[page.key for page in complete_pages(listing, groups)],
                given_shape=wanted.shape,
            )


def _by_keys(wanted: Wanted, keys: Sequence[bytes], manifests: Manifests) -> Iterator[Chosen]:
    if wanted.namespace is None or len(wanted.namespace) != DIGITS:
        raise ConfigError("--keys needs --namespace with all 64 digits: nothing is listed then")
    namespace = bytes.fromhex(wanted.namespace)
    for tier, address in leaves(wanted.address):
        yield Chosen(
            tier=tier,
            address=address,
            namespace=namespace,
            listing=None,
            manifest=manifests.of(namespace),
            keys=keys,
            given_shape=wanted.shape,
        )


def _listings(tier: str, address: StoreAddress, wanted: Wanted) -> list[Listing]:
    try:
        namespaces = look(tier, address, wanted.deadline_s).namespaces
    except StorageUnsupported as error:
        raise StorageUnsupported(
            f"{address.label} cannot list what it holds ({error}): say what is meant by "
            "--namespace HEX (all 64 digits) and --keys FILE"
        ) from None
    return [
        listing
        for namespace, listing in sorted(namespaces.items())
        if namespace.hex().startswith(wanted.namespace or "")
    ]


class Manifests:
    """Manifests of the store's namespaces, each looked for once in all its tiers."""

    def __init__(self, address: StoreAddress, deadline_s: float) -> None:
        self._leaves = leaves(address)
        self._deadline_s = deadline_s
        self._found: dict[bytes, Manifest | None] = {}

    def of(self, namespace: bytes) -> Manifest | None:
        """None: no tier has one."""
        if namespace not in self._found:
            each = (self._read(leaf, namespace) for _, leaf in self._leaves)
            self._found[namespace] = next((m for m in each if m is not None), None)
        return self._found[namespace]

    def _read(self, leaf: StoreAddress, namespace: bytes) -> Manifest | None:
        try:
            return read_manifest(leaf, namespace, self._deadline_s)
        except StorageError:
            if len(self._leaves) == 1:
                raise
            return None  # another tier may have it
