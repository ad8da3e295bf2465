//! A Lanczos iteration's state in a file.

use std::path::Path;

use faer::Mat;
use serde::{Deserialize, Serialize};

use super::projection::Projection;
use super::{Lanczos, LanczosOptions, Which};
use crate::data::{Elements, TensorFile, write_state};
use crate::operators::{Block, SymmetricOperator, gram};
use crate::{Error, Result};

/// The metadata's key under which [`Scalars`] stand.
const KEY: &str = "lanczos";

/// The state but for its matrices.
#[derive(Serialize, Deserialize)]
struct Scalars {
    dim: usize,
    stride: usize,
    count: usize,
    which: Which,
    tolerance: f64,
    seed: u64,
    width: usize,
    multiplied: usize,
    pending: usize,
    drawn: u64,
    products: usize,
    largest: f64,
    examined: usize,
    converged: usize,
    #[serde(default = "yes")]
    forgotten: bool,
    sequence: Option<usize>,
    ended: Option<bool>,
}

/// Of states that do not say.
fn yes() -> bool {
    true
}

impl<A: SymmetricOperator> Lanczos<A> {
    /// Writes the state between two steps: `basis` `[vectors, stride]` F32, `t` and `s` F64, the rest in the
    /// file's metadata, beside the caller's `metadata` (key, text).
    ///
    /// # Errors
    /// [`Error::Io`], and the device's errors.
    pub fn save(&self, path: impl AsRef<Path>, metadata: &[(&str, &str)]) -> Result<()> {
        let scalars = Scalars {
            dim: self.operator.dim(),
            stride: self.operator.stride(),
            count: self.options.count,
            which: self.options.which,
            tolerance: self.options.tolerance,
            seed: self.options.seed,
            width: self.width,
            multiplied: self.projection.len(),
            pending: self.projection.pending(),
            drawn: self.random.drawn,
            products: self.products.made,
            largest: self.products.largest,
            examined: self.examined,
            converged: self.converged,
            forgotten: self.forgotten,
            sequence: self.sequence,
            ended: self.ended,
        };
        let scalars = serde_json::to_string(&scalars).expect("numbers and words are JSON");
        let (n, pending) = (self.projection.len(), self.projection.pending());
        let rows = |x: &Mat<f64>| -> Vec<f64> { x.row_iter().flat_map(|row| row.iter().copied()).collect() };
        write_state(
            path,
            &[
                ("basis", &[n + pending, self.operator.stride()], Elements::F32(&self.basis.download()?)),
                ("t", &[n, n], Elements::F64(&rows(&self.projection.t))),
                ("s", &[pending, n], Elements::F64(&rows(&self.projection.s))),
            ],
            &[metadata, &[(KEY, &scalars)]].concat(),
        )
    }

    /// Takes up a saved iteration where it was; it goes on to the bits of one that was never interrupted, on
    /// the same adapter and memory budget. `options` are those it began with, except that `max_products` may
    /// have changed, `block` may be `None`, and `start` plays no part any more.
    ///
    /// One product, which does not count, shows that the operator is the one of the state.
    ///
    /// # Errors
    /// [`Error::File`] where the file is no such state, or one of another operator or other options;
    /// [`Error::Io`], and those of [`Lanczos::new`].
    pub fn resume(operator: A, options: LanczosOptions, path: impl AsRef<Path>) -> Result<Lanczos<A>> {
        let path = path.as_ref();
        options.check(&operator)?;
        let file = TensorFile::read(path)?;
        let found: Scalars = file.json(KEY, "the state of a Lanczos iteration")?;
        file.check_undamaged()?;
        let same = |name: &str, found: String, expected: String| {
            let problem =
                || Error::file(path, format!("{name}: found a state of {found}, expected {expected}"));
            if found == expected { Ok(()) } else { Err(problem()) }
        };
        same("dimension", found.dim.to_string(), operator.dim().to_string())?;
        same("stride", found.stride.to_string(), operator.stride().to_string())?;
        same("count", found.count.to_string(), options.count.to_string())?;
        same("which", format!("{:?}", found.which), format!("{:?}", options.which))?;
        same("tolerance", found.tolerance.to_string(), options.tolerance.to_string())?;
        same("seed", found.seed.to_string(), options.seed.to_string())?;
        same("block", found.width.to_string(), options.block.unwrap_or(found.width).to_string())?;
        let (n, pending) = (found.multiplied, found.pending);
        let matrix = |name: &str, rows: usize| -> Result<Mat<f64>> {
            let values = file.f64(name, &[rows, n])?;
            Ok(Mat::from_fn(rows, n, |i, j| values[i * n + j]))
        };
        let mut lanczos = Lanczos::empty(operator, options, found.width)?;
        lanczos.projection = Projection { t: matrix("t", n)?, s: matrix("s", pending)? };
        let basis = file.f32("basis", &[n + pending, found.stride])?;
        for piece in basis.chunks(found.width * found.stride) {
            let block = Block::upload(lanczos.operator.gpu(), found.stride, piece)?;
            lanczos.basis.append(&block)?;
        }
        if n > 0 {
            let v = lanczos.basis.block(0..1)?;
            let quotient = gram(&v, &lanczos.products.make(&lanczos.operator, &v)?)?[(0, 0)];
            let expected = lanczos.projection.t[(0, 0)];
            // rounding of the product, and of the vector since it was multiplied
            if (quotient - expected).abs() > 1e-4 * found.largest {
                let problem = format!("a state of another operator: vᵀAv is {quotient}, expected {expected}");
                return Err(Error::file(path, problem));
            }
        }
        lanczos.random.drawn = found.drawn;
        lanczos.products.made = found.products;
        lanczos.products.largest = found.largest;
        lanczos.examined = found.examined;
        lanczos.converged = found.converged;
        lanczos.forgotten = found.forgotten;
        lanczos.sequence = found.sequence;
        lanczos.ended = found.ended;
        lanczos.go_on()?;
        Ok(lanczos)
    }
}
