//! `curvkit models`

use clap::Args;
use serde_json::{Value, json};

use super::record;
use crate::Result;
use crate::net::{Model, ZOO, ZooEntry};

#[derive(Args)]
pub struct Models {
    /// Print this network's model file.
    name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Models {
    /// What there is to print.
    pub fn run(&self) -> Result<String> {
        Ok(match (&self.name, self.json) {
            (Some(name), true) => record::json(&Model::open(name)?),
            (Some(name), false) => Model::open(name)?.to_toml(),
            (None, true) => record::json(&ZOO.iter().map(row).collect::<Vec<_>>()),
            (None, false) => table(),
        })
    }
}

fn row(entry: &ZooEntry) -> Value {
    let model = entry.model();
    json!({
        "name": entry.name, "paper": entry.paper, "about": entry.about, "parameters": entry.parameters,
        "input": model.input, "tokens": model.tokens,
    })
}

fn table() -> String {
    let mut text = format!("{:22} {:>10} {:>12}  paper  layers\n", "name", "input", "parameters");
    for entry in ZOO {
        let model = entry.model();
        let input = match model.tokens {
            Some(tokens) => format!("{tokens} tokens"),
            None => model.input.iter().map(usize::to_string).collect::<Vec<_>>().join("×"),
        };
        let ZooEntry { name, parameters, paper, about, .. } = entry;
        text += &format!("{name:22} {input:>10} {parameters:>12}  {paper:>5}  {about}\n");
    }
    text
}
