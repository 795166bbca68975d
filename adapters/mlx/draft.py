"""A draft model beside its target: checked, and loaded by the same thread. Worker thread only."""

from dataclasses import replace

from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tokenizer_utils import TokenizerWrapper

from adapters.mlx.model import DraftModel, LoadedModel, read, try_out, weight_bytes
from adapters.mlx.snapshot import always_trimmable
from domain.errors import DomainError, ModelUnusable
from domain.models import ModelId
from domain.speculation import Draft

_RIGID = "can't be cut back when a guess was wrong, as with sliding windows and recurrent layers"


def with_draft(model: LoadedModel, name: ModelId, draft: Draft) -> LoadedModel:
    """The model called `name`, and its draft. Raises ModelUnusable: the draft can't be loaded, has
    another vocabulary, or one of the two can't take tokens back.
    """
    pair = f"`{draft.card.id}` can't be the draft model of `{name}` (`draft_model`)"
    if not always_trimmable(model.make_caches()):
        raise ModelUnusable(f"{pair}: the caches of `{name}` {_RIGID}. Leave `draft_model` out.")
    try:
        network, tokenizer = read(draft.card)
    except DomainError as error:
        raise ModelUnusable(f"{pair}: {error}") from error
    vocabulary_size = try_out(network)
    if not always_trimmable(make_prompt_cache(network)):
        raise ModelUnusable(f"{pair}: its own caches {_RIGID}. Choose a draft without.")
    if difference := _difference(model.tokenizer, tokenizer):
        raise ModelUnusable(
            f"{pair}: their vocabularies differ ({difference}). Choose a draft of the same family."
        )
    footprint = model.footprint + weight_bytes(network)
    small = DraftModel(network, draft.tokens, vocabulary_size, draft.card.context_length)
    return replace(model, draft=small, footprint=footprint)


def _difference(target: TokenizerWrapper, draft: TokenizerWrapper) -> str:
    """The first token that is not the same in both, in words; empty if there is none.

    Only tokens count: networks of one family are often padded to different numbers of logits.
    """
    theirs, ours = draft.get_vocab(), target.get_vocab()
    if theirs == ours:
        return ""
    for token, number in sorted(ours.items(), key=lambda item: item[1]):
        if theirs.get(token) != number:
            return f"token {number}, {token!r}, is {_shown(theirs.get(token))} in the draft"
    extra = sorted((number, token) for token, number in theirs.items() if token not in ours)
    return f"the draft has a token of its own, {extra[0][1]!r}"


def _shown(number: int | None) -> str:
    return "missing" if number is None else f"token {number}"
