"""Special tokens: which of them control the chat, which are ordinary text, and which end a response."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKUP = frozenset("<>[]{}()|_#@$§«»＜＞｜")


def is_ordinary(token: str) -> bool:
    """Whether a token is a piece of ordinary text, such as `!`, `0` or `the`, whatever the tokenizer calls it.

    Some tokenizers name such a token for padding, as any text may hold it. A token that controls something has letters
    and markup in one: `<s>`, `[PAD]`, `<|im_end|>`, `__eou__`.
    """
    text = token.strip("▁Ġ ")
    if not text.isprintable():
        return not any(character.isprintable() for character in text) and text.isspace()
    return not (any(map(str.isalnum, text)) and any(character in _MARKUP for character in text))


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The special tokens that are not ordinary text, with their ids."""
    tokens = {str(token): tokenizer.convert_tokens_to_ids(str(token)) for token in tokenizer.all_special_tokens}
    tokens |= {token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {token: id for token, id in tokens.items() if isinstance(id, int) and not is_ordinary(token)}


def padding(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The id of the padding token, where it is not ordinary text."""
    token = tokenizer.pad_token
    return set() if token is None or is_ordinary(str(token)) else {int(tokenizer.pad_token_id)}


def spell(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], ends: Collection[int]) -> str:
    """The text of sampled tokens without the end and padding tokens behind it.

    All other special tokens are text: a model may write its tags as special tokens.
    """
    count = len(ids)
    while count and ids[count - 1] in ends:
        count -= 1
    return str(tokenizer.decode(list(ids[:count]), skip_special_tokens=False))
