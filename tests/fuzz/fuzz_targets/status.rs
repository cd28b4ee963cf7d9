#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foip::fuzzing::feed("status", bytes));
