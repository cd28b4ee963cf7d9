//! The stand-in of the same name; see the library's `scp` module.

use std::process::ExitCode;

fn main() -> ExitCode {
    foip_standins::scp::program::main(std::env::args().skip(1))
}
