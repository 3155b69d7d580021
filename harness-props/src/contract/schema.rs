//! The part of JSON Schema (draft 2020-12) that contracts of answers are written in; anything else is refused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::escaped;
use crate::rule::{Refusal, RefusalKind};

/// A schema: `type`, `required`, `properties`, `additionalProperties` (true or false), `items`, `enum`, `const`,
/// `minimum`, `maximum`, `minItems`, `maxItems`. Titles, descriptions, examples and defaults are read over; any other
/// keyword is refused, since a keyword that is ignored is a check that cannot fail.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schema {
    types: Vec<String>,
    required: BTreeSet<String>,
    properties: BTreeMap<String, Schema>,
    closed: bool,
    items: Option<Box<Schema>>,
    values: Option<Vec<Value>>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    lengths: (Option<u64>, Option<u64>),
}

/// One place of a document that does not keep a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// JSON pointer.
    pub path: String,
    /// What is not kept.
    pub why: String,
}

/// The names of types (JSON Schema draft 2020-12, validation 6.1.1).
const TYPES: [&str; 7] = ["null", "boolean", "number", "integer", "string", "array", "object"];
/// How deep a schema or the part of a document it looks at may be nested.
const DEPTH: usize = 64;

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// A keyword that is not supported, or a value of the wrong kind.
    pub fn parse(schema: &Value) -> Result<Self, Refusal> {
        Self::nested(schema, "", 0)
    }

    fn nested(schema: &Value, path: &str, depth: usize) -> Result<Self, Refusal> {
        let refused = |why: String| Refusal::new(RefusalKind::Unsupported, format!("schema {path}: {why}"));
        if depth > DEPTH {
            return Err(refused(format!("nested deeper than {DEPTH}")));
        }
        let map = match schema {
            Value::Bool(true) => return Ok(Self::default()),
            Value::Object(map) => map,
            _ => return Err(refused("is no object".to_owned())),
        };
        let mut parsed = Self::default();
        for (key, value) in map {
            let wrong = || refused(format!("`{key}` has a value that is not supported"));
            let texts = |value: &Value| -> Result<Vec<String>, Refusal> {
                let list = match value {
                    Value::String(one) => return Ok(vec![one.clone()]),
                    Value::Array(list) => list,
                    _ => return Err(wrong()),
                };
                list.iter().map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            };
            match key.as_str() {
                "title" | "description" | "examples" | "default" | "$schema" | "$id" | "$comment" | "deprecated" => {}
                "type" => {
                    parsed.types = texts(value)?;
                    if let Some(unknown) = parsed.types.iter().find(|name| !TYPES.contains(&name.as_str())) {
                        return Err(refused(format!("`{unknown}` is no type; there are {}", TYPES.join(", "))));
                    }
                }
                "required" => parsed.required = texts(value)?.into_iter().collect(),
                "properties" => {
                    for (name, schema) in value.as_object().ok_or_else(wrong)? {
                        let nested = Self::nested(schema, &format!("{path}/{}", escaped(name)), depth + 1)?;
                        parsed.properties.insert(name.clone(), nested);
                    }
                }
                "additionalProperties" => parsed.closed = !value.as_bool().ok_or_else(wrong)?,
                "items" => parsed.items = Some(Box::new(Self::nested(value, &format!("{path}/items"), depth + 1)?)),
                "enum" => parsed.values = Some(value.as_array().ok_or_else(wrong)?.clone()),
                "const" => parsed.values = Some(vec![value.clone()]),
                "minimum" => parsed.minimum = Some(value.as_f64().ok_or_else(wrong)?),
                "maximum" => parsed.maximum = Some(value.as_f64().ok_or_else(wrong)?),
                "minItems" => parsed.lengths.0 = Some(value.as_u64().ok_or_else(wrong)?),
                "maxItems" => parsed.lengths.1 = Some(value.as_u64().ok_or_else(wrong)?),
                other => return Err(refused(format!("the keyword `{other}` is not supported"))),
            }
        }
        Ok(parsed)
    }

    /// Everything in a document that does not keep the schema, in order of its path.
    #[must_use]
    pub fn check(&self, document: &Value) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        let mut open = vec![(String::new(), self, document)];
        while let Some((path, schema, value)) = open.pop() {
            schema.judge(&path, value, &mut unmet);
            if let Value::Object(map) = value {
                let known = schema.properties.iter().filter_map(|(name, schema)| Some((name, schema, map.get(name)?)));
                open.extend(known.map(|(name, schema, value)| (format!("{path}/{}", escaped(name)), schema, value)));
            }
            if let (Value::Array(list), Some(items)) = (value, &schema.items) {
                open.extend(list.iter().enumerate().map(|(at, value)| (format!("{path}/{at}"), &**items, value)));
            }
        }
        unmet.sort_by(|one, other| (&one.path, &one.why).cmp(&(&other.path, &other.why)));
        unmet
    }

    fn judge(&self, path: &str, value: &Value, unmet: &mut Vec<Unmet>) {
        let mut miss = |path: String, why: String| unmet.push(Unmet { path, why });
        let own = || path.to_owned();
        if !self.types.is_empty() && !self.types.iter().any(|name| is_of(value, name)) {
            miss(own(), format!("is not of type {}", self.types.join(" or ")));
        }
        if self.values.as_ref().is_some_and(|values| !values.contains(value)) {
            miss(own(), "is none of the values allowed".to_owned());
        }
        let outside = |number: &f64| {
            self.minimum.is_some_and(|least| *number < least) || self.maximum.is_some_and(|most| *number > most)
        };
        if let Some(number) = value.as_f64().filter(outside) {
            miss(own(), format!("{number} is out of range"));
        }
        if let Value::Array(list) = value {
            let length = list.len() as u64;
            if self.lengths.0.is_some_and(|least| length < least) || self.lengths.1.is_some_and(|most| length > most) {
                miss(own(), format!("has {length} items"));
            }
        }
        if let Value::Object(map) = value {
            for name in self.required.iter().filter(|name| !map.contains_key(*name)) {
                miss(format!("{path}/{}", escaped(name)), "is required but missing".to_owned());
            }
            for name in map.keys().filter(|name| self.closed && !self.properties.contains_key(*name)) {
                miss(format!("{path}/{}", escaped(name)), "is not allowed".to_owned());
            }
        }
    }

    /// What a client that keeps this schema of a *request* would find broken under a newer one: fields newly
    /// required; types, values or lengths no longer allowed; fields no longer allowed. A field that only the newer one knows
    /// is a new one, and may be of any type as long as it is not required.
    #[must_use]
    pub fn refused_by(&self, newer: &Self) -> Vec<Unmet> {
        let (mut unmet, anything) = (Vec::new(), Self::default());
        let mut open = vec![(String::new(), self, newer)];
        while let Some((path, old, new)) = open.pop() {
            let place = |name: &str| format!("{path}/{}", escaped(name));
            let mut miss = |path: String, why: &str| unmet.push(Unmet { path, why: why.to_owned() });
            for name in new.required.difference(&old.required) {
                miss(place(name), "is newly required");
            }
            let takes = |name: &String| {
                new.types.contains(name) || name == "integer" && new.types.iter().any(|new| new == "number")
            };
            if !new.types.is_empty() && (old.types.is_empty() || !old.types.iter().all(takes)) {
                miss(path.clone(), "allows fewer types");
            }
            let fewer =
                |new: &Vec<Value>| old.values.as_ref().is_none_or(|old| old.iter().any(|value| !new.contains(value)));
            if new.values.as_ref().is_some_and(fewer) {
                miss(path.clone(), "allows fewer values");
            }
            let above = new.minimum.is_some_and(|new| old.minimum.is_none_or(|old| old < new));
            let below = new.maximum.is_some_and(|new| old.maximum.is_none_or(|old| new < old));
            if above || below {
                miss(path.clone(), "allows a smaller range");
            }
            let longer = new.lengths.0.unwrap_or(0) > old.lengths.0.unwrap_or(0);
            let shorter = new.lengths.1.is_some_and(|new| old.lengths.1.is_none_or(|old| new < old));
            if longer || shorter {
                miss(path.clone(), "allows fewer lengths");
            }
            if new.closed {
                let gone = old.properties.keys().filter(|name| !new.properties.contains_key(*name));
                gone.for_each(|name| miss(place(name), "is no longer allowed"));
            }
            if new.closed && !old.closed {
                miss(path.clone(), "no longer allows other fields");
            }
            let both = old.properties.iter().filter_map(|(name, old)| Some((name, old, new.properties.get(name)?)));
            open.extend(both.map(|(name, old, new)| (place(name), old, new)));
            if let Some(new) = &new.items {
                open.push((format!("{path}/items"), old.items.as_deref().unwrap_or(&anything), new));
            }
        }
        unmet.sort_by(|one, other| (&one.path, &one.why).cmp(&(&other.path, &other.why)));
        unmet
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::Schema;
    use serde_json::{Value, json};

    fn schema(value: &Value) -> Schema {
        Schema::parse(value).unwrap()
    }

    #[test]
    fn what_does_not_keep_the_schema_is_named_by_path() {
        let schema = schema(
            &json!({"type": "object", "required": ["id", "list"], "additionalProperties": false, "properties": {
            "id": {"type": "string"}, "list": {"type": "array", "minItems": 1, "items": {"type": "integer", "maximum": 9}}}}),
        );
        assert!(schema.check(&json!({"id": "a", "list": [1, 9, 2.0]})).is_empty());
        let paths =
            |document: Value| -> Vec<String> { schema.check(&document).into_iter().map(|one| one.path).collect() };
        assert_eq!(paths(json!({"id": 1, "list": []})), ["/id", "/list"]);
        assert_eq!(paths(json!({"list": [10, "x"], "z": 1})), ["/id", "/list/0", "/list/1", "/z"]);
        assert_eq!(paths(json!(null)), [""]);
    }

    #[test]
    fn each_type_takes_its_own_values_and_no_others() {
        let values = [json!(null), json!(true), json!(1.5), json!(2), json!("a"), json!([]), json!({})];
        let types = [
            ("null", &[0][..]),
            ("boolean", &[1]),
            ("number", &[2, 3]),
            ("integer", &[3]),
            ("string", &[4]),
            ("array", &[5]),
            ("object", &[6]),
        ];
        for (name, own) in types {
            let schema = schema(&json!({"type": name}));
            let taken: Vec<usize> = (0..values.len()).filter(|at| schema.check(&values[*at]).is_empty()).collect();
            assert_eq!(taken, own, "{name}");
        }
    }

    #[test]
    fn only_the_values_of_an_enumeration_are_taken() {
        let colour = schema(&json!({"enum": ["red", null]}));
        assert!(colour.check(&json!("red")).is_empty() && colour.check(&json!(null)).is_empty());
        assert_eq!(colour.check(&json!("blue")).len(), 1);
        let one = schema(&json!({"const": 1}));
        assert_eq!((one.check(&json!(1)).len(), one.check(&json!(2)).len()), (0, 1));
        let both = schema(&json!({"enum": [1, "red", null]}));
        assert!(
            one.refused_by(&one).is_empty() && one.refused_by(&both).is_empty() && colour.refused_by(&both).is_empty()
        );
        for (old, new) in [(&both, &one), (&one, &colour), (&schema(&json!({})), &one)] {
            assert_eq!(old.refused_by(new)[0].why, "allows fewer values");
        }
    }

    #[test]
    fn a_keyword_that_is_not_supported_is_refused_and_not_ignored() {
        for bad in [json!({"oneOf": []}), json!({"properties": {"a": {"pattern": "x"}}}), json!({"type": 1}), json!([])]
        {
            assert!(Schema::parse(&bad).is_err(), "{bad}");
        }
        let misspelt = Schema::parse(&json!({"properties": {"a": {"type": ["null", "strng"]}}})).unwrap_err();
        assert!(misspelt.to_string().contains("/a: `strng` is no type"), "{misspelt}");
        let mut deep = json!({});
        (0..100).for_each(|_| deep = json!({"items": deep}));
        assert!(Schema::parse(&deep).is_err());
    }

    #[test]
    fn requests_that_used_to_be_fine_are_found_to_be_refused() {
        let old = schema(
            &json!({"required": ["a"], "properties": {"a": {"type": ["string", "null"]}, "b": {"enum": [1, 2]}}}),
        );
        let check = |new: Value, expected: &[&str]| {
            let found: Vec<String> =
                old.refused_by(&schema(&new)).into_iter().map(|one| format!("{} {}", one.path, one.why)).collect();
            assert_eq!(found, expected);
        };
        check(
            json!({"required": ["a"], "properties": {"a": {"type": ["string", "null", "number"]}, "b": {}, "c": {}}}),
            &[],
        );
        check(json!({"required": ["a", "c"], "properties": {"a": {}, "b": {}}}), &["/c is newly required"]);
        check(
            json!({"properties": {"a": {"type": "string"}, "b": {"enum": [1]}}}),
            &["/a allows fewer types", "/b allows fewer values"],
        );
    }

    #[test]
    fn whole_numbers_are_numbers_and_lengths_and_items_count_too() {
        let refused = |old: Value, new: Value| -> Vec<String> {
            let found = schema(&old).refused_by(&schema(&new));
            found.into_iter().map(|one| format!("{} {}", one.path, one.why)).collect()
        };
        assert!(refused(json!({"type": "integer"}), json!({"type": "number"})).is_empty());
        assert_eq!(refused(json!({"type": "number"}), json!({"type": "integer"})), [" allows fewer types"]);
        let list = |least: u64, most: u64| json!({"minItems": least, "maxItems": most});
        assert!(refused(list(2, 5), list(2, 5)).is_empty() && refused(list(2, 5), list(1, 6)).is_empty());
        assert!(refused(list(2, 5), json!({})).is_empty() && refused(json!({}), json!({"minItems": 0})).is_empty());
        for smaller in [list(3, 5), list(2, 4)] {
            assert_eq!(refused(list(2, 5), smaller), [" allows fewer lengths"]);
        }
        for newly in [json!({"minItems": 1}), json!({"maxItems": 9})] {
            assert_eq!(refused(json!({}), newly), [" allows fewer lengths"]);
        }
        assert_eq!(refused(json!({}), json!({"items": {"type": "string"}})), ["/items allows fewer types"]);
        assert!(refused(json!({"items": {"type": "string"}}), json!({})).is_empty());
        let (open, closed) = (json!({}), json!({"additionalProperties": false}));
        assert_eq!(refused(open.clone(), closed.clone()), [" no longer allows other fields"]);
        assert!(refused(closed.clone(), open).is_empty() && refused(closed.clone(), closed).is_empty());
    }

    #[test]
    fn a_range_is_smaller_when_either_end_moves_inwards() {
        let number = |range: Value| schema(&json!({"properties": {"n": range}}));
        let old = number(json!({"minimum": 2, "maximum": 5}));
        let is_refused = |range: Value| !old.refused_by(&number(range)).is_empty();
        assert!(!is_refused(json!({"minimum": 2, "maximum": 5})) && !is_refused(json!({})));
        assert!(!is_refused(json!({"minimum": 1.5, "maximum": 5.5})) && !is_refused(json!({"minimum": -9})));
        assert!(is_refused(json!({"minimum": 2.5, "maximum": 5})) && is_refused(json!({"minimum": 2, "maximum": 4.5})));
        let open = number(json!({}));
        assert!(!open.refused_by(&old).is_empty() && old.refused_by(&open).is_empty());
        for bound in [json!({"minimum": 0}), json!({"maximum": 0})] {
            assert_eq!(open.refused_by(&number(bound.clone())).len(), 1, "{bound}");
        }
    }
}
