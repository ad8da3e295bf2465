//! An operator of one's own on the device: a kernel in WGSL, recorded like the crate's, and its eigenpairs.

use curvkit::gpu::{Gpu, GpuOptions, Recorder, Shader, Work, grid};
use curvkit::operators::{Block, SymmetricOperator, check_blocks};
use curvkit::spectral::{LanczosOptions, eigenpairs, unobserved};
use curvkit::{Error, Result};

/// `y_i = 2 x_i − x_(i−1) − x_(i+1)`, with zeros beyond both ends. Group 0 has the buffers, bound by their names; group 1
/// has the dispatch's parameters at binding 0.
const LAPLACIAN: Shader = Shader {
    name: "laplacian",
    files: &["
        struct Params {
            dim: u32,
            stride: u32,
            vectors: u32,
        }

        @group(0) @binding(0) var<storage, read> x: array<f32>;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @group(1) @binding(0) var<uniform> p: Params;

        @compute @workgroup_size(64)
        fn laplacian(
            @builtin(global_invocation_id) id: vec3<u32>,
            @builtin(num_workgroups) groups: vec3<u32>,
        ) {
            let e = id.x + id.y * groups.x * 64u; // as `grid` folds it
            let i = e % p.stride;
            if e >= p.vectors * p.stride || i >= p.dim {
                return;
            }
            var sum = 2.0 * x[e];
            if i > 0u {
                sum -= x[e - 1u];
            }
            if i + 1u < p.dim {
                sum -= x[e + 1u];
            }
            y[e] = sum;
        }
    "],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    dim: u32,
    stride: u32,
    vectors: u32,
}

struct Laplacian {
    gpu: Gpu,
    dim: usize,
}

impl SymmetricOperator for Laplacian {
    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn stride(&self) -> usize {
        self.dim.next_multiple_of(64)
    }

    fn apply(&self, x: &Block, y: &Block) -> Result<()> {
        let mut rec = Recorder::new(&self.gpu);
        self.record(&mut rec, x, y)?;
        rec.run()
    }

    fn record(&self, rec: &mut Recorder, x: &Block, y: &Block) -> Result<()> {
        check_blocks(self, x, y)?;
        let kernel = self.gpu.kernel(LAPLACIAN, "laplacian", &[])?;
        for ((_, x), (_, y)) in x.runs(0, x.len()).iter().zip(&y.runs(0, y.len())) {
            let vectors = x.len() / self.stride();
            let size = |size: usize| u32::try_from(size).map_err(|error| Error::Foreign(error.into()));
            let params =
                Params { dim: size(self.dim)?, stride: size(self.stride())?, vectors: size(vectors)? };
            let work = Work::new(5.0 * x.len() as f64, 0);
            rec.dispatch(&kernel, &[("x", x), ("y", y)], &params, grid(x.len(), 64), work)?;
        }
        Ok(())
    }
}

pub fn main() -> Result<()> {
    let gpu = Gpu::new(&GpuOptions::from_env())?;
    let operator = Laplacian { gpu, dim: 300 };
    let options = LanczosOptions { tolerance: 1e-6, ..LanczosOptions::new(4) };
    let pairs = eigenpairs(&operator, options, &mut unobserved)?;
    for (k, value) in pairs.values.iter().enumerate() {
        let angle = std::f64::consts::PI * (operator.dim - k) as f64 / (operator.dim + 1) as f64;
        let exact = 2.0 - 2.0 * angle.cos();
        assert!((value - exact).abs() < 1e-5, "{value} for {exact}");
        println!("λ{} = {value:.7}, exactly {exact:.7}", k + 1);
    }
    Ok(())
}
