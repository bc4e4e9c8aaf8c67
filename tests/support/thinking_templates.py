"""Chat templates that treat thinking as well-known reasoning models' do, and a small tokenizer."""

from __future__ import annotations

from typing import Any

_ROLE = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def _chat(assistant: str, prompt: str = _PROMPT) -> str:
    """A template whose assistant messages are written by `assistant`, over the message `m`."""
    return (
        "{% set ns = namespace(asked=-1) %}"
        "{% for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}"
        "{% endif %}{% endfor %}"
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        + assistant
        + "{% else %}"
        + _ROLE
        + "{% endif %}{% endfor %}"
        + prompt
    )


def _said(expression: str) -> str:
    return "{{ '<|im_start|>assistant\n' + (" + expression + ") + '<|im_end|>\n' }}"


_AFTER = "m.content.split('</think>')[-1].lstrip('\n')"

STRIPS = _chat(
    "{% if loop.index0 > ns.asked %}" + _said("m.content") + "{% else %}"
    "{% if '</think>' in m.content %}" + _said(_AFTER) + "{% else %}"
    "" + _said("m.content.lstrip('\n')") + "{% endif %}{% endif %}",
    _PROMPT + "{% if add_generation_prompt and enable_thinking is defined"
    " and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}",
)
"""As Qwen3: thinking before the last question is gone, and can be switched off in the prompt."""

OPENS = _chat(
    _said(_AFTER),
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}",
)
"""As QwQ and R1's distillates: the prompt itself opens the block."""

KEEPS = _chat(_said("m.content"))
"""As SmolLM3 in its thinking mode: all that was said stays."""

KEEPS_OPENED = _chat(
    "{% if '</think>' in m.content %}" + _said("'<think>\n' + m.content") + "{% else %}"
    "" + _said("m.content") + "{% endif %}",
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}",
)
"""The prompt opens the block, and history has it whole, opening and all."""

REWRITES = (
    "{% for m in messages %}{% if m.role == 'user' and loop.last %}"
    "{{ 'Be brief. ' + m.content }}{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>' }}"
    "{% endfor %}{{ '<|im_start|>' }}"
)
"""As templates that write instructions into the last question only."""

HALF_OPENS = _chat(
    _said("'</think>' + m.content.split('</think>')[-1]"),
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{{ '<think>' if enable_thinking else '</think>' }}{% endif %}",
)
"""As DeepSeek's V3.1: history says where thinking ended, whether there was any or not."""

EMPTIES = _chat(_said("'<think></think>\n' + " + _AFTER))
"""As GLM's: each answer of the history has an empty block in the place of its thinking."""

PUTS_BEFORE = _chat(_said("'<think></think>' + m.content"))
"""As Kimi's: an empty block before all that was said, which it does not look into."""

REFUSES = "{{ raise_exception('no chat') }}"

REFUSES_THINKING = (
    "{% for m in messages if '<think>' in m.content %}{{ raise_exception('no thinking') }}"
    "{% endfor %}" + KEEPS
)


def byte_tokenizer(
    template: str, *, shown: tuple[str, ...] = (), hidden: tuple[str, ...] = ()
) -> Any:
    """One token a byte; tokens of their own for the chat's marks and for these texts.

    `shown` ones stay where special tokens are skipped, as thinking's marks mostly do.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: n for n, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|im_start|>", "<|im_end|>", *hidden])
    core.add_tokens([AddedToken(text, normalized=False) for text in shown])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")
    tokenizer.chat_template = template
    return tokenizer
