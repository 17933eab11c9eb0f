//! mergekit's settings of a parameter, and what t they come to.
//!
//! A setting is a number, a list that is spread over the layers, or filters with either
//! (mergekit 0.1.4, `config.py`).

use crate::error::Error;
use crate::merge::{Filter, Gradient};
use crate::recipe::fields::{At, wrong};
use crate::recipe::yaml::Value;
use crate::tensor::escape;

/// One case of a setting and the line that it stands at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    /// A piece of a tensor's name; `*` fits all.
    filter: String,
    values: Vec<f64>,
    line: usize,
}

/// A setting: the first case that fits a tensor counts.
pub(crate) type Setting = Vec<Case>;

/// Reads a setting whose values lie between 0 and `most`.
pub(crate) fn setting(at: &At<'_>, most: f64) -> Result<Setting, Error> {
    let by_filters = |at: &At<'_>| matches!(at.node.value, Value::Map(_));
    let Value::List(_) = at.node.value else {
        return Ok(vec![Case { filter: "*".to_owned(), values: values(at, most)?, line: at.line }]);
    };
    let entries = at.list()?;
    if !entries.iter().any(by_filters) {
        return Ok(vec![Case { filter: "*".to_owned(), values: values(at, most)?, line: at.line }]);
    }
    let case = |entry: &At<'_>| {
        let fields = entry.fields(&["filter", "value"])?;
        let filter = fields.get("filter").map(|filter| filter.text()).transpose()?;
        let values = values(&fields.needed("value")?, most)?;
        Ok(Case { filter: filter.unwrap_or("*").to_owned(), values, line: entry.line })
    };
    entries.iter().map(case).collect()
}

fn values(at: &At<'_>, most: f64) -> Result<Vec<f64>, Error> {
    let value = |at: &At<'_>| {
        let within = |value: &f64| (0.0..=most).contains(value);
        let expected = if most == 1.0 { "a number in 0..=1" } else { "a number, 0 or more" };
        at.number().ok().filter(within).ok_or_else(|| at.wrong(expected))
    };
    match at.node.value {
        Value::List(_) => {
            let entries = at.list()?;
            if entries.is_empty() {
                return Err(at.wrong("at least one number"));
            }
            entries.iter().map(value).collect()
        }
        _ => Ok(vec![value(at)?]),
    }
}

/// A setting of t as filters, those behind one that fits all left out.
pub(crate) fn filters(setting: Setting) -> Vec<Filter> {
    let cases = up_to_all(setting).into_iter();
    cases.map(|case| Filter { filter: case.filter, t: Gradient(case.values) }).collect()
}

fn up_to_all(mut setting: Setting) -> Setting {
    if let Some(all) = setting.iter().position(|case| case.filter == "*") {
        setting.truncate(all + 1);
    }
    setting
}

/// t where two models have weights: the second one's part of both. `line` is where they are asked for.
///
/// # Errors
/// Where the weights' t is no list over the layers, or their filters are not the same.
pub(crate) fn filters_of_weights(
    first: Setting,
    second: Setting,
    line: usize,
) -> Result<Vec<Filter>, Error> {
    let (first, second) = (up_to_all(first), up_to_all(second));
    let t = |filter: &str, a: &Case, b: &Case| {
        let values = part_of(&a.values, &b.values)
            .map_err(|why| wrong(b.line.max(a.line), &format!("the weights {why}")))?;
        Ok(Filter { filter: filter.to_owned(), t: Gradient(values) })
    };
    let all = |setting: &Setting| matches!(setting.as_slice(), [one] if one.filter == "*");
    match (first.as_slice(), second.as_slice()) {
        ([], _) | (_, []) => Err(wrong(line, "`weight` of a model is missing")
            .with_hint("`linear` needs `parameters: {weight: ...}` of both models")),
        ([a], many) if all(&first) => many.iter().map(|b| t(&b.filter, a, b)).collect(),
        (many, [b]) if all(&second) => many.iter().map(|a| t(&a.filter, a, b)).collect(),
        (first, second) => {
            let same = first.len() == second.len()
                && first.iter().zip(second).all(|(a, b)| a.filter == b.filter);
            if !same {
                let names = |cases: &[Case]| -> String {
                    let names: Vec<String> =
                        cases.iter().map(|case| escape(&case.filter)).collect();
                    names.join(", ")
                };
                return Err(wrong(line, "the weights of both models have filters of their own")
                    .expected(format!("the same filters, {}", names(first)), names(second)));
            }
            first.iter().zip(second).map(|(a, b)| t(&a.filter, a, b)).collect()
        }
    }
}

