//! Files that hold a part of a model, alone and with their siblings.

use std::fs;
use std::path::Path;

use super::files::{child, verified, wild};
use crate::support::{merge, tool};

#[test]
fn parts_of_a_model_are_refused_by_what_they_are() {
    let partner = wild("variants/b");
    for (case, file, what, tool) in [
        ("llama", "consolidated.00.pth", "tensor-parallel parts", "convert_llama_weights_to_hf"),
        ("llama", "consolidated.01.pth", "tensor-parallel parts", "convert_llama_weights_to_hf"),
        (
            "deepspeed",
            "mp_rank_00_model_states.pt",
            "tensor-parallel parts",
            "deepspeed_to_transformers.py",
        ),
        ("metaseq", "reshard-model_part-0.pt", "tensor-parallel parts", "convert_to_singleton.py"),
        ("neox", "layer_01-model_00-model_states.pt", "pipeline parts", "convert_neox_to_hf.py"),
        ("ranks", "model-rank-0-of-2.pt", "1 part: ", "the program that saved them"),
        ("torchtune", "hf_model_0002_0.pt", "2 parts: ", "torch.load"),
        ("verl", "model_world_size_2_rank_0.pt", "FSDP parts", "verl.model_merger"),
        ("megatron/mp_rank_00", "model_optim_rng.pt", "tensor-parallel parts", "Megatron-LM"),
    ] {
        let dir = wild("parts").join(case);
        let (file, out) = (dir.join(file), Path::new("never-made"));
        let merged = |path: &Path| merge(path, &partner, out, &[]).refused(65);
        for said in [merged(&dir), merged(&file), verified(&file, 65)] {
            let parts = said.contains("these are parts of a model, not a model: ")
                || said.contains("this is a part of a model, not a model: ");
            assert!(parts && said.contains(what), "{said}");
            assert!(said.contains("hint: ") && said.contains(tool), "{said}");
        }
    }
}

#[test]
fn a_first_part_without_others_is_a_whole_model() {
    let plain = child(&wild("variants/a"), &wild("variants/b")).0;
    let dir = tempfile::tempdir().unwrap();
    for name in ["consolidated.00.pth", "hf_model_0001_2.pt", "mp_rank_00_model_states.pt"] {
        let model = dir.path().join(name.replace('.', "-"));
        fs::create_dir(&model).unwrap();
        fs::copy(wild("variants/a/pytorch_model.bin"), model.join(name)).unwrap();
        for path in [&model, &model.join(name)] {
            assert!(child(path, &wild("variants/b")).0 == plain, "{name}");
        }
    }
}

#[test]
fn one_shard_alone_is_no_model_and_its_index_is_named_where_there_is_one() {
    let shard = wild("shards/a/pytorch_model-00001-of-00002.bin");
    let dir = tempfile::tempdir().unwrap();
    let merged = |path: &Path| {
        let out = dir.path().join("child");
        merge(path, &wild("shards/b"), &out, &[]).refused(65)
    };
    let said = merged(&shard);
    let index = wild("shards/a/pytorch_model.bin.index.json");
    let hint = format!("hint: name the index, which knows all shards: {}", index.display());
    assert!(
        said.contains("this is a part of a model, not a model") && said.contains(&hint),
        "{said}"
    );
    child(&index, &wild("shards/b"));
    // A look at its bytes is no merge.
    let said = verified(&shard, 0);
    assert!(said.contains("warning: one of several shards: "), "{said}");
    tool(["inspect".as_ref(), shard.as_os_str()]).success();
    let alone = dir.path().join("pytorch_model-00001-of-00002.bin");
    fs::copy(&shard, &alone).unwrap();
    let said = merged(&alone);
    assert!(said.contains("hint: download the other shards and their index"), "{said}");
    // The first of one is all of it.
    let only = dir.path().join("only");
    fs::create_dir(&only).unwrap();
    let file = only.join("pytorch_model-00001-of-00001.bin");
    fs::copy(wild("variants/a/pytorch_model.bin"), &file).unwrap();
    assert!(child(&only, &wild("variants/b")).0 == child(&file, &wild("variants/b")).0);
}
