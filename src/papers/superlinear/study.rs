//! One layer of one network on one data set: what every measure and figure is of.

use std::cell::OnceCell;
use std::path::Path;
use std::time::{Duration, Instant};

use super::bounds::Curvatures;
use super::claims::Claims;
use super::measures::Diagonals;
use super::members::Members;
use super::pairs::BatchPairs;
use super::records::{self, Epoch, Measuring, Records, Trained, Training};
use super::settings::Setting;
use super::suppression::Suppression;
use super::tables::End;
use super::target::{Part, Target};
use super::{Progress, alignment, bounds, evolution, scaling, suppression};
use crate::data::{Dataset, Targets, read_parameters};
use crate::gpu::Gpu;
use crate::net::{Loss, Network};
use crate::operators::{Session, layer_shape};
use crate::report::Block;
use crate::runs::{self, digest_of_data, digest_of_values};
use crate::train::{TrainOptions, TrainState, Trainer};
use crate::{Error, Result};

/// The most weights that a layer may have for its matrices to be held and diagonalised in full: a dozen of them, of
/// 0.8 GB each at that.
pub const LARGEST_LAYER: usize = 10_000;
/// The most entries that the samples' M_p may have together, `N d_out²`: the duality holds them twice, 4 GB each.
pub const MOST_CURVATURES: usize = 1 << 30;
/// Why there is an accuracy.
const CLASSES: &str = "a study's samples have classes";
/// How often a run in progress is put on record.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// What is measured, and how.
pub struct Study<'a> {
    /// The device that trains and measures.
    pub gpu: &'a Gpu,
    /// For files and progress: `mnist-mlp-cross-entropy-10`.
    pub name: String,
    /// The network whose layer is measured.
    pub network: Network,
    /// The weights of the fully connected layer that is measured: `2.weight`.
    pub layer: String,
    /// The samples that H and C are means over; their targets are classes.
    pub data: Dataset,
    /// The loss that H and C are of, and that a run is trained on.
    pub loss: Loss,
    /// B
    pub batch_size: usize,
    /// 𝒩
    pub top: usize,
    /// Pairs of batches that the duality's covariances are means over.
    pub pairs: usize,
    /// The paper's cell, where it is one.
    pub setting: Option<Setting>,
    /// Is called with what is going on.
    pub progress: &'a dyn Fn(Progress<'_>),
    /// The pairs of batches, once they are drawn.
    pub(super) drawn: OnceCell<BatchPairs>,
}

/// The figures of one network, for the report.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The network and its layer in words, for headings.
    pub title: String,
    /// What was trained, or the weights that were given.
    pub source: String,
    /// The heading of each part that was asked for, and what stands under it.
    pub parts: Vec<(&'static str, Vec<Block>)>,
    /// Which parts could not be made, and why.
    pub missing: Vec<String>,
}

