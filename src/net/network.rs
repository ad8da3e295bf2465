//! A network: a graph, its named parameters, and where they lie in vectors on the device.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::graph::{Graph, Parameter};
use super::model::{Layer, Model};
use crate::data::Layout;
use crate::{Error, Result};

/// A graph, and what its samples are.
#[derive(Clone, Debug)]
pub struct Network {
    graph: Graph,
    sample_shape: Vec<usize>,
    token_ids: Option<usize>,
    model: Option<Model>,
}

impl Network {
    /// Makes a model's network.
    ///
    /// # Errors
    /// [`Error::Model`] where the layers do not fit together.
    pub fn new(model: &Model) -> Result<Network> {
        let token_ids = match model.layers.first() {
            Some(&Layer::Embedding { num_embeddings, .. }) => Some(num_embeddings),
            _ => None,
        };
        let (graph, sample_shape) = (Graph::of_model(model)?, model.sample_shape());
        Ok(Network { graph, sample_shape, token_ids, model: Some(model.clone()) })
    }

    /// Makes a network of a graph of the caller's, whose samples are numbers of shape `sample_shape`.
    ///
    /// # Errors
    /// [`Error::Model`] naming the tensor whose definition does not fit, or the parameter that cannot be used, and where
    /// samples have not as many values as the graph's input.
    pub fn from_graph(graph: Graph, sample_shape: &[usize]) -> Result<Network> {
        graph.check(false)?;
        let (found, expected) = (sample_shape.iter().product::<usize>(), graph.tensors[graph.input].len);
        if found != expected {
            return Err(Error::Model(format!(
                "found samples of shape {sample_shape:?}, expected {expected} values, as the graph's input has"
            )));
        }
        Ok(Network { graph, sample_shape: sample_shape.to_vec(), token_ids: None, model: None })
    }

    /// The model; none where the network is of a graph of the caller's.
    pub fn model(&self) -> Option<&Model> {
        self.model.as_ref()
    }

    /// Tensors and their definitions.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The shape of one sample; of tokens `[2, T]`, the ids and the mask.
    pub fn sample_shape(&self) -> &[usize] {
        &self.sample_shape
    }

    /// How many ids the tokens of a sample may have, 0 to one less; none where samples are numbers.
    pub fn token_ids(&self) -> Option<usize> {
        self.token_ids
    }

    /// What tells it from networks whose sweeps take another time.
    pub(crate) fn description(&self) -> String {
        match &self.model {
            Some(model) => model.to_toml(),
            None => format!("{:?}", self.graph),
        }
    }

    /// In the order of PyTorch's `state_dict`.
    pub fn parameters(&self) -> &[Parameter] {
        &self.graph.parameters
    }

    /// P, the number of parameters.
    pub fn dim(&self) -> usize {
        self.parameters().last().map_or(0, |last| last.offset + last.len)
    }

    /// The number of values in one sample.
    pub fn input_len(&self) -> usize {
        self.graph.tensors[self.graph.input].len
    }

    /// L, the number of outputs.
    pub fn outputs(&self) -> usize {
        self.graph.tensors[self.graph.output].len
    }

    /// Names and shapes of the parameters, as a weights file has them.
    pub fn signature(&self) -> Vec<(String, Vec<usize>)> {
        self.parameters().iter().map(|p| (p.name.clone(), p.shape.clone())).collect()
    }

