use faer::Mat;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// An orthogonal matrix `[n, n]` drawn from the Haar measure on O(n), determined by `seed`.
///
/// Q of the QR decomposition of a matrix of standard normals; multiplying its columns by the signs of
/// R's diagonal makes the decomposition unique, without which Q would not be uniform.
pub fn haar_orthogonal(n: usize, seed: u64) -> Mat<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normals = Mat::<f64>::zeros(n, n);
    for column in normals.col_iter_mut() {
        column.iter_mut().for_each(|entry| *entry = StandardNormal.sample(&mut rng));
    }
    let qr = normals.qr();
    let mut q = qr.compute_Q();
    for (j, column) in q.col_iter_mut().enumerate() {
        if qr.R()[(j, j)] < 0.0 {
            column.iter_mut().for_each(|entry| *entry = -*entry);
        }
    }
    q
}
