//! Batches in pairs, and for each sample of one its partner in the other (Section 3.1).

use faer::Mat;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::data::{Dataset, Targets};
use crate::{Error, Result};

/// A sample p of the batch ν and its partner p′ in the batch μ.
pub type Pair = [u32; 2];

/// Pairs of batches (ν, μ) that follow each other, as the pairs (p, p′) of their samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPairs {
    /// B
    pub batch_size: usize,
    /// A list for each pair of batches; shorter than B where μ has no sample of p's class.
    pub batches: Vec<Vec<Pair>>,
}

impl BatchPairs {
    /// Sees to it that `data` makes two batches of `batch_size` samples.
    ///
    /// # Errors
    /// [`Error::Argument`] where it does not.
    pub fn check(data: &Dataset, batch_size: usize) -> Result<()> {
        if batch_size > 0 && data.len() / batch_size >= 2 {
            return Ok(());
        }
        let found = format!("{batch_size} of {} samples", data.len());
        Err(Error::argument("batch_size", found, "at most half of the samples, and at least 1"))
    }

    /// Draws `count` pairs of batches of `batch_size` samples.
    ///
    /// Each round deals all samples into batches, every class spread evenly over them; batch j and the one after it
    /// are a pair (the last and the first too). The partner of p is the sample of its class in the other batch
    /// whose input is nearest, the first of equally near ones.
    ///
    /// # Errors
    /// [`Error::Argument`] where the targets are no classes or there are not two batches of samples.
    pub fn draw(data: &Dataset, batch_size: usize, count: usize, seed: u64) -> Result<BatchPairs> {
        let Targets::Classes(classes) = &data.targets else {
            return Err(Error::argument("targets", "values", "classes, for partners of one class"));
        };
        BatchPairs::check(data, batch_size)?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let nearest = Nearest::new(data, classes);
        let mut batches = Vec::with_capacity(count);
        while batches.len() < count {
            let order = deal(classes, &mut random);
            let dealt: Vec<&[u32]> = order.chunks_exact(batch_size).collect();
            for (j, nu) in dealt.iter().enumerate().take(count - batches.len()) {
                batches.push(nearest.partners(nu, dealt[(j + 1) % dealt.len()]));
            }
        }
        if batches.iter().all(Vec::is_empty) {
            let expected = "classes of several samples, for some to have partners";
            return Err(Error::argument("data set", "no class with samples in two batches", expected));
        }
        Ok(BatchPairs { batch_size, batches })
    }
}

/// All samples in an order whose every run holds each class by its share, random within a class.
fn deal(classes: &[u32], random: &mut ChaCha8Rng) -> Vec<u32> {
    let mut order: Vec<u32> = (0..classes.len() as u32).collect();
    order.shuffle(random);
    let count = classes.iter().max().map_or(0, |&most| most as usize + 1);
    let (mut sizes, mut met) = (vec![0u32; count], vec![0u32; count]);
    classes.iter().for_each(|&class| sizes[class as usize] += 1);
    // the i-th of a class of s samples belongs at (i + ½) / s of the way
    let mut placed: Vec<(f64, u32)> = order
        .into_iter()
        .map(|p| {
            let class = classes[p as usize] as usize;
            met[class] += 1;
            ((met[class] as f64 - 0.5) / sizes[class] as f64, p)
        })
        .collect();
    placed.sort_by(|x, y| x.0.total_cmp(&y.0)); // stable: equally placed classes stay shuffled
    placed.into_iter().map(|(_, p)| p).collect()
}

/// Inputs and their squared lengths.
struct Nearest<'a> {
    data: &'a Dataset,
    classes: &'a [u32],
    squares: Vec<f64>,
}

impl<'a> Nearest<'a> {
    fn new(data: &'a Dataset, classes: &'a [u32]) -> Nearest<'a> {
        let square = |x: &[f32]| x.iter().map(|&x| x as f64 * x as f64).sum();
        Nearest { data, classes, squares: data.inputs.chunks(data.sample_len()).map(square).collect() }
    }

    /// The inputs of `samples`, `[d, n]`.
    fn inputs(&self, samples: &[u32]) -> Mat<f64> {
        let d = self.data.sample_len();
        Mat::from_fn(d, samples.len(), |i, p| self.data.inputs[samples[p] as usize * d + i] as f64)
    }

    fn partners(&self, nu: &[u32], mu: &[u32]) -> Vec<Pair> {
        let class = |p: u32| self.classes[p as usize];
        let mut present: Vec<u32> = nu.iter().map(|&p| class(p)).collect();
        present.sort_unstable();
        present.dedup();
        let mut pairs = Vec::with_capacity(nu.len());
        for of_class in present {
            let [own, others] = [nu, mu]
                .map(|batch| batch.iter().copied().filter(|&p| class(p) == of_class).collect::<Vec<_>>());
            // ‖x_k − x_p‖² − ‖x_p‖² = ‖x_k‖² − 2 x_k · x_p
            let products = self.inputs(&others).transpose() * self.inputs(&own); // [others, own]
            for (j, &p) in own.iter().enumerate() {
                let distance = |k: usize| self.squares[others[k] as usize] - 2.0 * products[(k, j)];
                let nearest = (0..others.len()).min_by(|&k, &l| distance(k).total_cmp(&distance(l)));
                pairs.extend(nearest.map(|k| [p, others[k]]));
            }
        }
        pairs
    }
}
