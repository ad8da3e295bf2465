//! SHA-256 of what a run is made from: its content, whatever file it is in.

use sha2::{Digest, Sha256};

use crate::data::{Dataset, Targets};

/// Returns the SHA-256 of shape, inputs and targets, in hexadecimal.
pub fn digest_of_data(data: &Dataset) -> String {
    let shape = format!("{:?}", data.shape);
    let targets = match &data.targets {
        Targets::Classes(classes) => bytemuck::cast_slice(classes),
        Targets::Values { values, .. } => bytemuck::cast_slice(values),
    };
    digest_of([shape.as_bytes(), bytemuck::cast_slice(&data.inputs), targets])
}

/// Returns the SHA-256 of flat parameters `[P]` or directions `[K, P]`, in hexadecimal.
pub fn digest_of_values(values: &[f32]) -> String {
    digest_of([bytemuck::cast_slice(values)])
}

fn digest_of<const N: usize>(parts: [&[u8]; N]) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
