//! The `foip` program.

fn main() {}
