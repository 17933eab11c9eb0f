//! `Child`: a child's name, and t of its tensors by their names.

use serde::{Deserialize, Serialize};

use crate::merge::recipe::gradient::Gradient;

/// One child of a merge. It is known by its schedule; the name is for people and paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// `{name}` of its output: its t, or the name of its recipe.
    pub name: String,
    /// t of its tensors.
    pub schedule: Schedule,
}

/// t of every tensor, by its name and its layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The first that fits a tensor decides.
    pub filters: Vec<Filter>,
    /// t of the tensors that none fits, in 0..=1; `None` where there must be none of those.
    pub rest: Option<f64>,
}

/// t of the tensors whose names hold a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// A piece of the name; `*` fits all.
    pub filter: String,
    /// t along the layers.
    pub t: Gradient,
}

impl Child {
    /// The child at one t.
    pub fn at(t: f64) -> Child {
        Child { name: t.to_string(), schedule: Schedule::at(t) }
    }

    /// One child for each value of t, with these filters in front of it.
    pub fn each(t: &[f64], filters: &[Filter]) -> Vec<Child> {
        let child = |t: &f64| Child {
            name: t.to_string(),
            schedule: Schedule { filters: filters.to_vec(), rest: Some(*t) },
        };
        t.iter().map(child).collect()
    }
}

impl Schedule {
    /// One t for all tensors.
    pub fn at(t: f64) -> Schedule {
        Schedule { filters: Vec::new(), rest: Some(t) }
    }

    /// The same without what decides nothing: filters behind one that fits all, and one number that
    /// fits all in place of the rest.
    #[must_use]
    pub fn normal(&self) -> Schedule {
        let mut normal = self.clone();
        let Some(all) = normal.filters.iter().position(Filter::fits_all) else { return normal };
        normal.filters.truncate(all + 1);
        normal.rest = None;
        if let Some([t]) = normal.filters.last().map(|last| last.t.0.as_slice()) {
            normal.rest = Some(*t);
            normal.filters.pop();
        }
        normal
    }

    /// t, where it is one number for all tensors.
    pub fn number(&self) -> Option<f64> {
        let normal = self.normal();
        normal.rest.filter(|_| normal.filters.is_empty())
    }

    /// The filter that decides t of a tensor.
    pub(crate) fn filter_of(&self, name: &str) -> Option<&Filter> {
        self.filters.iter().find(|filter| filter.fits(name))
    }
}

impl std::fmt::Display for Schedule {
    /// `self_attn=0,0.5,1 0.3`: the filters in order, then what is for the rest.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let filters = self.filters.iter().map(Filter::to_string);
        let words: Vec<String> = filters.chain(self.rest.map(|t| t.to_string())).collect();
        f.write_str(&words.join(" "))
    }
}

impl Filter {
    /// Reads `FILTER=T[,T...]`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Filter, String> {
        match text.rsplit_once('=') {
            Some((filter, t)) if !filter.trim().is_empty() => {
                Ok(Filter { filter: filter.trim().to_owned(), t: Gradient::parse(t)? })
            }
            _ => Err(format!("expected FILTER=T[,T...], got `{text}`")),
        }
    }

    /// Whether it fits every tensor.
    pub fn fits_all(&self) -> bool {
        self.filter == "*"
    }

    /// Whether it fits the tensor of this name.
    pub fn fits(&self, name: &str) -> bool {
        self.fits_all() || name.contains(&self.filter)
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.filter, self.t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_filter_that_fits_decides() {
        let filters =
            ["mlp.up=0.1", "mlp=0.2,0.4", "*=0.3"].map(|text| Filter::parse(text).unwrap());
        let schedule = Schedule { filters: filters.to_vec(), rest: Some(0.9) };
        for (name, expected) in [
            ("model.layers.0.mlp.up_proj.weight", "mlp.up=0.1"),
            ("model.layers.0.mlp.down_proj.weight", "mlp=0.2,0.4"),
            ("lm_head.weight", "*=0.3"),
        ] {
            let found = schedule.filter_of(name).map(ToString::to_string);
            assert_eq!(found.as_deref(), Some(expected));
        }
        assert_eq!(schedule.to_string(), "mlp.up=0.1 mlp=0.2,0.4 *=0.3 0.9");
    }

    #[test]
    fn a_schedule_of_one_number_is_known_as_one() {
        let all = |text| Schedule { filters: vec![Filter::parse(text).unwrap()], rest: None };
        assert_eq!(Schedule::at(0.4).number(), Some(0.4));
        assert_eq!(all("*=0.3").number(), Some(0.3));
        for text in ["mlp=0.3", "*=0.3,0.4"] {
            assert_eq!(all(text).number(), None, "{text}");
        }
        let filters = ["mlp=1", "*=0.2", "a=0"].map(|text| Filter::parse(text).unwrap());
        let long = Schedule { filters: filters.to_vec(), rest: Some(0.5) };
        assert_eq!(long.normal().to_string(), "mlp=1 0.2");
        let filters = vec![Filter::parse("*=0,1").unwrap()];
        assert_eq!(Schedule { filters, rest: Some(0.5) }.normal().to_string(), "*=0,1");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in ["0.5", "=0.5", " =0.5", "mlp", "mlp=", "mlp=2", "mlp=0,x"] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}
