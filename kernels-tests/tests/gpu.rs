//! The device layer: adapters, limits, buffers and their pool, recorded programs, errors.

use std::sync::Arc;

use curvkit::Error;
use curvkit::gpu::{
    ALIGN, Buffer, Gpu, GpuOptions, LimitsChoice, Recorder, Shader, View, Work, adapters, grid,
};
use curvkit::kernels::Step;
use curvkit::kernels::gemm::{Family, Gemm, Layout, Matrix, Shape, gemm_with};
use curvkit::kernels::{sgd, vector};
use kernels_tests::cases::random;
use kernels_tests::device::{bindings_of, gpu, own_device, poisoned, program, read, run, upload};

fn error(options: GpuOptions) -> Error {
    Gpu::new(&options).expect_err("an error")
}

#[test]
fn adapters_are_listed() {
    let all = adapters();
    assert!(!all.is_empty(), "no adapter");
    for (i, adapter) in all.iter().enumerate() {
        assert_eq!(adapter.index, i);
        assert!(!adapter.name.is_empty() && !adapter.backend.is_empty() && !adapter.device_type.is_empty());
        // at least what WebGPU promises
        assert!(adapter.max_buffer_size >= 256 << 20, "{adapter:?}");
        assert!(adapter.max_storage_buffer_binding_size >= 128 << 20, "{adapter:?}");
        assert!(adapter.max_storage_buffers_per_shader_stage >= 8, "{adapter:?}");
        assert!(adapter.max_compute_invocations_per_workgroup >= 256, "{adapter:?}");
        assert!(adapter.max_compute_workgroup_storage_size >= 16 << 10, "{adapter:?}");
        let [low, high] = adapter.subgroup_size;
        assert!(low <= high, "{adapter:?}");
    }
    assert!(all.iter().any(|adapter| adapter.name == gpu().info().name), "the device's own");
}

#[test]
fn adapters_are_chosen_by_index_and_by_name() {
    let all = adapters();
    let options = |adapter: &str| GpuOptions { adapter: Some(adapter.to_string()), ..Default::default() };
    let by_index = Gpu::new(&options("0")).unwrap();
    assert_eq!(by_index.info().name, all[0].name);
    // a part of the name, in whatever case
    let part: String = all[0].name.chars().skip(1).take(6).collect();
    let by_name = Gpu::new(&options(&part.to_uppercase())).unwrap();
    let first = all.iter().find(|a| a.name.to_lowercase().contains(&part.to_lowercase())).unwrap();
    assert_eq!(by_name.info().name, first.name);
}

