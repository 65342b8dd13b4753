"""What writes the doubles: transformers, its FP8, mlx-lm, and llama.cpp's converter."""

import ctypes
import json
import shutil
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import doubles


def save(folder, config, tensors):
    """A checkpoint of one file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    doubles.write_tokenizer(folder)
    return folder


def transformers_5(folder, model):
    """`save_pretrained` in shards, with the config that transformers writes."""
    model.save_pretrained(folder, max_shard_size="12MB")
    doubles.write_tokenizer(folder)
    return folder


def hub(folder, model, config):
    """The same weights under the published config."""
    transformers_5(folder, model)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def tensors_of(folder):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def mlx(source, folder, **how):
    """What `mlx_lm.convert` writes."""
    from mlx_lm import convert
    shutil.rmtree(folder, ignore_errors=True)
    convert(str(source), str(folder), quantize=bool(how), **how)
    return folder


def mlx_logprobs(folder, ids):
    """Log-probabilities that mlx-lm computes in float32."""
    import mlx.core as mx
    from mlx_lm.utils import load_model
    mx.set_default_device(mx.cpu)
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    logits = model(mx.array([ids]))[0].astype(mx.float32)
    return torch.log_softmax(torch.from_numpy(np.array(logits)), -1)


def gguf(source, file, llama_cpp):
    """What llama.cpp's converter writes, in BF16."""
    if str(llama_cpp) not in sys.path:
        sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    import gguf as package
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    from conversion.base import TextModel
    # The tokenizer of the tests is none that the converter knows by its hash; it splits words as Qwen3.5's does.
    TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen35"
    TextModel._set_vocab_glm = TextModel._set_vocab_gpt2
    hparams = ModelBase.load_hparams(source, False)
    kind = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    # Layers that predict further tokens are left out, as with `--no-mtp`.
    kind.no_mtp, kind.mtp_only = True, False
    with torch.inference_mode():
        kind(source, package.LlamaFileType.MOSTLY_BF16, file, eager=True, model_name="double").write()
    return file


def like(reader, file):
    """A writer of a file with the metadata of another."""
    import gguf as package
    writer = package.GGUFWriter(file, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        sub = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub)
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Ggml:
    """GGML's own quantisers, of `libggml-base.so` of any build of llama.cpp."""

    class Memory(ctypes.Structure):
        _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]

    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))
        # Fills tables that quantisers use.
        self.library.ggml_init.argtypes, self.library.ggml_init.restype = [self.Memory], ctypes.c_void_p
        self.library.ggml_init(self.Memory(1 << 20, None, True))
        pointer = ctypes.c_void_p
        self.library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer] + [ctypes.c_int64] * 3 + [pointer]
        self.library.ggml_quantize_chunk.restype = ctypes.c_size_t

    def quantize(self, floats, kind):
        import gguf as package
        block, size = package.GGML_QUANT_SIZES[kind]
        rows, cols = floats.size // floats.shape[-1], floats.shape[-1]
        floats = np.ascontiguousarray(floats, np.float32)
        out = np.zeros((*floats.shape[:-1], cols // block * size), np.uint8)
        # The types of fewest bits want to know how much each column counts.
        importance = np.ones(cols, np.float32)
        written = self.library.ggml_quantize_chunk(
            int(kind), floats.ctypes.data, out.ctypes.data, 0, rows, cols, importance.ctypes.data)
        assert written == out.nbytes
        return out


def gguf_quantised(source, file, type_name, ggml=None):
    """The BF16 file with every matrix whose rows are whole blocks in a type, by GGML's quantisers or those of the `gguf` package;
    and what the package reads back, under the names of the file."""
    import gguf as package
    kind = package.GGMLQuantizationType[type_name]
    reader = package.GGUFReader(source)
    writer = like(reader, file)
    values = {}
    for tensor in reader.tensors:
        floats = package.dequantize(tensor.data, tensor.tensor_type)
        block = package.GGML_QUANT_SIZES[kind][0]
        plain = "ffn_gate_inp" in tensor.name or "ssm_conv" in tensor.name
        if floats.ndim < 2 or floats.shape[-1] % block or plain:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            values[tensor.name] = floats
            continue
        data = ggml.quantize(floats, kind) if ggml else package.quantize(floats, kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
        values[tensor.name] = package.dequantize(data, kind)
    finish(writer)
    return values


def gguf_of_values(source, file, values):
    """The same file in float32, of these values."""
    import gguf as package
    reader = package.GGUFReader(source)
    writer = like(reader, file)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.ascontiguousarray(values[tensor.name], np.float32))
    finish(writer)
    return file