impl<'a> Study<'a> {
    /// Checks that the layer is there, that its matrices and its samples' curvatures can be held in full, that a
    /// line can be fitted over its directions, of which `top` are no more than there are, and that the samples have
    /// classes.
    ///
    /// # Errors
    /// [`Error::Argument`] where it is not.
    pub fn checked(self) -> Result<Study<'a>> {
        let (layer, samples) = (&self.layer, self.data.len());
        let (d_out, d_in) = layer_shape(&self.network, layer)?;
        if d_out * d_in > LARGEST_LAYER {
            let found = format!("“{layer}” of {d_out} × {d_in} weights");
            let expected = format!("a layer of at most {LARGEST_LAYER}, for its matrices to be held in full");
            return Err(Error::argument("layer", found, expected));
        }
        if samples.saturating_mul(d_out * d_out) > MOST_CURVATURES {
            let found = format!("“{layer}” of {d_out} outputs, over {samples} samples");
            let most = MOST_CURVATURES / (d_out * d_out);
            let expected = format!("at most {most} samples, for every sample’s curvature to be held");
            return Err(Error::argument("layer", found, expected));
        }
        if d_out * d_in < 3 {
            let found = format!("“{layer}” of {d_out} × {d_in} weights");
            return Err(Error::argument("layer", found, "at least 3, to fit a line over"));
        }
        if !matches!(self.data.targets, Targets::Classes(_)) {
            return Err(Error::argument("targets", "values", "classes, for partners of one class"));
        }
        let top = self.top.min(d_out * d_in);
        if top < 3 {
            return Err(Error::argument("top", top, "at least 3 directions, to fit a line over"));
        }
        Ok(Study { top, ..self })
    }

    /// Sees to it that there are samples enough for all that `target` has, before anything is trained.
    ///
    /// # Errors
    /// [`Error::Argument`] where there are not two batches of them.
    pub fn check(&self, target: &Target) -> Result<()> {
        let paired = [Part::Tables, Part::Scaling, Part::Alignment, Part::Evolution];
        if !paired.into_iter().any(|part| target.has(part)) {
            return Ok(());
        }
        let checked = BatchPairs::check(&self.data, self.batch_size);
        match (checked, &self.setting) {
            (Err(Error::Argument { .. }), Some(setting)) => {
                let found = format!("{} images of each of {} classes", setting.per_class, setting.classes);
                let least = (2 * self.batch_size).div_ceil(setting.classes);
                let expected = format!("at least {least}, for two batches of {}", self.batch_size);
                Err(Error::argument("per_class", found, expected))
            }
            (checked, _) => checked,
        }
    }

    /// The pairs of batches, drawn once: every checkpoint and every seed is measured on the same.
    fn batch_pairs(&self) -> Result<&BatchPairs> {
        if self.drawn.get().is_none() {
            let _ = self.drawn.set(BatchPairs::draw(&self.data, self.batch_size, self.pairs, 0)?);
        }
        Ok(self.drawn.get().expect("just drawn"))
    }

    fn problem(&self, parameters: &[f32]) -> Result<Session> {
        Session::new(self.gpu, &self.network, parameters, &self.data, self.loss)
    }

    /// Loss and accuracy over the samples.
    fn report(&self, problem: &Session) -> Result<(f64, f64)> {
        let report = problem.loss()?;
        Ok((report.loss, report.accuracy.expect(CLASSES)))
    }

    fn measuring(&self, parameters: &[f32]) -> Measuring {
        Measuring {
            parameters: digest_of_values(parameters),
            data: digest_of_data(&self.data),
            layer: self.layer.clone(),
            loss: self.loss,
            top: self.top,
            batch_size: self.batch_size,
            pairs: self.pairs,
            version: env!("CARGO_PKG_VERSION").into(),
            adapter: runs::adapter(self.gpu),
            measures: records::MEASURES,
        }
    }

    /// What determines a run of `setting` from `seed` on this data.
    pub fn training(&self, setting: &Setting, seed: u64) -> Training {
        Training::of(setting, seed, digest_of_data(&self.data))
    }

    /// Trains as `training` says, or goes on where the run on `records` stopped; gives the parameters `[P]` at its end.
    ///
    /// The checkpoints after the epochs `keep` stay on record.
    ///
    /// # Errors
    /// Those of [`Trainer`], and [`Error::Io`] where records cannot be read or written.
    pub fn train(&self, records: &Records, training: &Training, keep: &[u64]) -> Result<(Trained, Vec<f32>)> {
        let name = format!("{}-seed{}", self.name, training.seed);
        let kept = records.trained(&self.network, keep)?;
        let (mut trained, mut parameters) = match kept {
            Some((kept, parameters)) => (Trained { training: training.clone(), ..kept }, parameters),
            None => {
                let parameters = self.network.initial_parameters(training.seed);
                (Trained { training: training.clone(), history: vec![], checkpoints: vec![] }, parameters)
            }
        };
        let epochs = training.epochs;
        if trained.history.len() as u64 == epochs {
            (self.progress)(Progress::Kept { run: &name });
            return Ok((trained, parameters));
        }
        let options = TrainOptions {
            seed: training.seed,
            ..TrainOptions::sgd(training.learning_rate, training.batch_size, epochs)
        };
        let momentum = vec![0.0; parameters.len()];
        let state = TrainState { epoch: trained.history.len() as u64, parameters, momentum };
        let session = Session::new(self.gpu, &self.network, &state.parameters, &self.data, self.loss)?;
        let mut trainer = Trainer::resume(&session, state, options)?;
        let mut saved = Instant::now();
        for epoch in trained.history.len() as u64 + 1..=epochs {
            let record = trainer.run_epoch()?;
            let record = Epoch { epoch, loss: record.loss, accuracy: record.accuracy.expect(CLASSES) };
            (self.progress)(Progress::Trained { run: &name, epoch: record, epochs });
            trained.history.push(record);
            if epoch == epochs || keep.contains(&epoch) || saved.elapsed() > SAVE_EVERY {
                records.keep_trained(&mut trained, &self.network, &trainer.parameters()?, keep)?;
                saved = Instant::now();
            }
        }
        parameters = trainer.parameters()?;
        Ok((trained, parameters))
    }

    /// Loss, accuracy and exponents of a network at the end of training.
    ///
    /// # Errors
    /// As [`Diagonals::of_layer`], and [`Error::Io`] where records cannot be read or written.
    pub fn end(&self, records: &Records, run: &str, parameters: &[f32]) -> Result<End> {
        let measuring = self.measuring(parameters);
        if let Some(end) = records.find("end", &measuring)? {
            return Ok(end);
        }
        (self.progress)(Progress::Measuring { run });
        let problem = self.problem(parameters)?;
        let (loss, accuracy) = self.report(&problem)?;
        let diagonals = Diagonals::of_layer(&problem, &self.layer, self.batch_pairs()?)?;
        let end = End { loss, accuracy, exponents: diagonals.exponents(self.top)? };
        records.keep("end", &measuring, &end)?;
        Ok(end)
    }

    /// The figures that `target` asks for of a network with these `parameters`, in `folder`.
    ///
    /// `run` is what is on record of its training, where it was trained here. What cannot be made of it (an exponent of
    /// fewer than three directions, say) loses no other part.
    ///
    /// # Errors
    /// Those of measuring and drawing, and [`Error::Io`] where files cannot be written.
    pub fn figures(
        &self,
        target: &Target,
        parameters: &[f32],
        run: Option<(&Records, &Trained)>,
        source: String,
        folder: &Path,
        seed: u64,
    ) -> Result<Figures> {
        let name = run
            .map_or(self.name.clone(), |(_, trained)| format!("{}-seed{}", self.name, trained.training.seed));
        let title = self.title();
        (self.progress)(Progress::Measuring { run: &name });
        let problem = self.problem(parameters)?;
        let (loss, accuracy) = self.report(&problem)?;
        let claims = Claims::of(self.setting.as_ref(), &self.layer, accuracy);
        let members = Members::measure(&problem, &self.layer, self.batch_pairs()?)?;
        (self.progress)(Progress::Drawing { run: &name });
        let (mut parts, mut missing) = (Vec::new(), Vec::new());
        let mut make = |part, heading, blocks: &dyn Fn() -> Result<Vec<Block>>| -> Result<()> {
            if !target.has(part) {
                return Ok(());
            }
            let blocks = match blocks() {
                Err(error @ (Error::Undefined { .. } | Error::NotFinite { .. })) => {
                    missing.push(format!("{heading} of {title} could not be made: {error}"));
                    vec![Block::Text { text: format!("This could not be made: {error}.") }]
                }
                blocks => blocks?,
            };
            parts.push((heading, blocks));
            Ok(())
        };
        make(Part::Scaling, "Scaling", &|| {
            scaling::write(folder, &title, &members, &claims, self.top, seed)
        })?;
        make(Part::Alignment, "Alignment", &|| {
            alignment::write(folder, &members, &claims, self.pairs, self.top, seed)
        })?;
        make(Part::Bounds, "The bounds of Theorem 5.1", &|| {
            let curvatures = Curvatures::measure(&problem.layer(&self.layer)?)?;
            let sigma_w2 = members.sigma_w2.filter(|&sigma_w2| sigma_w2 > 0.0);
            let diagonals = members.diagonals();
            Ok(bounds::write(folder, &title, &diagonals, curvatures, sigma_w2, self.top)?.blocks())
        })?;
        make(Part::Suppression, "Suppression", &|| {
            self.suppression(parameters, &members, &claims, folder, seed)
        })?;
        if let Some((records, trained)) = run {
            make(Part::Evolution, "Evolution over training", &|| {
                let snapshots = self.snapshots(records, trained, &members, &name)?;
                evolution::write(folder, &snapshots, &trained.history, &members, &claims)
            })?;
        }
        let mut source = format!(
            "{source}: loss {loss:.3e}, accuracy {:.2} %. H, C and E[h²] are those of {} over {} samples.",
            100.0 * accuracy,
            self.layer,
            self.data.len(),
        );
        if let Some(departure) = &claims.departure {
            source += &format!(" This is not the paper’s network: {departure}.");
        }
        Ok(Figures { title, source, parts, missing })
    }

    /// The suppression experiment on samples drawn by `seed`, as many of each class.
    fn suppression(
        &self,
        parameters: &[f32],
        members: &Members,
        claims: &Claims,
        folder: &Path,
        seed: u64,
    ) -> Result<Vec<Block>> {
        let count = suppression::SAMPLES.min(self.data.len());
        let drawn = self.data.select(&suppression::draw(&self.data.targets, count, seed)?);
        let problem = Session::new(self.gpu, &self.network, parameters, &drawn, self.loss)?;
        let layer = problem.layer(&self.layer)?;
        let measured = Suppression::measure(&layer, &members.basis, self.loss, claims.theta(), self.top)?;
        suppression::write(folder, &self.title(), measured)?.blocks(claims)
    }

    /// A title for plots and headings.
    fn title(&self) -> String {
        match &self.setting {
            Some(Setting { dataset, model, loss, classes, .. }) => {
                format!("{dataset}, {model}, {loss}, {classes} classes, {}", self.layer)
            }
            None => format!("{}, {}, {}", self.name, self.loss, self.layer),
        }
    }

    /// The checkpoints of a run as they were measured, or are now; `last` is its end.
    fn snapshots(
        &self,
        records: &Records,
        trained: &Trained,
        last: &Members,
        run: &str,
    ) -> Result<Vec<evolution::Snapshot>> {
        let mut snapshots = Vec::new();
        let of = trained.checkpoints.len();
        for (at, (epoch, digest)) in trained.checkpoints.iter().enumerate() {
            (self.progress)(Progress::Snapshot { run, at: at + 1, of });
            let parameters = read_parameters(records.checkpoint(*epoch), &self.network.signature())?;
            let measuring = self.measuring(&parameters);
            if measuring.parameters != *digest {
                let path = records.checkpoint(*epoch);
                return Err(Error::file(
                    path,
                    "found other parameters than were trained, expected those on record",
                ));
            }
            let what = format!("epoch-{epoch:06}");
            let snapshot = match records.find(&what, &measuring)? {
                Some(snapshot) => snapshot,
                None => {
                    let problem = self.problem(&parameters)?;
                    let report = self.report(&problem)?;
                    let measured;
                    let members = if *epoch == trained.training.epochs {
                        last
                    } else {
                        measured = Members::measure(&problem, &self.layer, self.batch_pairs()?)?;
                        &measured
                    };
                    let centred = problem.layer(&self.layer)?.noise_covariance()?;
                    let centred = members.basis.express(centred.as_ref())?;
                    let snapshot = evolution::Snapshot::of(*epoch, report, members, &centred, self.top)?;
                    records.keep(&what, &measuring, &snapshot)?;
                    snapshot
                }
            };
            snapshots.push(snapshot);
        }
        Ok(snapshots)
    }
}
