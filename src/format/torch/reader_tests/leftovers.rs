//! Tests what training programs save: the state dict among other things, and values of other
//! programs.

use super::build::{
    call, checkpoint, dict, entry, global, int, pickle, storage, tensor, text, tuple, usual, zip,
};
use crate::format::error::{FormatError, Rule};
use crate::format::load::read_state_dict;
use crate::format::state_dict::StateDict;
use crate::format::torch::collect::ReadOptions;
use crate::format::torch::pickle::names::opaque::{OpaqueName, OpaqueNames};

fn options(key: Option<&str>, opaque: &[&str]) -> ReadOptions {
    let names = opaque.iter().map(|name| OpaqueName::parse(name).expect("a name"));
    ReadOptions { key: key.map(str::to_owned), opaque: OpaqueNames::new(names) }
}

fn read_as(value: &[u8], key: Option<&str>, opaque: &[&str]) -> Result<StateDict, FormatError> {
    read_state_dict(&checkpoint(value), &options(key, opaque))
}

/// The key of the state dict and the keys left out, or the rule that is broken.
fn found(pairs: &[(&str, Vec<u8>)], key: Option<&str>) -> Result<(String, Vec<String>), Rule> {
    let state_dict = read_as(&dict(pairs), key, &[]).map_err(|error| error.rule)?;
    Ok((state_dict.nest.unwrap_or_default(), state_dict.skipped))
}

fn one(name: &str, skipped: &[&str]) -> Result<(String, Vec<String>), Rule> {
    Ok((name.to_owned(), skipped.iter().map(|name| (*name).to_owned()).collect()))
}

/// A state dict of six floats, 24 bytes.
fn inner() -> Vec<u8> {
    dict(&[("w", usual())])
}

/// A tensor of `count` floats of the same storage; above six it is an expanded view.
fn of(count: i64) -> Vec<u8> {
    tensor(storage("0", 6), 0, &[count], &[i64::from(count <= 6)])
}

/// Opaque values below each entry: entry, name, tensors.
fn opaque(value: &[u8], names: &[&str]) -> Vec<(String, String, usize)> {
    let state_dict = read_as(value, None, names).expect("a good checkpoint");
    let values = state_dict.opaque.into_iter();
    values.map(|value| (value.entry, value.name, value.tensors)).collect()
}

fn named(entry: &str, name: &str, tensors: usize) -> (String, String, usize) {
    (entry.to_owned(), name.to_owned(), tensors)
}

/// `NEWOBJ` without arguments and `BUILD`.
fn object(module: &str, name: &str, state: Vec<u8>) -> Vec<u8> {
    [global(module, name), b")\x81".to_vec(), state, b"b".to_vec()].concat()
}

#[test]
fn the_state_dict_is_a_known_key_the_only_dict_or_the_largest_by_far() {
    let small = || dict(&[("b", of(2))]);
    let mean = || dict(&[("mean", of(1)), ("count", int(7))]);
    for (pairs, wanted) in [
        (vec![("epoch", int(1)), ("model", inner())], one("model", &["epoch"])),
        (vec![("model_ema", inner())], one("model_ema", &[])),
        (vec![("schema", inner()), ("lr", int(1))], one("schema", &["lr"])),
        // Counters and losses weigh nothing.
        (vec![("loss", of(1)), ("model_state_dict", inner())], one("model_state_dict", &["loss"])),
        (vec![("net", inner()), ("stats", mean())], one("net", &["stats"])),
        // Ten times as large is by far; less is not.
        (vec![("big", dict(&[("w", of(20))])), ("small", small())], one("big", &["small"])),
        (vec![("big", dict(&[("w", of(19))])), ("small", small())], Err(Rule::SeveralStateDicts)),
        (vec![("model", inner()), ("ema", inner())], Err(Rule::SeveralStateDicts)),
        (vec![("module", inner()), ("state_dict", inner())], Err(Rule::SeveralStateDicts)),
        (vec![("model", small()), ("more", dict(&[("w", of(60))]))], one("more", &["model"])),
        // The top level is one of several, too.
        (vec![("w", usual()), ("model", inner())], Err(Rule::SeveralStateDicts)),
        (vec![("w", of(60)), ("extra", small())], one("", &["extra"])),
        (vec![("w", of(2)), ("model", dict(&[("w", of(60))]))], one("model", &["w"])),
        (vec![("w", usual()), ("lr", int(1))], one("", &["lr"])),
        // A known key may hold other values, too; an unknown one is not taken for granted.
        (vec![("model", dict(&[("w", usual()), ("n", int(1))]))], one("model", &["n"])),
        (vec![("stats", dict(&[("w", usual()), ("n", int(1))]))], Err(Rule::NoStateDict)),
        (vec![("epoch", int(1))], Err(Rule::NoStateDict)),
        (vec![], one("", &[])),
    ] {
        let keys: Vec<&str> = pairs.iter().map(|pair| pair.0).collect();
        assert_eq!(found(&pairs, None), wanted, "{keys:?}");
    }
    for value in [b"]".to_vec(), int(5), usual(), b"N".to_vec()] {
        assert_eq!(read_as(&value, None, &[]).expect_err("a refusal").rule, Rule::NoStateDict);
    }
}

