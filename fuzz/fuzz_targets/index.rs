//! The reader of index JSON over any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    llm_slerp_merge::format::fuzzing::index(bytes);
});
