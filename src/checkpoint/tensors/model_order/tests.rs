//! Tests: models are split by the crate's own split, and their order is restored.

use std::collections::BTreeMap;

use super::*;
use crate::checkpoint::child::split::{SplitTensor, split};
use crate::tensor::chance;

/// A tensor of a model: name, storage, bytes.
type Tensor = (String, usize, u64);

/// The tensors of a model with their files, in file order, as `save_pretrained` writes them.
fn saved(model: &[Tensor], limit: u64) -> Vec<(usize, &Tensor)> {
    let tensors: Vec<SplitTensor> = model
        .iter()
        .map(|(_, storage, storage_bytes)| SplitTensor {
            storage: *storage,
            storage_bytes: *storage_bytes,
        })
        .collect();
    let shards = split(&tensors, limit).shards.into_iter().enumerate();
    shards
        .flat_map(|(file, members)| members.into_iter().map(move |at| (file, &model[at])))
        .collect()
}

/// The restored order of names; `hint` is the order of another model.
fn found(files: &[(usize, &Tensor)], hint: &[&str]) -> Vec<String> {
    let tensors: Vec<SavedTensor<'_>> = files
        .iter()
        .map(|(file, (name, storage, storage_bytes))| SavedTensor {
            name,
            file: *file,
            storage: *storage,
            storage_bytes: *storage_bytes,
        })
        .collect();
    let place = |tensor: &SavedTensor<'_>| hint.iter().position(|name| *name == tensor.name);
    let hint: Vec<Option<usize>> = tensors.iter().map(place).collect();
    let order = restored_beside(&tensors, &hint).unwrap_or_else(|| restored(&tensors));
    order.iter().map(|at| tensors[*at].name.to_owned()).collect()
}

/// Asserts that the order of this model is restored at any limit.
fn comes_back(model: &[(&str, usize, u64)]) {
    let model: Vec<Tensor> =
        model.iter().map(|(name, storage, bytes)| ((*name).to_owned(), *storage, *bytes)).collect();
    let order: Vec<&str> = model.iter().map(|tensor| tensor.0.as_str()).collect();
    for limit in 1..=model.iter().map(|tensor| tensor.2).sum() {
        let files = saved(&model, limit);
        if files.last().is_some_and(|(file, _)| *file > 0) {
            assert_eq!(found(&files, &[]), order, "at {limit}: {files:?}");
        }
    }
}

#[test]
fn a_llama_with_a_large_head_comes_back_at_any_limit() {
    let mut model = vec![("model.embed_tokens.weight", 0, 90)];
    let layers = [
        ("model.layers.0.self_attn.q_proj.weight", 1, 16),
        ("model.layers.0.self_attn.k_proj.weight", 2, 8),
        ("model.layers.0.self_attn.v_proj.weight", 3, 8),
        ("model.layers.0.self_attn.o_proj.weight", 4, 16),
        ("model.layers.0.mlp.gate_proj.weight", 5, 24),
        ("model.layers.0.mlp.up_proj.weight", 6, 24),
        ("model.layers.0.mlp.down_proj.weight", 7, 24),
        ("model.layers.0.input_layernorm.weight", 8, 2),
        ("model.layers.0.post_attention_layernorm.weight", 9, 2),
        ("model.layers.1.self_attn.q_proj.weight", 11, 16),
        ("model.layers.1.self_attn.k_proj.weight", 12, 8),
        ("model.layers.1.input_layernorm.weight", 18, 2),
    ];
    model.extend(layers);
    model.extend([("model.norm.weight", 20, 2), ("lm_head.weight", 21, 90)]);
    comes_back(&model);
}

#[test]
fn a_tied_head_comes_back_at_any_limit() {
    comes_back(&[
        ("transformer.wte.weight", 0, 90),
        ("transformer.wpe.weight", 1, 20),
        ("transformer.h.0.ln_1.weight", 2, 2),
        ("transformer.h.0.ln_1.bias", 3, 2),
        ("transformer.h.0.attn.c_attn.weight", 4, 30),
        ("transformer.h.0.attn.c_attn.bias", 5, 6),
        ("transformer.h.0.mlp.c_fc.weight", 6, 40),
        ("transformer.ln_f.weight", 7, 2),
        ("lm_head.weight", 0, 90),
    ]);
}

