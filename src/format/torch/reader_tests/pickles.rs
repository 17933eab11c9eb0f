//! Tests pickles in an archive: what is read, what is refused, and by which rule.

use super::build::{
    call, checkpoint, dict, entries, entry, global, int, ints, pickle, six_floats, storage,
    storage_of, tensor, tensor_v3, text, tuple, usual, zip,
};
use super::{read, read_whole, refusal};
use crate::format::error::Rule;
use crate::format::state_dict::ByteOrder;
use crate::tensor::DType;

/// The rule that a dict with one tensor `a` of this value breaks.
fn refusal_of(value: Vec<u8>) -> Option<Rule> {
    refusal(&checkpoint(&dict(&[("a", value)])))
}

fn names(value: &[u8]) -> Vec<String> {
    let state_dict = read(&checkpoint(value)).expect("a good checkpoint");
    state_dict.tensors.into_iter().map(|tensor| tensor.name).collect()
}

#[test]
fn the_usual_tensor_is_read() {
    let state_dict = read(&checkpoint(&dict(&[("a", usual())]))).expect("a good checkpoint");
    let tensor = &state_dict.tensors[0];
    assert_eq!((tensor.name.as_str(), tensor.dtype), ("a", DType::Float32));
    assert_eq!((&tensor.layout.shape[..], &tensor.layout.stride[..]), (&[2, 3][..], &[3, 1][..]));
    let storage = &state_dict.storages[tensor.storage];
    assert_eq!((storage.key.as_str(), storage.size_bytes, storage.record_bytes), ("0", 24, 24));
}

#[test]
fn tensors_that_leave_their_storage_are_refused() {
    let huge = 1i64 << 40;
    let cases: [(i64, &[i64], &[i64]); 9] = [
        (0, &[3, 3], &[3, 1]),
        (5, &[2], &[1]),
        (-1, &[2], &[1]),
        (0, &[-2, 3], &[3, 1]),
        (5, &[2, 3], &[-3, -1]),
        (0, &[huge, huge], &[0, 0]),
        (0, &[2, 3], &[1 << 62, 1 << 62]),
        (0, &[2, 3], &[1]),
        (i64::MAX, &[0], &[1]),
    ];
    for (offset, size, stride) in cases {
        let value = tensor(storage("0", 6), offset, size, stride);
        assert_eq!(refusal_of(value), Some(Rule::TensorBounds), "{offset} {size:?} {stride:?}");
    }
    let many = vec![1; 65];
    let value = tensor(storage("0", 6), 0, &many, &many);
    assert_eq!(refusal_of(value), Some(Rule::TensorBounds));
}

#[test]
fn empty_and_expanded_tensors_need_no_room() {
    assert_eq!(refusal_of(tensor(storage("0", 6), 100, &[0, 3], &[3, 1])), None);
    assert_eq!(refusal_of(tensor(storage("0", 6), 0, &[1 << 40], &[0])), None);
    assert_eq!(refusal_of(tensor(storage("0", 6), 5, &[1, 1], &[1 << 60, 99])), None);
}

#[test]
fn storages_that_do_not_fit_their_record_are_refused() {
    for numel in [7, -6, 1 << 62, i64::MAX] {
        let value = tensor(storage("0", numel), 0, &[1], &[1]);
        assert_eq!(refusal_of(value), Some(Rule::StorageSize), "{numel}");
    }
    for key in ["7", "../data.pkl", "0/", ""] {
        let value = tensor(storage(key, 6), 0, &[1], &[1]);
        assert_eq!(refusal_of(value), Some(Rule::MissingRecord), "{key}");
    }
    // A shorter storage than its record shows only its own part.
    assert_eq!(refusal_of(tensor(storage("0", 2), 0, &[2], &[1])), None);
    assert_eq!(refusal_of(tensor(storage("0", 2), 0, &[3], &[1])), Some(Rule::TensorBounds));
}

#[test]
fn a_storage_mentioned_twice_is_one_storage_of_the_larger_size() {
    let half = storage_of("HalfStorage", text("0"), 12, None);
    let by_number = storage_of("FloatStorage", int(0), 6, None);
    let value = dict(&[
        ("a", tensor(storage("0", 2), 0, &[2], &[1])),
        ("b", tensor(half, 0, &[12], &[1])),
        ("c", tensor(by_number, 0, &[6], &[1])),
    ]);
    let state_dict = read(&checkpoint(&value)).expect("a good checkpoint");
    assert_eq!(state_dict.storages.len(), 1);
    assert_eq!(state_dict.storages[0].size_bytes, 24);
    assert_eq!(state_dict.tensors[1].dtype, DType::Float16);
}

