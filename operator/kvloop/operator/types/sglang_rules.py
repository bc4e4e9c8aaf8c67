"""What engine sglang has no equal of: said, not ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvloop.operator.types.base import Rule


def _not_for_sglang(field: str, cel: str, check: Callable[[Any], bool], message: str) -> Rule:
    return Rule(
        cel=f"self.engine == 'kvloop' || {cel}",
        check=lambda s: s.engine == "kvloop" or check(s),
        message=message,
        field=field,
    )


SGLANG_RULES = (
    _not_for_sglang(
        "image.reference",
        "!has(self.image.reference)",
        lambda s: s.image.reference is None,
        "image.reference is of engine kvloop: set sglang.image instead",
    ),
    _not_for_sglang(
        "hicache.codec",
        "self.hicache.codec == 'none'",
        lambda s: s.hicache.codec == "none",
        "engine sglang has no codec: set hicache.codec to none",
    ),
    _not_for_sglang(
        "hicache.tenantQuotas",
        "size(self.hicache.tenantQuotas) == 0",
        lambda s: not s.hicache.tenant_quotas,
        "engine sglang has no tenants: remove hicache.tenantQuotas",
    ),
    _not_for_sglang(
        "offload",
        "(self.offload.policy == 'answer' && self.offload.backPressure == 'delay' && "
        "self.offload.deadlineSeconds == 10.0 && !self.offload.tailObjects)",
        lambda s: (
            (s.offload.policy, s.offload.back_pressure) == ("answer", "delay")
            and s.offload.deadline_seconds == 10
            and not s.offload.tail_objects
        ),
        "engine sglang has one way of offloading: of offload, set enabled and sizeGb only",
    ),
    _not_for_sglang(
        "prefill.threads",
        "(!has(self.prefill.threads) && !has(self.decode.threads))",
        lambda s: s.prefill.threads is None and s.decode.threads is None,
        "engine sglang chooses its threads: remove prefill.threads and decode.threads",
    ),
    _not_for_sglang(
        "router.apiKeysSecret",
        "!has(self.router.apiKeysSecret)",
        lambda s: s.router.api_keys_secret is None,
        "SGLang's router knows no tenants: remove router.apiKeysSecret, and let a gateway before "
        "it check keys",
    ),
    _not_for_sglang(
        "zone",
        "!has(self.zone)",
        lambda s: s.zone is None,
        "engine sglang knows no zones: remove zone",
    ),
    _not_for_sglang(
        "autoscaling",
        "!has(self.autoscaling)",
        lambda s: s.autoscaling is None,
        "autoscaling reads metrics of engine kvloop: remove it, and scale the Deployments "
        "NAME-prefill and NAME-decode by an autoscaler of your own",
    ),
)
