//! Modules of GPTQ's, AWQ's, llm-compressor's and modelopt's checkpoints: values by `tools/reference/packed_vectors.py`, what
//! contradicts itself, and packs that hold the same.

use crate::fixture::{Fixture, Stored, assert_says, data, dequantize, load, open};
use moeflux_checkpoint::convert::{self, Plan, Recipe, RunOptions};
use moeflux_checkpoint::{Checkpoint, Matrix};
use moeflux_kernels::{Encoding, Float, Packing};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

/// A matrix of `[32, 64]`.
const MODULE: &str = "language_model.model.layers.1.self_attn.q_proj";
const ROWS: usize = 32;
const COLS: usize = 64;

/// MLX's fixture with plain floats for all modules.
fn plain() -> Fixture {
    let mut fixture = Fixture::mlx();
    fixture.config.as_object_mut().unwrap().remove("quantization");
    let quantised: Vec<String> =
        fixture.tensors.keys().filter_map(|name| Some(name.strip_suffix(".scales")?.to_owned())).collect();
    for module in quantised {
        let mut shape = fixture.remove(&format!("{module}.scales")).shape;
        *shape.last_mut().unwrap() = COLS;
        fixture.remove(&format!("{module}.biases"));
        fixture.add(&format!("{module}.weight"), &shape);
    }
    fixture
}

/// The vectors of a case.
struct Vectors {
    bytes: Vec<u8>,
    case: &'static str,
}

impl Vectors {
    fn of(case: &'static str) -> Self {
        Vectors { bytes: std::fs::read(data("packed_vectors.safetensors")).unwrap(), case }
    }

    fn part(&self, part: &str) -> Vec<u8> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        tensors.tensor(&format!("{}.{part}", self.case)).unwrap().data().to_vec()
    }

    fn values(&self) -> Vec<f32> {
        self.part("values").as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }
}

/// The fixture with a quantised module.
fn fixture(case: &'static str) -> Fixture {
    let vectors = Vectors::of(case);
    let mut fixture = plain();
    fixture.remove(&format!("{MODULE}.weight"));
    let (kind, rest) = case.split_once('.').unwrap_or((case, ""));
    let bits = rest.split('.').next().and_then(|bits| bits.strip_prefix('b')?.parse().ok()).unwrap_or(4);
    fixture.config["quantization_config"] = config(kind, rest.ends_with("ordered"));
    let mut add = |name: &str, part: &str, dtype, shape: &[usize]| {
        let stored = Stored { dtype, shape: shape.to_owned(), bytes: vectors.part(part) };
        fixture.tensors.insert(format!("{MODULE}.{name}"), stored);
    };
    let groups = COLS / 32;
    match kind {
        "gptq1" | "gptq2" => {
            add("qweight", "codes", Dtype::I32, &[COLS * bits / 32, ROWS]);
            add("scales", "scales", Dtype::F16, &[groups, ROWS]);
            add("qzeros", "biases", Dtype::I32, &[groups, ROWS * bits / 32]);
            let order: Vec<u8> = if rest.ends_with("ordered") {
                let groups = vectors.part("groups");
                groups.as_chunks().0.iter().flat_map(|&[low, high]| [low, high, 0, 0]).collect()
            } else {
                (0..COLS as u32).flat_map(|col| (col / 32).to_le_bytes()).collect()
            };
            let order = Stored { dtype: Dtype::I32, shape: vec![COLS], bytes: order };
            fixture.tensors.insert(format!("{MODULE}.g_idx"), order);
            // As some writers add to maps that have no bias.
            let bias = Stored { dtype: Dtype::F16, shape: vec![ROWS], bytes: vec![0; 2 * ROWS] };
            fixture.tensors.insert(format!("{MODULE}.bias"), bias);
        }
        "awq" => {
            add("qweight", "codes", Dtype::I32, &[COLS, ROWS / 8]);
            add("scales", "scales", Dtype::F16, &[groups, ROWS]);
            add("qzeros", "biases", Dtype::I32, &[groups, ROWS / 8]);
        }
        "zeros_by_row" | "symmetric" => {
            add("weight_packed", "codes", Dtype::I32, &[ROWS, COLS * bits / 32]);
            let scales = if kind == "symmetric" { Dtype::BF16 } else { Dtype::F16 };
            add("weight_scale", "scales", scales, &[ROWS, groups]);
            if kind == "zeros_by_row" {
                add("weight_zero_point", "biases", Dtype::I32, &[ROWS * bits / 32, groups]);
            }
            let shape = [ROWS as i64, COLS as i64].map(i64::to_le_bytes).concat();
            let shape = Stored { dtype: Dtype::I64, shape: vec![2], bytes: shape };
            fixture.tensors.insert(format!("{MODULE}.weight_shape"), shape);
        }
        "signed" => {
            add("weight", "codes", Dtype::I8, &[ROWS, COLS]);
            add("weight_scale", "scales", Dtype::F32, &[ROWS, 1]);
        }
        "nvfp4_divided" => {
            add("weight_packed", "codes", Dtype::U8, &[ROWS, COLS / 2]);
            add("weight_scale", "scales", Dtype::F8_E4M3, &[ROWS, COLS / 16]);
            add("weight_global_scale", "biases", Dtype::F32, &[1]);
            fixture.add_as(&format!("{MODULE}.input_global_scale"), &[1], Dtype::F32);
        }
        "nvfp4_multiplied" => {
            add("weight", "codes", Dtype::U8, &[ROWS, COLS / 2]);
            add("weight_scale", "scales", Dtype::F8_E4M3, &[ROWS, COLS / 16]);
            add("weight_scale_2", "biases", Dtype::F32, &[]);
            fixture.add_as(&format!("{MODULE}.input_scale"), &[], Dtype::F32);
        }
        _ => panic!("case {case}"),
    }
    fixture
}

