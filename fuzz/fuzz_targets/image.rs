#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xfsr_tests::fuzz::target("image").run(data));
