//! Compute pipelines, made once per shader, entry point and constants, with layouts read off the WGSL.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::Gpu;
use crate::Result;

/// A WGSL module: its name and the files that make it up, each included whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shader {
    /// The name that messages and profiles have.
    pub name: &'static str,
    /// The texts, in order: together they are one module.
    pub files: &'static [&'static str],
}

/// Kernels by the shader's name, entry point and constants; those of shaders that bear one name are told by their text.
pub(super) type Kernels = HashMap<Key, Vec<(Shader, Arc<Kernel>)>>;
type Key = (&'static str, &'static str, Vec<(&'static str, u32)>);

/// A compute pipeline and what is bound to it.
pub struct Kernel {
    pub(super) name: String,
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    /// Name, binding number and whether it is written, by binding number.
    pub(super) bindings: Vec<(String, u32, bool)>,
    /// Bytes of the dispatch's parameters, as the shader declares them; 0 where it has none.
    pub(super) parameters: usize,
}

/// Bytes of one dispatch's parameters and of one step's: the alignment of dynamic uniform offsets.
pub(super) const SLOT: u64 = 256;

/// Group 1 of every pipeline: binding 0 the dispatch's parameters, binding 1 the step's.
pub(super) fn uniform_layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let entry = |binding| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Uniform,
            has_dynamic_offset: true,
            min_binding_size: None,
        },
        count: None,
    };
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("parameters"),
        entries: &[entry(0), entry(1)],
    })
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}

impl Gpu {
    /// The pipeline of `entry` in `shader` with WGSL `override` constants set.
    ///
    /// # Errors
    /// [`crate::Error::Device`] where the driver rejects the shader.
    ///
    /// # Panics
    /// If the shader is not valid WGSL or has no such entry point: the tests validate every one.
    pub fn kernel(
        &self,
        shader: Shader,
        entry: &'static str,
        constants: &[(&'static str, u32)],
    ) -> Result<Arc<Kernel>> {
        let key = (shader.name, entry, constants.to_vec());
        let kernels = || self.inner.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = kernels().get(&key)
            && let Some((_, kernel)) = made.iter().find(|(other, _)| *other == shader)
        {
            return Ok(kernel.clone());
        }
        let kernel = Arc::new(self.build(shader, entry, constants)?);
        kernels().entry(key).or_default().push((shader, kernel.clone()));
        Ok(kernel)
    }

    fn build(&self, shader: Shader, entry: &'static str, constants: &[(&str, u32)]) -> Result<Kernel> {
        let source = shader.files.join("\n");
        let Interface { bindings, parameters } = interface(shader.name, &source, entry);
        let name = format!("{} {entry}", shader.name);
        self.scoped(&format!("compiling {name}"), || {
            let device = self.device();
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some(shader.name),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            };
            // checked: without wgpu's loop bounds llvmpipe takes ten times as long to compile, and gains 1 to 8 %
            let module = device.create_shader_module(descriptor);
            let entries: Vec<_> = bindings
                .iter()
                .map(|&(_, binding, written)| wgpu::BindGroupLayoutEntry {
                    binding,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer {
                        ty: wgpu::BufferBindingType::Storage { read_only: !written },
                        has_dynamic_offset: false,
                        min_binding_size: None,
                    },
                    count: None,
                })
                .collect();
            let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(&name),
                entries: &entries,
            });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(&name),
                bind_group_layouts: &[Some(&layout), Some(&self.inner.uniform_layout)],
                immediate_size: 0,
            });
            let constants: Vec<(&str, f64)> = constants.iter().map(|&(k, v)| (k, v as f64)).collect();
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &constants,
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            });
            Kernel { name, pipeline, layout, bindings, parameters }
        })
    }
}

/// What a host wrapper has to give an entry point.
struct Interface {
    /// The storage bindings of group 0 that it uses: name, number, whether it is written; by number.
    bindings: Vec<(String, u32, bool)>,
    /// Bytes of the dispatch's parameters (group 1, binding 0); 0 where it uses none.
    parameters: usize,
}

/// The module that `source` is; the error is what is wrong with it, in as many lines as it takes.
fn parsed(source: &str) -> std::result::Result<(naga::Module, naga::valid::ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
    let (flags, all) = (naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    let info = naga::valid::Validator::new(flags, all).validate(&module);
    let info = info.map_err(|error| error.emit_to_string(source))?;
    Ok((module, info))
}

/// Whether `source` is valid WGSL with these entry points; the error is one line.
pub(crate) fn check_wgsl(source: &str, entries: &[&str]) -> std::result::Result<(), String> {
    let in_a_line = |problem: String| problem.split_whitespace().collect::<Vec<_>>().join(" ");
    let (module, _) = parsed(source).map_err(in_a_line)?;
    match entries.iter().find(|entry| module.entry_points.iter().all(|point| point.name != **entry)) {
        None => Ok(()),
        Some(missing) => Err(format!("no entry point {missing}")),
    }
}

fn interface(name: &str, source: &str, entry: &str) -> Interface {
    let (module, info) = parsed(source).unwrap_or_else(|problem| panic!("{name}: {problem}"));
    let index = module
        .entry_points
        .iter()
        .position(|point| point.name == entry)
        .unwrap_or_else(|| panic!("{name}: no entry point {entry}"));
    let used = info.get_entry_point(index);
    let (mut bindings, mut parameters) = (Vec::new(), 0);
    for (handle, variable) in module.global_variables.iter() {
        let Some(binding) = variable.binding.filter(|_| !used[handle].is_empty()) else { continue };
        match (variable.space, binding.group, binding.binding) {
            (naga::AddressSpace::Storage { access }, 0, number) => {
                let name = variable.name.clone().unwrap_or_default();
                bindings.push((name, number, access.contains(naga::StorageAccess::STORE)));
            }
            (naga::AddressSpace::Uniform, 1, 0) => {
                parameters = module.types[variable.ty].inner.size(module.to_ctx()) as usize;
            }
            _ => {}
        }
    }
    assert!(parameters as u64 <= SLOT, "{name}: {parameters} bytes of parameters, {SLOT} fit");
    bindings.sort_by_key(|&(_, number, _)| number);
    Interface { bindings, parameters }
}
