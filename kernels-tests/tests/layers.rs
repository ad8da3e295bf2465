//! Modules depend downwards only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The crate's modules from the bottom up; those of one row do not know each other, but for the first row, on which
/// everything stands.
const LAYERS: [&[&str]; 12] = [
    &["error", "files"],
    &["gpu"],
    &["kernels"],
    &["data"],
    &["net"],
    &["jets"],
    &["operators"],
    &["spectral", "stats"],
    &["train"],
    &["runs", "report"],
    &["papers"],
    &["cli"],
];

/// What the crate's root names of the first row.
const OF_ERRORS: [&str; 3] = ["Error", "Result", "Undefined"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

/// The modules of the crate that a source names, outside of comments: what follows `crate::`, one name or a list.
fn named(source: &str) -> BTreeSet<String> {
    let code: Vec<&str> = source.lines().map(|line| line.split("//").next().unwrap()).collect();
    let code = code.join(" ");
    let first = |path: &str| {
        let path = path.trim_start();
        path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
    };
    let mut names = BTreeSet::new();
    for part in code.split("crate::").skip(1) {
        match part.strip_prefix('{') {
            // a list at the root: its members at depth 0
            Some(list) => {
                let (mut depth, mut member) = (0, String::new());
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            names.insert(first(&member));
                            member.clear();
                        }
                        _ if depth == 0 => member.push(c),
                        _ => {}
                    }
                }
                names.insert(first(&member));
            }
            None => {
                names.insert(first(part));
            }
        }
    }
    names.remove("");
    names
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn no_module_looks_up() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let (mut upwards, mut seen) = (Vec::new(), BTreeSet::new());
    for path in sources(&root) {
        let within = path.strip_prefix(&root).unwrap();
        let module = within.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = module.trim_end_matches(".rs");
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{module} is in no layer"));
        seen.insert(module.to_string());
        for name in named(&std::fs::read_to_string(&path).unwrap()) {
            let of_errors = OF_ERRORS.contains(&name.as_str());
            let other = match of_errors {
                true => 0,
                false => layer(&name).unwrap_or_else(|| panic!("{}: crate::{name}", within.display())),
            };
            if other > own || other == own && name != module && own > 0 && !of_errors {
                upwards.push(format!("{} names {name}", within.display()));
            }
        }
    }
    assert!(upwards.is_empty(), "{}", upwards.join("\n"));
    let all: BTreeSet<String> = LAYERS.iter().flat_map(|layer| layer.iter()).map(|m| m.to_string()).collect();
    assert_eq!(seen, all);
}

#[test]
fn names_are_read_off_a_source() {
    let source = "use crate::gpu::{Gpu, View};\nuse crate::{Error, net::{a, b}, kernels};\n// crate::cli\n\
                  let x = crate::jets::ops(1); #[cfg(x)] use crate::Result;";
    let expected = ["Error", "Result", "gpu", "jets", "kernels", "net"];
    assert_eq!(named(source).into_iter().collect::<Vec<_>>(), expected);
}
