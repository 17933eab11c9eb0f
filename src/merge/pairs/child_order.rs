//! Puts the child's tensors in the order of the model, which the primary's files may not tell.

use std::cmp::Reverse;

use crate::checkpoint::Checkpoint;
use crate::merge::pair::Pair;

/// Puts the primary's tensors in the order of its model, as far as its files and the secondary tell
/// it; those of the secondary alone come last.
pub(crate) fn arrange(pairs: &mut [Pair], primary: &Checkpoint, secondary: &Checkpoint) {
    let mut partners = vec![None; primary.inventory.tensors.len()];
    for pair in pairs.iter() {
        if let Some(partner) = pair.primary.and_then(|position| partners.get_mut(position)) {
            *partner = pair.secondary;
        }
    }
    let mut places = vec![0; partners.len()];
    let order = primary.order_beside(secondary, &partners);
    for (place, position) in order.into_iter().enumerate() {
        if let Some(found) = places.get_mut(position) {
            *found = place;
        }
    }
    pairs.sort_by_key(|pair| {
        let place = pair.primary.and_then(|position| places.get(position));
        (Reverse(place.is_some()), place.copied())
    });
}

#[cfg(test)]
mod tests {
    use crate::merge::headers::Headers;
    use crate::merge::{MergeOptions, Missing, plan};

    /// A parent whose `m.huge.w` overtook the shard of the others.
    fn sharded() -> Headers {
        let headers = Headers::new().f16("m.huge.w", &[90, 8]);
        headers
            .f16("m.xa.w", &[1])
            .f16("m.xb.w", &[1])
            .f16("m.xc.w", &[1])
            .files(&[1, 3])
            .config("{}")
    }

    fn order(primary: Headers, secondary: Headers) -> Vec<String> {
        let options = MergeOptions { missing: Some(Missing::Union), ..MergeOptions::default() };
        let plan = plan(&primary.open(), &secondary.open(), &options).unwrap();
        plan.tensors.into_iter().map(|tensor| tensor.name).collect()
    }

    #[test]
    fn a_secondary_of_one_file_tells_where_the_primarys_overtaker_stands() {
        for names in [["xa", "huge", "xb", "xc"], ["xa", "xb", "huge", "xc"]] {
            let shape = |name: &str| if name == "huge" { vec![90, 8] } else { vec![1] };
            let secondary = names.iter().fold(Headers::new(), |headers, name| {
                headers.f16(&format!("m.{name}.w"), &shape(name))
            });
            let expected = names.map(|name| format!("m.{name}.w"));
            assert_eq!(order(sharded(), secondary), expected);
        }
    }

    #[test]
    fn a_secondary_of_one_file_tells_where_the_primarys_tied_name_stands() {
        let one = || Headers::new().f16("m.xa.w", &[90, 8]);
        for names in [["xa", "xb", "xc"], ["xa", "xc", "xb"]] {
            let primary = one().tied("m.xc.w", "m.xa.w").f16("m.xb.w", &[1]).files(&[1, 1]);
            let secondary = names[1..].iter().fold(one(), |headers, name| match *name {
                "xc" => headers.tied("m.xc.w", "m.xa.w"),
                _ => headers.f16("m.xb.w", &[1]),
            });
            assert_eq!(order(primary, secondary), names.map(|name| format!("m.{name}.w")));
        }
    }

    #[test]
    fn what_the_secondary_alone_has_comes_last() {
        let secondary = Headers::new().f16("a.new.w", &[1]).f16("m.huge.w", &[90, 8]);
        assert_eq!(order(sharded(), secondary).last().unwrap(), "a.new.w");
    }

    #[test]
    fn a_primary_of_one_file_keeps_its_order() {
        let primary = Headers::new().f16("b.w", &[1]).f16("a.w", &[1]);
        let secondary = Headers::new().f16("a.w", &[1]).f16("b.w", &[1]);
        assert_eq!(order(primary, secondary), ["b.w", "a.w"]);
    }
}
