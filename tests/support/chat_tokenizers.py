"""Small tokenizers with merges, whose sampled tokens seldom are those of their text."""

from __future__ import annotations

from functools import cache
from typing import Any

from kvloop.router.tokenizer import ChatTokenizer

MARKS = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMMED = CHATML.replace("m.content", "(m.content | trim)")
_TEXT = ["the cat sat on the mat and the rat ate that hat", "na\u00efve \u65e5\u672c", "1 2\n\n  x"]
_LINED = "{% for m in messages %}{{ m.role + ': ' + m.content + ' ; ' }}{% endfor %}"
_BLANK = "\u2581"


@cache
def byte_level(template: str = CHATML) -> ChatTokenizer:
    """As GPT-2's and most models' since; 400 words or fewer, the two special ones first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_TEXT * 5, trainer)
    return _served(core, template)


@cache
def blank_putting() -> ChatTokenizer:
    """As Llama 2's: a blank before every text, which is not shown at a sequence's start."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), _BLANK]
    words += [chr(code) for code in range(33, 127)]
    core = Tokenizer(
        models.BPE(
            vocab={word: n for n, word in enumerate(words)},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend(_BLANK), normalizers.Replace(" ", _BLANK)]
    )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace(_BLANK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    core.add_special_tokens(list(MARKS))
    return _served(core, _LINED)


def _served(core: Any, template: str) -> ChatTokenizer:
    from transformers import PreTrainedTokenizerFast

    start, end = MARKS
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=start, eos_token=end)
    tokenizer.chat_template = template
    return ChatTokenizer(tokenizer)
