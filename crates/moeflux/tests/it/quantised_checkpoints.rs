//! Checkpoints of GPTQ, AWQ, llm-compressor, modelopt and bitsandbytes: the same logits, bit for bit, as a checkpoint of their weights in
//! float32; mapped, streamed, and as packs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::data;
use moeflux::checkpoint::{Checkpoint, OpenOptions};
use moeflux::convert::{self, RunOptions};
use moeflux::experts::ExpertOptions;
use moeflux::placement::MemoryRequest;
use moeflux::{Engine, EngineOptions, Error, Model, ModelOptions, Precision};
use moeflux_kernels::{Codebook, Encoding, Float, Matrix, Packing};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A tensor: type, shape, bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    /// Float16 numbers from 2^-8 to 2^-6.
    fn halves(&mut self, n: usize) -> Vec<u8> {
        (0..n).flat_map(|_| (0x1c00 + (self.next() % 0x800) as u16).to_le_bytes()).collect()
    }
}

/// A format, and how its modules are made of random numbers.
struct Case {
    name: &'static str,
    config: Value,
    encoding: Encoding,
    /// Whether columns have their groups in another order.
    ordered: bool,
    /// Whether scales are quantised themselves.
    nested: bool,
}

fn cases() -> Vec<Case> {
    let packed = |packing| Encoding::Packed { bits: 4, group: 32, params: Float::F16, packing };
    let gptq = |ordered: bool| json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": ordered, "sym": false});
    let compressed = |symmetric: bool| {
        json!({
            "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head", "re:.*mlp.gate$"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                "num_bits": 4, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": 32,
            }}},
        })
    };
    vec![
        Case {
            name: "gptq",
            config: gptq(false),
            encoding: packed(Packing::Gptq { less_one: true }),
            ordered: false,
            nested: false,
        },
        Case {
            name: "gptq, ordered",
            config: gptq(true),
            encoding: packed(Packing::Gptq { less_one: true }),
            ordered: true,
            nested: false,
        },
        Case {
            name: "awq",
            config: json!({
                "quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": true,
            }),
            encoding: packed(Packing::Awq),
            ordered: false,
            nested: false,
        },
        Case {
            name: "asymmetric",
            config: compressed(false),
            encoding: packed(Packing::ZerosByRow),
            ordered: false,
            nested: false,
        },
        Case {
            name: "symmetric",
            config: compressed(true),
            encoding: Encoding::Symmetric { bits: 4, group: 32, params: Float::F16, signed: false },
            ordered: false,
            nested: false,
        },
        Case {
            name: "nvfp4",
            config: json!({
                "quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"], "producer": {"name": "modelopt"},
            }),
            encoding: Encoding::Nvfp4Scaled { divided: false },
            ordered: false,
            nested: false,
        },
        Case {
            name: "bitsandbytes",
            config: json!({
                "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_use_double_quant": false, "bnb_4bit_compute_dtype": "bfloat16",
            }),
            encoding: Encoding::Codebook { table: Codebook::Nf4, group: 32 },
            ordered: false,
            nested: false,
        },
        Case {
            name: "bitsandbytes, double",
            config: json!({
                "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "fp4",
                "bnb_4bit_use_double_quant": true, "bnb_4bit_compute_dtype": "float32",
            }),
            encoding: Encoding::Codebook { table: Codebook::Fp4, group: 32 },
            ordered: false,
            nested: true,
        },
    ]
}

/// Scales as bytes, and their values as float32.
struct Nested {
    codes: Vec<u8>,
    table: Vec<u8>,
    absmax: Vec<u8>,
    values: Vec<u8>,
}

impl Nested {
    const BLOCK: usize = 256;
    const OFFSET: f32 = 0.0125;

    fn new(count: usize, random: &mut Random) -> Self {
        let codes = random.bytes(count);
        let table: Vec<f32> = (0..256).map(|code| (code as f32 - 127.0) / 128.0).collect();
        let absmax: Vec<f32> =
            (0..count.div_ceil(Self::BLOCK)).map(|block| 0.01 + block as f32 * 1e-3).collect();
        let values = codes
            .iter()
            .enumerate()
            .map(|(at, &code)| table[usize::from(code)] * absmax[at / Self::BLOCK] + Self::OFFSET);
        let values = values.flat_map(f32::to_le_bytes).collect();
        let [table, absmax] =
            [table, absmax].map(|floats| floats.into_iter().flat_map(f32::to_le_bytes).collect());
        Nested { codes, table, absmax, values }
    }
}