#[test]
fn states_of_optimizers_and_random_numbers_are_no_state_dicts() {
    let moments = || dict(&[("step", of(1)), ("exp_avg", usual()), ("exp_avg_sq", usual())]);
    let by_name = dict(&[("layer.weight", moments())]);
    let groups = dict(&[("state", by_name.clone()), ("param_groups", b"]".to_vec())]);
    let numbered = [b"}".to_vec(), int(0), moments(), b"s".to_vec()].concat();
    for key in ["optimizer", "optimizer_state", "optim.state", "opt", "optimizerG", "rng_state"] {
        let pairs = [("model", inner()), (key, dict(&[("flat", of(600))]))];
        assert_eq!(found(&pairs, None), one("model", &[key]), "{key}");
    }
    for state in [groups, by_name, numbered, moments()] {
        let pairs = [("model", inner()), ("adam", state.clone())];
        assert_eq!(found(&pairs, None), one("model", &["adam"]));
        assert_eq!(found(&[("adam", state)], None), Err(Rule::NoStateDict));
    }
    assert_eq!(found(&[("rng_state", of(600)), ("m", inner())], None), one("m", &["rng_state"]));
    // Words that only begin alike, and a part of BLIP-2's model.
    let blip = dict(&[("opt_model.w", usual()), ("optim.w", usual())]);
    let pairs = [("opt_model", blip), ("stats", dict(&[("mean", of(1))]))];
    assert_eq!(found(&pairs, None), one("opt_model", &["stats"]));
    assert_eq!(found(&[("optimal", inner())], None), one("optimal", &[]));
}

#[test]
fn a_state_dict_is_found_deeper_and_a_model_in_parts_is_refused() {
    let deeper = dict(&[("state_dict", inner()), ("epoch", int(3))]);
    let wanted = one("model.state_dict", &["lr", "model.epoch"]);
    assert_eq!(found(&[("lr", int(1)), ("model", deeper)], None), wanted);
    let embedding = dict(&[("word_embeddings", dict(&[("weight", of(2))]))]);
    let parts = dict(&[("embedding", embedding), ("transformer", dict(&[("w", of(6000))]))]);
    let megatron = dict(&[("model", dict(&[("language_model", parts)]))]);
    let error = read_as(&megatron, None, &[]).expect_err("a refusal");
    assert_eq!(error.rule, Rule::SeveralStateDicts);
    assert_eq!(
        error.found,
        "`model.language_model.transformer` (24.0 kB), \
         `model.language_model.embedding.word_embeddings` (8 B)"
    );
    assert!(error.hint.is_some_and(|hint| hint.contains("if they are parts of one model")));
    // One dict under two keys is one.
    let twice =
        [b"}(".to_vec(), text("a"), inner(), b"q\x01".to_vec(), text("b"), b"h\x01u".to_vec()];
    assert_eq!(read_as(&twice.concat(), None, &[]).expect("read").nest.as_deref(), Some("a"));
}

#[test]
fn a_key_chooses_and_dots_lead_deeper() {
    let deeper = || dict(&[("sd", inner()), ("ema", inner())]);
    let pairs = [("model", deeper()), ("model.sd", inner()), ("a/b", inner()), ("w", usual())];
    let nest = |key| found(&pairs, Some(key)).map(|found| found.0);
    assert_eq!(nest("model.ema"), Ok("model.ema".to_owned()));
    assert_eq!(nest("model.sd"), Ok("model.sd".to_owned()));
    assert_eq!(found(&pairs, Some("model.sd")).map(|found| found.1.len()), Ok(3));
    assert_eq!(nest("a/b"), Ok("a/b".to_owned()));
    assert_eq!(nest(""), Ok(String::new()));
    assert_eq!(nest("model"), Err(Rule::SeveralStateDicts));
    for key in ["absent", "w", "model.", "model.sd.w", ".model", "a", "a.b", "model.absent"] {
        assert_eq!(nest(key), Err(Rule::NoEntry), "{key}");
    }
    // What is named may be the state of an optimizer.
    let moments = dict(&[("exp_avg", usual()), ("exp_avg_sq", usual())]);
    let named = found(&[("model", inner()), ("optimizer", moments)], Some("optimizer"));
    assert_eq!(named, one("optimizer", &["model"]));
    let error = read_as(&dict(&pairs), Some("absent"), &[]).expect_err("a refusal");
    assert_eq!(
        error.text(),
        "pickle: expected a dict of tensors under `absent`, found dicts under `model`, `model.sd`, \
         `a/b`"
    );
}

