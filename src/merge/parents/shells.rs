//! Refuses shells: checkpoints saved while their weights were spread over processes. In place of a
//! weight they have a tensor of no elements, or of one.

use std::collections::HashMap;

use crate::checkpoint::{Checkpoint, TensorEntry};
use crate::error::{Error, Kind, Result};
use crate::merge::names::buffers::is_buffer;
use crate::merge::names::embeddings::is_vocab_name;
use crate::merge::names::numbers::unnumbered;
use crate::tensor::counted;

/// Empty tensors that a whole model may have.
const FEW: usize = 3;

/// Modules whose `weight` is a matrix in every family, besides embeddings, heads and all that end in
/// `proj`.
const MATRICES: [&str; 24] = [
    "q",
    "k",
    "v",
    "o",
    "query",
    "key",
    "value",
    "dense",
    "query_key_value",
    "qkv",
    "Wqkv",
    "c_attn",
    "c_fc",
    "fc1",
    "fc2",
    "fc_in",
    "fc_out",
    "wi",
    "wi_0",
    "wi_1",
    "w1",
    "w2",
    "w3",
    "dense_h_to_4h",
];

/// Names of the one tensor that FSDP makes of all weights of a module: torch's and fairscale's.
const FLAT: [&str; 2] = ["_flat_param", "flat_param"];

/// Fairscale's module of flat weights.
const FLAT_MODULE: &str = "_fpw_module";

/// Refuses a parent that is a shell: by the name of one tensor, by what its siblings in other layers
/// are, or by the number of its empty tensors.
pub(crate) fn refusal(checkpoint: &Checkpoint) -> Option<Error> {
    let tensors = &checkpoint.inventory.tensors;
    if let Some(flat) = tensors.iter().find(|tensor| is_flat(&tensor.name)) {
        return Some(flat_refusal(checkpoint, flat));
    }
    let hollow: Vec<&TensorEntry> = tensors.iter().filter(|tensor| is_hollow(tensor)).collect();
    let first = hollow.first()?;
    let named = hollow.iter().find(|tensor| is_matrix_name(&tensor.name));
    let shell = named.or_else(|| among_matrices(tensors, &hollow));
    let shell = shell.or_else(|| is_mostly_hollow(tensors, &hollow).then_some(first))?;
    Some(empty_refusal(checkpoint, shell, "a matrix of weights"))
}

/// Refuses parents one of which is a shell beside the other.
///
/// # Errors
/// [`Kind::Data`] with the first tensor that is empty in one parent only.
pub(crate) fn check_partners(primary: &Checkpoint, secondary: &Checkpoint) -> Result<()> {
    for (parent, other) in [(primary, secondary), (secondary, primary)] {
        let tensors = &parent.inventory.tensors;
        let hollow: Vec<&TensorEntry> = tensors.iter().filter(|tensor| is_hollow(tensor)).collect();
        if hollow.is_empty() {
            continue;
        }
        let others = other.inventory.tensors.iter();
        let theirs: HashMap<&str, &TensorEntry> =
            others.map(|tensor| (tensor.name.as_str(), tensor)).collect();
        for tensor in hollow {
            let Some(partner) = theirs.get(tensor.name.as_str()) else { continue };
            let shape = &partner.layout.shape;
            let more = partner.layout.numel() > tensor.layout.numel().map(|own| own.max(1));
            if more && (shape.len() > 1 || tensor.layout.numel() == Some(0)) {
                let expected = format!("{shape:?}, as in `{}`", other.path.display());
                return Err(empty_refusal(parent, tensor, &expected));
            }
        }
    }
    Ok(())
}

