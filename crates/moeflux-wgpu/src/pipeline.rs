//! From shader sources to pipelines, each compiled once.

use std::collections::HashMap;

use crate::buffer::View;
use crate::device::block_on;
use crate::error::GpuError;

/// An entry point of a shader. Sources are put one after the other behind the constants. Bindings are numbered from 0 in
/// group 0; the shader's immediates begin with where each binding's view starts, in elements.
#[derive(Debug)]
pub struct Program {
    /// The operation.
    pub name: &'static str,
    /// The entry point.
    pub entry: &'static str,
    /// Parts of the source.
    pub source: &'static [&'static str],
}

/// Constants by name; those whose name begins with `HAS_` or `IS_` are booleans.
pub type Constants<'a> = &'a [(&'static str, u32)];

impl Program {
    /// The whole source, with its constants.
    pub fn shader(&self, constants: Constants<'_>) -> String {
        let mut source = String::new();
        for &(name, value) in constants {
            let (kind, value) = match name {
                _ if !name.starts_with("HAS_") && !name.starts_with("IS_") => ("u32", format!("{value}u")),
                _ => ("bool", (value != 0).to_string()),
            };
            source.extend(["const ", name, ": ", kind, " = ", &value, ";\n"]);
        }
        for part in self.source {
            source += part;
            source.push('\n');
        }
        source
    }
}

/// A compiled shader and the groups of buffers it has been used with.
#[derive(Debug)]
struct Compiled {
    program: &'static Program,
    constants: Vec<(&'static str, u32)>,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    /// By a digest of the buffers.
    groups: HashMap<u64, Vec<Group>>,
}

/// Some buffers, bound.
#[derive(Debug)]
struct Group {
    buffers: Vec<u64>,
    raw: wgpu::BindGroup,
}

/// All pipelines of a device, by a digest of program and constants. A step looks up a thousand of them, so that a digest of
/// numbers alone is what a lookup costs; what is found is compared in full.
#[derive(Debug, Default)]
pub(crate) struct Pipelines(HashMap<u64, Vec<Compiled>>);

impl Pipelines {
    /// The pipeline of a program, and the group of the views' buffers for it.
    pub(crate) fn get(
        &mut self,
        device: &wgpu::Device,
        program: &'static Program,
        constants: Constants<'_>,
        views: &[&View],
    ) -> Result<(&wgpu::ComputePipeline, &wgpu::BindGroup), GpuError> {
        let place = std::ptr::from_ref(program) as u64;
        let key = digest(std::iter::once(place).chain(constants.iter().map(|&(_, value)| u64::from(value))));
        let alike = self.0.entry(key).or_default();
        let is_it = |one: &Compiled| std::ptr::eq(one.program, program) && one.constants == constants;
        let index = match alike.iter().position(is_it) {
            Some(index) => index,
            None => {
                alike.push(compile(device, program, constants)?);
                alike.len() - 1
            }
        };
        let Compiled { pipeline, layout, groups, .. } = &mut alike[index];
        let ids = views.iter().map(|view| view.buffer().id);
        let alike = groups.entry(digest(ids.clone())).or_default();
        let index = match alike.iter().position(|group| group.buffers.iter().copied().eq(ids.clone())) {
            Some(index) => index,
            None => {
                let resources = views.iter().map(|view| view.buffer().raw.as_entire_binding());
                let entries: Vec<_> = (0..)
                    .zip(resources)
                    .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
                    .collect();
                let descriptor = wgpu::BindGroupDescriptor { label: None, layout, entries: &entries };
                alike.push(Group { buffers: ids.collect(), raw: device.create_bind_group(&descriptor) });
                alike.len() - 1
            }
        };
        Ok((pipeline, &alike[index].raw))
    }

    /// Every program compiled so far, with its whole source.
    pub(crate) fn shaders(&self) -> Vec<(&'static Program, String)> {
        let source = |one: &Compiled| (one.program, one.program.shader(&one.constants));
        self.0.values().flatten().map(source).collect()
    }

    /// Lets go of what refers to these buffers.
    pub(crate) fn forget(&mut self, buffers: &[u64]) {
        if !buffers.is_empty() {
            for compiled in self.0.values_mut().flatten() {
                compiled.groups.retain(|_, alike| {
                    alike.retain(|group| !group.buffers.iter().any(|id| buffers.contains(id)));
                    !alike.is_empty()
                });
            }
        }
    }
}

/// A digest of numbers, by the FNV-1a rule on whole words.
fn digest(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0xcbf2_9ce4_8422_2325, |digest, number| {
        (digest ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
    })
}

fn compile(
    device: &wgpu::Device,
    program: &'static Program,
    constants: Constants<'_>,
) -> Result<Compiled, GpuError> {
    let source = &program.shader(constants);
    let scopes = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
    let scopes = scopes.map(|filter| device.push_error_scope(filter));
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(program.name),
        source: wgpu::ShaderSource::Wgsl(source.into()),
    };
    // SAFETY: the shaders are this crate's own; their loops end, and their indices are below the lengths of the views,
    // which the functions that dispatch them compare with shapes.
    let module =
        unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
    let entries: Vec<_> = bindings(source)
        .map(|(binding, read_only)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(program.name),
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(program.name),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: IMMEDIATE_SIZE,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(program.name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(program.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &[],
            zero_initialize_workgroup_memory: false,
        },
        cache: None,
    });
    let mut cause = None;
    for scope in scopes.into_iter().rev() {
        cause = block_on(scope.pop()).or(cause);
    }
    match cause {
        None => {
            let constants = constants.to_vec();
            Ok(Compiled { program, constants, pipeline, layout, groups: HashMap::new() })
        }
        Some(error) => Err(GpuError::Compile { op: program.name.to_owned(), cause: error.to_string() }),
    }
}

/// Bytes of immediates of every pipeline.
pub(crate) const IMMEDIATE_SIZE: u32 = 128;

/// The bindings that a source declares, one a line, and whether each is only read.
fn bindings(source: &str) -> impl Iterator<Item = (u32, bool)> + '_ {
    source.lines().filter_map(|line| {
        let number = line.split("@binding(").nth(1)?.split(')').next()?;
        Some((number.parse().ok()?, !line.contains("read_write")))
    })
}
