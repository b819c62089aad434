"""Logits of hidden states: by the output layer and the scalings that we know, or by the model's own forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from motif.models.architecture import decoder_of


def scaled_logits(model: Any, hidden: Tensor) -> Tensor:
    """Logits (..., V) of hidden states (..., D), with the scalings that some architectures add after the head."""
    logits: Tensor = model.get_output_embeddings()(hidden)
    settings = model.config.get_text_config()
    if scale := getattr(settings, "logit_scale", None):
        logits = logits * scale
    if scaling := getattr(settings, "logits_scaling", None):
        logits = logits / scaling
    if cap := getattr(settings, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits


class OwnHead:
    """The model's own forward pass, whose decoder is replaced by the states that we have already.

    Right whatever a model does after its decoder, but not to be used by two threads at once.
    """

    def __init__(self, output: Any):
        self.output = type(output)  # what the decoder returns

    def __call__(self, model: Any, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., D)."""
        decoder = decoder_of(model)
        states = hidden.reshape(-1, 1, hidden.shape[-1])  # sequences of one token: some cut long ones in pieces
        ids = torch.zeros(states.shape[:2], dtype=torch.long, device=hidden.device)
        own = decoder.__dict__.get("forward")
        decoder.forward = lambda *_, **__: self.output(last_hidden_state=states)
        try:
            logits: Tensor = model(input_ids=ids, use_cache=False).logits
        finally:
            if own is None:
                del decoder.forward
            else:
                decoder.forward = own
        return logits.reshape(*hidden.shape[:-1], -1)