/// A module of a `[rows, cols]` map: its tensors by the ends of their names, and its weights as float32.
fn module(
    case: &Case,
    rows: usize,
    cols: usize,
    random: &mut Random,
) -> (Vec<(&'static str, Stored)>, Stored) {
    let [codes, scales, biases] = case.encoding.part_bytes(rows, cols).unwrap();
    let groups = cols / 32;
    let codes = random.bytes(codes);
    let nested = case.nested.then(|| Nested::new(scales / 4, random));
    let (scales, biases) = match case.encoding {
        Encoding::Nvfp4Scaled { .. } => {
            let scales: Vec<u8> = random.bytes(scales).iter().map(|scale| 0x28 + scale % 0x18).collect();
            (scales, 0.01f32.to_le_bytes().to_vec())
        }
        Encoding::Codebook { .. } => match &nested {
            Some(nested) => (nested.values.clone(), Vec::new()),
            None => {
                let scales = (0..scales / 4).map(|_| 0.01 + (random.next() % 1000) as f32 * 1e-5);
                (scales.flat_map(f32::to_le_bytes).collect(), Vec::new())
            }
        },
        _ => (random.halves(scales / 2), random.bytes(biases)),
    };
    let order: Vec<u16> =
        (0..cols).map(|col| if case.ordered { col * 7 % groups } else { col / 32 } as u16).collect();
    let w = Matrix::new(rows, cols, case.encoding, &codes, &scales, &biases).unwrap();
    let w = if case.ordered { w.with_groups(&order) } else { w };
    let mut values = vec![0.0; rows * cols];
    for (row, values) in values.chunks_exact_mut(cols).enumerate() {
        w.dequantize_row(row, values);
    }
    let values = values.into_iter().flat_map(f32::to_le_bytes).collect();
    let order = order.into_iter().flat_map(|group| u32::from(group).to_le_bytes()).collect();
    let stored = match case.encoding {
        Encoding::Packed { packing: Packing::Gptq { .. }, .. } => vec![
            ("qweight", (Dtype::I32, vec![cols / 8, rows], codes)),
            ("scales", (Dtype::F16, vec![groups, rows], scales)),
            ("qzeros", (Dtype::I32, vec![groups, rows / 8], biases)),
            ("g_idx", (Dtype::I32, vec![cols], order)),
        ],
        Encoding::Packed { packing: Packing::Awq, .. } => vec![
            ("qweight", (Dtype::I32, vec![cols, rows / 8], codes)),
            ("scales", (Dtype::F16, vec![groups, rows], scales)),
            ("qzeros", (Dtype::I32, vec![groups, rows / 8], biases)),
        ],
        Encoding::Packed { .. } => vec![
            ("weight_packed", (Dtype::I32, vec![rows, cols / 8], codes)),
            ("weight_scale", (Dtype::F16, vec![rows, groups], scales)),
            ("weight_zero_point", (Dtype::I32, vec![rows / 8, groups], biases)),
            ("weight_shape", (Dtype::I64, vec![2], [rows, cols].map(|n| (n as u64).to_le_bytes()).concat())),
        ],
        Encoding::Symmetric { .. } => vec![
            ("weight_packed", (Dtype::I32, vec![rows, cols / 8], codes)),
            ("weight_scale", (Dtype::F16, vec![rows, groups], scales)),
            ("weight_shape", (Dtype::I64, vec![2], [rows, cols].map(|n| (n as u64).to_le_bytes()).concat())),
        ],
        Encoding::Codebook { table, group } => {
            let kind = if table == Codebook::Nf4 { "nf4" } else { "fp4" };
            let mut state = json!({
                "quant_type": kind, "blocksize": group, "dtype": "bfloat16", "shape": [rows, cols],
            });
            let values = table.values().iter().flat_map(|value| value.to_le_bytes()).collect();
            let count = rows * cols / group;
            let mut stored = vec![
                ("weight", (Dtype::U8, vec![rows * cols / 2, 1], codes)),
                ("weight.quant_map", (Dtype::F32, vec![16], values)),
            ];
            match nested {
                None => stored.push(("weight.absmax", (Dtype::F32, vec![count], scales))),
                Some(nested) => {
                    state["nested_blocksize"] = json!(Nested::BLOCK);
                    state["nested_offset"] = json!(Nested::OFFSET);
                    state["nested_dtype"] = json!("float32");
                    let blocks = count.div_ceil(Nested::BLOCK);
                    stored.extend([
                        ("weight.absmax", (Dtype::U8, vec![count], nested.codes)),
                        ("weight.nested_absmax", (Dtype::F32, vec![blocks], nested.absmax)),
                        ("weight.nested_quant_map", (Dtype::F32, vec![256], nested.table)),
                    ]);
                }
            }
            let name = match table {
                Codebook::Nf4 => "weight.quant_state.bitsandbytes__nf4",
                Codebook::Fp4 => "weight.quant_state.bitsandbytes__fp4",
            };
            let state = state.to_string().into_bytes();
            stored.push((name, (Dtype::U8, vec![state.len()], state)));
            stored
        }
        _ => vec![
            ("weight", (Dtype::U8, vec![rows, cols / 2], codes)),
            ("weight_scale", (Dtype::F8_E4M3, vec![rows, cols / 16], scales)),
            ("weight_scale_2", (Dtype::F32, vec![], biases)),
            ("input_scale", (Dtype::F32, vec![], 1f32.to_le_bytes().to_vec())),
        ],
    };
    (stored, (Dtype::F32, vec![rows, cols], values))
}

/// Writes a checkpoint like `source` with these tensors.
fn write(source: &Path, tensors: &BTreeMap<String, Stored>, quantization: Option<&Value>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let mut config: Value = serde_json::from_slice(&fs::read(source.join("config.json")).unwrap()).unwrap();
    if let Some(quantization) = quantization {
        config["quantization_config"] = quantization.clone();
    }
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(folder.path().join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    folder
}

/// A checkpoint of the format, and one of the same weights in float32.
fn twins(case: &Case) -> [TempDir; 2] {
    let source = data("qwen3_moe/hf");
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default()).unwrap();
    let mut random = Random(1);
    let (mut quantised, mut floats) = (BTreeMap::new(), BTreeMap::new());
    for tensor in checkpoint.tensors() {
        let is_map = tensor.name.contains("_proj.");
        if let (true, [rows, cols]) = (is_map, &tensor.shape[..]) {
            let module_name = tensor.name.strip_suffix(".weight").unwrap();
            let (stored, values) = module(case, *rows, *cols, &mut random);
            quantised
                .extend(stored.into_iter().map(|(part, stored)| (format!("{module_name}.{part}"), stored)));
            floats.insert(tensor.name.clone(), values);
        } else {
            let stored: Stored = (Dtype::BF16, tensor.shape.clone(), checkpoint.bytes(tensor.span).to_vec());
            quantised.insert(tensor.name.clone(), stored.clone());
            floats.insert(tensor.name.clone(), stored);
        }
    }
    [write(&source, &quantised, Some(&case.config)), write(&source, &floats, None)]
}

fn engine(folder: &Path, precision: Precision, budget: Option<u64>) -> Result<Engine, Error> {
    let model = Model::open(folder, &ModelOptions::default()).unwrap();
    let memory = MemoryRequest { process: None, experts: budget };
    let experts = ExpertOptions { memory, ..ExpertOptions::default() };
    let options = EngineOptions { threads: 2, precision, experts, ..EngineOptions::default() };
    Engine::new(model, &options)
}

fn logits(folder: &Path, precision: Precision, budget: Option<u64>) -> Vec<f32> {
    let mut engine = engine(folder, precision, budget).unwrap();
    let vocab_size = engine.model().vocab_size() as u32;
    let tokens: Vec<u32> = (0..24).map(|i| (i * 7919 + 13) % vocab_size).collect();
    let mut sequence = engine.sequence();
    let logits = engine.eval_all(&mut sequence, &tokens).unwrap();
    assert_eq!(engine.experts().is_some(), budget.is_some());
    logits
}

#[test]
fn logits_are_those_of_the_same_weights_in_float32() {
    let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for case in cases() {
        let [quantised, floats] = twins(&case);
        let expected = logits(floats.path(), Precision::Exact, None);
        assert!(expected.iter().all(|logit| logit.is_finite()), "{}", case.name);
        let expected = bits(expected);
        assert!(bits(logits(quantised.path(), Precision::Exact, None)) == expected, "{}", case.name);
        let small = Some(400_000);
        let fast = bits(logits(quantised.path(), Precision::Fast, None));
        if case.nested {
            let error = engine(quantised.path(), Precision::Exact, small).err().unwrap().to_string();
            assert!(error.contains("quantised") && error.contains("moeflux convert"), "{error}");
        } else {
            for (precision, expected) in [(Precision::Exact, &expected), (Precision::Fast, &fast)] {
                let found = bits(logits(quantised.path(), precision, small));
                assert!(found == *expected, "{}, {precision:?}, streamed", case.name);
            }
        }

        let model = Model::open(quantised.path(), &ModelOptions::default()).unwrap();
        let plan = |recipe: &str| convert::plan(&model, &recipe.parse().unwrap());
        if case.ordered {
            let error = plan("lossless").unwrap_err().to_string();
            assert!(error.contains("act-order") && error.contains("--bits 8"), "{error}");
            continue;
        }
        let target = quantised.path().join("pack");
        let options = RunOptions { threads: 2, restart: false };
        convert::run(&plan("lossless").unwrap(), model.checkpoint(), &target, &options, &|_, _| {}).unwrap();
        assert!(bits(logits(&target, Precision::Exact, None)) == expected, "{}, pack", case.name);
        assert!(bits(logits(&target, Precision::Exact, small)) == expected, "{}, pack, streamed", case.name);
    }
}