    /// Parameters drawn by the model's [`Scheme`](super::Scheme), PyTorch's defaults if it names none: `[P]`.
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::with_capacity(self.dim());
        for parameter in self.parameters() {
            parameter.initial.draw(parameter.len, &mut random, &mut values);
        }
        values
    }

    /// All parameters, as coordinates of vectors.
    pub fn all(&self) -> Subspace {
        self.subspace((0..self.parameters().len()).collect())
    }

    /// The parameters called `names`, as coordinates of vectors, in this order.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the first that the network has not, or that stands twice.
    pub fn restricted(&self, names: &[impl AsRef<str>]) -> Result<Subspace> {
        let mut chosen = Vec::new();
        for name in names {
            let name = name.as_ref();
            let known = || self.parameters().iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
            match self.parameters().iter().position(|p| p.name == name) {
                Some(at) if chosen.contains(&at) => {
                    return Err(Error::argument("parameters", format!("“{name}” twice"), "each name once"));
                }
                Some(at) => chosen.push(at),
                None => {
                    return Err(Error::argument(
                        "parameters",
                        format!("“{name}”"),
                        format!("one of {}", known()),
                    ));
                }
            }
        }
        if chosen.is_empty() {
            return Err(Error::argument("parameters", "no name", "at least one"));
        }
        Ok(self.subspace(chosen))
    }

    /// Names, shapes and places of the parameters whose coordinates vectors of `space` hold.
    pub fn layout(&self, space: &Subspace) -> Layout {
        let signature = self.signature();
        Layout::of(space.parts.iter().map(|part| signature[part.parameter].clone()))
    }

    /// A hash of the parameters' names and shapes.
    fn identity(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&self.signature(), &mut hasher);
        std::hash::Hasher::finish(&hasher)
    }

    /// Whether `space` is a subspace of this network's parameters.
    ///
    /// # Errors
    /// [`Error::Shape`] where it is one of a network with other parameters.
    pub fn check_subspace(&self, space: &Subspace) -> Result<()> {
        match space.network == self.identity() {
            true => Ok(()),
            false => Err(Error::Shape {
                tensor: "subspace".into(),
                found: format!("[{}] of another network's parameters", space.dim),
                expected: format!("one of this network's {} parameters", self.dim()),
            }),
        }
    }

    fn subspace(&self, chosen: Vec<usize>) -> Subspace {
        let mut parts = Vec::new();
        let (mut flat, mut padded) = (0, 0);
        for index in chosen {
            let len = self.parameters()[index].len;
            parts.push(Part { parameter: index, flat, padded, len });
            flat += len;
            padded += len.next_multiple_of(crate::gpu::ALIGN);
        }
        Subspace { parts, dim: flat, stride: padded, network: self.identity() }
    }
}

/// One parameter's coordinates in vectors of a [`Subspace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// Its position in [`Network::parameters`].
    pub parameter: usize,
    /// Where it starts in flat vectors.
    pub flat: usize,
    /// Where it starts in vectors on the device.
    pub padded: usize,
    /// The number of its coordinates.
    pub len: usize,
}

/// The coordinates of some of a network's parameters.
///
/// A *flat* vector has `dim` values, parameter after parameter in the order of `parts`; on the device each parameter starts
/// at a multiple of 64 words, with zeros between, and a vector takes `stride` words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subspace {
    /// Where the coordinates of each parameter stand.
    pub parts: Vec<Part>,
    /// The number of coordinates.
    pub dim: usize,
    /// Words of one vector on the device.
    pub stride: usize,
    /// A hash of the names and shapes of the network's parameters, by which another network's subspace is told.
    network: u64,
}

impl Subspace {
    /// The part that holds the parameter of that position, if it is in the subspace.
    pub fn part(&self, parameter: usize) -> Option<&Part> {
        self.parts.iter().find(|part| part.parameter == parameter)
    }

    /// Flat vectors `[K, dim]` as they lie on the device: `[K, stride]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where they are not whole vectors.
    pub fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
        check_whole(flat, self.dim)?;
        let mut padded = vec![0.0; flat.len() / self.dim * self.stride];
        for (from, to) in flat.chunks_exact(self.dim).zip(padded.chunks_exact_mut(self.stride)) {
            for part in &self.parts {
                to[part.padded..part.padded + part.len]
                    .copy_from_slice(&from[part.flat..part.flat + part.len]);
            }
        }
        Ok(padded)
    }

    /// Flat vectors `[K, dim]` of those that lie on the device, `[K, stride]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where they are not whole vectors.
    pub fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
        check_whole(padded, self.stride)?;
        let mut flat = Vec::with_capacity(padded.len() / self.stride * self.dim);
        for vector in padded.chunks_exact(self.stride) {
            for part in &self.parts {
                flat.extend_from_slice(&vector[part.padded..part.padded + part.len]);
            }
        }
        Ok(flat)
    }
}

/// Whether flat or padded vectors are whole ones of `len` values.
///
/// # Errors
/// [`Error::Shape`] where they are not.
pub(crate) fn check_whole(values: &[f32], len: usize) -> Result<()> {
    match len > 0 && values.len().is_multiple_of(len) {
        true => Ok(()),
        false => Err(Error::Shape {
            tensor: "vectors".into(),
            found: format!("[{}]", values.len()),
            expected: format!("[K, {len}]"),
        }),
    }
}
