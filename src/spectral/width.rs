//! How many vectors an operator is applied to at a time.

use std::time::Instant;

use super::random::{Distribution, RandomVectors};
use crate::Result;
use crate::kernels::timings::{fnv1a, kept_or_measured};
use crate::operators::{Block, SymmetricOperator};

/// The width for an operator without description, or where nothing can be measured and kept.
const DEFAULT: usize = 8;

/// The widths that are measured.
const WIDTHS: [usize; 4] = [1, 4, 16, 32];

/// The block width with which `count` eigenpairs cost least: the measured seconds of a product, times how
/// many more products a wider block takes.
///
/// Times vary from run to run and results may not: they are measured once for each operator's description,
/// and kept like the tuning of matrix products.
pub fn cheapest_block(operator: &dyn SymmetricOperator, count: usize) -> usize {
    let Some(description) = operator.description() else { return DEFAULT };
    let name = format!("width-{:016x}", fnv1a(description.as_bytes()));
    let Some(measured) = kept_or_measured(operator.gpu(), &name, || measure(operator)) else {
        return DEFAULT;
    };
    // Lanczos with b = 1, 4, 8, 16, 32 took 58, 76, 96, 112, 160 products for 20 pairs of a spectrum like a
    // Hessian's, and 243, 252, 280, 304, 384 for 100
    let products = |width: usize| 1.0 + 2.0 * (width - 1) as f64 / count as f64;
    let cost = |&&(width, seconds): &&(usize, f64)| seconds * products(width);
    // what was kept may have been written by anybody
    let measured = measured.iter().filter(|(width, _)| WIDTHS.contains(width));
    let best = measured.min_by(|a, b| cost(a).total_cmp(&cost(b)));
    best.map_or(DEFAULT, |&(width, _)| width)
}

/// Widths with their seconds a product, up to the first that is no faster than the one before.
fn measure(operator: &dyn SymmetricOperator) -> Result<Vec<(usize, f64)>> {
    let mut measured: Vec<(usize, f64)> = Vec::new();
    let mut random = RandomVectors::new(Distribution::Gaussian, 0);
    for width in WIDTHS.into_iter().filter(|&width| width <= operator.dim()) {
        let x = random.draw(operator, width)?;
        let y = Block::zeros(operator.gpu(), operator.stride(), width)?;
        // the first application makes what the operator keeps for blocks of this width, which only a long one
        // hides
        let mut seconds = 0.0;
        for repeated in [false, true] {
            if repeated && seconds > 1.0 {
                break;
            }
            operator.gpu().wait()?;
            let start = Instant::now();
            operator.apply(&x, &y)?;
            operator.gpu().wait()?;
            seconds = start.elapsed().as_secs_f64();
        }
        let seconds = seconds / width as f64;
        let slower = measured.last().is_some_and(|&(_, before)| seconds >= before);
        measured.push((width, seconds));
        if slower {
            break;
        }
    }
    Ok(measured)
}