#[test]
fn kinds_that_are_not_merged_are_refused_by_name() {
    let quantised = storage_of("QInt8Storage", text("0"), 6, None);
    let wrapped = |class: Vec<u8>| {
        let function = global("torch._utils", "_rebuild_tensor_v2");
        call("torch._tensor", "_rebuild_from_type_v2", &[function, class, tuple(&[]), b"}".into()])
    };
    let cases = [
        call("torch._utils", "_rebuild_sparse_tensor", &[]),
        call("torch._utils", "_rebuild_qtensor", &[]),
        call("torch._utils", "_rebuild_meta_tensor_no_storage", &[]),
        call("torch._utils", "_rebuild_nested_tensor", &[]),
        call("torch._utils", "_rebuild_wrapper_subclass", &[]),
        call("torch._utils", "_rebuild_device_tensor_from_numpy", &[]),
        call("torch._utils", "_rebuild_parameter", &[b"N".into(), b"\x89".into(), b"}".into()]),
        call("torch", "FloatTensor", &[]),
        storage("0", 6),
        tensor(quantised, 0, &[6], &[1]),
        wrapped(global("torch", "device")),
    ];
    for (position, value) in cases.into_iter().enumerate() {
        let file = checkpoint(&dict(&[("ok", usual()), ("bad", value)]));
        let error = read_whole(&file).expect_err("a refusal");
        assert_eq!(
            (error.rule, error.tensor.as_deref()),
            (Rule::Unsupported, Some("bad")),
            "{position}"
        );
    }
}

#[test]
fn conjugate_views_are_refused_and_plain_metadata_is_not() {
    let with = |metadata: Vec<u8>| {
        let hooks = call("collections", "OrderedDict", &[]);
        let shape = [storage("0", 6), int(0), ints(&[6]), ints(&[1])];
        let rest = [b"\x89".to_vec(), hooks, metadata];
        call("torch._utils", "_rebuild_tensor_v2", &[shape.as_slice(), &rest].concat())
    };
    assert_eq!(refusal_of(with(dict(&[("conj", b"\x88".to_vec())]))), Some(Rule::Unsupported));
    assert_eq!(refusal_of(with(dict(&[("neg", b"\x89".to_vec())]))), None);
    assert_eq!(refusal_of(with(b"N".to_vec())), None);
}

#[test]
fn parameters_and_typed_tensors_are_their_tensors() {
    let parameter = |state: &[Vec<u8>]| {
        let name =
            if state.is_empty() { "_rebuild_parameter" } else { "_rebuild_parameter_with_state" };
        let arguments = [&[usual(), b"\x88".to_vec(), b"}".to_vec()], state].concat();
        call("torch._utils", name, &arguments)
    };
    let typed = call(
        "torch._tensor",
        "_rebuild_from_type_v2",
        &[
            global("torch._utils", "_rebuild_tensor"),
            global("torch.nn.parameter", "Parameter"),
            tuple(&[storage("0", 6), int(0), ints(&[6]), ints(&[1])]),
            b"}".to_vec(),
        ],
    );
    let device = |dtype: &str| {
        let rest = [global("torch", dtype), text("xla:0"), b"\x89".to_vec()];
        let arguments = [&[usual()], rest.as_slice()].concat();
        call("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", &arguments)
    };
    let size = call("torch", "Size", &[ints(&[6])]);
    let sized =
        call("torch._utils", "_rebuild_tensor", &[storage("0", 6), int(0), size, ints(&[1])]);
    for value in [parameter(&[]), parameter(&[b"}".to_vec()]), typed, device("float32"), sized] {
        assert_eq!(refusal_of(value), None);
    }
    assert_eq!(refusal_of(device("float16")), Some(Rule::Unsupported));
}

#[test]
fn names_are_text_and_there_once() {
    let value = dict(&[("a", usual()), ("a", usual())]);
    assert_eq!(refusal(&checkpoint(&value)), Some(Rule::TensorName));
    let value = [b"}".to_vec(), int(0), usual(), b"s".to_vec()].concat();
    assert_eq!(refusal(&checkpoint(&value)), Some(Rule::TensorName));
    for bytes in [b"X\x02\0\0\0\xff\xfe".as_slice(), b"X\x03\0\0\0\xed\xa0\x80"] {
        let value = [b"}", bytes, &usual(), b"s"].concat();
        assert_eq!(refusal(&checkpoint(&value)), Some(Rule::Pickle));
    }
}

