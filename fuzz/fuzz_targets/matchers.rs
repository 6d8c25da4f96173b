#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conntrack_actioner::hostile::matchers(bytes));
