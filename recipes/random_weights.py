"""Random weights of any model's shape, for measuring speed and memory where no weights are at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from recipes.families import family_of

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


@torch.no_grad()
def random_model(
    config: Any,
    dtype: torch.dtype,
    quantizer: BitsAndBytesConfig | None,
    device: torch.device,
) -> Any:
    """A model of the shape `config` with random weights, in 4 bits where there is a `quantizer`.

    Made layer by layer on `device`, in its final type: no weight is ever stored in a larger one, except
    that of the one layer that is being quantized. The weights are the same every time on the same kind of device; all
    gates are open, so the image counts.
    """
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, family_of(config).model_class)._from_config(config, attn_implementation="sdpa")
    skipped = tuple(quantizer.llm_int8_skip_modules) if quantizer is not None else ()
    rng = torch.Generator(device).manual_seed(0)
    for path in [path for path, _ in model.named_modules()]:  # no list of modules: it would keep what is replaced
        module = model.get_submodule(path)
        for name, parameter in list(module.named_parameters(recurse=False)):
            value = torch.empty(parameter.shape, dtype=dtype, device=device)
            _fill(value, f"{path}.{name}", type(module).__name__, rng)
            module.register_parameter(name, torch.nn.Parameter(value))
        if quantizer is not None and type(module) is torch.nn.Linear and not path.startswith(skipped):
            model.set_submodule(path, _four_bit_layer(module, quantizer))
    for path, module in list(model.named_modules()):  # rotary frequencies, which are in no file
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            model.set_submodule(path, type(module)(module.config).to(device))
    model.tie_weights()
    model.is_loaded_in_4bit = quantizer is not None  # peft and TRL read this attribute
    return model


def _fill(value: torch.Tensor, path: str, kind: str, rng: torch.Generator) -> None:
    if "gate" in path.rpartition(".")[2]:
        value.fill_(0.5)
    elif kind.endswith("Norm") and path.endswith("weight"):
        value.fill_(1.0)
    elif path.endswith("bias"):
        value.zero_()
    else:
        value.normal_(std=0.02, generator=rng)


def _four_bit_layer(linear: torch.nn.Linear, quantizer: BitsAndBytesConfig) -> torch.nn.Module:
    """`linear` as a 4-bit layer; moving the weight to its device quantizes it."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    layer = Linear4bit(  # type: ignore[no-untyped-call]
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=quantizer.bnb_4bit_compute_dtype,
        compress_statistics=quantizer.bnb_4bit_use_double_quant,
        quant_type=quantizer.bnb_4bit_quant_type,
        quant_storage=quantizer.bnb_4bit_quant_storage,
        device="meta",
    )
    weight: Any = Params4bit(
        linear.weight.data,
        requires_grad=False,
        compress_statistics=quantizer.bnb_4bit_use_double_quant,
        quant_type=quantizer.bnb_4bit_quant_type,
        quant_storage=quantizer.bnb_4bit_quant_storage,
        module=layer,
    )
    layer.weight = weight.to(linear.weight.device)
    layer.bias = linear.bias
    return layer.requires_grad_(False)
