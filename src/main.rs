//! The `foip` program: everything is in the library.

fn main() -> std::process::ExitCode {
    foip::cli::main()
}
