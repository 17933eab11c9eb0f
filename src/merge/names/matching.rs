//! Matches the tensor names of the two parents, and decides what the child calls them.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::checkpoint::{Checkpoint, Side, TensorEntry};
use crate::error::Result;
use crate::merge::names::heads::is_head;
use crate::merge::names::prefix::{Prefix, find};
use crate::merge::names::spellings::today;
use crate::merge::names::wrappers::{Plain, has_wrapper, refuse_twins};
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
    /// How names that are not equal were matched, in one line.
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

    /// The names as they are, where no parent has wrapper words and both have the same names: the
    /// common case, at the cost of one look-up per name.
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

/// One line on how the names were matched and what the child is called.
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
