//! Where parameters lie in flat vectors.

use serde::{Deserialize, Serialize};

/// The metadata's key under which a file of flat vectors holds their layout, as JSON.
pub(super) const KEY: &str = "layout";

/// The parameters whose coordinates flat vectors hold, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Layout {
    /// The parameters in the order of their coordinates.
    pub spans: Vec<Span>,
}

/// The coordinates of one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The parameter's name, as PyTorch's `state_dict` has it.
    pub name: String,
    /// Of the parameter, in row-major order.
    pub shape: Vec<usize>,
    /// The position of its first coordinate.
    pub offset: usize,
}

impl Layout {
    /// Parameters of these names and shapes, in this order.
    pub fn of(parameters: impl IntoIterator<Item = (String, Vec<usize>)>) -> Layout {
        let mut end = 0;
        let span = |(name, shape): (String, Vec<usize>)| {
            let offset = end;
            end += shape.iter().product::<usize>();
            Span { name, shape, offset }
        };
        Layout { spans: parameters.into_iter().map(span).collect() }
    }

    /// The number of coordinates.
    pub fn dim(&self) -> usize {
        self.spans.last().map_or(0, |last| last.offset + last.shape.iter().product::<usize>())
    }

    /// Key and text, as a tensor file's metadata takes them: a list of objects with `name`, `shape` and `offset`.
    pub fn metadata(&self) -> (&'static str, String) {
        (KEY, serde_json::to_string(self).expect("a layout is plain data"))
    }

    /// What tells vectors of the layout `found` from vectors of this one: the first parameter that does.
    pub(super) fn difference(&self, found: &Layout) -> Option<String> {
        let told = |span: Option<&Span>| match span {
            Some(Span { name, shape, offset }) => format!("{name} {shape:?} at {offset}"),
            None => "the end".into(),
        };
        let longer = self.spans.len().max(found.spans.len());
        let pair = |at: usize| (found.spans.get(at), self.spans.get(at));
        let (found, expected) = (0..longer).map(pair).find(|(found, expected)| found != expected)?;
        Some(format!("found {}, expected {}", told(found), told(expected)))
    }
}
