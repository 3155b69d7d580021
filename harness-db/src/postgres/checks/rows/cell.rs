//! When a JSON value and an SQL value are the same.

use serde_json::Value;

use super::Cell;

/// How values of a type are written in JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Whole,
    Decimal,
    Single,
    Double,
    Bool,
    Json,
    Text,
}

fn family(type_name: &str) -> Family {
    match type_name {
        "int2" | "int4" | "int8" | "oid" => Family::Whole,
        "numeric" => Family::Decimal,
        "float4" => Family::Single,
        "float8" => Family::Double,
        "bool" => Family::Bool,
        "json" | "jsonb" => Family::Json,
        _ => Family::Text,
    }
}

/// True when the cell holds what is expected.
pub(super) fn equals(want: &Value, cell: &Cell, type_name: &str, tolerance: Option<f64>) -> bool {
    let Some(text) = &cell.text else { return want.is_null() };
    let family = family(type_name);
    match want {
        Value::Null => false,
        Value::Bool(_) => matches!(family, Family::Bool | Family::Json) && *want == cell.json,
        Value::Number(number) => {
            let number = number.to_string();
            match family {
                Family::Whole | Family::Decimal => same_number(&number, text) || near(&number, text, tolerance),
                Family::Single => same_single(&number, text) || near(&number, text, tolerance),
                Family::Double => number.parse::<f64>() == text.parse::<f64>() || near(&number, text, tolerance),
                Family::Json => same_json(want, &cell.json),
                Family::Bool | Family::Text => false,
            }
        }
        Value::String(string) => match family {
            Family::Whole | Family::Bool => false,
            // Not-a-number and the infinities have no JSON number.
            Family::Single | Family::Double => string == text && text.parse::<f64>().is_ok_and(|x| !x.is_finite()),
            Family::Decimal | Family::Text => string == text || cell.json.as_str() == Some(string),
            Family::Json => cell.json.as_str() == Some(string),
        },
        Value::Array(_) | Value::Object(_) => same_json(want, &cell.json),
    }
}

fn near(a: &str, b: &str, tolerance: Option<f64>) -> bool {
    match (tolerance, a.parse::<f64>(), b.parse::<f64>()) {
        (Some(most), Ok(a), Ok(b)) => (a - b).abs() <= most,
        _ => false,
    }
}

/// `real` has less than the digits of a JSON number: both are rounded to it.
fn same_single(a: &str, b: &str) -> bool {
    matches!((a.parse::<f32>(), b.parse::<f32>()), (Ok(a), Ok(b)) if a == b)
}

/// Equal content: numbers by value, objects without regard to the order of keys.
fn same_json(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(&a.to_string(), &b.to_string()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_json(a, b)))
        }
        _ => a == b,
    }
}

/// Equal as decimal numbers, digit by digit: `1.50` is `1.5`, `1e2` is `100`, and no digit is lost.
fn same_number(a: &str, b: &str) -> bool {
    match (canonical(a), canonical(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// Sign, digits without zeros at either end, and the power of ten of the last digit.
fn canonical(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let trimmed = digits.trim_end_matches('0');
    let power = exponent - i64::try_from(fraction.len()).ok()? + i64::try_from(digits.len() - trimmed.len()).ok()?;
    let significant = trimmed.trim_start_matches('0').to_owned();
    match significant.is_empty() {
        true => Some((false, significant, 0)),
        false => Some((negative, significant, power)),
    }
}

/// A cell for a message: as it would be written in `rows!`.
pub(super) fn show(text: Option<&str>, type_name: &str) -> String {
    match (text, family(type_name)) {
        (None, _) => "null".to_owned(),
        (Some(text), Family::Text) => Value::from(text).to_string(),
        (Some(text), _) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Cell, equals};

    fn cell(text: &str, json: Value) -> Cell {
        Cell { text: Some(text.to_owned()), json }
    }

    #[test]
    fn values_are_equal_by_meaning_and_never_across_types() {
        let equal =
            |want: Value, text: &str, json: Value, type_name: &str| equals(&want, &cell(text, json), type_name, None);
        for (want, text, json, type_name, expected) in [
            (json!(1), "1", json!(1), "int8", true),
            (json!(1.0), "1", json!(1), "int4", true),
            (json!("1"), "1", json!(1), "int8", false),
            (json!(1), "1", json!("1"), "text", false),
            (json!(1.5), "1.50", json!(1.5), "numeric", true),
            (json!("12345678901234567890.12"), "12345678901234567890.12", json!(1.2e19), "numeric", true),
            (json!(9_007_199_254_740_993_i64), "9007199254740992", json!(9_007_199_254_740_992_i64), "int8", false),
            (json!(0.1), "0.1", json!(0.1), "float4", true),
            (json!(0.1), "0.10000000000000002", json!(0.1), "float8", false),
            (json!("NaN"), "NaN", json!("NaN"), "float8", true),
            (json!(true), "true", json!(true), "bool", true),
            (json!("true"), "true", json!(true), "bool", false),
            (json!(""), "", json!(""), "text", true),
            (json!(null), "", json!(""), "text", false),
            (json!(null), "null", json!(null), "jsonb", false),
            (json!({"a": [1.0, null]}), "{}", json!({"a": [1, null]}), "jsonb", true),
            (json!([1, 2]), "{1,2}", json!([1, 2]), "int4[]", true),
            (json!([2, 1]), "{1,2}", json!([1, 2]), "int4[]", false),
            (
                json!("2024-01-02T00:00:00+00:00"),
                "2024-01-02 00:00:00+00",
                json!("2024-01-02T00:00:00+00:00"),
                "timestamptz",
                true,
            ),
            (
                json!("2024-01-02 00:00:00+00"),
                "2024-01-02 00:00:00+00",
                json!("2024-01-02T00:00:00+00:00"),
                "timestamptz",
                true,
            ),
        ] {
            assert_eq!(equal(want.clone(), text, json, type_name), expected, "{want} and {text} ({type_name})");
        }
        let null = Cell { text: None, json: Value::Null };
        assert!(equals(&json!(null), &null, "text", None));
        assert!(!equals(&json!(""), &null, "text", None) && !equals(&json!(0), &null, "int8", None));
    }

    #[test]
    fn tolerance_lets_numbers_be_off_by_so_much_and_not_more() {
        let sum = cell("0.30000000000000004", json!(0.3));
        assert!(equals(&json!(0.3), &sum, "float8", Some(1e-9)) && !equals(&json!(0.3), &sum, "float8", None));
        assert!(!equals(&json!(0.31), &sum, "float8", Some(1e-9)));
    }
}
