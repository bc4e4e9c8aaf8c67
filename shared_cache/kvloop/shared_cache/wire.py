"""Messages between router, decode and prefill nodes: JSON bodies and NDJSON streams over HTTP.

Every node speaks these; they live in this room because it is the only one that all may import.

`POST {decode}/kvloop/generate`  GenerateRequest -> stream of Started, Tokens, Finished | Refused
`POST {prefill}/kvloop/prefill`  PrefillRequest -> stream of Pushed, Progress, PrefillDone | Refused
`POST {prefill}/kvloop/cancel`   CancelRequest -> CancelReply
`POST {router}/kvloop/heartbeat` NodeRecord      -> 204
`GET  {node}/server_info`        -> {"node": NodeRecord, ...}
"""

from __future__ import annotations

from typing import Literal

import msgspec

CacheMode = Literal["on", "off", "l3_only"]
"""off: no tier is read or written; l3_only: decode's pages and prefill's L1/L2 are not read."""

Role = Literal["prefill", "decode"]
StorageState = Literal["stored", "storing", "will_not"]
FinishReason = Literal["stop", "length", "abort"]
SECRET_HEADER = "X-Kvloop-Node-Secret"
REQUEST_ID_HEADER = "X-Request-Id"


class Struct(msgspec.Struct, frozen=True):
    """Base: immutable; unknown fields are ignored so that versions can differ."""


class Sampling(Struct, frozen=True, kw_only=True):
    """How to choose tokens; the defaults sample from the model's own distribution."""

    max_tokens: int
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means all of the vocabulary."""
    min_p: float = 0.0
    seed: int | None = None
    """Random numbers are keyed by (seed, position); None: the decode node draws one."""
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop_token_ids: tuple[int, ...] = ()
    """Beside the model's own end tokens, which `ignore_eos` switches off (these it does not)."""
    ignore_eos: bool = False
    top_logprobs: int | None = None
    """None: no logprobs; 0: of the sampled token only; n: of the n likeliest too."""


class NodeLoad(Struct, frozen=True, kw_only=True):
    """What the router weighs; a snapshot, at most a heartbeat old."""

    running: int = 0
    waiting: int = 0
    free_pages: int = 0
    total_pages: int = 0
    offload_backlog_pages: int = 0
    quarantined_pages: int = 0


class NodeRecord(Struct, frozen=True, kw_only=True):
    """One node as it describes itself, by heartbeat and at /server_info."""

    url: str
    role: Role
    incarnation: str
    """Random at each start of the engine process."""
    namespace: str
    """Hex digest: equal namespaces read each other's pages."""
    generation: str = ""
    zone: str = ""
    model: str = ""
    """Served model name."""
    model_path: str = ""
    """Where the router finds tokenizer and chat template, when it is on the same machine."""
    page_size: int = 64
    max_context: int = 0
    """Tokens, prompt and answer together."""
    ready: bool = False
    load: NodeLoad = NodeLoad()
    events: str = ""
    """Where it says what it caches: `tcp://10.0.0.2:5557?replay=5558&curve=1`; empty: nowhere."""


class PrefillCandidate(Struct, frozen=True, kw_only=True):
    """A prefill node to ask, in order of preference."""

    url: str
    incarnation: str = ""


class StripRule(Struct, frozen=True, kw_only=True):
    """What the chat template leaves out of an answer once it is history: its thinking.

    The next turn's prompt repeats prompt and answer up to where the stripped block opens.
    """

    opens: tuple[int, ...] = ()
    """Token ids that open the block in an answer; empty: an answer cannot open one."""
    closes: tuple[int, ...] = ()
    """Ids that close it: an answer cut off before them is repeated whole. Empty: it is not."""
    kept_prompt: int | None = None
    """Prompt tokens that the next turn repeats, where the prompt itself has opened the block."""


class GenerateRequest(Struct, frozen=True, kw_only=True):
    """Router to decode: generate for one prompt."""

    request_id: str
    prompt: list[int]
    sampling: Sampling
    namespace: str
    generation: str = ""
    cache_seed: str | None = None
    """Hex of keys.cache_seed(tenant, salt); None where both are unset."""
    cache: CacheMode = "on"
    tenant: str = ""
    """Whose quota the pages count on; empty where no API keys are configured."""
    priority: int = 0
    """Pages of a higher one stay longer, where the eviction policy is `priority`."""
    prefills: tuple[PrefillCandidate, ...] = ()
    timeout_s: float = 600.0
    strip: StripRule | None = None
    """None: the next turn repeats all of prompt and answer."""
    returns: bool | None = None
    """Whether the router expects a next turn of this session; None: it does not know."""


