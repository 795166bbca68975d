"""What a model's weights are to become."""

from dataclasses import dataclass

from domain.errors import InvalidRequest

_BITS = frozenset({2, 3, 4, 5, 6, 8})
_GROUP_SIZES = frozenset({32, 64, 128})
_DTYPES = frozenset({"float16", "bfloat16", "float32"})


@dataclass(frozen=True, slots=True)
class Conversion:
    """bits: of a quantised weight. group_size: weights that share a scale.
    dtype: of what is not quantised; None leaves it as the model's config says.
    """

    bits: int = 4
    group_size: int = 64
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.bits not in _BITS:
            raise InvalidRequest("`bits` must be 2, 3, 4, 5, 6 or 8.", "bits")
        if self.group_size not in _GROUP_SIZES:
            raise InvalidRequest("`group_size` must be 32, 64 or 128.", "group_size")
        if self.dtype is not None and self.dtype not in _DTYPES:
            raise InvalidRequest("`dtype` must be float16, bfloat16 or float32.", "dtype")