#[test]
fn tied_embeddings_of_an_encoder_decoder_come_back_at_any_limit() {
    comes_back(&[
        ("shared.weight", 0, 9),
        ("encoder.embed_tokens.weight", 0, 9),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", 1, 4),
        ("encoder.block.0.layer.0.SelfAttention.k.weight", 2, 4),
        ("encoder.final_layer_norm.weight", 3, 1),
        ("decoder.embed_tokens.weight", 0, 9),
        ("decoder.block.0.layer.0.SelfAttention.q.weight", 4, 4),
        ("decoder.final_layer_norm.weight", 5, 1),
        ("lm_head.weight", 0, 9),
    ]);
}

#[test]
fn relative_embeddings_behind_the_layers_come_back_at_any_limit() {
    comes_back(&[
        ("deberta.embeddings.word_embeddings.weight", 0, 30),
        ("deberta.embeddings.LayerNorm.weight", 1, 1),
        ("deberta.encoder.layer.0.attention.self.query_proj.weight", 2, 10),
        ("deberta.encoder.layer.0.attention.self.query_proj.bias", 3, 1),
        ("deberta.encoder.rel_embeddings.weight", 4, 60),
        ("deberta.encoder.LayerNorm.weight", 5, 1),
        ("cls.predictions.bias", 6, 2),
        ("cls.predictions.transform.dense.weight", 7, 10),
        ("cls.predictions.decoder.weight", 0, 30),
        ("cls.predictions.decoder.bias", 6, 2),
    ]);
}

#[test]
fn another_model_tells_what_the_files_leave_open() {
    let model: Vec<Tensor> = [("m.x.w", 1), ("m.huge.w", 90), ("m.y.w", 1)]
        .iter()
        .enumerate()
        .map(|(storage, (name, bytes))| ((*name).to_owned(), storage, *bytes))
        .collect();
    let files = saved(&model, 50);
    assert_eq!(found(&files, &["m.x.w", "m.huge.w", "m.y.w"]), ["m.x.w", "m.huge.w", "m.y.w"]);
    assert_eq!(found(&files, &["m.x.w", "m.y.w", "m.huge.w"]), ["m.x.w", "m.y.w", "m.huge.w"]);
}

#[test]
fn another_model_in_an_order_that_no_model_has_tells_nothing() {
    let model: Vec<Tensor> = [("a.gate_proj.weight", 1), ("a.up_proj.weight", 90), ("b.w", 1)]
        .iter()
        .enumerate()
        .map(|(storage, (name, bytes))| ((*name).to_owned(), storage, *bytes))
        .collect();
    let order = found(&saved(&model, 50), &["a.up_proj.weight", "b.w", "a.gate_proj.weight"]);
    assert_eq!(order, ["a.gate_proj.weight", "a.up_proj.weight", "b.w"]);
}

#[test]
fn other_layers_tell_what_the_files_leave_open_in_one() {
    // In layer 1, `x` closed a shard before the embedding came, which mostly comes first.
    let model: Vec<Tensor> = [
        ("l.0.x.w", 10),
        ("l.0.emb.w", 90),
        ("l.0.y.w", 30),
        ("l.1.x.w", 20),
        ("l.1.emb.w", 90),
        ("l.1.y.w", 20),
        ("l.2.x.w", 20),
        ("l.2.y.w", 5),
    ]
    .iter()
    .enumerate()
    .map(|(storage, (name, bytes))| ((*name).to_owned(), storage, *bytes))
    .collect();
    let order: Vec<&str> = model.iter().map(|tensor| tensor.0.as_str()).collect();
    assert_eq!(found(&saved(&model, 50), &[]), order);
}

/// Names of a random tree of modules in torch's order, with words that no table knows.
fn names(chance: &mut impl FnMut(u64) -> u64, prefix: &str, most: usize, out: &mut Vec<String>) {
    for tensor in 0..chance(3) {
        if out.len() < most {
            out.push(format!("{prefix}{}", ["t", "s"][tensor as usize]));
        }
    }
    let words = if chance(3) == 0 { ["0", "1", "2"] } else { ["p", "q", "r"] };
    for word in words.iter().take(chance(4) as usize) {
        if out.len() < most && prefix.len() < 6 {
            names(chance, &format!("{prefix}{word}."), most, out);
        }
    }
}

/// Whether a part is a module, its word, and the possible orders of its own names.
type Part = ((bool, String), Vec<Vec<String>>);