#[test]
fn values_of_other_programs_are_left_out_and_named_by_their_entry() {
    let namespace = object("argparse", "Namespace", dict(&[("lr", int(1)), ("path", path("a"))]));
    let value = dict(&[("args", namespace), ("model", inner()), ("dir", path("b"))]);
    assert_eq!(
        opaque(&value, &[]),
        [
            named("args", "argparse.Namespace", 0),
            named("args", "pathlib.PosixPath", 0),
            named("dir", "pathlib.PosixPath", 0)
        ]
    );
    // Below the state dict, as a key, in a set, and dropped again.
    let class = global("omegaconf.dictconfig", "DictConfig");
    let model = dict(&[("w", usual()), ("config", class.clone())]);
    let keyed = [b"}".to_vec(), global("numpy", "float32"), b"Ns".to_vec()].concat();
    let set = [b"\x8f(".to_vec(), path("c"), b"\x90".to_vec()].concat();
    let dropped = [global("typing", "Any"), b"0".to_vec(), b"N".to_vec()].concat();
    let value = dict(&[("set", set), ("keyed", keyed), ("model", model), ("x", dropped)]);
    assert_eq!(
        opaque(&value, &[]),
        [
            named("model.config", "omegaconf.dictconfig.DictConfig", 0),
            named("set", "pathlib.PosixPath", 0),
            named("keyed", "numpy.float32", 0),
            named("", "typing.Any", 0)
        ]
    );
    // Two entries that share a value: the first has it.
    let shared = [
        b"}(".to_vec(),
        text("a"),
        path("p"),
        b"q\x01".to_vec(),
        text("b"),
        b"h\x01".to_vec(),
        text("m"),
        inner(),
        b"u".to_vec(),
    ];
    assert_eq!(opaque(&shared.concat(), &[]), [named("a", "pathlib.PosixPath", 0)]);
}

fn path(part: &str) -> Vec<u8> {
    call("pathlib", "PosixPath", &[text(part)])
}

#[test]
fn tensors_that_only_an_opaque_value_holds_are_named_beside_the_weights_and_refused_in_them() {
    let holding = || object("types", "SimpleNamespace", dict(&[("best", usual())]));
    let value = dict(&[("cache", holding()), ("model", inner())]);
    assert_eq!(opaque(&value, &[]), [named("cache", "types.SimpleNamespace", 1)]);
    // The same tensor by its name, too: nothing is hidden.
    let shared = [
        b"}(".to_vec(),
        text("model"),
        dict(&[("w", [usual(), b"q\x01".to_vec()].concat())]),
        text("cache"),
        object("types", "SimpleNamespace", dict(&[("best", b"h\x01".to_vec())])),
        b"u".to_vec(),
    ];
    assert_eq!(opaque(&shared.concat(), &[]), [named("cache", "types.SimpleNamespace", 0)]);
    let inside = dict(&[("model", dict(&[("w", usual()), ("b", holding())]))]);
    let error = read_as(&inside, None, &[]).expect_err("a refusal");
    assert_eq!((error.rule, error.tensor.as_deref()), (Rule::Unsupported, Some("b")));
    assert_eq!(error.found, "1 tensor inside `types.SimpleNamespace`, which is not read");
    // A whole state dict of another program's class is none.
    let items = [text("w"), usual(), b"s".to_vec()].concat();
    let default = [call("collections", "defaultdict", &[b"N".to_vec()]), items].concat();
    assert_eq!(found(&[("model", default)], None), Err(Rule::NoStateDict));
}

#[test]
fn a_name_that_the_user_gives_is_read_in_every_form_and_no_other_is() {
    let class = || global("m", "C");
    let keywords = dict(&[("a", int(1))]);
    for value in [
        class(),
        call("m", "C", &[int(1)]),
        object("m", "C", tuple(&[dict(&[("a", int(1))]), dict(&[("slot", int(1))])])),
        object("m", "C", int(5)),
        [class(), b")".to_vec(), keywords, b"\x92".to_vec()].concat(),
        [class(), b")\x81(".to_vec(), text("k"), int(1), b"u".to_vec()].concat(),
        [class(), b")\x81(".to_vec(), int(1), b"e".to_vec()].concat(),
        call("copyreg", "_reconstructor", &[class(), global("builtins", "dict"), b"}".to_vec()]),
        [text("m"), text("C"), b"\x93".to_vec()].concat(),
    ] {
        let beside = dict(&[("model", inner()), ("x", value)]);
        let names: Vec<_> = opaque(&beside, &["m.C"]).into_iter().map(|value| value.1).collect();
        assert!(names.contains(&"m.C".to_owned()), "{names:?}");
        let error = read_as(&beside, None, &["m.D", "m.C.D"]).expect_err("a refusal");
        assert_eq!((error.rule, error.found.as_str()), (Rule::ForbiddenGlobal, "`m.C`"));
    }
    // A name of torch's list means what it means there.
    let value = dict(&[("model", inner())]);
    assert_eq!(opaque(&value, &["torch._utils._rebuild_tensor_v2"]), []);
}

