//! Digest: a short, stable fingerprint of a JSON value.
//!
//! FNV-1a over a canonical text (keys sorted, no spaces). It tells an edited object from an
//! unedited one; it protects against nobody, so that a cryptographic hash would buy nothing.

use k8s_openapi::serde_json::Value;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The fingerprint of a value, as 16 hexadecimal digits.
#[must_use]
pub fn digest(value: &Value) -> String {
    let mut text = String::new();
    canonical(value, &mut text);
    let hash = text.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    format!("{hash:016x}")
}

/// serde_json keeps keys in insertion order when any crate of the build asks for it; sort them
/// here.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            text.push('{');
            for key in keys {
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                canonical(&map[key], text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::serde_json::json;

    #[test]
    fn order_of_keys_is_nothing_and_order_of_items_is_something() {
        assert_eq!(digest(&json!({"a": 1, "b": 2})), digest(&json!({"b": 2, "a": 1})));
        assert_ne!(digest(&json!([1, 2])), digest(&json!([2, 1])));
        assert_ne!(digest(&json!(["ab", "c"])), digest(&json!(["a", "bc"])));
        // A change of the algorithm would show every member as RestartPending after an operator
        // upgrade.
        assert_eq!(digest(&json!({"image": "quorate:0.1.0"})).len(), 16);
    }
}
