//! Parses an object's keys in order, and refuses a key that is there twice, at any depth: JSON does not
//! say which counts.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Pairs in order, each key once.
#[derive(Debug, Default)]
pub(crate) struct Fields(pub(crate) Vec<(String, Value)>);

impl Fields {
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|field| field.0 == key).map(|field| &field.1)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        let map = deserializer.deserialize_map(ObjectVisitor)?;
        Ok(Fields(map.into_iter().collect()))
    }
}

/// A value in which no key is there twice.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Unique)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map<String, Value>, A::Error> {
        let mut object = Map::new();
        while let Some((key, Unique(value))) = map.next_entry::<String, Unique>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("key `{key}` is there twice")));
            }
            object.insert(key, value);
        }
        Ok(object)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        ObjectVisitor.visit_map(map).map(Value::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_once_is_read_as_it_is_and_in_its_order() {
        let text = r#"{"z":[1,-2,0.5,"x",null,true,[],{}],"a":{"c":1,"b":{"c":2}},"m":18446744073709551615}"#;
        let fields: Fields = serde_json::from_str(text).unwrap();
        let keys: Vec<&str> = fields.0.iter().map(|field| field.0.as_str()).collect();
        assert_eq!(keys, ["z", "a", "m"]);
        let whole: Value = serde_json::from_str(text).unwrap();
        assert!(fields.0.iter().all(|(key, value)| whole[key] == *value));
        assert_eq!(fields.get("a").unwrap().to_string(), r#"{"c":1,"b":{"c":2}}"#);
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":2}}"#, r#"{"a":[{"b":{"c":1,"c":1}}]}"#]
        {
            let error = serde_json::from_str::<Fields>(text).unwrap_err().to_string();
            assert!(error.contains("is there twice"), "{error}");
        }
    }
}