class PromptSources(Struct, frozen=True, kw_only=True):
    """Where each prompt token's KV came from; the first five sum to the prompt's length."""

    computed: int = 0
    device: int = 0
    host: int = 0
    storage: int = 0
    transfer_skipped: int = 0
    storage_by_prefill: int = 0
    storage_by_decode: int = 0
    """The two split `storage` by the role that wrote the pages."""


class TokenLogprob(Struct, frozen=True, kw_only=True):
    """Natural logarithms, of the distribution before temperature, penalties and cuts."""

    token: int
    logprob: float
    top: list[tuple[int, float]] = []


class Started(Struct, frozen=True, kw_only=True, tag="started"):
    """First event of an answer: the hand-off is done and the first token is near."""

    sources: PromptSources
    prefill_node: str | None
    """URL; None where decode computed the prompt itself."""
    decode_node: str
    fallback: str | None = None
    """Why a preferred path was left: `prefill_retry`, `local_prefill`; None: it was not."""


class Tokens(Struct, frozen=True, kw_only=True, tag="tokens"):
    """The next tokens of the answer; `logprobs` is as long as `ids` or empty."""

    ids: list[int]
    logprobs: list[TokenLogprob] = []


class Finished(Struct, frozen=True, kw_only=True, tag="finished"):
    """Last event. A stop token is not among the tokens sent."""

    reason: FinishReason
    completion_tokens: int
    """Tokens sampled, a stop token included."""
    stop_token: int | None = None


class Refused(Struct, frozen=True, kw_only=True, tag="refused"):
    """The request could not be served; `status` is the HTTP status the client should see."""

    status: int
    kind: str
    message: str
    retry_after_s: float | None = None


GenerateEvent = Started | Tokens | Finished | Refused


class KVTarget(Struct, frozen=True, kw_only=True):
    """Where decode wants the pages: [layer, k|v, page] blocks of `page_bytes` in registered memory.

    Block address = base + layer * layer_stride + kv * kv_stride + page * page_bytes.
    """

    session: str
    """host:port of the receiver's transfer engine."""
    base: int
    layer_stride: int
    kv_stride: int
    page_bytes: int
    pages: list[int]
    """One page id for each prompt page from `PrefillRequest.first_page` on."""


class PrefillRequest(Struct, frozen=True, kw_only=True):
    """Decode to prefill: compute a prompt and push its pages from `first_page` on."""

    request_id: str
    attempt: str
    prompt: list[int]
    sampling: Sampling
    namespace: str
    generation: str = ""
    cache_seed: str | None = None
    cache: CacheMode = "on"
    tenant: str = ""
    priority: int = 0
    first_page: int = 0
    """Pages before this one are held by decode."""
    target: KVTarget
    timeout_s: float = 600.0


class Pushed(Struct, frozen=True, kw_only=True, tag="pushed"):
    """One layer's pages [first, first + count) are written, bit for bit, to the target."""

    layer: int
    first: int
    count: int
    checksum: int
    """xxh3_64 over the K blocks in page order, then the V blocks."""
    computed_at: float
    """Sender's CLOCK_MONOTONIC when this layer's KV was ready."""


class Progress(Struct, frozen=True, kw_only=True, tag="progress"):
    """Sent while queued or computing, so that silence means trouble."""

    stage: Literal["queued", "prefetch", "compute"]


class PrefillDone(Struct, frozen=True, kw_only=True, tag="prefill_done"):
    """All is pushed and no write is outstanding; the first token is sampled."""

    first_token: int
    logprob: TokenLogprob | None
    sources: PromptSources
    storage: list[StorageState]
    """One for each full page of the prompt."""
    last_layer_at: float
    """Sender's CLOCK_MONOTONIC when the last layer of the last chunk was ready."""


PrefillEvent = Pushed | Progress | PrefillDone | Refused


class CancelRequest(Struct, frozen=True, kw_only=True):
    """Decode gives an attempt up and asks for the acknowledgement that ends its quarantine."""

    request_id: str
    attempt: str


class CancelReply(Struct, frozen=True, kw_only=True):
    """`quiet`: no write of that attempt is outstanding, nor will there be one."""

    incarnation: str
    quiet: bool


def encode_line(event: msgspec.Struct) -> bytes:
    """One NDJSON line."""
    return msgspec.json.encode(event) + b"\n"


_generate_events = msgspec.json.Decoder(GenerateEvent)
_prefill_events = msgspec.json.Decoder(PrefillEvent)


def decode_generate_event(line: bytes) -> GenerateEvent:
    """Parse one line of an answer; raises msgspec.ValidationError on anything else."""
    event: GenerateEvent = _generate_events.decode(line)
    return event


def decode_prefill_event(line: bytes) -> PrefillEvent:
    """Parse one line of a hand-off; raises msgspec.ValidationError on anything else."""
    event: PrefillEvent = _prefill_events.decode(line)
    return event