fn empty_refusal(checkpoint: &Checkpoint, shell: &TensorEntry, expected: &str) -> Error {
    let floating =
        || checkpoint.inventory.tensors.iter().filter(|tensor| tensor.dtype.is_floating());
    let like = floating().filter(|tensor| tensor.layout.shape == shell.layout.shape).count();
    let found = format!(
        "shape {:?}, as in {like} of {}",
        shell.layout.shape,
        counted(floating().count() as u64, "tensor")
    );
    Error::new(
        Kind::Data,
        "the weights are not in this checkpoint: it is a shell, as DeepSpeed ZeRO-3 leaves it",
    )
    .file(&checkpoint.path)
    .tensor(&shell.name)
    .expected(expected, found)
    .with_hint(
        "gather the weights first: run the `zero_to_fp32.py` that DeepSpeed leaves beside its \
             checkpoint, or save again with `stage3_gather_16bit_weights_on_model_save`",
    )
}

fn flat_refusal(checkpoint: &Checkpoint, flat: &TensorEntry) -> Error {
    Error::new(Kind::Data, "these are flat weights of FSDP, of which each process has a part")
        .file(&checkpoint.path)
        .tensor(&flat.name)
        .expected("one tensor for each weight", format!("shape {:?}", flat.layout.shape))
        .with_hint(
            "save a full state dict (torch: `StateDictType.FULL_STATE_DICT`; accelerate: \
             `fsdp_state_dict_type: FULL_STATE_DICT`) and merge that",
        )
}

fn is_flat(name: &str) -> bool {
    name.split('.').any(|component| {
        // fairscale numbers them.
        let plain = component.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
        component == FLAT_MODULE || FLAT.contains(&component) || FLAT.contains(&plain)
    })
}

/// Whether a tensor may stand in for a weight: DeepSpeed leaves `[0]`, old versions `[1]`.
fn is_hollow(tensor: &TensorEntry) -> bool {
    let shape = tensor.layout.shape.as_slice();
    let hollow = tensor.layout.numel() == Some(0) || shape == [1];
    hollow && tensor.dtype.is_floating() && !is_buffer(&tensor.name, tensor.dtype, shape)
}

/// Whether a name is that of a weight that has two dimensions in every model.
fn is_matrix_name(name: &str) -> bool {
    let Some(module) = name.strip_suffix(".weight") else { return false };
    let last = module.rsplit('.').next().unwrap_or(module);
    last.ends_with("proj") || MATRICES.contains(&last) || is_vocab_name(name)
}

/// The first hollow tensor whose namesakes in other layers are mostly whole matrices.
fn among_matrices<'a>(
    tensors: &[TensorEntry],
    hollow: &'a [&'a TensorEntry],
) -> Option<&'a &'a TensorEntry> {
    let mut kinds: HashMap<String, (usize, usize)> =
        hollow.iter().map(|tensor| (unnumbered(&tensor.name), (0, 0))).collect();
    for tensor in tensors {
        if let Some((all, matrices)) = kinds.get_mut(&unnumbered(&tensor.name)) {
            *all += 1;
            *matrices += usize::from(tensor.layout.shape.len() > 1 && !is_hollow(tensor));
        }
    }
    // The modules of a Sequential differ though only their numbers do: `act.2.weight` may be a PReLU.
    let numbered = |tensor: &TensorEntry| {
        tensor.layout.numel() == Some(1) && unnumbered(&tensor.name).ends_with(".N.weight")
    };
    hollow.iter().filter(|tensor| !numbered(tensor)).find(|tensor| {
        kinds.get(&unnumbered(&tensor.name)).is_some_and(|(all, matrices)| matrices * 2 > *all)
    })
}

