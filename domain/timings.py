"""Where the time of an answer goes."""

from dataclasses import dataclass

# Seconds between two tokens: upper bounds of a histogram, as vLLM has them, and finer ones below
# for small models; what is longer than the last has a place of its own.
GAP_BOUNDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)


@dataclass(frozen=True, slots=True)
class Timings:
    """Of one answer, in seconds.

    queue: from the request to its place in the batch, a load of the model included. prefill: from
    there to the first token. decode: from the first token to the last.
    """

    queue: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0

    @property
    def first_token(self) -> float:
        """From the request to its first token."""
        return self.queue + self.prefill

    @property
    def total(self) -> float:
        return self.queue + self.prefill + self.decode
