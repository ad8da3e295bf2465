//! How far a solver has come, and who watches it.

use std::ops::ControlFlow;

use crate::{Error, Result};

/// How far a solver has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is done of `total`: wanted eigenpairs that have converged, as of when they were last looked at, or random
    /// vectors, or Lanczos steps.
    pub done: usize,
    /// What there is to do.
    pub total: usize,
    /// Products spent.
    pub products: usize,
    /// Products that it may still take, where that can be told: of eigenpairs, by those that a converged one has taken.
    pub remaining: Option<usize>,
    /// Ritz values of the wanted eigenpairs, the most wanted first, as of when they were last looked at; none where
    /// eigenpairs are not what is sought.
    pub values: Vec<f64>,
}

impl Progress {
    /// So many products of `total` that are all that there is to do.
    pub(super) fn of_products(products: usize, total: usize) -> Progress {
        let remaining = Some(total.saturating_sub(products));
        Progress { done: products, total, products, remaining, values: Vec::new() }
    }
}

/// Is told how far a solver has come after each of its steps, and may stop it by [`ControlFlow::Break`].
///
/// A solver that is stopped returns what it has, as one whose products are spent; where that is nothing yet, it fails
/// with [`Error::Cancelled`]. An observer with an error of its own keeps it, and breaks.
pub type Observer<'a> = dyn FnMut(&Progress) -> ControlFlow<()> + 'a;

/// The observer that stops nothing.
pub fn unobserved(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Tells the observer; an error where it stops what has nothing to return yet.
pub(super) fn go_on(observer: &mut Observer, progress: &Progress) -> Result<()> {
    match observer(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}
