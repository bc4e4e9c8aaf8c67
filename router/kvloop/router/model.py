"""The one model that this router serves: its name, tokenizer and context length."""

from __future__ import annotations

import asyncio
import logging

from kvloop.router.config import RouterConfig
from kvloop.router.errors import ApiError
from kvloop.router.nodes import NodeRegistry
from kvloop.router.tokenizer import ChatTokenizer, TokenizerThreads
from kvloop.shared_cache.wire import NodeRecord

log = logging.getLogger(__name__)

_RETRY_S = 0.2
_UNKNOWN_CONTEXT = 2048
"""Where no node says how long its context is."""


class ServedModel:
    """Named on the command line, or taken from the first ready node."""

    def __init__(
        self, config: RouterConfig, registry: NodeRegistry, threads: TokenizerThreads
    ) -> None:
        self._config = config
        self._registry = registry
        self._threads = threads
        self._tokenizer: ChatTokenizer | None = None
        self._learnt_name: str | None = None
        self.problem: str | None = "the tokenizer is not loaded yet"
        """Why there is no tokenizer; None when there is one."""

    @property
    def name(self) -> str | None:
        """What clients call it; None while no node was seen and no name was given."""
        if self._config.served_model_name is not None:
            return self._config.served_model_name
        if self._learnt_name is None:
            names = (node.model for node in self._nodes() if node.model)
            self._learnt_name = next(names, None)
        return self._learnt_name

    @property
    def node_model(self) -> str | None:
        """The model that nodes must serve to get requests; None: whatever they serve."""
        return None if self._config.served_model_name is not None else self.name

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer; raises ApiError 503 while there is none."""
        if self._tokenizer is None:
            raise ApiError(503, f"not ready: {self.problem}", code="not_ready", retry_after_s=1)
        return self._tokenizer

    @property
    def context_length(self) -> int:
        """Prompt and answer together: the least of the ready decode nodes."""
        lengths = [n.max_context for n in self._registry.ready("decode") if n.max_context > 0]
        return min(lengths, default=_UNKNOWN_CONTEXT)

    def check_name(self, asked: str | None) -> None:
        """Raise ApiError 404 for a model that is not served; None asks for the one that is."""
        if asked is not None and asked != self.name:
            served = f"this server serves '{self.name}'" if self.name else "no node is ready"
            raise ApiError(
                404,
                f"The model '{asked}' does not exist; {served}",
                param="model",
                code="model_not_found",
            )

    async def load_tokenizer(self) -> None:
        """Load it as soon as it is known where from; ends when that is done."""
        failed: set[str] = set()
        while self._tokenizer is None:
            for path in self._paths():
                if path not in failed and not await self._load(path):
                    failed.add(path)
                if self._tokenizer is not None:
                    return
            await asyncio.sleep(_RETRY_S)

    async def _load(self, path: str) -> bool:
        try:
            self._tokenizer = await self._threads.call(ChatTokenizer.load, path)
        except Exception as error:  # a broken tokenizer must show in /readyz, whatever broke it
            self.problem = str(error)
            log.error("no tokenizer from %s: %s", path, error)
            return False
        self.problem = None
        log.info("tokenizer loaded from %s", path)
        return True

    def _paths(self) -> list[str]:
        if self._config.model is not None:
            return [self._config.model]
        return list(dict.fromkeys(n.model_path for n in self._nodes() if n.model_path))

    def _nodes(self) -> list[NodeRecord]:
        return [*self._registry.ready("decode"), *self._registry.ready("prefill")]