/// Configs as the tools write them.
fn config(kind: &str, ordered: bool) -> Value {
    let compressed = |format: &str, weights: Value| {
        json!({
            "quant_method": "compressed-tensors", "format": format, "ignore": ["lm_head"],
            "quantization_status": "compressed", "kv_cache_scheme": null, "global_compression_ratio": null,
            "config_groups": {"group_0": {
                "targets": ["Linear"], "weights": weights, "output_activations": null, "input_activations": null,
            }},
        })
    };
    match kind {
        "gptq1" | "gptq2" => json!({
            "quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": ordered, "sym": false, "damp_percent": 0.1,
            "static_groups": false, "true_sequential": true, "lm_head": false, "pack_dtype": "int32",
            "checkpoint_format": if kind == "gptq1" { "gptq" } else { "gptq_v2" },
            "meta": {"quantizer": ["gptqmodel:4.0.0"]},
        }),
        "awq" => json!({
            "quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": true,
            "modules_to_not_convert": null,
        }),
        "zeros_by_row" | "symmetric" => compressed(
            "pack-quantized",
            json!({
                "num_bits": 4, "type": "int", "symmetric": kind == "symmetric", "strategy": "group", "group_size": 32,
                "actorder": "static", "block_structure": null, "dynamic": false, "observer": "minmax", "observer_kwargs": {},
            }),
        ),
        "signed" => compressed(
            "int-quantized",
            json!({
                "num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "dynamic": false,
            }),
        ),
        "nvfp4_divided" => compressed(
            "nvfp4-pack-quantized",
            json!({
                "num_bits": 4, "type": "float", "symmetric": true, "strategy": "tensor_group", "group_size": 16,
                "dynamic": false, "scale_dtype": "torch.float8_e4m3fn", "zp_dtype": null,
            }),
        ),
        _ => json!({
            "quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"],
            "producer": {"name": "modelopt", "version": "0.44.0"},
            "kv_cache_scheme": {"dynamic": false, "num_bits": 8, "type": "float"},
            "config_groups": {"group_0": {"targets": ["Linear"]}},
        }),
    }
}

const CASES: [&str; 18] = [
    "gptq1.b2",
    "gptq1.b3",
    "gptq1.b4",
    "gptq1.b8",
    "gptq2.b2",
    "gptq2.b3",
    "gptq2.b4",
    "gptq2.b8",
    "gptq2.b4.ordered",
    "awq",
    "zeros_by_row.b4",
    "zeros_by_row.b8",
    "symmetric.b3",
    "symmetric.b4",
    "symmetric.b8",
    "signed",
    "nvfp4_divided",
    "nvfp4_multiplied",
];

fn values_of(checkpoint: &Checkpoint) -> (Matrix, Vec<f32>) {
    let mut loaded = load(checkpoint).unwrap();
    let plain = &loaded.matrices["layers.1.self_attn.k_proj"];
    assert_eq!(plain.encoding, Encoding::Float(Float::Bf16));
    let matrix = loaded.matrices.remove("layers.1.self_attn.q_proj").unwrap();
    let values = dequantize(checkpoint, &matrix);
    (matrix, values)
}