/// Whether more than a few tensors, and more than a quarter of all, have shape `[0]`, or most of those
/// called `weight` are hollow.
fn is_mostly_hollow(tensors: &[TensorEntry], hollow: &[&TensorEntry]) -> bool {
    let floating = tensors.iter().filter(|tensor| tensor.dtype.is_floating()).count();
    let empty = hollow.iter().filter(|tensor| tensor.layout.shape == [0]).count();
    let is_weight =
        |tensor: &TensorEntry| tensor.name == "weight" || tensor.name.ends_with(".weight");
    let weights = tensors.iter().filter(|tensor| is_weight(tensor)).count();
    let hollow_weights = hollow.iter().filter(|tensor| is_weight(tensor)).count();
    (empty > FEW && empty * 4 > floating) || (hollow_weights > FEW && hollow_weights * 2 > weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::headers::{Headers, llama};

    /// A Llama of four layers whose tensors have the shapes that `of` gives for their own.
    fn with_shapes(of: impl Fn(&str, &[u64]) -> Vec<u64>) -> Headers {
        let mut headers = Headers::new();
        for tensor in &llama(64).open().inventory.tensors {
            headers = headers.f16(&tensor.name, &of(&tensor.name, &tensor.layout.shape));
        }
        headers
    }

    fn said(headers: Headers) -> Option<String> {
        refusal(&headers.open()).map(|error| error.to_string())
    }

    #[test]
    fn shells_are_refused_however_much_of_them_is_hollow() {
        assert_eq!(said(llama(64)), None);
        let matrices = |hollow: Vec<u64>| {
            with_shapes(
                move |_, shape| if shape.len() > 1 { hollow.clone() } else { shape.to_vec() },
            )
        };
        let one = |wanted: &'static str, hollow: Vec<u64>| {
            with_shapes(
                move |name, shape| {
                    if name == wanted { hollow.clone() } else { shape.to_vec() }
                },
            )
        };
        for (shell, count) in [
            (with_shapes(|_, _| vec![0]), 21),
            (with_shapes(|_, _| vec![1]), 21),
            (matrices(vec![0]), 16),
            (matrices(vec![1]), 16),
            (one("model.layers.1.mlp.up_proj.weight", vec![0]), 1),
            (one("model.layers.0.self_attn.q_proj.weight", vec![1]), 1),
            (one("model.embed_tokens.weight", vec![0, 32]), 1),
            (one("lm_head.weight", vec![0]), 1),
        ] {
            let said = said(shell).expect("a shell");
            assert!(said.contains("DeepSpeed ZeRO-3"), "{said}");
            assert!(said.contains(&format!("as in {count} of 21 tensors")), "{said}");
        }
    }

    #[test]
    fn a_shell_of_unknown_names_is_known_by_its_layers_or_by_their_number() {
        let layers = |shapes: &[&[u64]]| {
            let mut headers = Headers::new().f16("a.norm", &[4]);
            for (layer, shape) in shapes.iter().enumerate() {
                headers = headers.f16(&format!("a.{layer}.mix.kernel"), shape);
            }
            headers
        };
        assert!(said(layers(&[&[4, 4], &[0], &[4, 4]])).is_some());
        assert!(said(layers(&[&[4, 4], &[1], &[4, 4]])).is_some());
        assert!(said(layers(&[&[0][..]; 4])).is_some());
        // Half of a kind is not most of it, and vectors are no matrices.
        assert_eq!(said(layers(&[&[4, 4], &[0]])), None);
        assert_eq!(said(layers(&[&[4, 4], &[0], &[0]])), None);
        assert_eq!(said(layers(&[&[4], &[0], &[4]])), None);
        // A few, or few among many, may be placeholders, and scalars are parameters.
        assert_eq!(said(layers(&[&[0][..]; 3])), None);
        assert_eq!(said(layers(&[&[1][..]; 40])), None);
        assert_eq!(said(layers(&[&[0, 4][..]; 40])), None);
        // 4 of 15 tensors are more than a quarter, 4 of 16 are not.
        for (others, shell) in [(10, true), (11, false)] {
            let many = (0..others).fold(layers(&[&[0][..]; 4]), |headers, other| {
                headers.f16(&format!("b.{other}.bias"), &[4])
            });
            assert_eq!(said(many).is_some(), shell, "{others}");
        }
        // A PReLU among the linear layers of a Sequential.
        let sequential = Headers::new().f16("net.0.weight", &[4, 4]).f16("net.1.weight", &[1]);
        assert_eq!(said(sequential.f16("net.2.weight", &[4, 4])), None);
    }

    #[test]
    fn a_shell_of_single_elements_is_known_by_its_weights() {
        for (hollow, whole, shell) in [(4, 3, true), (4, 4, false), (3, 0, false), (5, 0, true)] {
            let mut headers = Headers::new().f16("weight", &[1]);
            for layer in 1..hollow {
                headers = headers.f16(&format!("a.{layer}.norm.weight"), &[1]);
            }
            for layer in 0..whole {
                headers = headers.f16(&format!("b.{layer}.scale.weight"), &[4]);
            }
            for layer in 0..20 {
                headers = headers.f16(&format!("c.{layer}.bias"), &[4]);
            }
            assert_eq!(said(headers).is_some(), shell, "{hollow} of {}", hollow + whole);
        }
    }

    #[test]
    fn a_weight_that_is_a_matrix_in_every_family_may_not_be_hollow() {
        for (name, refused) in [
            ("h.0.mlp.c_fc.weight", true),
            ("a.query.weight", true),
            ("a.down_proj.weight", true),
            ("fc1.weight", true),
            ("fc1.bias", false),
            ("a.fc3.weight", false),
        ] {
            assert_eq!(said(llama(8).f16(name, &[0])).is_some(), refused, "{name}");
        }
    }

    #[test]
    fn empty_and_single_elements_that_models_have_are_let_through() {
        for (name, shape) in [
            ("empty", &[0u64, 4][..]),
            ("model.placeholder", &[0]),
            ("act.weight", &[1]),
            ("score.bias", &[1]),
            ("logit_scale", &[1]),
            ("model.layers.0.attn.masked_bias", &[1]),
            ("rotary.inv_freq", &[0]),
        ] {
            assert_eq!(said(llama(64).f16(name, shape)), None, "{name}");
        }
        let counters = llama(64).tensor("q_proj.weight", crate::tensor::DType::Int64, &[0]);
        assert_eq!(said(counters), None);
    }

    #[test]
    fn a_tensor_that_is_empty_in_one_parent_only_makes_that_parent_a_shell() {
        let parent = |shape: &[u64]| llama(64).f16("gate.mix", shape).open();
        let checked = |a: &[u64], b: &[u64]| check_partners(&parent(a), &parent(b)).is_ok();
        for (hollow, whole) in [([0].as_slice(), [4].as_slice()), (&[0], &[2, 2]), (&[1], &[2, 2])]
        {
            assert!(!checked(hollow, whole), "{hollow:?} {whole:?}");
            assert!(!checked(whole, hollow), "{hollow:?} {whole:?}");
        }
        // Empty in both; a bias of one against one of many, which pairing tells of.
        for (a, b) in
            [([0].as_slice(), [0].as_slice()), (&[1], &[4]), (&[0], &[0, 4]), (&[1], &[1])]
                .into_iter()
                .chain([(&[1][..], &[1, 1][..]), (&[0], &[1])])
        {
            assert!(checked(a, b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn flat_weights_of_fsdp_are_refused_by_name() {
        for name in [
            "_flat_param",
            "model.layers.0._fsdp_wrapped_module._flat_param",
            "_fsdp_wrapped_module.flat_param_0",
            "layers.0._fsdp_wrapped_module._fpw_module.mlp.weight",
        ] {
            let said = said(Headers::new().f16(name, &[64])).expect(name);
            assert!(said.starts_with("these are flat weights of FSDP"), "{said}");
        }
        for name in ["_fsdp_wrapped_module.mlp.weight", "unflat_param", "flat_params.weight"] {
            assert_eq!(said(Headers::new().f16(name, &[64])), None, "{name}");
        }
    }
}
