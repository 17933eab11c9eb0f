//! Tests damaged files: each gives an error or a state dict that keeps its promises, never a panic,
//! and takes no time.

use super::build::{call, checkpoint, dict, global, text, usual};
use super::fixtures::FILES;
use super::read;
use crate::format::fuzzing::check_state_dict as check;
use crate::format::load::read_state_dict;
use crate::format::torch::collect::ReadOptions;
use crate::format::torch::pickle::names::opaque::{OpaqueName, OpaqueNames};

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
fn damaged_leftovers_of_training_never_panic() {
    let mut noise = Noise(0x1ef7);
    let object = |module: &str, name: &str, state: &[u8]| {
        [global(module, name), b")\x81".to_vec(), state.to_vec(), b"b".to_vec()].concat()
    };
    let args = object("argparse", "Namespace", &dict(&[("a", usual()), ("b", b"N".to_vec())]));
    let config =
        object("m", "C", &[b"N".to_vec(), dict(&[("x", args.clone())]), b"\x86".to_vec()].concat());
    let counts = [call("collections", "defaultdict", &[b"N".to_vec()]), b"K\x01K\x02s".to_vec()];
    let built = call(
        "copyreg",
        "_reconstructor",
        &[global("argparse", "Namespace"), global("builtins", "object"), b"N".to_vec()],
    );
    let model = dict(&[("a", usual()), ("path", call("pathlib", "PosixPath", &[text("p")]))]);
    let good = dict(&[
        ("args", args),
        ("config", config),
        ("counts", counts.concat()),
        ("built", built),
        ("set", [b"\x8f(".to_vec(), global("numpy", "float32"), b"\x90".to_vec()].concat()),
        ("model", model.clone()),
        ("a", dict(&[("b", model)])),
    ]);
    let names = OpaqueName::parse("m.C").map(|name| OpaqueNames::new([name]));
    let opaque = names.expect("a name");
    let mut read_anyway = 0;
    for round in 0..2000 {
        let mut damaged = good.clone();
        for _ in 0..noise.below(4) {
            let position = noise.below(damaged.len());
            damaged[position] = match noise.below(3) {
                0 => b"(.012NRabcdehijlqrstu})]Q"[noise.below(25)],
                1 => 0x80 + noise.below(32) as u8,
                _ => noise.next() as u8,
            };
        }
        let key = [Some("model"), Some("a.b"), Some("a"), None][round % 4];
        let options = ReadOptions { key: key.map(str::to_owned), opaque: opaque.clone() };
        let file = checkpoint(&damaged);
        if let Ok(state_dict) = read_state_dict(&file, &options) {
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