/// b / (a + b) of each pair.
fn part_of(a: &[f64], b: &[f64]) -> Result<Vec<f64>, &'static str> {
    let several = a.len().max(b.len());
    let spread = |values: &[f64]| match values {
        [one] => Some(vec![*one; several]),
        values => Some(values.to_vec()).filter(|values| values.len() == several),
    };
    let (Some(a), Some(b)) = (spread(a), spread(b)) else {
        return Err("are lists of two lengths, so t would be no list");
    };
    let sums: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    if sums.iter().any(|sum| *sum <= 0.0) {
        return Err("come to 0");
    }
    let (least, most) = sums
        .iter()
        .fold((f64::MAX, 0.0f64), |(least, most), sum| (least.min(*sum), most.max(*sum)));
    // Between the values of lists whose sums differ, t is no line.
    if most - least > 1e-9 * most {
        return Err(
            "do not come to the same sum at each value of their lists, so t would be no list",
        );
    }
    Ok(b.iter().zip(&sums).map(|(b, sum)| b / sum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::yaml::parse;

    fn read(text: &str, most: f64) -> Result<Setting, String> {
        let node = parse(text).unwrap();
        setting(&At { place: "t".to_owned(), line: 1, node: &node }, most)
            .map_err(|e| e.to_string())
    }

    fn shown(filters: &[Filter]) -> Vec<String> {
        filters.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_setting_is_a_number_a_list_or_filters() {
        for (text, expected) in [
            ("0.5", &["*=0.5"][..]),
            ("[0, .5, 1.]", &["*=0,0.5,1"]),
            ("- filter: self_attn\n  value: [0, 1]\n- value: 5e-1\n", &["self_attn=0,1", "*=0.5"]),
            ("- {filter: '*', value: 0}\n- {filter: mlp, value: 1}\n", &["*=0"]),
            ("- {filter: null, value: 0.25}\n", &["*=0.25"]),
        ] {
            assert_eq!(shown(&filters(read(text, 1.0).unwrap())), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_setting_of_t_is_refused() {
        for text in [
            "2",
            "-0.1",
            ".nan",
            ".inf",
            "inf",
            "'0.5'",
            "true",
            "[]",
            "[0, x]",
            "[[0]]",
            "[0, 1.5]",
            "[{value: 2}]",
            "[{filter: mlp}]",
            "[{filter: mlp, value: 1, weight: 2}]",
            "[0.5, {value: 1}]",
            "{value: 1}",
            "[{value: [{value: 1}]}]",
            "[{filter: [a], value: 1}]",
        ] {
            assert!(read(text, 1.0).is_err(), "{text}");
        }
        assert!(read("2", f64::MAX).is_ok() && read("-1", f64::MAX).is_err());
    }

    #[test]
    fn weights_come_to_the_second_ones_part() {
        for (a, b, expected) in [
            ("0.6", "0.4", &["*=0.4"][..]),
            ("1", "3", &["*=0.75"]),
            ("[1, 0.5, 0]", "[0, 0.5, 1]", &["*=0,0.5,1"]),
            ("1", "[{filter: mlp, value: 0}, {value: 1}]", &["mlp=0", "*=0.5"]),
            ("[{filter: mlp, value: 3}, {value: 0}]", "1", &["mlp=0.25", "*=1"]),
            ("[{filter: m, value: [2, 0]}]", "[{filter: m, value: [0, 2]}]", &["m=0,1"]),
        ] {
            let [a, b] = [a, b].map(|text| read(text, f64::MAX).unwrap());
            assert_eq!(shown(&filters_of_weights(a, b, 1).unwrap()), expected);
        }
        for (a, b, said) in [
            ("0", "0", "come to 0"),
            ("[1, 2]", "1", "same sum"),
            ("[1, 1]", "[1, 1, 1]", "two lengths"),
            ("[{filter: a, value: 1}]", "[{filter: b, value: 1}]", "the same filters, a"),
        ] {
            let [a, b] = [a, b].map(|text| read(text, f64::MAX).unwrap());
            let error = filters_of_weights(a, b, 1).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(filters_of_weights(Vec::new(), read("1", 9.0).unwrap(), 7).is_err());
    }
}
