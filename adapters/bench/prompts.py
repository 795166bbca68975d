"""Texts to ask: words thrown together by a seed, or real ones."""

import random
from collections.abc import Sequence
from itertools import cycle

# Short and common, so that most tokenisers take one or two tokens for each.
WORDS = tuple(
    "the of and to in is you that it he was for on are as with his they at be this have from or "
    "one had by word but not what all were we when your can said there use an each which she do "
    "how their if will up other about out many then them these so some her would make like him "
    "into time has look two more write go see number no way could people my than first water "
    "been call who oil its now find long down day did get come made may part over new sound take "
    "only little work know place year live me back give most very after thing our just name good "
    "sentence man think say great where help through much before line right too mean old any same "
    "tell boy follow came want show also around form three small set put end does another well "
    "large must big even such because turn here why ask went men read need land different home "
    "us move try kind hand picture again change off play spell air away animal house point page "
    "letter mother answer found study still learn should world high every near add food between "
    "own below country plant last school father keep tree never start city earth eye light "
    "thought head under story saw left few while along might close something seem next hard open "
    "example begin life always those both paper together got group often run".split()
)

# English in most vocabularies; what a server counts is measured before the run where it tells.
TOKENS_PER_WORD = 1.3


class Prompts:
    """An endless row of prompts. The same arguments give the same row."""

    def __init__(
        self,
        seed: str,
        *,
        tokens_per_word: float = TOKENS_PER_WORD,
        spread: float = 0.0,
        texts: Sequence[str] = (),
    ) -> None:
        """`spread` is the part by which lengths differ from what is asked for, to either side.

        With `texts`, `about` gives those in an order of the seed, over and over, as they are.
        """
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._tokens_per_word = tokens_per_word
        self._spread = spread
        self._texts = cycle(self._chance.sample(texts, len(texts))) if texts else None

    def exactly(self, tokens: int) -> str:
        """As many words as make `tokens` tokens, at least one."""
        count = max(1, round(tokens / self._tokens_per_word))
        return " ".join(self._chance.choices(WORDS, k=count))

    def about(self, tokens: int) -> str:
        """A prompt of its own, of unequal length where a spread was asked for."""
        if self._texts is not None:
            return next(self._texts)
        factor = self._chance.uniform(1 - self._spread, 1 + self._spread)
        return self.exactly(round(tokens * factor))