#[test]
fn modules_are_read_in_place() {
    for case in CASES {
        let folder = fixture(case).write();
        let checkpoint = open(folder.path()).unwrap();
        let (matrix, values) = values_of(&checkpoint);
        assert!(values == Vectors::of(case).values(), "{case}");
        assert_eq!(matrix.groups.is_some(), case.ends_with("ordered"), "{case}");
        assert_eq!(matrix.bytes(), matrix.spans().map(|span| span.len).sum::<u64>(), "{case}");
    }
}

#[test]
fn packs_hold_the_same_values() {
    for case in CASES {
        let folder = fixture(case).write();
        let checkpoint = open(folder.path()).unwrap();
        let plan = |recipe: &str| {
            let recipe = Recipe::parse(recipe, 64).unwrap();
            Plan::new(&checkpoint, Vec::new(), &recipe, convert::sidecars(&checkpoint).unwrap())
        };
        let (recipe, exact) = if case.ends_with("ordered") {
            let error = plan("lossless").unwrap_err().to_string();
            assert!(error.contains(MODULE) && error.contains("--bits 8"), "{error}");
            ("8bit", false)
        } else {
            ("lossless", true)
        };
        let target = folder.path().join("pack");
        let options = RunOptions { threads: 1, restart: false };
        convert::run(&plan(recipe).unwrap(), &checkpoint, &target, &options, &|_, _| {}).unwrap();
        let pack = open(&target).unwrap();
        if exact {
            let (matrix, values) = values_of(&pack);
            assert!(values == Vectors::of(case).values(), "{case}");
            assert!(!matches!(matrix.encoding, Encoding::Packed { .. }), "{case}");
            convert::compare((&pack, &[]), (&checkpoint, &[]), 1, &|_, _| {}).unwrap();
        } else {
            let loaded = load(&pack).unwrap();
            let found = dequantize(&pack, &loaded.matrices["layers.1.self_attn.q_proj"]);
            for (found, expected) in found.iter().zip(Vectors::of(case).values()) {
                assert!((found - expected).abs() < 0.003, "{found} {expected}");
            }
        }
    }
}

#[test]
fn modules_that_contradict_themselves() {
    let refused = |case: &'static str, change: &dyn Fn(&mut Fixture), says: &[&str]| {
        let mut fixture = fixture(case);
        change(&mut fixture);
        assert_says(&fixture.load().unwrap_err(), &[&[MODULE], says].concat());
    };
    let reshape = |name: &'static str, dtype: Dtype, shape: &'static [usize]| {
        move |fixture: &mut Fixture| fixture.add_as(&format!("{MODULE}.{name}"), shape, dtype)
    };
    let without =
        |name: &'static str| move |fixture: &mut Fixture| drop(fixture.remove(&format!("{MODULE}.{name}")));
    refused("gptq1.b4", &without("scales"), &["scales is missing"]);
    refused("gptq1.b4", &without("qzeros"), &["qzeros is missing"]);
    refused("gptq1.b4", &reshape("scales", Dtype::F16, &[4, 32]), &["a multiple of 32 columns"]);
    refused("gptq1.b4", &reshape("scales", Dtype::I32, &[2, 32]), &["F32, F16 or BF16"]);
    refused("gptq1.b4", &reshape("qweight", Dtype::I32, &[9, 32]), &["64 codes of 2 to 8 bits"]);
    refused("gptq1.b4", &reshape("qweight", Dtype::I32, &[8, 31]), &["[8, 32]", "[8, 31]"]);
    refused("gptq1.b4", &reshape("qzeros", Dtype::I32, &[2, 5]), &["[2, 4]", "[2, 5]"]);
    refused("gptq1.b4", &reshape("bias", Dtype::F16, &[32]), &["bias"]);
    let order = |number: u8| {
        move |fixture: &mut Fixture| {
            fixture.tensors.get_mut(&format!("{MODULE}.g_idx")).unwrap().bytes[0] = number;
        }
    };
    refused("gptq2.b4.ordered", &order(2), &["from 0 to 1"]);
    refused("awq", &reshape("qweight", Dtype::I32, &[64, 5]), &["[64, 4]"]);
    refused("awq", &reshape("qweight", Dtype::F32, &[64, 4]), &["I32"]);
    refused("symmetric.b4", &without("weight_scale"), &["weight_scale is missing"]);
    refused("symmetric.b4", &reshape("weight_scale", Dtype::BF16, &[32, 3]), &["[32, 3]"]);
    refused("symmetric.b4", &reshape("weight_packed", Dtype::I32, &[32, 7]), &["64 codes of 2 to 8 bits"]);
    refused("symmetric.b4", &reshape("weight_g_idx", Dtype::I32, &[64]), &["weight_g_idx", "from 0 to 1"]);
    refused("zeros_by_row.b4", &reshape("weight_zero_point", Dtype::I32, &[4, 3]), &["[4, 2]"]);
    refused("signed", &reshape("weight_zero_point", Dtype::I8, &[32, 1]), &["asymmetric"]);
    refused("nvfp4_divided", &without("weight_global_scale"), &["weight_global_scale is missing"]);
    refused("nvfp4_multiplied", &without("weight_scale_2"), &["weight_scale_2 is missing"]);
    refused("nvfp4_multiplied", &reshape("weight_scale", Dtype::F8_E4M3, &[32, 2]), &["[32, 4]"]);
    // What scales inputs before they are multiplied is not passed over.
    refused("nvfp4_multiplied", &reshape("pre_quant_scale", Dtype::F32, &[64]), &["pre_quant_scale"]);
}