#[test]
fn ordered_dicts_are_dicts_with_at_most_metadata() {
    let ordered = |state: &[u8]| {
        let start = call("collections", "OrderedDict", &[]);
        [start.as_slice(), &text("a"), &usual(), b"s", state].concat()
    };
    let metadata = [dict(&[("_metadata", b"}".to_vec())]), b"b".to_vec()].concat();
    assert_eq!(names(&ordered(&metadata)), ["a"]);
    let other = [dict(&[("__setstate__", b"N".to_vec())]), b"b".to_vec()].concat();
    assert_eq!(refusal(&checkpoint(&ordered(&other))), Some(Rule::Unsupported));
    let on_tensor = [usual(), b"}b".to_vec()].concat();
    assert_eq!(refusal_of(on_tensor), Some(Rule::Unsupported));
    // Python 2 gives the items as a list of lists, and strings as bytes.
    let pair = [b"](U\x01a".as_slice(), &usual(), b"e"].concat();
    let list = [b"](".as_slice(), &pair, b"e"].concat();
    assert_eq!(names(&call("collections", "OrderedDict", &[list])), ["a"]);
    let broken = call("collections", "OrderedDict", &[b"](Ke".to_vec()]);
    assert_eq!(refusal(&checkpoint(&broken)), Some(Rule::Pickle));
}

