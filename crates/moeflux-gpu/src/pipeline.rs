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

/// What identifies a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// Where the program is: there is one of each.
    program: usize,
    constants: Vec<(&'static str, u32)>,
}

/// A compiled shader and the groups of buffers it has been used with.
#[derive(Debug)]
struct Compiled {
    program: &'static Program,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    groups: HashMap<Vec<u64>, wgpu::BindGroup>,
}

/// All pipelines of a device.
#[derive(Debug, Default)]
pub(crate) struct Pipelines(HashMap<Key, Compiled>);

impl Pipelines {
    /// The pipeline of a program, and the group of the views' buffers for it.
    pub(crate) fn get(
        &mut self,
        device: &wgpu::Device,
        program: &'static Program,
        constants: Constants<'_>,
        views: &[&View],
    ) -> Result<(&wgpu::ComputePipeline, &wgpu::BindGroup), GpuError> {
        let key = Key { program: std::ptr::from_ref(program) as usize, constants: constants.to_vec() };
        let compiled = match self.0.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(compile(device, program, &program.shader(constants))?)
            }
        };
        let Compiled { pipeline, layout, groups, .. } = compiled;
        let ids: Vec<u64> = views.iter().map(|view| view.buffer().id).collect();
        let group = groups.entry(ids).or_insert_with(|| {
            let resources = views.iter().map(|view| view.buffer().raw.as_entire_binding());
            let entries: Vec<_> = (0..)
                .zip(resources)
                .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
                .collect();
            device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
        });
        Ok((pipeline, group))
    }

    /// Every program compiled so far, with its whole source.
    pub(crate) fn shaders(&self) -> Vec<(&'static Program, String)> {
        let source =
            |(key, compiled): (&Key, &Compiled)| (compiled.program, compiled.program.shader(&key.constants));
        self.0.iter().map(source).collect()
    }

    /// Lets go of what refers to these buffers.
    pub(crate) fn forget(&mut self, buffers: &[u64]) {
        if !buffers.is_empty() {
            for compiled in self.0.values_mut() {
                compiled.groups.retain(|ids, _| !ids.iter().any(|id| buffers.contains(id)));
            }
        }
    }
}

fn compile(device: &wgpu::Device, program: &'static Program, source: &str) -> Result<Compiled, GpuError> {
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
        None => Ok(Compiled { program, pipeline, layout, groups: HashMap::new() }),
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
