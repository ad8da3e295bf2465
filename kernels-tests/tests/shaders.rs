//! naga validates every shader for WebGPU without any feature, finds every entry point within WebGPU's
//! default limits, and translates it to SPIR-V, MSL, HLSL and GLSL.

use std::collections::BTreeSet;
use std::path::Path;

use curvkit::kernels::shaders;
use naga::back::{PipelineConstants, glsl, hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage};

/// Bytes of one dispatch's parameters and of one step's.
const UNIFORM_SLOT: u32 = 256;

fn parse(name: &str, files: &[&str]) -> (Module, ModuleInfo) {
    let source = files.join("\n");
    let module = naga::front::wgsl::parse_str(&source)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
    (module, info)
}

/// The values that the host gives to a shader's constants: every combination that it may.
fn constants(name: &str) -> Vec<Vec<(&'static str, u32)>> {
    let pairs = |(a, of_a): (&'static str, u32), (b, of_b): (&'static str, u32)| {
        (0..of_a * of_b).map(|i| vec![(a, i / of_b), (b, i % of_b)]).collect()
    };
    match name {
        "loss" => pairs(("LOSS", 4), ("CLASSES", 2)),
        "pointwise" => (0..7).map(|sigma| vec![("SIGMA", sigma)]).collect(),
        "conv_register" => (1..=32)
            .flat_map(|span| [(span, 0, 32), (span, 1, 32), (span.min(16), 0, 16), (span.min(16), 1, 16)])
            .map(|(span, slides, columns)| vec![("SPAN", span), ("SLIDES", slides), ("COLUMNS", columns)])
            .collect(),
        "conv_workgroup" => [(8, 16), (4, 16), (2, 16), (1, 32), (4, 8)]
            .into_iter()
            .map(|(ly, lx)| vec![("LX", lx), ("LY", ly)])
            .collect(),
        "gemm_workgroup" => pairs(("LAYOUT", 3), ("RUNS", 2)),
        "gemm_register" => [8, 4, 2, 1]
            .into_iter()
            .flat_map(|lx| (0..3).map(move |layout| vec![("LX", lx), ("LY", 8 / lx), ("LAYOUT", layout)]))
            .collect(),
        _ => vec![vec![]],
    }
}

#[test]
fn every_shader_file_and_entry_point_is_listed() {
    let listed: BTreeSet<&str> = shaders().iter().flat_map(|(shader, _)| shader.files).copied().collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shaders");
    let paths = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    for path in &paths {
        let source = std::fs::read_to_string(path).unwrap();
        assert!(listed.contains(source.as_str()), "{} is in no shader", path.display());
    }
    // and what is made of lists that Rust has
    let made = listed.iter().filter(|text| text.starts_with("// numbers that Rust and WGSL share")).count();
    assert_eq!(listed.len() - made, paths.len(), "files listed against files there");
    for (shader, entries) in shaders() {
        let (module, _) = parse(shader.name, shader.files);
        let found: BTreeSet<&str> = module.entry_points.iter().map(|point| point.name.as_str()).collect();
        assert_eq!(found, entries.iter().copied().collect(), "{}", shader.name);
    }
}

#[test]
fn every_entry_point_keeps_within_the_default_limits() {
    let limits = wgpu::Limits::default();
    for (shader, entries) in shaders() {
        let (module, info) = parse(shader.name, shader.files);
        for values in constants(shader.name) {
            for entry in entries {
                let what = format!("{} {entry} {values:?}", shader.name);
                let (module, info) = resolved(&what, &module, &info, entry, &values);
                let [point] = &module.entry_points[..] else { panic!("{what}: more than one entry point") };
                let used = info.get_entry_point(0);
                let (mut storage, mut uniforms, mut workgroup) = (0, 0, 0);
                for (handle, variable) in module.global_variables.iter() {
                    if used[handle].is_empty() {
                        continue;
                    }
                    let size = || module.types[variable.ty].inner.size(module.to_ctx());
                    match variable.space {
                        AddressSpace::Storage { .. } => {
                            storage += 1;
                            assert_eq!(variable.binding.unwrap().group, 0, "{what}: {:?}", variable.name);
                        }
                        AddressSpace::Uniform => {
                            uniforms += 1;
                            assert_eq!(variable.binding.unwrap().group, 1, "{what}: {:?}", variable.name);
                            assert!(
                                size() <= UNIFORM_SLOT,
                                "{what}: {:?} has {} bytes",
                                variable.name,
                                size()
                            );
                        }
                        AddressSpace::WorkGroup => workgroup += size(),
                        space => panic!("{what}: {:?} in {space:?}", variable.name),
                    }
                }
                let [x, y, z] = point.workgroup_size;
                assert!(
                    storage <= limits.max_storage_buffers_per_shader_stage,
                    "{what}: {storage} storage buffers"
                );
                assert!(uniforms <= 2, "{what}: {uniforms} uniform buffers");
                assert!(workgroup <= limits.max_compute_workgroup_storage_size, "{what}: {workgroup} bytes");
                let invocations = x * y * z;
                assert!(invocations <= limits.max_compute_invocations_per_workgroup, "{what}: {invocations}");
                assert!(x <= limits.max_compute_workgroup_size_x, "{what}: {x} invocations along x");
                assert!(y <= limits.max_compute_workgroup_size_y, "{what}: {y} invocations along y");
                assert!(z <= limits.max_compute_workgroup_size_z, "{what}: {z} invocations along z");
            }
        }
    }
}

