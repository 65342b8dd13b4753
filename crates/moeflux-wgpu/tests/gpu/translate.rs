//! Shaders validated and translated to what Vulkan, Metal and DirectX 12 take, whatever this machine's device is.

use moeflux_wgpu::Program;
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// A shader is valid with no feature but immediates, and can be written as SPIR-V, MSL and HLSL.
pub(crate) fn translate(program: &Program, source: &str) {
    let name = format!("{} ({})", program.name, program.entry);
    let module = naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(source)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::IMMEDIATES)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(source)));
    let stage = naga::ShaderStage::Compute;

    let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: program.entry.to_owned() };
    let words = spv::write_vec(&module, &info, &spv::Options::default(), Some(&pipeline))
        .unwrap_or_else(|error| panic!("{name} as SPIR-V: {error}"));
    assert_eq!(words[0], 0x0723_0203, "{name}: the first word of SPIR-V");

    let options = msl::Options { lang_version: (2, 4), ..msl::Options::default() };
    let (text, _) = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|error| panic!("{name} as MSL: {error}"));
    assert!(text.contains("kernel void"), "{name} as MSL");

    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_0,
        immediates_target: Some(hlsl::BindTarget::default()),
        ..hlsl::Options::default()
    };
    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions { entry_point: Some((stage, program.entry.to_owned())) };
    hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(&module, &info, None)
        .unwrap_or_else(|error| panic!("{name} as HLSL: {error}"));
    assert!(text.contains("[numthreads("), "{name} as HLSL");
}

/// A shader that is wrong is refused, by name.
pub(crate) fn a_wrong_shader_does_not_pass() {
    let program = Program { name: "wrong", entry: "main", source: &[] };
    let wrong = "@compute @workgroup_size(1) fn main() { let x: u32 = 1.0; }";
    let panic = std::panic::catch_unwind(|| translate(&program, wrong)).unwrap_err();
    assert!(panic.downcast_ref::<String>().is_some_and(|message| message.contains("wrong (main)")));
}
