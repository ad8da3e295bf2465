//! The examples run, and what they assert holds.

macro_rules! examples {
    ($($name:ident = $path:literal),+ $(,)?) => {
        $(
            #[path = $path]
            mod $name;
        )+
        $(
            #[test]
            fn $name() {
                $name::main().unwrap();
            }
        )+
        const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

examples! {
    own_device = "../examples/own_device.rs",
    device_operator = "../examples/device_operator.rs",
    shared_operator = "../examples/shared_operator.rs",
    stopped_solver = "../examples/stopped_solver.rs",
    custom_graph = "../examples/custom_graph.rs",
}

#[test]
fn every_example_is_run() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string())
        .collect();
    found.sort();
    let mut run = NAMES.to_vec();
    run.sort();
    assert_eq!(found, run);
}
