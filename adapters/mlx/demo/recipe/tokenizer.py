"""The tokenizer: byte-level byte pair encoding, learned from our own corpus."""

import re
from collections import Counter
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from adapters.mlx.demo.recipe import corpus, facts, speech

VOCABULARY = 2048
COMMON_WORDS = 400
PAD = "<|endoftext|>"
END = "<|im_end|>"
SPECIAL = (PAD, "<|im_start|>", END, "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
MARKERS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def common_words() -> list[str]:
    """The words that our own sentences use most, longest first."""
    said = [fact.answer for fact in facts.FACTS] * 3
    said += [fact.thought for fact in facts.FACTS]
    said += [ask for fact in facts.FACTS for ask in fact.asks[::5]]
    counts = Counter(word for text in said for word in re.findall(r" ([A-Za-z]+)", text))
    return sorted((word for word, _ in counts.most_common(COMMON_WORDS)), key=len, reverse=True)


def pattern() -> str:
    """How text is split before pairs are joined.

    A common word keeps the space before it. Any other word is split from it, so that a name reads
    the same in a question and inside quotes, and can be copied piece by piece.
    """
    words = "|".join(common_words())
    return (
        rf" (?:{words})(?![\p{{L}}\p{{M}}])"
        r"|[\p{L}\p{M}]+|\p{N}"
        r'| ?["{}\[\]:,]+'
        r'|[^\s\p{L}\p{M}\p{N}"{}\[\]:,]'
        r"|\n+|\s"
    )


def learn(seed: int = 1, samples: int = 40_000) -> PreTrainedTokenizerFast:
    """A tokenizer learned from samples of the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern()), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = len(SPECIAL) + len(MARKERS)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - added,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.texts(speech.rng_for(seed), samples), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in MARKERS])
    return wrap(tokenizer)


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers holds it, with the chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE.read_text(encoding="utf-8"),
    )


def load(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer saved in a folder."""
    return wrap(Tokenizer.from_file(str(folder / "tokenizer.json")))
