//! SPEC, the argument of `publish` and `unpublish`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| portway_tests::fuzz::spec(text));
