//! `--config FILE`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| portway_tests::fuzz::config(text));
