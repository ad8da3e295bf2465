//! One operator that several threads multiply by, while another moves θ.

use std::sync::Arc;
use std::thread;

use curvkit::Result;
use curvkit::data::{Dataset, Targets};
use curvkit::gpu::{Gpu, GpuOptions};
use curvkit::net::{Layer, Loss, Model, Network};
use curvkit::operators::{Block, Curvature, Session, SymmetricOperator};

/// `vᵀ A v` for the vector of ones.
fn quadratic_form(operator: &dyn SymmetricOperator) -> Result<f32> {
    let (gpu, stride) = (operator.gpu(), operator.stride());
    let x = Block::upload(gpu, stride, &operator.pad(&vec![1.0; operator.dim()])?)?;
    let y = Block::zeros(gpu, stride, 1)?;
    operator.apply(&x, &y)?;
    Ok(operator.unpad(&y.download()?)?.iter().sum())
}

pub fn main() -> Result<()> {
    let gpu = Gpu::new(&GpuOptions::from_env())?;
    let network = Network::new(&Model::mlp(&[4, 16, 3], Layer::Tanh, true))?;
    let inputs = (0..40).map(|i| (i as f32 * 0.7).sin()).collect();
    let data = Dataset::new(inputs, vec![4], Targets::Classes((0..10).map(|n| n % 3).collect()))?;
    let session = Session::new(&gpu, &network, &network.initial_parameters(0), &data, Loss::CrossEntropy)?;
    // an operator owns its share of the session
    let operators: Vec<Arc<dyn SymmetricOperator>> = vec![
        Arc::new(session.operator(Curvature::Hessian, &network.all())?),
        Arc::new(session.operator(Curvature::Ggn, &network.all())?),
        Arc::new(session.operator(Curvature::NoiseCovariance, &network.all())?),
    ];
    let of_all = || -> Result<Vec<f32>> {
        let threads: Vec<_> = operators
            .iter()
            .cloned()
            .map(|operator| thread::spawn(move || quadratic_form(&operator)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread ends well")).collect()
    };
    let before = of_all()?;
    assert_eq!(before, of_all()?, "the same bits, whoever came first");
    // operators follow θ
    session.set_parameters(&network.initial_parameters(1))?;
    let after = of_all()?;
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));
    println!("H, G and C along the ones: {before:?}, elsewhere {after:?}");
    Ok(())
}
