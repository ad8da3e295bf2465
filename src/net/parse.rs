//! What is wrong with a model file: the line, the layer and the key.

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::model::{Layer, Model};

/// Where in the text, and what.
type Problem = (usize, String);

/// The model that `text` holds; the error is one line that names the place.
pub(super) fn parse(text: &str) -> Result<Model, String> {
    toml::from_str(text).map_err(|error| {
        let found = DeTable::parse(text).ok().and_then(|table| in_model(table.get_ref()));
        let start = error.span().map_or(0, |span| span.start);
        let (start, problem) = found.unwrap_or_else(|| (start, in_words(error.message())));
        let line = text.bytes().take(start).filter(|&byte| byte == b'\n').count() + 1;
        format!("line {line}: {}", problem.replace('\n', " "))
    })
}

fn in_model(table: &DeTable<'_>) -> Option<Problem> {
    if let Some(layers) = table.get("layers").and_then(|layers| layers.get_ref().as_array())
        && let Some(problem) =
            layers.iter().enumerate().find_map(|(i, layer)| in_layer(&i.to_string(), layer))
    {
        return Some(problem);
    }
    // `layers` stands beside each key, as what a model has to have
    let none = Spanned::new(0..0, DeValue::Array(Default::default()));
    table.iter().find_map(|(key, value)| {
        let mut alone = DeTable::from_iter([(Spanned::new(0..0, "layers".into()), none.clone())]);
        alone.insert(key.clone(), value.clone());
        let problem = refused::<Model>(alone, 0..0)?;
        Some((value.span().start, of_key(key.get_ref(), &problem)))
    })
}

fn in_layer(name: &str, layer: &Spanned<DeValue<'_>>) -> Option<Problem> {
    let start = layer.span().start;
    let Some(table) = layer.get_ref().as_table() else {
        let found = layer.get_ref().type_str();
        return Some((start, format!("layer {name}: found {found}, expected a table")));
    };
    let whole = refused::<Layer>(table.clone(), layer.span());
    let Some((type_key, kind)) = table.get_key_value("type") else {
        return whole.map(|problem| (start, format!("layer {name}: {}", in_words(&problem))));
    };
    for part in ["body", "shortcut"] {
        let layers = table.get(part).and_then(|layers| layers.get_ref().as_array());
        let named = |(i, layer)| in_layer(&format!("{name}.{part}.{i}"), layer);
        if let Some(problem) = layers.and_then(|layers| layers.iter().enumerate().find_map(named)) {
            return Some(problem);
        }
    }
    let whole = whole?;
    let typed = DeTable::from_iter([(type_key.clone(), kind.clone())]);
    if let Some(problem) =
        refused::<Layer>(typed.clone(), layer.span()).filter(|problem| !is_missing(problem))
    {
        return Some((kind.span().start, format!("layer {name}: {}", of_key("type", &problem))));
    }
    let layer = format!("layer {name} ({})", kind.get_ref().as_str().unwrap_or_default());
    let of_one = table.iter().find_map(|(key, value)| {
        let mut alone = typed.clone();
        alone.insert(key.clone(), value.clone());
        let problem = refused::<Layer>(alone, 0..0).filter(|problem| !is_missing(problem))?;
        Some((value.span().start, format!("{layer}: {}", of_key(key.get_ref(), &problem))))
    });
    Some(of_one.unwrap_or_else(|| (start, format!("{layer}: {}", in_words(&whole)))))
}

/// Why `table` is no `T`.
fn refused<T: DeserializeOwned>(table: DeTable<'_>, span: std::ops::Range<usize>) -> Option<String> {
    let table = ValueDeserializer::from(Spanned::new(span, DeValue::Table(table)));
    T::deserialize(table).err().map(|error| error.message().to_string())
}

/// Whether nothing is wrong with what stands there.
fn is_missing(problem: &str) -> bool {
    problem.starts_with("missing field")
}

/// The problem with a key's value, or with the key.
fn of_key(key: &str, problem: &str) -> String {
    if problem.starts_with("unknown field") {
        problem.into()
    } else {
        format!("{key}: {}", in_words(problem))
    }
}

/// serde's "invalid value: integer `-5`, expected usize" as the crate's errors have it.
fn in_words(problem: &str) -> String {
    let invalid = ["invalid value: ", "invalid type: "].iter().find_map(|start| problem.strip_prefix(start));
    let Some((found, expected)) = invalid.and_then(|rest| rest.split_once(", expected ")) else {
        return problem.into();
    };
    let number = ["integer ", "floating point ", "boolean "].iter().find_map(|kind| found.strip_prefix(kind));
    // what fits no i64 comes as "`99999999999999999999` as i128"
    let found = number.map_or(found, |number| {
        number.split_once(" as ").map_or(number, |(number, _)| number).trim_matches('`')
    });
    let expected = match expected {
        "usize" => "a whole number, 0 or more",
        "f32" => "a number",
        "a boolean" => "true or false",
        other => other,
    };
    format!("found {found}, expected {expected}")
}
