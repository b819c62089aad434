"""Parity of an export with the trained policy: read back with plain transformers and peft, on the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motif.models.architecture import is_whole, model_class
from motif.models.hub import load_config, locate, tokenizer_of

POSITIONS = 16
"""Positions compared at the end of each prompt; their logits depend on all tokens before them as well."""
TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2, "f32": 1e-4, "f16": 5e-3, "bf16": 2e-2, "q8_0": 5e-2}
"""Largest logit difference that the number format explains, as a share of the largest logit."""


@dataclass(frozen=True)
class Parity:
    """Logits of the export compared with those of the run's own policy in float32.

    difference: the largest one. largest: the largest logit itself. moved: how far training had moved the logits.
    agree: share of positions with the same most likely token. prompts: how many were compared. same_prompts: whether
    the exported tokenizer and chat template turn them into the same tokens.
    """

    difference: float
    largest: float
    moved: float
    agree: float
    prompts: int
    same_prompts: bool
    tolerance: float

    @property
    def share(self) -> float:
        """The largest difference as a share of the largest logit."""
        return self.difference / max(1.0, self.largest)

    @property
    def holds(self) -> bool:
        """Whether the export can be trusted."""
        return self.share <= self.tolerance and self.same_prompts

    def __str__(self) -> str:
        text = (
            f"maximum logit difference {self.difference:.2g}, {self.share:.2g} of the largest logit (tolerance "
            f"{self.tolerance:g}); the same most likely token at {100 * self.agree:.1f} % of positions; "
            f"{self.prompts} prompts; training had moved logits by up to {self.moved:.2g}"
        )
        return text if self.same_prompts else text + "; the exported tokenizer tokenizes the prompts differently"


@torch.no_grad()
def logits_of(model: Any, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Logits (positions, V) at the last positions of each prompt, in float32 on the CPU."""
    device = model.get_input_embeddings().weight.device
    rows = (model(input_ids=torch.tensor([prompt], device=device), use_cache=False).logits for prompt in prompts)
    return [logits[0, -POSITIONS:].float().cpu() for logits in rows]


def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor], before: Sequence[Tensor], **fields: Any) -> Parity:
    """Compare the run's logits with those of the export; `before`: the base's, `fields`: other fields of `Parity`."""
    width = min(ours[0].shape[-1], theirs[0].shape[-1])  # a format may pad the vocabulary
    pairs = [(a[:, :width], b[:, :width]) for a, b in zip(ours, theirs, strict=True)]
    same = torch.cat([a.argmax(-1) == b.argmax(-1) for a, b in pairs])
    return Parity(
        difference=max((a - b).abs().max().item() for a, b in pairs),
        largest=max(a.abs().max().item() for a, _ in pairs),
        moved=max((a - b).abs().max().item() for a, b in zip(ours, before, strict=True)),
        agree=same.float().mean().item(),
        prompts=len(pairs),
        **fields,
    )


def read_back(folder: Path, form: str, base: str, device: torch.device) -> tuple[Any, Any]:
    """Load model and tokenizer from an exported folder as others would; an adapter goes onto the model `base`."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    model: Any
    if form == "gguf":
        [file] = folder.glob("*.gguf")
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, **tokenizer_of(file))
    elif form == "adapter":
        from peft import PeftModel

        bare: Any = model_class(base, load_config(base)).from_pretrained(
            locate(base), dtype=torch.float32, trust_remote_code=False
        )
        model, tokenizer = PeftModel.from_pretrained(bare, str(folder)), AutoTokenizer.from_pretrained(folder)
    else:
        config = AutoConfig.from_pretrained(folder)
        loader = AutoModelForImageTextToText if is_whole(config) else AutoModelForCausalLM
        model = loader.from_pretrained(folder, dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if not getattr(model, "is_quantized", False):  # as transformers calls what comes from q8_0, in float32 by now
        model = model.float()  # compares what was stored, not how half precision computes
    return model.to(device).eval(), tokenizer
