//! The reader of safetensors over any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    llm_slerp_merge::format::fuzzing::safetensors(bytes);
});
