//! The zip reader and the reader of the older format over any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    llm_slerp_merge::format::fuzzing::file(bytes);
});
