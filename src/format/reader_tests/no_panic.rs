//! Damaged files: an error or a state dict that keeps its promises, never a panic, never slow.

use super::build::{checkpoint, dict, usual};
use super::fixtures::FILES;
use super::read;
use crate::format::fuzzing::check_state_dict as check;

/// xorshift64*, with a fixed seed: the same files on every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut noise = Noise(0x5eed);
    for (_, file) in FILES {
        for _ in 0..250 {
            let mut damaged = file.to_vec();
            for _ in 0..=noise.below(4) {
                let position = noise.below(damaged.len());
                match noise.below(6) {
                    0 => damaged.truncate(position),
                    1 => {
                        let end = (position + noise.below(40)).min(damaged.len());
                        damaged.drain(position..end);
                    }
                    2 => {
                        let copy = damaged[position..(position + 30).min(damaged.len())].to_vec();
                        let at = noise.below(damaged.len());
                        damaged.splice(at..at, copy);
                    }
                    3 => {
                        if let Some(byte) = damaged.get_mut(position) {
                            *byte = [0, 1, 0x7f, 0x80, 0xff][noise.below(5)];
                        }
                    }
                    _ => {
                        if let Some(byte) = damaged.get_mut(position) {
                            *byte ^= 1 << noise.below(8);
                        }
                    }
                }
            }
            if let Ok(state_dict) = read(&damaged) {
                check(&state_dict, damaged.len() as u64);
            }
        }
    }
}

#[test]
fn damaged_pickles_never_panic() {
    // Archives made anew around the damaged pickle, so that checksums do not stop it early.
    let mut noise = Noise(0xca5e);
    let good = dict(&[("a", usual()), ("b", usual())]);
    let mut read_anyway = 0;
    for _ in 0..3000 {
        let mut damaged = good.clone();
        for _ in 0..=noise.below(3) {
            let position = noise.below(damaged.len());
            damaged[position] = match noise.below(3) {
                0 => b"(.012FILNSVabcdgilopqrstuRQKJMGTUX]eh)}j"[noise.below(40)],
                1 => 0x80 + noise.below(32) as u8,
                _ => noise.next() as u8,
            };
        }
        let file = checkpoint(&damaged);
        if let Ok(state_dict) = read(&file) {
            check(&state_dict, file.len() as u64);
            read_anyway += 1;
        }
    }
    assert!(read_anyway > 0, "no damage was harmless: the test tests nothing");
}

#[test]
fn a_changed_byte_is_refused_or_changes_nothing() {
    for name in ["plain.bin", "deflated.bin", "protocol4.bin"] {
        let (_, file) = FILES.iter().find(|file| file.0 == name).expect("a fixture");
        let good = format!("{:?}", read(file).expect(name));
        let mut changed = file.to_vec();
        for position in 0..changed.len() {
            let change = 1 << (position % 8);
            changed[position] ^= change;
            if let Ok(state_dict) = read(&changed) {
                assert_eq!(format!("{state_dict:?}"), good, "{name}, byte {position}");
            }
            changed[position] ^= change;
        }
    }
}
