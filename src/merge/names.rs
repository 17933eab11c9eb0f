//! Which tensors of the two parents are one by their names, and what the child calls them.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::checkpoint::{Checkpoint, Side, TensorEntry};
use crate::error::Result;
use crate::merge::heads::is_head;
use crate::merge::prefix::{Prefix, find};
use crate::merge::spellings::today;
use crate::merge::wrappers::{Plain, has_wrapper, refuse_twins};
use crate::tensor::escape;

/// The only architecture of transformers 4.57.3 with a `module` of its own.
const HAS_MODULE: &str = "levit";

/// The names of two parents, matched. Positions are those of the inventories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// Of each of the primary's tensors, its name in the child.
    pub child: Vec<String>,
    /// Of each of the primary's tensors, the secondary's of the same name.
    pub partner: Vec<Option<usize>>,
    /// Of each of the secondary's tensors, its name in the child: that of its partner, or the one it
    /// would have.
    pub theirs: Vec<String>,
    /// What names were matched by beside their being equal, in one line.
    pub matched: Option<String>,
}

/// Names of both parents without wrapper words, and the prefix that makes most of them equal.
struct Reading<'n> {
    plain: [Plain<'n>; 2],
    prefix: Option<Prefix>,
    equal: usize,
}

impl Names {
    /// Matches the names of two parents. The child has the primary's without wrapper words; `union`
    /// says that it gets the secondary's other tensors, too.
    ///
    /// # Errors
    /// [`Kind::Data`](crate::error::Kind::Data) where two tensors of one parent would get one name.
    pub(crate) fn of(primary: &Checkpoint, secondary: &Checkpoint, union: bool) -> Result<Names> {
        let parents = [primary, secondary];
        if let Some(names) = Names::equal(parents) {
            return Ok(names);
        }
        let Reading { plain, prefix, .. } = Reading::best(parents)?;
        let keys = [Side::Primary, Side::Secondary].map(|side| {
            let names = &plain[usize::from(side == Side::Secondary)].names;
            let own = prefix.as_ref().filter(|prefix| prefix.side == side);
            let key = |name| today(own.map_or(name, |prefix| prefix.strip(name)));
            names.iter().map(|name| key(name.as_ref())).collect::<Vec<Cow<'_, str>>>()
        });
        for (parent, keys) in parents.into_iter().zip(&keys) {
            refuse_twins(parent, keys)?;
        }
        let place: HashMap<&str, usize> =
            keys[1].iter().enumerate().map(|(position, key)| (key.as_ref(), position)).collect();
        let partner: Vec<Option<usize>> =
            keys[0].iter().map(|key| place.get(key.as_ref()).copied()).collect();
        let (child, theirs) = child_names(&plain, prefix.as_ref(), &partner, union);
        let matched = matched(&plain, prefix.as_ref(), &partner, &child);
        Ok(Names { child, partner, theirs, matched })
    }

    /// The names as they are, where no parent has wrapper words and each name has its like: the
    /// common case, decided at the price of one look-up a name.
    fn equal([primary, secondary]: [&Checkpoint; 2]) -> Option<Names> {
        let [ours, theirs] = [primary, secondary].map(|parent| &parent.inventory.tensors);
        if ours.len() != theirs.len() || theirs.iter().any(|tensor| has_wrapper(&tensor.name)) {
            return None;
        }
        let places = theirs.iter().enumerate();
        let place: HashMap<&str, usize> =
            places.map(|(position, tensor)| (tensor.name.as_str(), position)).collect();
        let partner: Vec<Option<usize>> =
            ours.iter().map(|tensor| place.get(tensor.name.as_str()).copied()).collect();
        let own =
            |tensors: &[TensorEntry]| tensors.iter().map(|tensor| tensor.name.clone()).collect();
        partner.iter().all(Option::is_some).then(|| Names {
            child: own(ours),
            partner,
            theirs: own(theirs),
            matched: None,
        })
    }
}