#[test]
fn configs_that_mean_something_else() {
    let refused = |kind: &str, field: &str, value: Value, says: &str| {
        let mut fixture = plain();
        fixture.config["quantization_config"] = config(kind, false);
        let block = &mut fixture.config["quantization_config"];
        match block.pointer_mut(field) {
            Some(place) => *place = value,
            None => block[&field[1..]] = value,
        }
        assert_says(&fixture.load().unwrap_err(), &["quantization_config", says]);
    };
    refused("gptq1", "/checkpoint_format", json!("marlin"), "gptq or gptq_v2");
    refused("gptq1", "/pack_dtype", json!("int16"), "pack_dtype");
    refused("gptq1", "/rotation", json!("hadamard"), "rotation");
    refused("gptq1", "/novelty", json!(1), "unknown field quantization_config.novelty");
    refused("awq", "/version", json!("gemv"), "version");
    refused("awq", "/zero_point", json!(false), "zero_point");
    refused("symmetric", "/format", json!("marlin-24"), "format");
    refused("symmetric", "/transform_config", json!({"config_groups": {}}), "transform_config");
    refused("symmetric", "/config_groups/group_0/weights/dynamic", json!(true), "dynamic");
    refused("nvfp4_multiplied", "/quant_algo", json!("W4A8_AWQ"), "quant_algo");
    refused("nvfp4_multiplied", "/pre_quant_scale", json!(true), "pre_quant_scale");
    let mut fixture = plain();
    fixture.config["quantization_config"] = json!({"quant_method": "hqq", "nbits": 4});
    assert_says(&fixture.load().unwrap_err(), &["quant_method", "gptq, awq", "bitsandbytes", "hqq"]);
    for (field, value) in [
        ("load_in_8bit", json!(true)),
        ("bnb_4bit_quant_storage", json!("bfloat16")),
        ("bnb_4bit_quant_type", json!("int4")),
        ("novelty", json!(1)),
    ] {
        fixture.config["quantization_config"] = json!({"quant_method": "bitsandbytes", field: value});
        assert_says(&fixture.load().unwrap_err(), &[field]);
    }
}

#[test]
fn auto_round_packs_as_others_do() {
    for (format, case) in
        [("auto_round:auto_gptq", "gptq1.b4"), ("auto_round", "gptq2.b4"), ("auto_round:auto_awq", "awq")]
    {
        let mut fixture = fixture(case);
        fixture.config["quantization_config"] = json!({
            "quant_method": "auto-round", "packing_format": format, "bits": 4, "group_size": 32, "sym": true,
            "data_type": "int", "autoround_version": "0.9.0", "iters": 200, "low_gpu_mem_usage": true,
            "extra_config": {"lm_head": {"bits": 16, "data_type": "fp"}},
        });
        let folder = fixture.write();
        let checkpoint = open(folder.path()).unwrap();
        let (matrix, values) = values_of(&checkpoint);
        assert!(values == Vectors::of(case).values(), "{format}");
        let Encoding::Packed { bits: 4, group: 32, packing, .. } = matrix.encoding else {
            panic!("{:?}", matrix.encoding)
        };
        assert_eq!(packing == Packing::Gptq { less_one: true }, case == "gptq1.b4");
        fixture.config["quantization_config"]["rotation_config"] = json!({"hadamard_type": "random"});
        assert_says(&fixture.load().unwrap_err(), &["rotation_config"]);
    }
}
