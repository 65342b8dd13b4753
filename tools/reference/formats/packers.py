"""Quantisers: what each format's own package makes of a linear map, and what the package reads back.

A packer quantises the linear maps of a checkpoint, by round to nearest, and returns the tensors, the values that they stand for
in float32, and the `quantization_config` that belongs to them.
"""

import importlib.util
import pathlib
import sys
import types
import warnings

import torch

# Linear maps that quantisers leave as they are.
PLAIN = ("embed_tokens", "lm_head", "mlp.gate.", "shared_expert_gate", "conv1d", "visual", "in_proj_a", "in_proj_b", "router")
MODULES_LEFT = ["lm_head", "re:.*mlp.gate$"]


class Packer:
    """`pack` takes a matrix in float32 and returns the module's tensors by their last names, and the values."""

    def __init__(self, name, pack, block, scales=None):
        self.name, self.pack, self.block = name, pack, block

    def checkpoint(self, tensors):
        packed, values = {}, {}
        for name, tensor in tensors.items():
            module = name.removesuffix(".weight")
            is_map = name.endswith(".weight") and tensor.ndim == 2 and not any(part in name for part in PLAIN)
            # Experts that lie in one tensor are not linear maps to these packages.
            if not is_map or tensor.shape[0] % 32 or tensor.shape[1] % 128:
                packed[name], values[name] = tensor, tensor.float() if tensor.is_floating_point() else tensor
                continue
            parts, wide = self.pack(tensor.float())
            packed |= {f"{module}.{part}": value.detach().contiguous() for part, value in parts.items()}
            values[name] = wide.detach().float().contiguous()
            assert (values[name] - tensor.float()).abs().max() < tensor.float().abs().max(), f"{name}: not what it was"
        return packed, values, self.block


