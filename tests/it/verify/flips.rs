//! One flipped bit at random places of a parent: found by `verify` and by `merge`, or it lies where
//! it changes nothing.

use std::fs;
use std::path::Path;

use llm_slerp_merge::Result;
use llm_slerp_merge::engine::verify;
use llm_slerp_merge::format::EmitTensor;
use llm_slerp_merge::tensor::DType;

use super::files::{checkpoint, flip, one_thread, zip_again};
use crate::support::merge_here;

/// xorshift64*, with a fixed seed: the same places on every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// A model of a few tensors: matrices, a tied one, integers.
fn parent(seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed);
    let mut floats = |count: usize| -> Vec<u8> {
        let values = (0..count).map(|_| (noise.next() >> 40) as f32 / (1 << 23) as f32 - 1.0);
        values.flat_map(f32::to_le_bytes).collect()
    };
    let storages = [floats(600), floats(400), floats(20), 7i64.to_le_bytes().to_vec()];
    let tensors = [
        EmitTensor::contiguous("model.embed_tokens.weight", DType::Float32, &[30, 20], 0),
        EmitTensor::contiguous("model.layers.0.mlp.weight", DType::Float32, &[20, 20], 1),
        EmitTensor::contiguous("model.norm.weight", DType::Float32, &[20], 2),
        EmitTensor::contiguous("model.position", DType::Int64, &[], 3),
        EmitTensor::contiguous("lm_head.weight", DType::Float32, &[30, 20], 0),
    ];
    checkpoint(&tensors, &storages)
}

/// The child's weights; the child is removed again.
fn merged(primary: &Path, secondary: &Path, child: &Path) -> Result<Vec<u8>> {
    merge_here(primary, secondary, child)?;
    let weights = fs::read(child.join("pytorch_model.bin")).expect("the child");
    fs::remove_dir_all(child).expect("removed");
    Ok(weights)
}

/// How many flips verify found, and how many changed nothing.
fn flip_many(file: &[u8], seed: u64, flips: usize) -> (usize, usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let [primary, secondary, child] =
        ["a.bin", "b.bin", "child"].map(|name| directory.path().join(name));
    fs::write(&primary, file).expect("written");
    fs::write(&secondary, parent(0xb0b)).expect("written");
    let whole = merged(&primary, &secondary, &child).expect("whole parents");
    let settings = one_thread();
    assert!(verify(&primary, &settings, &()).expect("looked at").is_whole());

    let mut noise = Noise(seed);
    let (mut found, mut harmless) = (0, 0);
    for _ in 0..flips {
        let bit = noise.below(file.len() * 8);
        flip(&primary, bit);
        let place = format!("bit {} of byte {}", bit % 8, bit / 8);
        let is_whole = verify(&primary, &settings, &()).expect("looked at").is_whole();
        match merged(&primary, &secondary, &child) {
            Err(error) => assert!(!is_whole, "{place}: merge says {error}, verify nothing"),
            Ok(bytes) => assert!(bytes == whole, "{place}: the child differs, verify {is_whole}"),
        }
        found += usize::from(!is_whole);
        harmless += usize::from(is_whole);
        flip(&primary, bit);
    }
    (found, harmless)
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    let (found, harmless) = flip_many(&parent(0xa11ce), 0x5eed, 1000);
    // Most bits are data; the harmless ones are padding, times, versions and attributes.
    assert_eq!(found + harmless, 1000);
    assert!(found > 600, "{found} found, {harmless} harmless");
}

#[test]
fn every_flipped_bit_of_a_deflated_parent_is_found_or_harmless() {
    let file = zip_again(&parent(0xa11ce), true, |_, bytes| bytes);
    let (found, harmless) = flip_many(&file, 0x5eed, 200);
    assert!(found > 120, "{found} found, {harmless} harmless");
}
