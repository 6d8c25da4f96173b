#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| web::hostile::accept(bytes));