#[test]
fn names_that_are_not_known_to_be_data_are_refused_wherever_they_stand() {
    let beside = |value: Vec<u8>| refusal(&checkpoint(&dict(&[("a", usual()), ("x", value)])));
    for (module, name) in [
        ("posix", "system"),
        ("builtins", "eval"),
        ("argparse", "ArgumentParser"),
        ("argparse", "Namespace.__init__"),
        ("numpy.core.multiarray", "fromfile"),
        ("m", "C"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.nn.modules.linear", "Linear"),
        ("torch", "FooStorage"),
    ] {
        assert_eq!(beside(global(module, name)), Some(Rule::ForbiddenGlobal), "{name}");
        let by_stack = [text(module), text(name), b"\x93".to_vec()].concat();
        assert_eq!(beside(by_stack), Some(Rule::ForbiddenGlobal), "{name}");
        let inst = format!("(i{module}\n{name}\n").into_bytes();
        assert_eq!(beside(inst), Some(Rule::ForbiddenGlobal), "{name}");
    }
    // A name that is on the list stays a value of which nothing is made.
    assert_eq!(beside(call("torch", "device", &[text("cpu")])), None);
    assert_eq!(beside(call("builtins", "set", &[b"]".to_vec()])), None);
    assert_eq!(beside(global("torch", "float16")), None);
}

#[test]
fn broken_pickles_are_refused_with_their_rule() {
    let deep_tuple = [b")".to_vec(), vec![0x85; 100_000]].concat();
    let deep_marks = [vec![b'('; 100_000], vec![b't'; 100_000]].concat();
    let call_of_text = [text("f"), b")R".to_vec()].concat();
    let set_on_tensor = [usual(), text("k"), b"Ns".to_vec()].concat();
    let cases: [(&[u8], Rule); 24] = [
        (b"\x80\x09}", Rule::Pickle),
        (b"\xee", Rule::Pickle),
        (b"\x86", Rule::Pickle),
        (b"h\x05", Rule::Pickle),
        (b"t", Rule::Pickle),
        (b"}X\xff\xff\xff\xffabc", Rule::Pickle),
        (b"\x8d\0\0\0\0\0\0\0\x80abc", Rule::Pickle),
        (b"\x8b\xff\xff\xff\x7f", Rule::Pickle),
        (b"\x8b\xff\xff\xff\xff", Rule::Pickle),
        (b"\x95\xff\xff\xff\xff\xff\xff\xff\xff}", Rule::Pickle),
        (b"}(X\x01\0\0\0au", Rule::Pickle),
        (b"N(X\x01\0\0\0aNu", Rule::Pickle),
        (b"NNa", Rule::Pickle),
        (b"}(N0", Rule::Pickle),
        (b"NN", Rule::Pickle),
        (b"", Rule::Pickle),
        (b"I1x\n", Rule::Pickle),
        (b"Psome id\n", Rule::Pickle),
        (b"\x82\x01", Rule::Pickle),
        (b"(o", Rule::Pickle),
        (&call_of_text, Rule::Pickle),
        (&set_on_tensor, Rule::Pickle),
        (&deep_tuple, Rule::PickleLimit),
        (&deep_marks, Rule::PickleLimit),
    ];
    for (value, rule) in cases {
        assert_eq!(refusal(&checkpoint(value)), Some(rule), "{:?}", &value[..value.len().min(20)]);
    }
    let no_stop = zip(&entries(b"\x80\x02}"));
    assert_eq!(refusal(&no_stop), Some(Rule::Pickle));
}

#[test]
fn the_memo_is_sparse_and_text_forms_are_read() {
    assert_eq!(refusal(&checkpoint(b"}r\xff\xff\xff\xff")), None);
    let value =
        [b"}(".as_slice(), b"Va\n", &usual(), b"S'n'\nI5\nS'L'\nL7L\nS'F'\nF1.5\nu"].concat();
    assert_eq!(names(&value), ["a"]);
    let twice = [b"}(".as_slice(), &text("a"), &usual(), b"p7\n", &text("b"), b"g7\nu"].concat();
    assert_eq!(names(&twice), ["a", "b"]);
    // Bytes after STOP are not part of the pickle.
    let trailing = [pickle(&dict(&[("a", usual())])), b"junk".to_vec()].concat();
    assert_eq!(refusal(&zip(&entries(&trailing))), None);
}

#[test]
fn shared_values_cost_nothing_however_often_they_multiply() {
    // 40 lists, each holding the one before ten times: 10^40 leaves, beside a tensor.
    let mut bomb = b"]q\x00".to_vec();
    for level in 0..40u8 {
        bomb.extend(b"](");
        bomb.extend([b'h', level].repeat(10));
        bomb.extend([b'e', b'q', level + 1]);
    }
    // Everything below the last list stays on the stack: gather it into one tuple.
    let gathered = [b"(".as_slice(), &bomb, b"t"].concat();
    assert_eq!(names(&dict(&[("a", usual()), ("bomb", gathered)])), ["a"]);
    // A dict that holds itself.
    let circle =
        [b"}q\x00".as_slice(), &text("self"), b"h\x00s", &text("a"), &usual(), b"s"].concat();
    assert_eq!(names(&circle), ["a"]);
}

#[test]
fn byte_order_is_little_or_said() {
    let with = |order: &[u8], value: Vec<u8>| {
        let mut entries = entries(&pickle(&dict(&[("a", value)])));
        entries.push(entry("x/byteorder", order));
        zip(&entries)
    };
    let order = |file: Vec<u8>| read(&file).map(|state_dict| state_dict.storages[0].byte_order);
    assert_eq!(order(with(b"little", usual())), Ok(ByteOrder::Little));
    assert_eq!(order(with(b"big", usual())), Ok(ByteOrder::Big));
    assert_eq!(order(checkpoint(&dict(&[("a", usual())]))), Ok(ByteOrder::Little));
    for other in [b"little\n".as_slice(), b"middle", b"", &[b'x'; 40]] {
        assert_eq!(order(with(other, usual())), Err(Rule::ByteOrder));
    }
    // What torch reads from untyped big-endian storages is not what was written.
    assert_eq!(order(with(b"big", tensor_v3("0", 24, "uint16", 12))), Err(Rule::ByteOrder));
    assert_eq!(order(with(b"big", tensor_v3("0", 24, "float8_e5m2", 24))), Ok(ByteOrder::Big));
    assert_eq!(six_floats().len(), 24);
}

#[test]
fn one_tensor_under_ever_more_names_is_refused() {
    // 64 dimensions take a kilobyte each time; the name and the memo's slot take eleven bytes.
    let shown = tensor(storage("0", 6), 0, &[1; 64], &[1; 64]);
    let file = |names: usize| {
        let mut value = [shown.as_slice(), b"\x940}("].concat();
        for name in 0..names {
            value.extend_from_slice(b"\x8c\x06");
            value.extend_from_slice(format!("{name:06}h\0").as_bytes());
        }
        value.push(b'u');
        checkpoint(&value)
    };
    assert_eq!(read(&file(1000)).map(|state_dict| state_dict.tensors.len()), Ok(1000));
    assert_eq!(refusal(&file(50_000)), Some(Rule::PickleLimit));
}
