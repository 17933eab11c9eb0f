//! Replaces old spellings of parameters' names by today's.

use std::borrow::Cow;

/// The name as it is written today: `LayerNorm.gamma` and `.beta` are its `weight` and `bias`,
/// `weight_g` and `weight_v` of a weight norm are its parametrization's two originals
/// (transformers 4.57.3, `_fix_state_dict_key_on_load`).
pub(crate) fn today(name: &str) -> Cow<'_, str> {
    let (module, last) = name.rsplit_once('.').unwrap_or(("", name));
    let today = match last {
        "gamma" if is_layer_norm(module) => "weight",
        "beta" if is_layer_norm(module) => "bias",
        "weight_g" => "parametrizations.weight.original0",
        "weight_v" => "parametrizations.weight.original1",
        _ => return Cow::Borrowed(name),
    };
    match module {
        "" => Cow::Borrowed(today),
        module => Cow::Owned(format!("{module}.{today}")),
    }
}

/// `LayerNorm`, `layer_norm`, `final_layer_norm` and the like. Elsewhere `gamma` is a parameter of
/// its own (the layer scale of vision models).
fn is_layer_norm(module: &str) -> bool {
    let own = module.rsplit('.').next().unwrap_or(module);
    own.to_ascii_lowercase().replace('_', "").ends_with("layernorm")
}

#[cfg(test)]
mod tests {
    use super::today;

    #[test]
    fn old_spellings_are_read_as_todays() {
        for (old, new) in [
            ("bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
            ("a.output.LayerNorm.beta", "a.output.LayerNorm.bias"),
            ("layer_norm.gamma", "layer_norm.weight"),
            ("LayerNorm.beta", "LayerNorm.bias"),
            ("conv.weight_g", "conv.parametrizations.weight.original0"),
            ("conv.weight_v", "conv.parametrizations.weight.original1"),
            ("weight_v", "parametrizations.weight.original1"),
        ] {
            assert_eq!(today(old), new);
        }
    }

    #[test]
    fn other_names_stay() {
        for name in [
            "blocks.0.gamma",
            "norm.gamma",
            "mlp.act_fn.beta",
            "a.LayerNorm.weight",
            "gamma",
            "beta",
            "x.weight_gg",
        ] {
            assert_eq!(today(name), name);
        }
    }
}
