//! A solver that is watched, stopped, saved, and goes on to the bits of one that nobody stopped.

use std::ops::ControlFlow;

use curvkit::Result;
use curvkit::data::{Dataset, Targets};
use curvkit::gpu::{Gpu, GpuOptions};
use curvkit::net::{Layer, Loss, Model, Network};
use curvkit::operators::{Curvature, Session};
use curvkit::spectral::{
    Eigenpairs, Lanczos, LanczosOptions, LobpcgOptions, Start, eigenpairs, lobpcg, unobserved,
};

pub fn main() -> Result<()> {
    let gpu = Gpu::new(&GpuOptions::from_env())?;
    let network = Network::new(&Model::mlp(&[8, 24, 3], Layer::Tanh, true))?;
    let inputs = (0..800).map(|i| (i as f32 * 0.37).sin()).collect();
    let data = Dataset::new(inputs, vec![8], Targets::Classes((0..100).map(|n| n % 3).collect()))?;
    let session = Session::new(&gpu, &network, &network.initial_parameters(0), &data, Loss::CrossEntropy)?;
    let hessian = session.operator(Curvature::Hessian, &network.all())?;
    let options = LanczosOptions { block: Some(2), ..LanczosOptions::new(20) };

    // an observer that has seen enough: the pairs are returned as they stand
    let mut products = 0;
    let some = eigenpairs(&hessian, options.clone(), &mut |progress| {
        products = progress.products;
        if products < 40 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    println!("{} of 20 pairs after {products} products", some.converged.iter().filter(|&&c| c).count());

    // step by step, to a file, and on from there
    let path = std::env::temp_dir().join(format!("curvkit-example-{}.safetensors", std::process::id()));
    let mut lanczos = Lanczos::new(&hessian, options.clone())?;
    while lanczos.progress().products < 40 && lanczos.step()? {}
    lanczos.save(&path, &[("of", "an example")])?;
    drop(lanczos);
    let mut lanczos = Lanczos::resume(&hessian, options.clone(), &path)?;
    while lanczos.step()? {}
    let resumed = lanczos.finish()?;
    assert_eq!(resumed.values, eigenpairs(&hessian, options, &mut unobserved)?.values);

    // what was found is kept, and is where a neighbouring operator's search begins
    resumed.save(&hessian, &path, &[])?;
    let kept = Eigenpairs::read(&hessian, &path)?;
    std::fs::remove_file(&path).map_err(|error| curvkit::Error::Foreign(error.into()))?;
    let mut theta = network.initial_parameters(0);
    theta.iter_mut().for_each(|x| *x *= 1.001);
    session.set_parameters(&theta)?;
    let vectors = kept.vectors.download()?;
    let start = Start::Flat(network.all().unpad(&vectors)?);
    let near = lobpcg(&hessian, &LobpcgOptions { start, ..LobpcgOptions::new(20) }, None, &mut unobserved)?;
    assert!(near.converged.iter().all(|&converged| converged));
    println!("λ₁ from {:.6} to {:.6} in {} products", kept.values[0], near.values[0], near.products);
    Ok(())
}