/// Every order in which torch could have these names.
fn orders(names: &[String], level: usize) -> Vec<Vec<String>> {
    let word = |name: &String| name.split('.').nth(level).unwrap().to_owned();
    let is_leaf = |name: &String| name.split('.').count() == level + 1;
    let mut parts: BTreeMap<(bool, String), Vec<String>> = BTreeMap::new();
    for name in names {
        parts.entry((!is_leaf(name), word(name))).or_default().push(name.clone());
    }
    let parts: Vec<Part> = parts
        .into_iter()
        .map(|((module, word), names)| {
            let inner = if module { orders(&names, level + 1) } else { vec![names] };
            ((module, word), inner)
        })
        .collect();
    let mut all = Vec::new();
    let mut chosen = Vec::new();
    arrange(&parts, &mut chosen, &mut all);
    all
}

fn arrange(parts: &[Part], chosen: &mut Vec<usize>, all: &mut Vec<Vec<String>>) {
    if chosen.len() == parts.len() {
        let mut orders = vec![Vec::new()];
        for part in chosen.iter().map(|at| &parts[*at].1) {
            let longer = |order: &Vec<String>| {
                let order = order.clone();
                part.iter().map(move |inner| [order.clone(), inner.clone()].concat())
            };
            orders = orders.iter().flat_map(longer).collect();
        }
        all.append(&mut orders);
        return;
    }
    for at in 0..parts.len() {
        let (module, word) = &parts[at].0;
        let number = |word: &String| word.parse::<u64>().ok();
        let must_wait = parts.iter().enumerate().any(|(other, ((is_module, name), _))| {
            let ahead = !is_module && *module
                || is_module == module
                    && number(name).zip(number(word)).is_some_and(|(a, b)| a < b);
            ahead && !chosen.contains(&other)
        });
        if !chosen.contains(&at) && !must_wait {
            chosen.push(at);
            arrange(parts, chosen, all);
            chosen.pop();
        }
    }
}

#[test]
fn the_order_found_gives_the_same_files_and_is_the_only_one_where_only_one_does() {
    let mut chance = chance(3);
    let (mut cases, mut determined) = (0, 0);
    while cases < 40 {
        let mut order = Vec::new();
        names(&mut chance, "", 6, &mut order);
        let possible = orders(&order, 0);
        if order.len() < 2 || possible.len() > 24 {
            continue;
        }
        let order = &possible[chance(possible.len() as u64) as usize];
        let sizes = [0, 1, 2, 3, 5, 8, 20, 30];
        let model: Vec<Tensor> = order
            .iter()
            .enumerate()
            .map(|(storage, name)| (name.clone(), storage, sizes[chance(8) as usize]))
            .collect();
        let mut model = model;
        for tensor in 1..model.len() {
            if chance(4) == 0 {
                let first = chance(tensor as u64) as usize;
                (model[tensor].1, model[tensor].2) = (model[first].1, model[first].2);
            }
        }
        let files = saved(&model, chance(12) + 1);
        if files.last().is_none_or(|(file, _)| *file == 0) {
            continue;
        }
        let of_name: BTreeMap<&str, &Tensor> =
            model.iter().map(|tensor| (tensor.0.as_str(), tensor)).collect();
        let in_order = |order: &Vec<String>| -> Vec<Tensor> {
            order.iter().map(|name| of_name[name.as_str()].clone()).collect()
        };
        let gives_these_files = |order: &Vec<String>| {
            let model = in_order(order);
            (1..40).any(|limit| saved(&model, limit) == files)
        };
        let explained: Vec<&Vec<String>> =
            possible.iter().filter(|order| gives_these_files(order)).collect();
        let found = found(&files, &[]);
        assert!(explained.contains(&order), "{model:?}");
        assert!(explained.contains(&&found), "{files:?}\nfound {found:?}\nof {explained:?}");
        cases += 1;
        determined += usize::from(explained.len() == 1);
    }
    assert!(determined > 5, "{determined} of {cases}");
}

#[test]
fn names_of_many_levels_and_many_groups_take_no_time() {
    let deep = (0..200).map(|n| format!("{}{n}", ".".repeat(20_000)));
    let flat = (0..10_000).map(|n| format!("a.b.c.d.e.f{n}.w"));
    let names: Vec<String> = deep.chain(flat).collect();
    let model: Vec<Tensor> = names
        .into_iter()
        .enumerate()
        .map(|(at, name)| (name, at / 2, if at % 40 < 2 { 900 } else { 10 }))
        .collect();
    let files = saved(&model, 100);
    assert_eq!(found(&files, &[]).len(), model.len());
}
