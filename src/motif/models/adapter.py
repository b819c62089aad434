"""LoRA on a language model: which of its weights get an adapter, by name.

An adapter goes on every linear layer that text passes and on the stacked weights of experts. A router that is a module
of its own keeps its weights: it only chooses among experts.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from motif.config import ModelConfig
from motif.errors import RecipeError
from motif.models.hub import readable_errors


def with_adapter(model: nn.Module, parts: Iterable[nn.Module], config: ModelConfig, seed: int) -> Any:
    """Put a LoRA adapter on a model, with the initial values of a seed.

    Args:
        parts: the modules that text passes; what is outside, such as a vision tower, gets no adapter.

    Raises:
        RecipeError: see `adapted`.
        ModelError: peft cannot adapt it.
    """
    from peft import LoraConfig, get_peft_model

    modules, parameters = adapted(model, parts, config.lora_targets)

    def lora(modules: list[str], parameters: list[str]) -> LoraConfig:
        return LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=0.0,
            target_modules=modules,
            target_parameters=parameters or None,
            task_type="CAUSAL_LM",
        )

    moved = _renamed_by_peft(model, modules, lora)
    parameters += [f"{name}.weight" for name in moved]
    torch.manual_seed(seed)
    with readable_errors(config.name):
        return get_peft_model(model, lora([name for name in modules if name not in moved], parameters)).eval()


def adapted(model: nn.Module, parts: Iterable[nn.Module], targets: str | list[str]) -> tuple[list[str], list[str]]:
    """Names of the linear layers, and of the stacks of experts, that get an adapter; the model may be on `meta`.

    Args:
        parts: the modules that text passes. targets: `model.lora_targets`.

    Raises:
        RecipeError: it names nothing of this model.
    """
    linear, experts = _targets(model, parts)
    if targets == "all-linear":  # as peft understands it: without the output head
        linear = [name for name in linear if model.get_submodule(name) is not model.get_output_embeddings()]  # type: ignore[operator]
    modules, parameters = _chosen(linear, targets), _chosen(experts, targets)
    if not modules and not parameters:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in (*linear, *experts)}))
        raise RecipeError(f"model.lora_targets = {targets!r} names no layer of this model: it has {known}")
    return modules, parameters


def lora_layers(wrapped: nn.Module) -> list[Any]:
    """The layers of a model that have an adapter."""
    from peft.tuners.lora import LoraLayer

    return [layer for layer in wrapped.modules() if isinstance(layer, LoraLayer)]


def adapted_parameter(layer: Any) -> str:
    """The parameter of its base that an adapter changes; peft names it where it is not the weight (stacked experts)."""
    return str(getattr(layer, "parameter_name", None) or "weight")


def is_stack(module: nn.Module, parameter: nn.Parameter) -> bool:
    """Whether a module's own parameter is a stack of matrices, one for each expert."""
    return parameter.ndim == 3 and getattr(module, "num_experts", None) == parameter.shape[0]


def _targets(model: nn.Module, parts: Iterable[nn.Module]) -> tuple[list[str], list[str]]:
    """Names of the linear layers and of the stacks of experts inside the parts of a model."""
    inside = {module for part in parts for module in part.modules()}
    linear, experts = [], []
    for name, module in model.named_modules():
        if module in inside:
            stacks = (key for key, value in module.named_parameters(recurse=False) if is_stack(module, value))
            experts += [f"{name}.{key}" for key in stacks]
            parent, _, ending = name.rpartition(".")
            if _is_product(module) and not _reads_weight(model.get_submodule(parent), ending):
                linear.append(name)
    return linear, experts


def _is_product(module: nn.Module) -> bool:
    """Whether a module is a plain linear layer; a router that is a kind of one returns more than a product."""
    from transformers.pytorch_utils import Conv1D

    if not isinstance(module, nn.Linear):
        return isinstance(module, Conv1D)
    if type(module).forward is nn.Linear.forward or type(module).__name__ in ("Linear4bit", "Linear8bitLt"):
        return True
    own = {  # on `meta` there are no numbers, so others take their place for a moment
        name: torch.rand(value.shape) if value.is_meta else value.detach()
        for name, value in module.named_parameters(recurse=False)
    }
    weight = own["weight"]
    rows = torch.ones(2, module.in_features, dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            output, product = torch.func.functional_call(module, own, (rows,)), F.linear(rows, weight, own.get("bias"))
    except Exception:  # it wants other arguments
        return False
    return isinstance(output, torch.Tensor) and output.shape == product.shape and torch.allclose(output, product, 0.02)


def _reads_weight(parent: nn.Module, name: str) -> bool:
    """Whether a module computes with the weight of its layer `name` itself, past an adapter, as recurrent ones do."""
    weight = rf"self\.{re.escape(name)}\.weight\b(?!\.(dtype|device|shape))"
    kind: Any = type(parent)
    return re.search(weight, _source(kind)) is not None


_source = functools.cache(inspect.getsource)


def _chosen(names: list[str], targets: str | list[str]) -> list[str]:
    """The names that `model.lora_targets` means: as a pattern of whole names, or as a list of their ends."""
    if isinstance(targets, str) and targets != "all-linear":
        return [name for name in names if re.fullmatch(targets, name)]
    if isinstance(targets, list):
        return [name for name in names if any(f".{name}".endswith(f".{target}") for target in targets)]
    return names


def _renamed_by_peft(model: nn.Module, names: list[str], lora: Callable[..., Any]) -> set[str]:
    """The linear layers that peft would take for experts, by names that experts had in transformers 4.

    peft rewrites such names, also when it reads an adapter, and then a shared expert or a dense layer would have none.
    Their weights are named as parameters instead, which it leaves alone.
    """
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    def survives(ending: str) -> bool:
        config = lora([ending], [])
        try:
            convert_peft_config_for_transformers(config, model, None)
        except ValueError:  # it wants the names of all parts of a stack
            return False
        return ending in config.target_modules

    endings = {name.rpartition(".")[2] for name in names}
    lost = {ending for ending in endings if not survives(ending)}
    return {name for name in names if name.rpartition(".")[2] in lost}
