"""The model's tokenizer and chat template; token-only nodes never see text."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from kvloop.router.errors import BadRequest
from kvloop.shared_cache.errors import ConfigError

Result = TypeVar("Result")
Message = Mapping[str, Any]


class ChatTokenizer:
    """Text to ids and back. Thread-safe: it only reads the underlying Rust tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._byte_of = _byte_alphabet() if _is_byte_level(self._backend) else None
        self._special = frozenset(tokenizer.all_special_ids)
        self.vocab_size = len(tokenizer)
        self.has_chat_template = bool(tokenizer.chat_template)
        self.joins_texts = self._joins_texts()
        """Whether ids of two texts, one after the other, always decode to both texts."""

    @classmethod
    def load(cls, path: str) -> ChatTokenizer:
        """Read a Hugging Face directory or a GGUF file; raises ConfigError naming the path."""
        where = Path(path)
        if not where.exists():
            raise ConfigError(f"--model: there is no {path!r}; name the directory of the tokenizer")
        options: dict[str, Any] = {"local_files_only": True}
        if where.is_file():
            options["gguf_file"], where = where.name, where.parent
            _bring_torch_back()
        try:
            from transformers import AutoTokenizer  # seconds to import: not before it is needed

            tokenizer = AutoTokenizer.from_pretrained(str(where), **options)
        except Exception as error:  # whatever transformers raises, the path is what is wrong
            raise ConfigError(
                f"--model: no tokenizer could be read from {path!r}: {error}"
            ) from error
        if not tokenizer.is_fast:
            raise ConfigError(
                f"--model: {path!r} has no tokenizer.json; only fast tokenizers are served"
            )
        return cls(tokenizer)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Ids of a text; special tokens written in it are recognized, as everywhere."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Text of ids, exactly: no blanks are cleaned up."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def render(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
        """The chat as the model's template writes it, ready for the assistant's answer."""
        if not self.has_chat_template:
            raise BadRequest(
                "this model has no chat template; use /v1/completions", param="messages"
            )
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True, **variables
            )
        except Exception as error:  # templates raise on chats they do not know, in their own ways
            raise BadRequest(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error
        return text

    def is_special(self, token: int) -> bool:
        """Whether texts are cut at it before all else."""
        return token in self._special

    def token_text(self, token: int) -> str:
        """How a token is shown alone; an unfinished character becomes U+FFFD."""
        return self.decode([token], skip_special_tokens=False)

    def token_bytes(self, token: int) -> list[int]:
        """The bytes a token stands for, also where they are only part of a character."""
        piece = self._backend.id_to_token(token)
        if piece is None or self._byte_of is None or token in self._special:
            return list(self.token_text(token).encode())
        if all(char in self._byte_of for char in piece):
            return [self._byte_of[char] for char in piece]
        return list(piece.encode())

    def _joins_texts(self) -> bool:
        """Some put a blank before every text, of which only a sequence's first is not shown."""
        parts = ("a b", "c d\n", " e")
        ids = [i for part in parts for i in self.encode(part, add_special_tokens=False)]
        return self.decode(ids, skip_special_tokens=False) == "".join(parts)


class TokenizerThreads:
    """Runs tokenizer work off the event loop."""

    def __init__(self, num_threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="tokenizer")

    async def call(self, work: Callable[..., Result], *args: Any) -> Result:
        """Await `work(*args)` on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    def close(self) -> None:
        """Drop what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def leave_torch_out() -> None:
    """transformers imports torch where it finds it: seconds and 200 MB for a tokenizer.

    For a process of its own only: it cannot import torch afterwards.
    """
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def _bring_torch_back() -> None:
    """transformers reads GGUF files with torch."""
    if "torch" in sys.modules and sys.modules["torch"] is None:
        del sys.modules["torch"]


def _is_byte_level(backend: Any) -> bool:
    return "ByteLevel" in repr(backend.decoder)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte, reversed."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    alphabet.update({chr(256 + offset): byte for offset, byte in enumerate(others)})
    return alphabet
