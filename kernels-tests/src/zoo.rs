//! Samples for any network of the zoo.

use curvkit::data::{Dataset, Targets};
use curvkit::net::Network;

use crate::cases::random;

/// Samples with inputs in [0, 1), or tokens of which the last few are padding, and classes in turn.
pub fn samples(network: &Network, count: usize) -> Dataset {
    let inputs = match (network.token_ids(), network.sample_shape()) {
        (Some(ids), &[_, tokens]) => (0..count)
            .flat_map(|n| {
                let ids = (0..tokens).map(move |t| ((n * 31 + t * 17) % ids) as f32);
                ids.chain((0..tokens).map(move |t| f32::from(t < tokens - 15 * n)))
            })
            .collect(),
        _ => random(5, count * network.input_len()).iter().map(|x| x.abs()).collect(),
    };
    let classes = (0..count as u32).map(|n| n % network.outputs() as u32).collect();
    Dataset::new(inputs, network.sample_shape().to_vec(), Targets::Classes(classes)).unwrap()
}
