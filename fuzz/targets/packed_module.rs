//! Whatever the tensors of a quantised module are, of every format whose tensors say what they are: an error, or a matrix whose
//! rows can be read.
#![no_main]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use moeflux_checkpoint::{Checkpoint, OpenOptions};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use serde_json::{Value, json};

/// Rows and columns of the module.
const ROWS: usize = 32;
const COLS: usize = 64;

/// A tensor of a module: the end of its name, and what the format expects.
type Part = (&'static str, Dtype, &'static [usize]);

/// The JSON of bitsandbytes, whose content is a state and not a repeated pattern.
const STATE: &str = "weight.quant_state.bitsandbytes__nf4";

/// Formats: the `quantization_config`, and the tensors of a module.
fn format(choice: u8) -> (Value, &'static [Part]) {
    let compressed = |format: &str| {
        json!({"quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": {
            "targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group"}}}})
    };
    match choice % 9 {
        0 | 1 => (
            json!({"quant_method": "gptq", "bits": 4, "desc_act": choice % 9 == 0}),
            &[
                ("qweight", Dtype::I32, &[8, 32]),
                ("scales", Dtype::F16, &[2, 32]),
                ("qzeros", Dtype::I32, &[2, 4]),
                ("g_idx", Dtype::I32, &[64]),
            ],
        ),
        2 => (
            json!({"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": true}),
            &[
                ("qweight", Dtype::I32, &[64, 4]),
                ("scales", Dtype::F16, &[2, 32]),
                ("qzeros", Dtype::I32, &[2, 4]),
            ],
        ),
        3 => (
            compressed("pack-quantized"),
            &[
                ("weight_packed", Dtype::I32, &[32, 8]),
                ("weight_scale", Dtype::BF16, &[32, 2]),
                ("weight_zero_point", Dtype::I32, &[4, 2]),
                ("weight_shape", Dtype::I64, &[2]),
                ("weight_g_idx", Dtype::I32, &[64]),
            ],
        ),
        4 => (
            compressed("int-quantized"),
            &[
                ("weight", Dtype::I8, &[32, 64]),
                ("weight_scale", Dtype::F32, &[32, 1]),
                ("weight_zero_point", Dtype::I8, &[32, 1]),
            ],
        ),
        5 => (
            compressed("nvfp4-pack-quantized"),
            &[
                ("weight_packed", Dtype::U8, &[32, 32]),
                ("weight_scale", Dtype::F8_E4M3, &[32, 4]),
                ("weight_global_scale", Dtype::F32, &[1]),
            ],
        ),
        6 => (
            json!({"quant_method": "modelopt", "quant_algo": "MXFP8"}),
            &[
                ("weight", Dtype::F8_E4M3, &[32, 64]),
                ("weight_scale", Dtype::U8, &[32, 2]),
                ("weight_scale_2", Dtype::F32, &[]),
            ],
        ),
        8 => (
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
            &[
                ("weight", Dtype::U8, &[1024, 1]),
                ("weight.absmax", Dtype::U8, &[32]),
                ("weight.nested_absmax", Dtype::F32, &[1]),
                ("weight.nested_quant_map", Dtype::F32, &[256]),
                (STATE, Dtype::U8, &[0]),
            ],
        ),
        _ => (
            json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 16]}),
            &[
                ("weight", Dtype::F8_E4M3, &[32, 64]),
                ("weight_scale_inv", Dtype::F32, &[2, 4]),
                ("input_scale", Dtype::F32, &[1]),
            ],
        ),
    }
}

const DTYPES: [Dtype; 12] = [
    Dtype::BOOL,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F16,
    Dtype::BF16,
    Dtype::I32,
    Dtype::U32,
    Dtype::F32,
    Dtype::I64,
];

/// Bytes as choices; zeros when they are used up.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Another shape, of few elements.
    fn shape(&mut self, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        let at = usize::from(self.next()) % shape.len().max(1);
        match self.next() % 6 {
            0 => shape.reverse(),
            1 => shape.push(1),
            2 => drop(shape.pop()),
            3 if !shape.is_empty() => shape[at] = usize::from(self.next() % 130),
            4 if !shape.is_empty() => shape[at] *= 2,
            _ => shape.insert(0, 1),
        }
        shape
    }
}

fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("moeflux-packed-module-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        folder
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Bytes(bytes);
    let (quantization, parts) = format(bytes.next());
    let mut stored: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (part, dtype, shape) in parts {
        let (mut dtype, mut shape) = (*dtype, shape.to_vec());
        match bytes.next() % 8 {
            0 => continue,
            1 => dtype = DTYPES[usize::from(bytes.next()) % DTYPES.len()],
            2 => shape = bytes.shape(&shape),
            3 => (dtype, shape) = (DTYPES[usize::from(bytes.next()) % DTYPES.len()], bytes.shape(&shape)),
            _ => {}
        }
        let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        // Contents repeat a few bytes, so that zeros, ones and orders of columns come about.
        let pattern = [bytes.next(), bytes.next(), bytes.next(), bytes.next()];
        let mut contents: Vec<u8> = pattern.iter().copied().cycle().take(len).collect();
        if *part == STATE {
            let block = |byte: u8| [64, 32, 0, 7][usize::from(byte % 4)];
            let state = json!({
                "blocksize": block(pattern[0]), "shape": [ROWS, COLS], "nested_blocksize": block(pattern[1]) * 4,
                "nested_offset": f32::from_bits(u32::from_le_bytes(pattern)),
            });
            contents = state.to_string().into_bytes();
            (dtype, shape) = (Dtype::U8, vec![contents.len()]);
        }
        stored.insert(format!("model.layers.0.self_attn.q_proj.{part}"), (dtype, shape, contents));
    }
    let config = json!({
        "model_type": "llama", "vocab_size": 64, "hidden_size": COLS, "num_hidden_layers": 1, "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": ROWS, "intermediate_size": 64, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "quantization_config": quantization,
    });
    let folder = folder();
    let views = stored.iter().map(|(name, (dtype, shape, contents))| {
        (name, TensorView::new(*dtype, shape.clone(), contents).expect("contents have the shape's length"))
    });
    let file = serialize(views, None).expect("names and shapes are plain");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("the folder can be written");
    std::fs::write(folder.join("model.safetensors"), file).expect("the folder can be written");

    let Ok(checkpoint) = Checkpoint::open(folder, &OpenOptions::default()) else { return };
    let Ok(weights) = checkpoint.weights() else { return };
    if let Ok(matrix) = weights.matrix("layers.0.self_attn.q_proj", ROWS, COLS) {
        let view = checkpoint.view(&matrix);
        let mut values = vec![0.0; COLS];
        for row in 0..ROWS {
            view.dequantize_row(row, &mut values);
        }
        let _ = weights.finish();
    }
});
