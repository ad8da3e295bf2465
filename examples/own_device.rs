//! A device and buffers of one's own: vectors go in and come out without passing through host memory.

use curvkit::data::{Dataset, Targets};
use curvkit::gpu::{Buffer, Gpu, GpuOptions};
use curvkit::net::{Layer, Loss, Model, Network};
use curvkit::operators::{Block, Curvature, Session, SymmetricOperator};
use curvkit::wgpu;

pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    // as a program that draws or computes with wgpu has them already
    let instance = wgpu::Instance::default();
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let request = wgpu::DeviceDescriptor {
        // larger limits than Gpu::required_limits mean that less is cut
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&request))?;

    let gpu = Gpu::from_device(device.clone(), queue.clone(), &GpuOptions::default())?;
    let network = Network::new(&Model::mlp(&[4, 16, 3], Layer::Tanh, true))?;
    let inputs = (0..40).map(|i| (i as f32 * 0.7).sin()).collect();
    let targets = Targets::Classes((0..10).map(|n| n % 3).collect());
    let data = Dataset::new(inputs, vec![4], targets)?;
    let theta = network.initial_parameters(0);
    let session = Session::new(&gpu, &network, &theta, &data, Loss::CrossEntropy)?;
    let hessian = session.operator(Curvature::Hessian, &network.all())?;

    // vectors of `stride` words: `pad` says where the coordinates stand in them
    let (dim, stride) = (hessian.dim(), hessian.stride());
    let own = |label| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: 4 * stride as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    };
    let (from, to) = (own("x"), own("y"));
    let direction = vec![1.0; dim];
    queue.write_buffer(&from, 0, bytemuck::cast_slice(&hessian.pad(&direction)?));
    let block =
        |raw: &wgpu::Buffer| Block::from_buffer(&gpu, stride, 1, Buffer::from_wgpu(&gpu, raw.clone())?);
    hessian.apply(&block(&from)?, &block(&to)?)?;

    // commands of one's own that are submitted after it find the product in the buffer
    let mapped = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("read back"),
        size: to.size(),
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(&to, 0, &mapped, 0, to.size());
    queue.submit([encoder.finish()]);
    mapped.slice(..).map_async(wgpu::MapMode::Read, |result| result.expect("mapped"));
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let padded: Vec<f32> = bytemuck::pod_collect_to_vec(&mapped.slice(..).get_mapped_range()?);
    let product = hessian.unpad(&padded)?;

    assert_eq!(product, session.hvp(&network.all(), &direction)?);
    println!("‖H 1‖ = {:.6}", product.iter().map(|x| x * x).sum::<f32>().sqrt());
    Ok(())
}