#[test]
fn an_adapter_that_is_not_there() {
    let listed = adapters().into_iter().map(|adapter| format!("{} {}", adapter.index, adapter.name));
    let listed = listed.collect::<Vec<_>>().join(", ");
    for wanted in ["no such adapter", "4711"] {
        let error = error(GpuOptions { adapter: Some(wanted.into()), ..Default::default() });
        assert!(matches!(error, Error::Argument { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("adapter: found “{wanted}”, expected one of {listed}"));
    }
}

#[test]
fn limits_and_budget_are_those_asked_for() {
    let options = GpuOptions {
        limits: LimitsChoice::WebGpuDefaults,
        memory_budget: Some(12_345),
        ..GpuOptions::from_env()
    };
    let small = Gpu::new(&options).unwrap();
    let defaults = wgpu::Limits::default();
    assert_eq!(small.limits().max_buffer_size, defaults.max_buffer_size);
    assert_eq!(small.max_binding_len(), (128 << 20) / 4);
    assert_eq!(small.memory_budget(), 12_345);
    assert_eq!(gpu().memory_budget(), GpuOptions::DEFAULT_MEMORY_BUDGET);
    assert!(gpu().max_binding_len() >= small.max_binding_len());
}

#[test]
fn buffers_hold_what_is_written() {
    let gpu = gpu();
    for len in [1, 2, 3, 63, 64, 65, 4_097, 1_000_003] {
        let x = random(len as u64, len);
        let buffer = gpu.upload(&x).unwrap();
        assert!(buffer.view().len() >= len && buffer.view().len().is_multiple_of(ALIGN), "{len}");
        assert!(gpu.read::<f32>(&buffer.slice(0, len)).unwrap() == x, "{len}");
        let y: Vec<u32> = (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        gpu.write(&buffer.view(), &y).unwrap();
        assert!(gpu.read::<u32>(&buffer.slice(0, len)).unwrap() == y, "{len}");
    }
    assert!(gpu.read::<f32>(&upload::<f32>(gpu, &[])).unwrap().is_empty());
    // other types of whole words
    let pairs = gpu.upload(&[[1u32, 2], [3, 4]]).unwrap();
    assert_eq!(gpu.read::<u32>(&pairs.slice(0, 4)).unwrap(), [1, 2, 3, 4]);
}

/// An upload and a read-back longer than one transfer.
#[test]
fn long_buffers_travel_in_pieces() {
    let gpu = gpu();
    let len = (64 << 20) / 4 + 67;
    let x: Vec<u32> = (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
    let buffer = gpu.upload(&x).unwrap();
    assert!(gpu.read::<u32>(&buffer.slice(0, len)).unwrap() == x);
}

#[test]
fn views_are_parts_of_buffers() {
    let gpu = gpu();
    let x = random(1, 1_000);
    let buffer = gpu.upload(&x).unwrap();
    let view = buffer.slice(128, 800);
    assert_eq!((view.len(), view.byte_offset(), view.byte_len()), (800, 512, 3_200));
    let inner = view.slice(64, 7);
    assert_eq!(inner.byte_offset(), 4 * 192);
    assert_eq!(read(gpu, &inner), x[192..199]);
    gpu.write(&inner, &[1.0f32, 2.0]).unwrap();
    assert_eq!(
        gpu.read::<f32>(&buffer.slice(128, 70)).unwrap()[62..68],
        [x[190], x[191], 1.0, 2.0, x[194], x[195]]
    );
    assert!(view.slice(64, 0).is_empty());
}

#[test]
#[should_panic(expected = "a view starts at a multiple of 64 words, found 3")]
fn a_view_starts_where_a_binding_may() {
    gpu().buffer(256).unwrap().slice(3, 1);
}

#[test]
#[should_panic(expected = "words 64..193 of a view of 192")]
fn a_view_ends_within_its_buffer() {
    gpu().buffer(192).unwrap().slice(64, 129);
}

#[test]
#[should_panic(expected = "1028 bytes into 1024")]
fn a_write_ends_within_its_view() {
    let buffer = gpu().buffer(256).unwrap();
    gpu().write(&buffer.view(), &[0.0f32; 257]).unwrap();
}

#[test]
fn zeros_are_zero_whatever_was_there() {
    let gpu = gpu();
    // a size that no other test uses, so that the pool has this buffer and no other
    let words = 64 * 1_237;
    drop(poisoned(gpu, words));
    let zeros = gpu.zeros(words).unwrap();
    assert!(gpu.read::<u32>(&zeros.view()).unwrap().iter().all(|&word| word == 0));
}

#[test]
fn a_dropped_buffer_is_used_again() {
    let gpu = Gpu::new(&GpuOptions::from_env()).unwrap();
    let before = gpu.peak_memory();
    let grown = || gpu.peak_memory() - before;
    let first = gpu.buffer(1_000).unwrap();
    let view = first.view();
    drop(first);
    let second = gpu.buffer(1_000).unwrap();
    assert_eq!(grown(), 2 * 4 * 1_024, "a view keeps its buffer");
    drop(view);
    let third = gpu.buffer(1_024).unwrap();
    assert_eq!(grown(), 2 * 4 * 1_024, "the pool has it, by the rounded size");
    assert!(!second.is(&third));
}

/// A handle that the caller keeps is the caller's: its memory becomes nobody else's.
#[test]
fn a_buffer_whose_handle_was_given_away_is_not_used_again() {
    let gpu = Gpu::new(&GpuOptions::from_env()).unwrap();
    let buffer = gpu.buffer(1_000).unwrap();
    let raw = buffer.raw().clone();
    let in_use = gpu.memory_in_use();
    drop(buffer);
    assert_eq!(gpu.memory_in_use(), in_use - 4 * 1_024, "it counts no longer");
    let next = gpu.buffer(1_000).unwrap();
    assert!(*next.raw() != raw);
}

/// A buffer of the caller's is read and written in place, and refused where it cannot be.
#[test]
fn buffers_of_the_callers() {
    let gpu = gpu();
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let own = |gpu: &Gpu, size: u64, usage| {
        let mapped_at_creation = false;
        gpu.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation })
    };
    let raw = own(gpu, 4 * 64, usage);
    let before = gpu.memory_in_use();
    let buffer = Buffer::from_wgpu(gpu, raw.clone()).unwrap();
    assert!(*buffer.raw() == raw && gpu.memory_in_use() == before);
    gpu.write(&buffer.view(), &[1.5f32; 64]).unwrap();
    assert_eq!(gpu.read::<f32>(&buffer.view()).unwrap(), [1.5; 64]);
    let refused = |raw| Buffer::from_wgpu(gpu, raw).expect_err("an error");
    let error = refused(own(gpu, 256, wgpu::BufferUsages::STORAGE)).to_string();
    let expected = "usage of the buffer: found BufferUsages(STORAGE), expected BufferUsages(COPY_SRC | COPY_DST | STORAGE) among them";
    assert_eq!(error, expected);
    let error = refused(own(gpu, 8, usage)).to_string();
    assert_eq!(error, "bytes of the buffer: found 8, expected at least 16");
    let other = Gpu::new(&GpuOptions::from_env()).unwrap();
    assert!(matches!(refused(own(&other, 256, usage)), Error::OtherDevice { .. }));
}

/// What lies on another device is refused by name, and nothing is written there.
#[test]
fn memory_of_another_device_is_refused() {
    let (gpu, other) = (gpu(), Gpu::new(&GpuOptions::from_env()).unwrap());
    let [here, there] = [gpu, &other].map(|gpu| gpu.upload(&[3.0f32; 64]).unwrap().view());
    let message = |error: Error| {
        assert!(matches!(error, Error::OtherDevice { .. }), "{error}");
        error.to_string()
    };
    let of = gpu.driver();
    let expected = |what: &str| format!("{what}: found memory of another device, expected memory of {of}");
    assert_eq!(message(gpu.read::<f32>(&there).unwrap_err()), expected("memory to read"));
    assert_eq!(message(gpu.write(&there, &[0.0f32]).unwrap_err()), expected("memory to write"));
    let mut rec = Recorder::new(gpu);
    rec.copy(&here, &there);
    assert_eq!(message(rec.finish().err().unwrap()), expected("memory to copy to"));
    let mut rec = Recorder::new(gpu);
    rec.clear(&there);
    assert_eq!(message(rec.run().unwrap_err()), expected("memory to clear"));
    let mut rec = Recorder::new(gpu);
    let error = curvkit::kernels::vector::combine(&mut rec, 1.0, &here, 0.0, &there).unwrap_err();
    assert_eq!(message(error), expected("y"));
    assert_eq!(other.read::<f32>(&there).unwrap(), [3.0; 64]);
}

/// Programs within programs run in their order, each step with its own parameters, and are counted.
#[test]
fn programs_are_replayed_by_others() {
    let gpu = gpu();
    let [x, y] = [1.0f32, 0.0].map(|value| upload(gpu, &[value; 64]));
    // y = x + 2 y
    let double = Arc::new(program(gpu, |rec| vector::combine(rec, 1.0, &x, 2.0, &y)));
    let twice = Arc::new(program(gpu, |rec| {
        rec.replay(&double, &[0u32, 0])?;
        vector::combine(rec, 10.0, &x, 1.0, &y)
    }));
    let outer = program(gpu, |rec| {
        rec.replay_once(&twice)?;
        rec.replay_once(&double)?;
        rec.replay::<u32>(&double, &[])
    });
    assert_eq!((twice.dispatches(), outer.dispatches()), (3, 4));
    outer.run().unwrap(); // ((0·2 + 1)·2 + 1 + 10)·2 + 1
    assert_eq!(read(gpu, &y), [27.0; 64]);
    outer.run().unwrap(); // ((27·2 + 1)·2 + 1 + 10)·2 + 1
    assert_eq!(read(gpu, &y), [243.0; 64]);
    let other = Gpu::new(&GpuOptions::from_env()).unwrap();
    let error = Recorder::new(&other).replay_once(&double).unwrap_err();
    assert!(matches!(error, Error::OtherDevice { .. }), "{error}");
}

/// Kernels of one name are told apart by their text: a caller's own does not become one of the crate's.
#[test]
fn kernels_of_one_name_are_told_apart() {
    const OWN: Shader = Shader {
        name: "vector",
        files: &["@group(0) @binding(3) var<storage, read_write> y: array<f32>;
            @compute @workgroup_size(64)
            fn combine(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = 7.0; }"],
    };
    let gpu = gpu();
    let [x, y] = [1.0f32, 2.0].map(|value| upload(gpu, &[value; 64]));
    run(gpu, |rec| {
        let own = rec.gpu().kernel(OWN, "combine", &[])?;
        rec.dispatch(&own, &[("y", &y)], &(), [1, 1, 1], Work::new(64.0, 0))
    });
    assert_eq!(read(gpu, &y), [7.0; 64]);
    run(gpu, |rec| vector::combine(rec, 1.0, &x, 1.0, &y));
    assert_eq!(read(gpu, &y), [8.0; 64]);
    // and within one recording, where both bind the same buffer
    run(gpu, |rec| {
        let own = rec.gpu().kernel(OWN, "combine", &[])?;
        rec.dispatch(&own, &[("y", &y)], &(), [1, 1, 1], Work::new(64.0, 0))?;
        vector::combine(rec, 1.0, &x, 2.0, &y)?;
        rec.dispatch(&own, &[("y", &y)], &(), [1, 1, 1], Work::new(64.0, 0))?;
        vector::combine(rec, 2.0, &x, 2.0, &y)
    });
    assert_eq!(read(gpu, &y), [16.0; 64]);
}

/// A program keeps what it works on: buffers of the same size made after its own were let go do not become
/// its own.
#[test]
fn a_program_holds_its_buffers() {
    let gpu = Gpu::new(&GpuOptions::from_env()).unwrap();
    let len = 1_000;
    let (x, y) = (random(1, len), random(2, len));
    let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 4.0 * x + y).collect();
    let out = poisoned(&gpu, len);
    // dispatches that read and write, a copy, a clear, and a bind group used twice
    let program = {
        let [x, y, between] = [upload(&gpu, &x), upload(&gpu, &y), poisoned(&gpu, len)];
        program(&gpu, |rec| {
            rec.clear(&between);
            vector::combine(rec, 2.0, &x, 1.0, &between)?;
            vector::combine(rec, 2.0, &x, 1.0, &between)?;
            vector::combine(rec, 1.0, &y, 1.0, &between)?;
            rec.copy(&between, &out);
            Ok(())
        })
    };
    assert_eq!(program.dispatches(), 3);
    let others: Vec<View> = (0..6).map(|_| poisoned(&gpu, len)).collect();
    for _ in 0..2 {
        program.run().unwrap();
        let found = read(&gpu, &out);
        assert!(found.iter().zip(&expected).all(|(f, e)| (f - e).abs() <= 1e-6), "{:?}", &found[..4]);
    }
    for other in &others {
        assert!(read(&gpu, other).iter().all(|x| x.is_nan()), "another buffer was written");
    }
    drop(program);
    // and lets them go
    let again: Vec<View> = (0..3).map(|_| gpu.buffer(len).unwrap().slice(0, len)).collect();
    assert!(
        again.iter().all(|view| read(&gpu, view).iter().all(|x| x.is_finite())),
        "fresh buffers were made"
    );
}

#[test]
fn programs_run_step_by_step() {
    // buffers of 64 KiB: the ring of parameters holds 256 steps at a time
    let gpu = &own_device(wgpu::Limits { max_buffer_size: 64 << 10, ..bindings_of(64 << 10) }, None);
    let [theta, m] = [(); 2].map(|()| upload(gpu, &[0.0f32; 4]));
    let g = upload(gpu, &[1.0f32, 2.0, -4.0, 0.5]);
    let program = program(gpu, |rec| sgd::sgd(rec, &g, &theta, &m));
    let count = 2 * 256 + 3;
    let steps: Vec<Step> = (0..count)
        .map(|i| Step { learning_rate: if i % 2 == 0 { 1.0 } else { 0.5 }, ..Step::default() })
        .collect();
    program.run_steps(&steps).unwrap();
    // sums of halves below 2²⁴ are exact
    let sum = 0.75 * (count - 1) as f32 + 1.0;
    assert_eq!(read(gpu, &theta), [-sum, -2.0 * sum, 4.0 * sum, -0.5 * sum]);
    program.run_steps::<Step>(&[]).unwrap();
    assert_eq!(read(gpu, &theta)[0], -sum);
}

/// Work that takes many submissions makes what one would have made.
#[test]
fn long_programs_are_cut_into_submissions() {
    let gpu = &Gpu::new(&GpuOptions::from_env()).unwrap();
    // 2 · 128³ operations and a launch a product: about 450 to a submission on a software adapter at first
    let (size, products) = (128, 1_200);
    let x = random(1, size * size);
    let a = upload(gpu, &x);
    let identity: Vec<f32> = (0..size * size).map(|e| f32::from(u8::from(e / size == e % size))).collect();
    let b = upload(gpu, &identity);
    let c = upload(gpu, &vec![0.0f32; size * size]);
    let last = poisoned(gpu, size * size);
    let program = program(gpu, |rec| {
        for _ in 0..products {
            let shape = Shape { batch: 1, m: size, n: size, k: size };
            let product = Gemm { layout: Layout::TN, shape, alpha: 1.0, add: true };
            let matrix = |view| Matrix { view, row: size, batch: 0, period: 0 };
            gemm_with(rec, Family::Register, product, matrix(&b), matrix(&a), None, matrix(&c))?;
        }
        rec.copy(&c, &last);
        Ok(())
    });
    assert_eq!((program.dispatches(), program.flops()), (products, products as f64 * 2.0 * 128f64.powi(3)));
    program.run().unwrap();
    let mut expected = vec![0.0f32; size * size];
    for _ in 0..products {
        expected.iter_mut().zip(&x).for_each(|(sum, x)| *sum += x);
    }
    assert!(read(gpu, &last) == expected);
}

#[test]
fn buffers_beyond_the_limits_are_out_of_memory() {
    let options = GpuOptions { limits: LimitsChoice::WebGpuDefaults, ..GpuOptions::from_env() };
    let gpu = Gpu::new(&options).unwrap();
    let words = (256 << 20) / 4 + 1;
    for error in [gpu.buffer(words).err().unwrap(), gpu.zeros(words).err().unwrap()] {
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "out of device memory while making a buffer of 268435712 bytes: the device's largest buffer is 268435456"
        );
    }
    // and the device goes on
    assert_eq!(read(&gpu, &upload(&gpu, &[1.0f32, 2.0])), [1.0, 2.0]);
}

/// More than a binding holds may lie in a buffer, but no kernel can be bound to it; the error is typed.
#[test]
fn bindings_beyond_the_limits_are_errors() {
    let gpu = own_device(bindings_of(16 << 10), None);
    let [x, y] = [(); 2].map(|()| gpu.buffer(8_192).unwrap());
    let error = vector::combine(&mut Recorder::new(&gpu), 1.0, &x.view(), 0.0, &y.view()).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error:?}");
    assert!(error.to_string().starts_with("device error while binding vector combine: "), "{error}");
    // a part of it can
    let [x, y] = [x, y].map(|buffer| buffer.slice(4_096, 4_096));
    gpu.write(&x, &[3.0f32; 4_096]).unwrap();
    run(&gpu, |rec| vector::combine(rec, 2.0, &x, 0.0, &y));
    assert_eq!(read(&gpu, &y), [6.0; 4_096]);
}