impl<'n> Reading<'n> {
    /// The reading under which most names are equal. A `module` inside of names is taken off where
    /// more names match without it, and where a config says that the architecture has none.
    fn best(parents: [&'n Checkpoint; 2]) -> Result<Reading<'n>> {
        let plain = [Plain::of(parents[0])?, Plain::of(parents[1])?];
        let without = [0, 1].map(|side| {
            let plain: &Plain<'n> = &plain[side];
            plain.has_module().then(|| plain.without_module()).flatten()
        });
        let as_is = Reading::of(plain.clone());
        if without.iter().all(Option::is_none) {
            return Ok(as_is);
        }
        let one = |side: usize| {
            let mut names = plain.clone();
            names[side] = without[side].clone()?;
            Some(Reading::of(names))
        };
        let both = [0, 1].map(|side| without[side].clone().unwrap_or_else(|| plain[side].clone()));
        let mut readings = vec![as_is];
        readings.extend([one(0), one(1), Some(Reading::of(both))].into_iter().flatten());
        let known =
            parents[0].config.as_ref().and_then(|config| config.facts().model_type.as_ref());
        if known.is_some_and(|model_type| model_type != HAS_MODULE) {
            readings.reverse();
        }
        let mut readings = readings.into_iter();
        let first = readings.next().unwrap_or_else(|| Reading::of(plain));
        Ok(readings.fold(first, |best, next| if next.equal > best.equal { next } else { best }))
    }

    fn of(plain: [Plain<'n>; 2]) -> Reading<'n> {
        let keys = |side: usize| -> Vec<Cow<'_, str>> {
            plain[side].names.iter().map(|name| today(name)).collect()
        };
        let (prefix, equal) = find(&keys(0), &keys(1));
        Reading { plain, prefix, equal }
    }
}

/// The child's names of both parents' tensors.
fn child_names(
    plain: &[Plain<'_>; 2],
    prefix: Option<&Prefix>,
    partner: &[Option<usize>],
    union: bool,
) -> (Vec<String>, Vec<String>) {
    let [ours, theirs] = plain;
    let of = |side: Side| prefix.filter(|prefix| prefix.side == side);
    let own = of(Side::Primary);
    let foreign = own.filter(|prefix| prefix.is_foreign(&ours.names));
    let mut has_partner = vec![false; theirs.names.len()];
    for position in partner.iter().flatten() {
        has_partner[*position] = true;
    }
    // A head beside a body without its prefix would not load: the body gets the secondary's.
    let gets = of(Side::Secondary).filter(|prefix| {
        let taken = |(name, paired): (&Cow<'_, str>, &bool)| !paired && is_head(name);
        let headed = || theirs.names.iter().zip(&has_partner).any(taken);
        let bare = || !ours.names.iter().any(|name| is_head(name));
        union && headed() && bare() && !prefix.is_foreign(&theirs.names)
    });
    let added = |prefix: Option<&Prefix>, name: &str| match prefix {
        Some(prefix) if !is_head(name) => format!("{}{name}", prefix.text),
        _ => name.to_owned(),
    };
    let child: Vec<String> = ours
        .names
        .iter()
        .map(|name| added(gets, foreign.map_or(name.as_ref(), |prefix| prefix.strip(name))))
        .collect();
    let kept = own.filter(|_| foreign.is_none()).or(gets);
    let other = |name: &Cow<'_, str>| {
        let stripped = of(Side::Secondary).map_or(name.as_ref(), |prefix| prefix.strip(name));
        added(kept, stripped)
    };
    let mut others: Vec<String> = theirs.names.iter().map(other).collect();
    for (name, position) in child.iter().zip(partner) {
        if let Some(place) = position.and_then(|position| others.get_mut(position)) {
            place.clone_from(name);
        }
    }
    (child, others)
}

/// One line on what was set aside to match the names.
fn matched(
    plain: &[Plain<'_>; 2],
    prefix: Option<&Prefix>,
    partner: &[Option<usize>],
    child: &[String],
) -> Option<String> {
    let mut parts = Vec::new();
    for (side, plain) in ["primary", "secondary"].into_iter().zip(plain) {
        if !plain.taken.is_empty() {
            let words: Vec<String> = plain.taken.iter().map(|word| format!("`{word}`")).collect();
            parts.push(format!("the {side}'s without {}", words.join(" and ")));
        }
    }
    if let Some(prefix) = prefix {
        parts.push(format!("the {}'s without `{}`", prefix.side.name(), escape(&prefix.text)));
    }
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let pairs = plain[0].names.iter().zip(partner);
    let pairs = pairs.filter_map(|(a, b)| Some((a, plain[1].names.get((*b)?)?)));
    let mut spelled =
        pairs.filter(|(a, b)| (today(a) != **a || today(b) != **b) && last(a) != last(b));
    if let Some((a, b)) = spelled.next() {
        let more = match spelled.count() {
            0 => String::new(),
            more => format!(" and {more} more alike"),
        };
        parts.push(format!("`{}` as `{}`{more}", escape(a), escape(b)));
    }
    if parts.is_empty() {
        return None;
    }
    let whole = plain[0].names.iter().zip(child).all(|(own, child)| own == child);
    let child = match prefix {
        Some(prefix) if !whole && prefix.side == Side::Secondary => {
            format!(
                "the primary's names behind `{}`, where its heads are not",
                escape(&prefix.text)
            )
        }
        _ if whole && plain[0].taken.is_empty() => "the primary's names".to_owned(),
        _ => "the primary's names without these words".to_owned(),
    };
    Some(format!("names were matched by reading {}; the child has {child}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::merge::headers::Headers;

    fn parent(names: &[&str]) -> Headers {
        names.iter().fold(Headers::new(), |headers, name| headers.f16(name, &[2]))
    }

    fn names(a: &[&str], b: &[&str], union: bool) -> Names {
        Names::of(&parent(a).open(), &parent(b).open(), union).unwrap()
    }

    const LLAMA: [&str; 3] =
        ["model.embed_tokens.weight", "model.layers.0.mlp.weight", "lm_head.weight"];
    const GPT2: [&str; 3] = ["wte.weight", "h.0.attn.weight", "ln_f.weight"];
    const HEADED: [&str; 4] = [
        "lm_head.weight",
        "transformer.wte.weight",
        "transformer.h.0.attn.weight",
        "transformer.ln_f.weight",
    ];

    #[test]
    fn equal_names_are_matched_without_a_word() {
        let names = names(&LLAMA, &[LLAMA[2], LLAMA[0], "x.w"], false);
        assert_eq!(names.partner, [Some(1), None, Some(0)]);
        assert_eq!(names.child, LLAMA);
        assert_eq!(names.theirs, [LLAMA[2], LLAMA[0], "x.w"]);
        assert_eq!(names.matched, None);
    }

    #[test]
    fn the_child_has_the_primarys_names_without_wrapper_words() {
        let wrapped = LLAMA.map(|name| format!("_orig_mod.{name}"));
        let wrapped = [0, 1, 2].map(|at: usize| wrapped[at].as_str());
        for (a, b) in [(LLAMA, wrapped), (wrapped, LLAMA), (wrapped, wrapped)] {
            let names = names(&a, &b, false);
            assert_eq!(names.partner, [Some(0), Some(1), Some(2)]);
            assert_eq!(
                (names.child.as_slice(), names.theirs.as_slice()),
                (&LLAMA.map(str::to_owned)[..], &LLAMA.map(str::to_owned)[..])
            );
        }
        let said = names(&wrapped, &LLAMA, false).matched;
        let words = "names were matched by reading the primary's without `_orig_mod`; the child has \
                     the primary's names without these words";
        assert_eq!(said.as_deref(), Some(words));
    }

    #[test]
    fn a_body_with_and_without_its_prefix_is_one() {
        let there = names(&HEADED, &GPT2, true);
        assert_eq!(there.partner, [None, Some(0), Some(1), Some(2)]);
        assert_eq!(
            (there.child.as_slice(), there.theirs.as_slice()),
            (&HEADED.map(str::to_owned)[..], &HEADED.map(str::to_owned)[1..])
        );
        let back = names(&GPT2, &HEADED, false);
        assert_eq!(
            (back.child, back.partner),
            (GPT2.map(str::to_owned).to_vec(), vec![Some(1), Some(2), Some(3)])
        );
    }

    #[test]
    fn a_body_that_gets_a_head_gets_the_prefix_that_goes_with_it() {
        let union = names(&GPT2, &HEADED, true);
        assert_eq!(
            (union.child.as_slice(), union.theirs.as_slice()),
            (&HEADED.map(str::to_owned)[1..], &HEADED.map(str::to_owned)[..])
        );
        let said = union.matched.unwrap();
        assert!(
            said.ends_with("the primary's names behind `transformer.`, where its heads are not"),
            "{said}"
        );
        // Not where it has one itself, and not where the head is wrapped with the body.
        let own = names(&[GPT2[0], GPT2[1], "score.weight"], &HEADED, true);
        assert_eq!(own.child, [GPT2[0], GPT2[1], "score.weight"]);
        let tied = names(
            &LLAMA[..2],
            &LLAMA
                .map(|name| {
                    name.replace("lm_head", "model.lm_head").replacen(
                        "model.",
                        "model.model.",
                        usize::from(!name.starts_with("lm")),
                    )
                })
                .each_ref()
                .map(String::as_str),
            true,
        );
        assert_eq!(tied.child, &LLAMA[..2]);
        assert_eq!(tied.theirs, LLAMA);
    }

    #[test]
    fn a_foreign_prefix_of_the_primary_is_taken_off() {
        let lightning = [
            "model.model.embed_tokens.weight",
            "model.model.layers.0.mlp.weight",
            "model.lm_head.weight",
        ];
        let names = names(&lightning, &LLAMA, false);
        assert_eq!(
            (names.child.as_slice(), names.partner.as_slice()),
            (&LLAMA.map(str::to_owned)[..], &[Some(0), Some(1), Some(2)][..])
        );
    }

    #[test]
    fn the_secondarys_other_tensors_get_names_of_the_childs_kind() {
        let masked = [GPT2[0], GPT2[1], GPT2[2], "h.0.attn.bias"];
        let names = names(&HEADED, &masked, true);
        assert_eq!(names.theirs[3], "transformer.h.0.attn.bias");
        let headed = [HEADED[1], HEADED[2], HEADED[3], "transformer.h.0.attn.bias"];
        let names = super::tests::names(&GPT2, &headed, true);
        assert_eq!(names.theirs[3], "h.0.attn.bias");
    }

    #[test]
    fn a_module_of_its_own_stays_where_nothing_speaks_against_it() {
        let levit = ["levit.stages.0.module.key.weight", "levit.stages.1.module.key.weight"];
        let plain = levit.map(|name| name.replace(".module", ""));
        let plain = plain.each_ref().map(String::as_str);
        assert_eq!(names(&levit, &levit, false).child, levit);
        assert_eq!(names(&levit, &plain, false).child, plain);
        assert_eq!(names(&plain, &levit, false).theirs, plain);
        let config = |text: &str| {
            let [a, b] = [levit, levit].map(|names| parent(&names).config(text).open());
            Names::of(&a, &b, false).unwrap().child
        };
        assert_eq!(config(r#"{"model_type": "levit"}"#), levit);
        assert_eq!(config(r#"{"model_type": "llama"}"#), plain);
    }

    #[test]
    fn old_spellings_are_matched_and_said() {
        let old = ["a.LayerNorm.gamma", "a.LayerNorm.beta", "c.weight_g"];
        let new = ["a.LayerNorm.weight", "a.LayerNorm.bias", "c.parametrizations.weight.original0"];
        for (a, b) in [(old, new), (new, old)] {
            let names = names(&a, &b, false);
            assert_eq!(names.partner, [Some(0), Some(1), Some(2)]);
            assert_eq!(
                (names.child.as_slice(), names.theirs.as_slice()),
                (&a.map(str::to_owned)[..], &a.map(str::to_owned)[..])
            );
            let said = format!(
                "reading `{}` as `{}` and 2 more alike; the child has the primary's names",
                a[0], b[0]
            );
            assert!(names.matched.unwrap().ends_with(&said));
        }
        assert_eq!(names(&old, &old, false).matched, None);
    }

    #[test]
    fn two_tensors_of_one_name_are_refused_on_either_side() {
        let twice = parent(&["a.LayerNorm.gamma", "a.LayerNorm.weight"]).open();
        let once = parent(&["a.LayerNorm.weight"]).open();
        for (a, b) in [(&twice, &once), (&once, &twice)] {
            let error = Names::of(a, b, false).unwrap_err();
            assert_eq!(
                (error.kind(), error.tensor_name()),
                (Kind::Data, Some("a.LayerNorm.weight"))
            );
        }
    }
}