def bare(*packages):
    """Lets modules of these packages be imported without what the packages themselves import: datasets, and kernels."""
    if packages[0] in sys.modules:
        return
    top = pathlib.Path(importlib.util.find_spec(packages[0]).origin).parent
    for name in packages:
        module = types.ModuleType(name)
        module.__path__ = [str(top.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = module


def linear(weight):
    module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight.data = weight.clone()
    return module


def groups(weight, bits, size, symmetric):
    """Scales and zeros `[rows, groups]` of the smallest range that holds each group."""
    parts = weight.reshape(weight.shape[0], -1, size)
    top = 2 ** bits - 1
    if symmetric:
        scale = parts.abs().amax(-1) / (top // 2)
        return scale.half().float(), torch.full_like(scale, 2 ** (bits - 1))
    low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
    scale = ((high - low) / top).half().float()
    return scale, (-low / scale).round().clamp(0, top)


def awq(weight):
    warnings.filterwarnings("ignore", message=".*AutoAWQ")
    bare("awq", "awq.utils", "awq.modules", "awq.modules.linear")
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import reverse_awq_order, unpack_awq
    scale, zero = groups(weight, 4, 128, False)
    # The package rounds codes without looking at their range.
    low, high = (-zero * scale).repeat_interleave(128, 1), ((15 - zero) * scale).repeat_interleave(128, 1)
    packed = WQLinear_GEMM.from_linear(
        linear(weight.clamp(low, high)), 4, 128, scales=scale.T.contiguous(), zeros=zero.T.contiguous())
    # As `dequantize_gemm` does, in float32 instead of float16.
    codes, zeros = reverse_awq_order(*unpack_awq(packed.qweight, packed.qzeros, 4), 4)
    codes, zeros = codes & 15, zeros & 15
    wide = (codes.float() - zeros.float().repeat_interleave(128, 0)) * packed.scales.float().repeat_interleave(128, 0)
    return dict(qweight=packed.qweight, qzeros=packed.qzeros, scales=packed.scales), wide.T


def auto_gptq(bits, version, symmetric=False):
    """By AutoRound's layers, which pack as AutoGPTQ's do; those of the second version store zeros as they are."""
    def pack(weight):
        bare("auto_round", "auto_round.utils")
        sys.modules["auto_round.utils"].get_packing_device = lambda _: "cpu"
        if version == 1:
            from auto_round_extension.torch.qlinear_torch_zp import QuantLinear
        else:
            from auto_round_extension.torch.qlinear_torch import QuantLinear
        rows, cols = weight.shape
        scale, zero = groups(weight, bits, 128, symmetric)
        if version == 1:
            # It cannot say a zero of 0.
            zero = zero.clamp(min=1)
        layer = QuantLinear(bits, 128, cols, rows, False)
        layer.device = "cpu"
        layer.pack(linear(weight), scale, zero, None, device="cpu")
        # The layer computes in float16; what it dequantises is seen by what it makes of a unit matrix in float32.
        layer.scales = layer.scales.float()
        wide = layer(torch.eye(cols)).float().T
        parts = dict(qweight=layer.qweight, qzeros=layer.qzeros, scales=layer.scales.half(),
                     g_idx=torch.arange(cols, dtype=torch.int32) // 128)
        if version == 2:
            parts.pop("g_idx")
        return parts, wide
    return pack


def compressed(format, **arguments):
    """By compressed-tensors' own compressors."""
    activations = arguments.pop("activations", None)

    def pack(weight):
        from compressed_tensors.compressors import BaseCompressor
        from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
        from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
        args = QuantizationArgs(**arguments)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        size = arguments.get("group_size") or weight.shape[1]
        parts = weight.reshape(weight.shape[0], -1, size)
        low, high = parts.amin(-1), parts.amax(-1)
        if arguments["strategy"] == "tensor":
            low, high = weight.amin()[None], weight.amax()[None]
        if arguments["strategy"] == "block":
            block = arguments["block_structure"]
            padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % block[1], 0, -weight.shape[0] % block[0]))
            tiles = padded.unfold(0, block[0], block[0]).unfold(1, block[1], block[1])
            low, high = tiles.amin((-1, -2)), tiles.amax((-1, -2))
        state = {"weight": weight}
        if arguments["strategy"] == "tensor_group":
            state["weight_global_scale"] = generate_gparam(weight.amin(), weight.amax()).reshape(1)
            scale, zero = calculate_qparams(low, high, args, global_scale=state["weight_global_scale"])
        else:
            scale, zero = calculate_qparams(low, high, args)
        # Integers have scales of the model's type.
        if arguments["type"] == "int":
            scale = scale.bfloat16().float()
        state |= {"weight_scale": scale, "weight_zero_point": zero}
        compressor = BaseCompressor.get_value_from_registry(format)
        stored = compressor.compress(state, scheme)
        if arguments["type"] == "int":
            stored["weight_scale"] = stored["weight_scale"].bfloat16()
        if arguments.get("symmetric", True):
            stored.pop("weight_zero_point", None)
        opened = dict(stored)
        if opened["weight_scale"].dtype == torch.bfloat16:
            opened["weight_scale"] = opened["weight_scale"].float()
        if arguments["strategy"] == "tensor_group":
            # As `decompress` does, which would round to bfloat16.
            from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
            from compressed_tensors.quantization.lifecycle.forward import dequantize
            codes = unpack_fp4_from_uint8(opened["weight_packed"], *weight.shape, dtype=torch.float32)
            wide = dequantize(x_q=codes, scale=opened["weight_scale"].float(), args=args,
                              global_scale=opened["weight_global_scale"], dtype=torch.float32)
            return stored, wide
        wide = compressor.decompress(opened, scheme)["weight"]
        return stored, wide
    weights = {name: value for name, value in arguments.items()}
    block = {
        "quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed",
        "ignore": MODULES_LEFT, "kv_cache_scheme": None, "global_compression_ratio": None, "version": "0.13.0",
        "config_groups": {"group_0": {
            "targets": ["Linear"], "weights": weights | {"dynamic": False, "observer": "minmax", "actorder": None},
            "input_activations": activations, "output_activations": None, "format": format}}}
    return pack, block


def modelopt(algorithm):
    """By modelopt's tensors, under the names that its exporter gives them."""
    def pack(weight):
        if algorithm == "NVFP4":
            from modelopt.torch.quantization.qtensor import NVFP4QTensor
            tensor, scale, whole = NVFP4QTensor.quantize(weight, 16)
            wide = tensor.dequantize(dtype=torch.float32, scale=scale, double_scale=whole, block_sizes={-1: 16})
            return dict(weight=tensor._quantized_data, weight_scale=scale, weight_scale_2=whole.float().reshape(()),
                        input_scale=torch.tensor(0.01)), wide
        if algorithm == "MXFP8":
            from modelopt.torch.quantization.qtensor import MXFP8QTensor
            tensor, scale = MXFP8QTensor.quantize(weight)
            wide = tensor.dequantize(dtype=torch.float32, scale=scale)
            return dict(weight=tensor._quantized_data, weight_scale=scale), wide
        from modelopt.torch.quantization.qtensor import FP8QTensor
        tensor, scale = FP8QTensor.quantize(weight)
        wide = tensor.dequantize(dtype=torch.float32, scale=scale)
        return dict(weight=tensor._quantized_data, weight_scale=scale.float().reshape(()),
                    input_scale=torch.tensor(0.01)), wide
    return pack


def bitsandbytes(kind, double):
    """In blocks of 64 weights, whose scales can be quantised themselves."""
    def pack(weight):
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit
        codes, state = quantize_4bit(weight, compress_statistics=double, quant_type=kind, blocksize=64)
        parts = {f"weight.{name}": value for name, value in state.as_dict(packed=True).items()}
        return parts | {"weight": codes}, dequantize_4bit(codes, state)
    return pack


def bitsandbytes_block(kind, double):
    return {"quant_method": "bitsandbytes", "_load_in_4bit": True, "_load_in_8bit": False, "load_in_4bit": True,
            "load_in_8bit": False, "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double, "llm_int8_enable_fp32_cpu_offload": False,
            "llm_int8_has_fp16_weight": False, "llm_int8_skip_modules": ["lm_head"], "llm_int8_threshold": 6.0}


def modelopt_block(algorithm):
    return {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head", "*mlp.gate"],
            "producer": {"name": "modelopt", "version": "0.40.0"}, "kv_cache_scheme": {
                "dynamic": False, "num_bits": 8, "type": "float"}}


def gptq_block(bits, version):
    return {"quant_method": "gptq", "bits": bits, "group_size": 128, "desc_act": False, "sym": False, "lm_head": False,
            "checkpoint_format": "gptq" if version == 1 else "gptq_v2", "pack_dtype": "int32",
            "meta": {"quantizer": ["gptqmodel:4.2.0"], "damp_percent": 0.01, "true_sequential": True}}


def auto_round_block(format):
    return {"quant_method": "auto-round", "packing_format": format, "bits": 4, "group_size": 128, "sym": True,
            "data_type": "int", "autoround_version": "0.9.0", "batch_size": 8, "iters": 200, "low_gpu_mem_usage": False,
            "block_name_to_quantize": "model.layers", "extra_config": {}}


def block_fp8(weight):
    """As DeepSeek-V3 and transformers' FineGrainedFP8 have it."""
    rows, cols = weight.shape
    # The last block of a side may be cut short.
    padded = torch.nn.functional.pad(weight, (0, -cols % 128, 0, -rows % 128))
    tiles = padded.reshape(padded.shape[0] // 128, 128, padded.shape[1] // 128, 128)
    scale = tiles.abs().amax((1, 3)) / 448
    codes = (tiles / scale[:, None, :, None]).to(torch.float8_e4m3fn)
    wide = (codes.float() * scale[:, None, :, None]).reshape(padded.shape)[:rows, :cols]
    return dict(weight=codes.reshape(padded.shape)[:rows, :cols], weight_scale_inv=scale), wide


INTEGERS = dict(type="int", symmetric=True, strategy="group", group_size=128)
PACKERS = [
    Packer("FP8 in blocks", block_fp8, {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}),
    Packer("AutoAWQ", awq, {
        "quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True,
        "modules_to_not_convert": None}),
    *[Packer(f"GPTQ {bits} bits, version {version}", auto_gptq(bits, version), gptq_block(bits, version))
      for bits, version in [(4, 1), (8, 1), (3, 1), (2, 1), (4, 2)]],
    Packer("AutoRound", auto_gptq(4, 2, symmetric=True), auto_round_block("auto_round:auto_gptq")
           | {"packing_format": "auto_round"}),
    Packer("AutoRound as GPTQ", auto_gptq(4, 1, symmetric=True), auto_round_block("auto_round:auto_gptq")),
    *[Packer(f"compressed-tensors {name}", *compressed(format, **arguments)) for name, format, arguments in [
        ("W4A16", "pack-quantized", INTEGERS | dict(num_bits=4)),
        ("W4A16 asymmetric", "pack-quantized", INTEGERS | dict(num_bits=4, symmetric=False)),
        ("W8A16", "pack-quantized", INTEGERS | dict(num_bits=8)),
        ("W3A16", "pack-quantized", INTEGERS | dict(num_bits=3)),
        ("W8A8", "int-quantized", dict(type="int", symmetric=True, strategy="channel", num_bits=8)),
        ("FP8 by channel", "float-quantized", dict(type="float", symmetric=True, strategy="channel", num_bits=8)),
        ("FP8 by tensor", "float-quantized", dict(type="float", symmetric=True, strategy="tensor", num_bits=8)),
        ("FP8 in blocks", "float-quantized", dict(
            type="float", symmetric=True, strategy="block", num_bits=8, block_structure=[128, 128])),
        ("NVFP4", "nvfp4-pack-quantized", dict(
            type="float", symmetric=True, strategy="tensor_group", group_size=16, num_bits=4,
            scale_dtype="torch.float8_e4m3fn")),
        ("MXFP4", "mxfp4-pack-quantized", dict(
            type="float", symmetric=True, strategy="group", group_size=32, num_bits=4, scale_dtype="torch.uint8")),
        ("MXFP8", "mxfp8-quantized", dict(
            type="float", symmetric=True, strategy="group", group_size=32, num_bits=8, scale_dtype="torch.uint8")),
    ]],
    *[Packer(f"modelopt {algorithm}", modelopt(algorithm), modelopt_block(algorithm))
      for algorithm in ("FP8", "NVFP4", "MXFP8")],
    *[Packer(f"bitsandbytes {kind}{', double' if double else ''}", bitsandbytes(kind, double), bitsandbytes_block(kind, double))
      for kind, double in [("nf4", True), ("nf4", False), ("fp4", True)]],
]