#[test]
#[should_panic(expected = "vector combine: y and x lie in one buffer")]
fn a_buffer_is_not_read_and_written_at_once() {
    let buffer = gpu().buffer(256).unwrap();
    let (x, y) = (buffer.slice(0, 64), buffer.slice(128, 64));
    let _ = vector::combine(&mut Recorder::new(gpu()), 1.0, &x, 1.0, &y);
}

#[test]
#[should_panic(expected = "sgd sgd: theta and m lie in one buffer")]
fn a_buffer_is_not_written_twice_at_once() {
    let (g, buffer) = (gpu().buffer(64).unwrap(), gpu().buffer(256).unwrap());
    let (theta, m) = (buffer.slice(0, 64), buffer.slice(128, 64));
    let _ = sgd::sgd(&mut Recorder::new(gpu()), &g.view(), &theta, &m);
}

/// Two operands that are both only read may lie in one buffer.
#[test]
fn a_buffer_may_be_read_twice_at_once() {
    let gpu = gpu();
    let buffer = gpu.upload(&random(1, 192)).unwrap();
    let (x, y) = (buffer.slice(0, 64), buffer.slice(128, 64));
    let s = poisoned(gpu, 1);
    run(gpu, |rec| vector::dot(rec, 64, (&x, 0), &y, &s));
    let expected: f64 =
        read(gpu, &x).iter().zip(read(gpu, &y)).map(|(&x, y)| f64::from(x) * f64::from(y)).sum();
    assert!((f64::from(read(gpu, &s)[0]) - expected).abs() < 1e-5);
}

