//! Drift: whether an observed object still says everything that we built into it.
//!
//! The API server adds defaults and others add fields, so that equality is not the question. An
//! object has drifted when a field that we set has another value, or when what we last built (an
//! annotation) is not what we would build now, which is how a field that we set no more is noticed.
//! The comparison follows the merge rules of server-side apply (KEP-555): lists with keys are
//! compared by key, since entries of other owners survive our apply and must not make us apply for
//! ever (INV-O4); atomic lists and maps are compared whole.

use crate::quantity;
use k8s_openapi::serde_json::{Map, Value};

/// Whether the observed object differs from the built one in anything that an apply of ours would
/// change.
#[must_use]
pub fn drifted(built: &Value, observed: &Value) -> bool {
    !says(None, built, observed)
}

/// Fields whose maps are atomic in the API: an entry that we did not set is not ours to keep.
const ATOMIC_MAPS: [&str; 3] = ["selector", "matchLabels", "nodeSelector"];

/// Fields whose values are quantities at one level below.
const QUANTITIES: [&str; 2] = ["limits", "requests"];

/// The key of a list's entries, if server-side apply merges that list by key.
fn merge_keys(field: &str) -> Option<&'static [&'static str]> {
    match field {
        "containers" | "env" | "volumes" | "imagePullSecrets" => Some(&["name"]),
        "volumeMounts" => Some(&["mountPath"]),
        "topologySpreadConstraints" => Some(&["topologyKey", "whenUnsatisfiable"]),
        "ownerReferences" => Some(&["uid"]),
        // Ports of a container are keyed by containerPort, those of a Service by port; see `keyed`.
        "ports" => Some(&["containerPort", "port"]),
        _other_field => None,
    }
}

fn says(field: Option<&str>, built: &Value, observed: &Value) -> bool {
    match (built, observed) {
        (Value::Object(built), Value::Object(observed)) => {
            if field.is_some_and(|name| ATOMIC_MAPS.contains(&name)) && is_flat(built) {
                return built == observed;
            }
            let quantities = field.is_some_and(|name| QUANTITIES.contains(&name));
            built.iter().all(|(key, wanted)| match observed.get(key) {
                Some(found) if quantities => same_quantity(wanted, found),
                Some(found) => says(Some(key), wanted, found),
                None => is_nothing(wanted),
            })
        }
        (Value::Array(built), Value::Array(observed)) => match field.and_then(merge_keys) {
            Some(keys) => built.iter().all(|wanted| {
                observed.iter().any(|found| keyed(keys, wanted, found) && says(None, wanted, found))
            }),
            None => {
                built.len() == observed.len()
                    && built.iter().zip(observed).all(|(wanted, found)| says(None, wanted, found))
            }
        },
        (wanted, found) => wanted == found,
    }
}

/// A map of strings, as label selectors are; `selector` of a StatefulSet is an object with
/// `matchLabels` instead.
fn is_flat(map: &Map<String, Value>) -> bool {
    map.values().all(Value::is_string)
}

/// What the API server drops on the way in: empty maps and lists, and null.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_nothing),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn keyed(keys: &[&str], wanted: &Value, found: &Value) -> bool {
    keys.iter().all(|key| match wanted.get(key) {
        Some(value) => found.get(key) == Some(value),
        None => true,
    })
}

fn same_quantity(wanted: &Value, found: &Value) -> bool {
    if wanted == found {
        return true;
    }
    match (text_of(wanted), text_of(found)) {
        (Some(wanted), Some(found)) => {
            let value = quantity::parse(&wanted);
            value.is_some() && value == quantity::parse(&found)
        }
        (None, _) | (_, None) => false,
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::serde_json::json;

    #[test]
    fn defaults_of_the_api_server_are_no_drift() {
        let built = json!({"spec": {"ports": [{"name": "client", "port": 2379}], "selector": {"a": "b"}, "x": {}}});
        let observed = json!({"spec": {"clusterIP": "10.0.0.1", "selector": {"a": "b"},
            "ports": [{"name": "client", "port": 2379, "protocol": "TCP", "targetPort": 2379}]}});
        assert!(!drifted(&built, &observed));
    }

    #[test]
    fn an_edit_of_what_we_set_is_drift() {
        let built = json!({"spec": {"replicas": 1, "ports": [{"name": "client", "port": 2379}], "selector": {"a": "b"}}});
        for (path, value) in [
            ("/spec/replicas", json!(0)),
            ("/spec/ports/0/port", json!(1)),
            ("/spec/selector", json!({"a": "b", "added": "by hand"})),
            ("/spec/selector", json!({})),
        ] {
            let mut edited = built.clone();
            *edited.pointer_mut(path).expect("the path exists") = value;
            assert!(drifted(&built, &edited), "{path}");
        }
    }

    #[test]
    fn entries_of_other_owners_in_keyed_lists_are_not_ours() {
        let built = json!({"containers": [{"name": "store", "args": ["a", "b"]}]});
        let sidecar =
            json!({"containers": [{"name": "injected"}, {"name": "store", "args": ["a", "b"]}]});
        assert!(!drifted(&built, &sidecar));
        let edited = json!({"containers": [{"name": "store", "args": ["a", "b", "c"]}]});
        assert!(drifted(&built, &edited), "args is an atomic list");
    }

    #[test]
    fn quantities_are_compared_by_value_and_only_where_they_are_quantities() {
        let built = json!({"resources": {"requests": {"memory": "1024Mi", "cpu": "1000m"}}});
        assert!(!drifted(
            &built,
            &json!({"resources": {"requests": {"memory": "1Gi", "cpu": "1"}}})
        ));
        assert!(drifted(
            &built,
            &json!({"resources": {"requests": {"memory": "2Gi", "cpu": "1"}}})
        ));
        assert!(drifted(&json!({"labels": {"v": "1024Mi"}}), &json!({"labels": {"v": "1Gi"}})));
    }
}