#[test]
fn every_entry_point_translates_to_every_language() {
    for (shader, entries) in shaders() {
        let (module, info) = parse(shader.name, shader.files);
        for values in constants(shader.name) {
            for entry in entries {
                let what = format!("{} {entry} {values:?}", shader.name);
                let (module, info) = resolved(&what, &module, &info, entry, &values);
                to_spirv(&module, &info, entry).unwrap_or_else(|error| panic!("{what}: SPIR-V: {error}"));
                to_msl(&module, &info, entry).unwrap_or_else(|error| panic!("{what}: MSL: {error}"));
                to_hlsl(&module, &info, entry).unwrap_or_else(|error| panic!("{what}: HLSL: {error}"));
                to_glsl(&module, &info, entry).unwrap_or_else(|error| panic!("{what}: GLSL: {error}"));
            }
        }
    }
}

/// The module with `entry` alone and those of `values` that it uses put in their places.
fn resolved(
    what: &str,
    module: &Module,
    info: &ModuleInfo,
    entry: &str,
    values: &[(&str, u32)],
) -> (Module, ModuleInfo) {
    let values: PipelineConstants =
        values.iter().map(|&(name, value)| (name.to_string(), f64::from(value))).collect();
    let (module, info) = process_overrides(module, info, Some((ShaderStage::Compute, entry)), &values)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    (module.into_owned(), info.into_owned())
}

/// As wgpu sets them where a device does not promise robust access.
const CHECKED: BoundsCheckPolicies = BoundsCheckPolicies {
    index: BoundsCheckPolicy::Restrict,
    buffer: BoundsCheckPolicy::Restrict,
    image_load: BoundsCheckPolicy::Restrict,
    binding_array: BoundsCheckPolicy::Restrict,
};

fn to_spirv(module: &Module, info: &ModuleInfo, entry: &str) -> Result<(), String> {
    let options = spv::Options {
        // Vulkan 1.0 and nothing optional
        lang_version: (1, 0),
        capabilities: Some([spv::Capability::Shader].into_iter().collect()),
        bounds_check_policies: CHECKED,
        ..Default::default()
    };
    let point = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_string() };
    let words = spv::write_vec(module, info, &options, Some(&point)).map_err(|error| error.to_string())?;
    assert_eq!(words[0], 0x0723_0203, "SPIR-V's magic number");
    Ok(())
}

fn to_msl(module: &Module, info: &ModuleInfo, entry: &str) -> Result<(), String> {
    let options = msl::Options { lang_version: (2, 0), bounds_check_policies: CHECKED, ..Default::default() };
    let point = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, entry.to_string())),
        ..Default::default()
    };
    let (text, translation) =
        msl::write_string(module, info, &options, &point).map_err(|error| error.to_string())?;
    for name in translation.entry_point_names {
        let name = name.map_err(|error| error.to_string())?;
        assert!(text.contains(&format!("kernel void {name}(")), "no kernel {name} in\n{text}");
    }
    Ok(())
}

fn to_hlsl(module: &Module, info: &ModuleInfo, entry: &str) -> Result<(), String> {
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V5_1, ..Default::default() };
    let point = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.to_string())) };
    let mut text = String::new();
    let translation = hlsl::Writer::new(&mut text, &options, &point)
        .write(module, info, None)
        .map_err(|error| error.to_string())?;
    for name in translation.entry_point_names {
        name.map_err(|error| error.to_string())?;
    }
    assert!(text.contains("[numthreads("), "no compute shader in\n{text}");
    Ok(())
}

fn to_glsl(module: &Module, info: &ModuleInfo, entry: &str) -> Result<(), String> {
    let options = glsl::Options { version: glsl::Version::new_gles(310), ..Default::default() };
    let point = glsl::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: entry.to_string(),
        multiview: None,
    };
    let mut text = String::new();
    glsl::Writer::new(&mut text, module, info, &options, &point, CHECKED)
        .and_then(|mut writer| writer.write())
        .map_err(|error| error.to_string())?;
    assert!(text.contains("local_size_x"), "no compute shader in\n{text}");
    Ok(())
}
