fn main() -> std::process::ExitCode {
    curvkit::cli::main()
}
