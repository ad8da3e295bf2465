//! The device that a test binary's tests share, and tensors that go there and back.

use std::sync::LazyLock;

use curvkit::gpu::{Gpu, GpuOptions, Program, Recorder, View};
use curvkit::kernels::Step;
use curvkit::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm};

/// The device of `CURVKIT_ADAPTER`, or the best there is, with its matrix products tuned: two devices that
/// are opened later agree with it on how to multiply.
///
/// # Panics
/// Where there is none: a test does not pass over nothing.
pub fn gpu() -> &'static Gpu {
    static GPU: LazyLock<Gpu> = LazyLock::new(|| {
        let gpu = Gpu::new(&GpuOptions::from_env()).expect("an adapter");
        let [a, b, c] = [(); 3].map(|()| gpu.zeros(1).expect("a buffer").slice(0, 1));
        let matrix = |view| Matrix { view, row: 1, batch: 1, period: 0 };
        let shape = Shape { batch: 1, m: 1, n: 1, k: 1 };
        let product = Gemm { layout: Layout::NT, shape, alpha: 1.0, add: false };
        run(&gpu, |rec| gemm(rec, product, matrix(&a), matrix(&b), None, matrix(&c)));
        gpu
    });
    &GPU
}

/// Workgroups of 64 invocations in one row of the grid, in elements; one more needs a second row.
pub const GRID_ROW: usize = 32_768 * 64;

/// What stands in a buffer before a kernel writes there: a NaN that no arithmetic makes.
pub const POISON: f32 = f32::from_bits(0x7fc0_dead);

/// `x` on the device, in a view of exactly its length.
pub fn upload<T: bytemuck::Pod>(gpu: &Gpu, x: &[T]) -> View {
    gpu.upload(x).expect("room for a tensor").slice(0, x.len())
}

/// `len` words of [`POISON`].
pub fn poisoned(gpu: &Gpu, len: usize) -> View {
    upload(gpu, &vec![POISON; len])
}

/// What `view` holds.
pub fn read(gpu: &Gpu, view: &View) -> Vec<f32> {
    gpu.read(view).expect("a tensor read back")
}

/// What `record` records, made ready to run.
pub fn program(gpu: &Gpu, record: impl FnOnce(&mut Recorder) -> curvkit::Result<()>) -> Program {
    let mut rec = Recorder::new(gpu);
    record(&mut rec).expect("recorded");
    rec.finish().expect("recorded")
}

/// Runs what `record` records, once.
pub fn run(gpu: &Gpu, record: impl FnOnce(&mut Recorder) -> curvkit::Result<()>) {
    program(gpu, record).run().expect("run");
}

/// Runs what `record` records, once, as the given step.
pub fn run_step(gpu: &Gpu, step: Step, record: impl FnOnce(&mut Recorder) -> curvkit::Result<()>) {
    program(gpu, record).run_steps(&[step]).expect("run");
}

/// A device made by wgpu alone, within `limits`, as the crate takes it over.
///
/// # Panics
/// Where there is no adapter, or it refuses.
pub fn own_device(limits: wgpu::Limits, memory_budget: Option<u64>) -> Gpu {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(descriptor);
    let name = &gpu().info().name;
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name == *name).expect("the adapter");
    let request =
        adapter.request_device(&wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() });
    let (device, queue) = pollster::block_on(request).expect("a device");
    let options = GpuOptions { memory_budget, ..GpuOptions::from_env() };
    Gpu::from_device(device, queue, &options).expect("an adapter fit for kernels")
}

/// WebGPU's default limits, but for bindings that hold `bytes` at the most.
pub fn bindings_of(bytes: u64) -> wgpu::Limits {
    wgpu::Limits { max_storage_buffer_binding_size: bytes, ..Default::default() }
}