#[test]
#[should_panic(expected = "a copy within one buffer")]
fn a_copy_goes_from_one_buffer_to_another() {
    let buffer = gpu().buffer(256).unwrap();
    Recorder::new(gpu()).copy(&buffer.slice(0, 64), &buffer.slice(64, 64));
}

#[test]
#[should_panic(expected = "a copy's lengths")]
fn a_copy_is_of_one_length() {
    let [x, y] = [64, 128].map(|words| gpu().buffer(words).unwrap());
    Recorder::new(gpu()).copy(&x.view(), &y.view());
}

#[test]
fn clears_and_copies_keep_to_their_views() {
    let gpu = gpu();
    let x = random(1, 256);
    let (from, to) = (gpu.upload(&x).unwrap(), gpu.upload(&[5.0f32; 256]).unwrap());
    run(gpu, |rec| {
        rec.clear(&to.slice(192, 3));
        rec.clear(&to.slice(0, 0));
        rec.copy(&from.slice(64, 33), &to.slice(128, 33));
        rec.copy(&from.slice(64, 0), &to.slice(0, 0));
        Ok(())
    });
    let mut expected = vec![5.0; 256];
    expected[192..195].fill(0.0);
    expected[128..161].copy_from_slice(&x[64..97]);
    assert_eq!(gpu.read::<f32>(&to.view()).unwrap(), expected);
    gpu.copy(&from.slice(0, 2), &to.slice(0, 2)).unwrap();
    assert_eq!(gpu.read::<f32>(&to.slice(0, 3)).unwrap(), [x[0], x[1], 5.0]);
}