#[test]
fn inert_names_are_read_in_the_forms_of_their_writers_only() {
    let beside = |value: Vec<u8>| {
        let file = dict(&[("w", usual()), ("x", value)]);
        read_as(&file, None, &[]).err().map(|error| error.rule)
    };
    let builder = |class: Vec<u8>, base: Vec<u8>| {
        call("copy_reg", "_reconstructor", &[class, base, b"N".to_vec()])
    };
    let object_of = |name: &str| global("__builtin__", name);
    for value in [
        call("argparse", "Namespace", &[text("touch")]),
        call("collections", "defaultdict", &[text("touch")]),
        call("numpy", "dtype", &[text("touch")]),
        call("numpy", "ndarray", &[]),
        call("typing", "Any", &[]),
        call("numpy.core.multiarray", "scalar", &[text("touch")]),
        call("copyreg", "_reconstructor", &[text("touch")]),
        builder(object_of("bytes"), object_of("object")),
        builder(global("torch", "Tensor"), object_of("object")),
        builder(global("argparse", "Namespace"), text("object")),
        [global("copyreg", "_reconstructor"), b")\x81".to_vec()].concat(),
    ] {
        assert_eq!(beside(value), Some(Rule::ForbiddenGlobal));
    }
    assert_eq!(beside(builder(global("argparse", "Namespace"), object_of("object"))), None);
    for (state, rule) in [
        (dict(&[("__setstate__", b"N".to_vec())]), Rule::Unsupported),
        (tuple(&[b"N".to_vec(), dict(&[("__class__", b"N".to_vec())])]), Rule::Unsupported),
        (dict(&[("__reduce__", global("os", "system"))]), Rule::ForbiddenGlobal),
    ] {
        assert_eq!(beside(object("argparse", "Namespace", state)), Some(rule));
    }
    // Names only have no state, nor have values of torch's list.
    for value in [global("typing", "Any"), call("builtins", "set", &[b"]".to_vec()])] {
        assert_eq!(beside([value, b"}b".to_vec()].concat()), Some(Rule::Unsupported));
    }
    let keywords = [global("argparse", "Namespace"), b")".to_vec(), dict(&[("a", int(1))])];
    assert_eq!(beside([keywords.concat(), b"\x92".to_vec()].concat()), Some(Rule::Pickle));
}

#[test]
fn opaque_values_take_no_more_time_or_memory_than_others() {
    let start = [text("w"), usual(), b"s".to_vec(), text("x")].concat();
    let file = |value: Vec<u8>| {
        let value = [b"}".to_vec(), start.clone(), value, b"s".to_vec()].concat();
        zip(&[entry("x/data.pkl", &pickle(&value)), entry("x/data/0", &[0; 24])])
    };
    let rule = |value| read_state_dict(&file(value), &ReadOptions::default()).map_err(|e| e.rule);
    let class = || [global("argparse", "Namespace"), b"q\x01".to_vec()].concat();
    // Many in each other.
    let many = 300_000;
    let by_state = [class(), b"h\x01)\x81".repeat(many), b"b".repeat(many)].concat();
    assert_eq!(rule(by_state).map(drop), Err(Rule::PickleLimit));
    // Many side by side, each with its state, are read within the bound or refused by it.
    let side_by_side = [class(), b"0](".to_vec(), b"h\x01)\x81}b".repeat(many), b"e".to_vec()];
    match rule(side_by_side.concat()) {
        Ok(state_dict) => assert_eq!(state_dict.opaque.len(), 1),
        Err(rule) => assert_eq!(rule, Rule::PickleLimit),
    }
    // One large state for many objects.
    let state = [b"}q\x02(".to_vec(), b"K\x01N".repeat(100_000), b"u0".to_vec()].concat();
    let again = b"h\x01)\x81h\x02b0".repeat(100_000);
    let one_state = [class(), b"0".to_vec(), state, again, b"N".to_vec()].concat();
    assert_eq!(rule(one_state).map(drop), Err(Rule::PickleLimit));
}
