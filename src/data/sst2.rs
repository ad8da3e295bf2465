//! SST-2's sentences, and the tokeniser that makes samples of them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::{Dataset, Selection, Split, Targets, find};
use crate::{Error, Result};

/// The id that fills a sample behind its sentence; the mask is 0 there.
pub const PADDING: u32 = 0;
/// The id of every word that is not in the vocabulary.
pub const UNKNOWN: u32 = 1;

/// Sentences and the class of each: 0 is negative, 1 positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentences {
    /// The sentences in the order of the file.
    pub sentences: Vec<String>,
    /// The class of each sentence, in the same order.
    pub classes: Vec<u32>,
}

/// Reads those sentences of SST-2 in GLUE's files that `wanted` takes from `dir` or `dir/sst2`: of `train.tsv`, or of
/// `dev.tsv` for the test half (the published test file has no labels).
///
/// # Errors
/// [`Error::File`] where the file is missing, where it has other than the 67,349 or 872 published sentences and not all
/// that `wanted` asks for, or naming the first line that is not what it should be: the header `sentence<TAB>label`,
/// then a sentence of at least one word and 0 or 1; [`Error::Io`] where it cannot be read; those of
/// [`Selection::indices`].
pub fn sst2(dir: impl AsRef<Path>, split: Split, wanted: &Selection) -> Result<Sentences> {
    let dir = dir.as_ref();
    let (name, published) = match split {
        Split::Train => ("train.tsv", 67_349),
        Split::Test => ("dev.tsv", 872),
    };
    let path = find(dir, "sst2", &[name])
        .ok_or_else(|| Error::file(dir, format!("found no {name}, here or in the folder sst2")))?;
    let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let all =
        parse(&bytes).map_err(|(line, problem)| Error::file(&path, format!("line {line}: {problem}")))?;
    let found = all.classes.len();
    if found != published && !wanted.is_complete(&all.classes, 2) {
        let problem = format!("found {found} sentences, expected {published}");
        return Err(Error::FewerSamples { path, problem, there: found });
    }
    all.selected(wanted)
}

/// The error is a line's number, from 1, and what is wrong with it.
fn parse(bytes: &[u8]) -> std::result::Result<Sentences, (usize, String)> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        (line, "found bytes that are not UTF-8, expected text".to_string())
    })?;
    let mut lines = text.lines();
    match lines.next() {
        Some("sentence\tlabel") => {}
        found => {
            let found = found.unwrap_or_default();
            return Err((1, format!("found header {found:?}, expected \"sentence\\tlabel\"")));
        }
    }
    let mut rows = Sentences { sentences: Vec::new(), classes: Vec::new() };
    for (i, line) in lines.enumerate() {
        let wrong = |problem: String| (i + 2, problem);
        let columns: Vec<&str> = line.split('\t').collect();
        let [sentence, label] = columns[..] else {
            return Err(wrong(format!("found {} columns, expected sentence and label", columns.len())));
        };
        if words(sentence).next().is_none() {
            return Err(wrong("found no word, expected a sentence".into()));
        }
        rows.classes.push(match label {
            "0" => 0,
            "1" => 1,
            _ => return Err(wrong(format!("found label {label:?}, expected 0 or 1"))),
        });
        rows.sentences.push(sentence.into());
    }
    match rows.classes.is_empty() {
        true => Err((2, "found the end of the file, expected at least one sentence".into())),
        false => Ok(rows),
    }
}

/// What white space separates, in lower case.
fn words(sentence: &str) -> impl Iterator<Item = String> {
    sentence.split_whitespace().map(str::to_lowercase)
}

impl Sentences {
    /// Those that `selection` takes, as [`Dataset::selected`] does.
    ///
    /// # Errors
    /// Those of [`Selection::indices`].
    pub fn selected(&self, selection: &Selection) -> Result<Sentences> {
        let taken = selection.indices(&Targets::Classes(self.classes.clone()), self.classes.len())?;
        Ok(Sentences {
            sentences: taken.iter().map(|&i| self.sentences[i].clone()).collect(),
            classes: taken.iter().map(|&i| self.classes[i]).collect(),
        })
    }

    /// Samples `[2, max_length]` of token ids and mask; of longer sentences, the first `max_length` words.
    ///
    /// # Errors
    /// [`Error::Argument`] where `max_length` is 0, or so large that the tokens could not be counted in 32 bits.
    pub fn encode(&self, vocabulary: &Vocabulary, max_length: usize) -> Result<Dataset> {
        // so many that their number fits a shader's index
        let most = u32::MAX as usize / (2 * self.sentences.len().max(1));
        if !(1..=most).contains(&max_length) {
            let expected = format!("1 to {most}, for {} sentences", self.sentences.len());
            return Err(Error::argument("max_length", max_length, expected));
        }
        let mut inputs = Vec::with_capacity(self.sentences.len() * 2 * max_length);
        for sentence in &self.sentences {
            let mut ids: Vec<f32> =
                words(sentence).take(max_length).map(|word| vocabulary.id(&word) as f32).collect();
            let kept = ids.len();
            ids.resize(max_length, PADDING as f32);
            inputs.extend(ids);
            inputs.extend((0..max_length).map(|t| f32::from(t < kept)));
        }
        let data = Dataset::new(inputs, vec![2, max_length], Targets::Classes(self.classes.clone()))?;
        Ok(Dataset { tokens: true, ..data })
    }
}

/// Words and their ids.
///
/// The tokeniser is this: a token is what white space separates (the sentences of SST-2 come with their
/// punctuation set apart), in lower case. Id 0 is padding, 1 an unknown word; the words of the sentences that
/// the vocabulary is made of follow from 2, the most frequent first, equally frequent ones in the order of
/// their bytes. The same sentences, in any order, give the same ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// Makes the vocabulary of all words in `sentences`.
    pub fn of(sentences: &[String]) -> Vocabulary {
        let mut counts = BTreeMap::new();
        for word in sentences.iter().flat_map(|sentence| words(sentence)) {
            *counts.entry(word).or_insert(0usize) += 1;
        }
        let mut ordered: Vec<(String, usize)> = counts.into_iter().collect();
        // stable: equally frequent words keep the map's order
        ordered.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        Vocabulary { ids: ordered.into_iter().map(|(word, _)| word).zip(UNKNOWN + 1..).collect() }
    }

    /// The number of ids, padding and unknown words among them: a model's `num_embeddings`.
    pub fn ids(&self) -> usize {
        self.ids.len() + 2
    }

    /// The id of a word in lower case.
    pub fn id(&self, word: &str) -> u32 {
        self.ids.get(word).copied().unwrap_or(UNKNOWN)
    }
}