#[test]
fn grids_fold_into_two_dimensions() {
    assert_eq!(grid(0, 64), [0, 0, 1]);
    assert_eq!(grid(1, 64), [1, 1, 1]);
    assert_eq!(grid(65, 64), [2, 1, 1]);
    assert_eq!(grid(64 * 32_768, 64), [32_768, 1, 1]);
    assert_eq!(grid(64 * 32_768 + 1, 64), [32_768, 2, 1]);
}

/// A device that is gone is an error of whatever is asked of it next, not a panic.
#[test]
fn a_device_that_is_gone_is_an_error() {
    let gpu = Gpu::new(&GpuOptions::from_env()).unwrap();
    let [x, y] = [(); 2].map(|()| upload(&gpu, &[1.0f32; 64]));
    let program = program(&gpu, |rec| vector::combine(rec, 1.0, &x, 1.0, &y));
    gpu.device().destroy();
    for error in [program.run().unwrap_err(), gpu.read::<f32>(&y).unwrap_err()] {
        assert!(matches!(error, Error::Device { .. } | Error::DeviceLost { .. }), "{error:?}");
        assert!(error.to_string().contains(" while "), "{error}");
    }
}

/// A device lives as long as a clone of its handle or anything made from it does, and several threads may
/// use it at once.
#[test]
fn threads_share_a_device() {
    let results: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let work = |i: usize| {
            let gpu = gpu().clone();
            let (x, y) = (upload(&gpu, &vec![i as f32; 1_000]), upload(&gpu, &vec![1.0f32; 1_000]));
            for _ in 0..20 {
                run(&gpu, |rec| vector::combine(rec, 1.0, &x, 1.0, &y));
            }
            read(&gpu, &y)
        };
        let threads: Vec<_> = (0..4).map(|i| scope.spawn(move || work(i))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (i, found) in results.iter().enumerate() {
        assert!(found.iter().all(|&x| x == 20.0 * i as f32 + 1.0), "thread {i}");
    }
}
