//! The plan of two parents made of any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    llm_slerp_merge::merge::fuzzing::plan(bytes);
});
