//! The stand-in of the same name; see the library's `kube` module.

use std::process::ExitCode;

fn main() -> ExitCode {
    foip_standins::kube::program::main(std::env::args().skip(1))
}
