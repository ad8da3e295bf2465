//! A dense symmetric matrix as an operator.

use super::algebra::Vectors;
use super::{Block, SymmetricOperator, check_blocks};
use crate::gpu::{ALIGN, Buffer, Gpu, Recorder};
use crate::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm};
use crate::{Error, Result};

/// A symmetric D × D matrix on the device, cut by rows over as many buffers as its size asks for.
pub struct DenseMatrix {
    gpu: Gpu,
    dim: usize,
    /// First row and rows, `[held, D]`.
    shards: Vec<(usize, Buffer)>,
    rows_per_shard: usize,
}

impl DenseMatrix {
    /// Uploads `values`, `[D, D]` row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] where there are not D² values, [`Error::Argument`] where the matrix is not symmetric
    /// (to 1e-5 of its largest entry), and the device's errors.
    pub fn new(gpu: &Gpu, dim: usize, values: &[f32]) -> Result<DenseMatrix> {
        if dim == 0 || values.len() != dim * dim {
            return Err(Error::shape("matrix", [values.len()], [dim, dim]));
        }
        let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for i in 0..dim {
            for j in 0..i {
                let (a, b) = (values[i * dim + j], values[j * dim + i]);
                if (a - b).abs() > 1e-5 * largest || a.is_nan() || b.is_nan() {
                    let found = format!("{a} at ({i}, {j}) and {b} at ({j}, {i})");
                    return Err(Error::argument("matrix", found, "a symmetric matrix"));
                }
            }
        }
        // a shard's columns of X start at a multiple of 64 words, as a view has to
        let rows_per_shard = (gpu.max_binding_len() / dim).min(dim.next_multiple_of(ALIGN)) / ALIGN * ALIGN;
        if rows_per_shard == 0 {
            return Err(Error::OutOfMemory {
                doing: "uploading a matrix".into(),
                detail: format!("{ALIGN} rows of {dim} do not fit into one binding"),
            });
        }
        let shards = values
            .chunks(rows_per_shard * dim)
            .enumerate()
            .map(|(i, rows)| Ok((i * rows_per_shard, gpu.upload(rows)?)))
            .collect::<Result<_>>()?;
        Ok(DenseMatrix { gpu: gpu.clone(), dim, shards, rows_per_shard })
    }
}

impl std::fmt::Debug for DenseMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DenseMatrix({0} × {0} on {1:?})", self.dim, self.gpu)
    }
}

impl SymmetricOperator for DenseMatrix {
    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn stride(&self) -> usize {
        self.dim.next_multiple_of(ALIGN)
    }

    fn description(&self) -> Option<String> {
        Some(format!("dense matrix, {} rows", self.dim))
    }

    fn apply(&self, x: &Block, y: &Block) -> Result<()> {
        let mut rec = Recorder::new(&self.gpu);
        self.record(&mut rec, x, y)?;
        rec.run()
    }

    fn record(&self, rec: &mut Recorder, x: &Block, y: &Block) -> Result<()> {
        check_blocks(self, x, y)?;
        let stride = self.stride();
        // Y[k, j] = Σ_i X[k, i] A[i, j], shard of rows i after shard; X and Y are cut into pieces alike
        let pieces = |block: &Block| Vectors::from(block).pieces(1 << 16);
        for ((_, xs), (_, ys)) in pieces(x).into_iter().zip(pieces(y)) {
            let k = xs.len() / stride;
            debug_assert!(ys.len() == xs.len(), "blocks that are cut alike");
            for (i, (row, rows)) in self.shards.iter().enumerate() {
                let held = self.rows_per_shard.min(self.dim - row);
                let from = Matrix { view: &xs.slice(*row, xs.len() - row), row: stride, batch: 0, period: 0 };
                let matrix =
                    Matrix { view: &rows.slice(0, held * self.dim), row: self.dim, batch: 0, period: 0 };
                let to = Matrix { view: &ys, row: stride, batch: 0, period: 0 };
                let shape = Shape { batch: 1, m: k, n: self.dim, k: held };
                let product = Gemm { layout: Layout::NN, shape, alpha: 1.0, add: i > 0 };
                gemm(rec, product, from, matrix, None, to)?;
            }
        }
        Ok(())
    }
}
