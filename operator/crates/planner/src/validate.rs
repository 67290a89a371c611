//! Validate: what admission could not refuse, and the defaults.

use crate::desired::{Defaults, Desired, Invalid};
use crate::naming::ClusterName;
use crate::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use quorate_crds::reserved::{is_reserved_annotation, is_reserved_label};
use quorate_crds::{RetentionPolicy, StoreCluster, StoreClusterSpec, UpdateType, limits, names};
use std::time::Duration;

/// Checks and fills in. CEL has refused most of this at admission; a StoreCluster that was stored
/// before a rule existed is the reason to look again.
pub(crate) fn validate(cluster: &StoreCluster, defaults: &Defaults) -> Result<Desired, Invalid> {
    let spec = &cluster.spec;
    let name = ClusterName {
        name: cluster.metadata.name.clone().unwrap_or_default(),
        namespace: cluster.metadata.namespace.clone().unwrap_or_default(),
    };
    check_name(&name)?;
    check_spec(spec)?;
    let scheduling = spec.scheduling.clone().unwrap_or_default();
    let service = spec.service.clone().unwrap_or_default();
    let budget = spec.disruption_budget.unwrap_or_default();
    let retention = spec.volume_retention.unwrap_or_default();
    let update = spec.update_strategy.unwrap_or_default();
    let annotations = cluster.metadata.annotations.as_ref();
    Ok(Desired {
        image: spec
            .image
            .clone()
            .unwrap_or_else(|| format!("{}:{}", defaults.image_repository, spec.version)),
        name,
        labels: spec.labels.clone(),
        replicas: spec.replicas,
        version: spec.version.clone(),
        image_pull_secrets: spec.image_pull_secrets.clone(),
        storage_size: Quantity(spec.storage.size.clone()),
        storage_class: spec.storage.storage_class_name.clone(),
        resources: spec.resources.clone(),
        anti_affinity: scheduling.anti_affinity.unwrap_or_default(),
        topology_spread: scheduling.topology_spread,
        node_selector: scheduling.node_selector,
        tolerations: scheduling.tolerations,
        priority_class: scheduling.priority_class,
        options: spec.options.clone().unwrap_or_default(),
        env: spec.env.clone(),
        pod: spec.pod_template.clone().unwrap_or_default(),
        unhealthy_pod_eviction: budget.unhealthy_pod_eviction_policy.unwrap_or_default(),
        service_type: service.type_.unwrap_or_default(),
        service_annotations: service.annotations,
        service_labels: service.labels,
        when_scaled: retention.when_scaled.unwrap_or(RetentionPolicy::Delete),
        when_deleted: retention.when_deleted.unwrap_or(RetentionPolicy::Retain),
        on_delete: match update.type_.unwrap_or_default() {
            UpdateType::RollingUpdate => false,
            UpdateType::OnDelete => true,
        },
        rollout_paused: update.paused,
        restart: annotations.and_then(|all| all.get(names::ANNOTATION_RESTART)).cloned(),
        replace_after: replace_after(spec)?,
        paused: spec.paused,
        hibernated: spec.hibernated,
    })
}

/// `spec.recovery.replaceAfter`: hours, minutes, seconds, in any order and added up.
fn replace_after(spec: &StoreClusterSpec) -> Result<Option<Duration>, Invalid> {
    let Some(text) = spec.recovery.as_ref().and_then(|recovery| recovery.replace_after.as_deref())
    else {
        return Ok(None);
    };
    let mut total = Some(0_u64);
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| !c.is_ascii_digit()) {
        let (number, unit) = rest.split_at(at);
        let seconds = match unit.as_bytes().first() {
            Some(b'h') => Some(3600),
            Some(b'm') => Some(60),
            Some(b's') => Some(1),
            Some(_) | None => None,
        };
        let part = number.parse::<u64>().ok().zip(seconds).and_then(|(n, s)| n.checked_mul(s));
        total = total.zip(part).and_then(|(total, part)| total.checked_add(part));
        rest = unit.get(1..).unwrap_or_default();
    }
    match total {
        Some(seconds) if seconds > 0 && rest.is_empty() => Ok(Some(Duration::from_secs(seconds))),
        Some(_) | None => Err(Invalid(format!(
            "recovery.replaceAfter {text:?} is not a time; write for instance 10m"
        ))),
    }
}

fn check_name(name: &ClusterName) -> Result<(), Invalid> {
    let text = name.name.as_str();
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if !plain || !begins || text.ends_with('-') || text.len() > limits::NAME_MAX {
        return Err(Invalid(format!(
            "the name {text:?} cannot name Services and claims; use at most {} lower-case \
             letters, digits and dashes, \
             beginning with a letter, in a new StoreCluster",
            limits::NAME_MAX
        )));
    }
    Ok(())
}

fn check_spec(spec: &StoreClusterSpec) -> Result<(), Invalid> {
    if spec.replicas < 1 || spec.replicas > limits::REPLICAS_MAX {
        return Err(Invalid(format!(
            "replicas is {}; set it between 1 and {}, or set hibernated: true to stop the \
                cluster and keep its data",
            spec.replicas,
            limits::REPLICAS_MAX
        )));
    }
    if quantity::parse(&spec.storage.size).is_none_or(|value| value <= 0) {
        return Err(Invalid(format!(
            "storage.size {:?} is not an amount; write for instance 8Gi",
            spec.storage.size
        )));
    }
    if let Some(variable) = spec.env.iter().find(|variable| variable.name.starts_with("ETCD_")) {
        return Err(Invalid(format!(
            "env sets {}, which the server would read as one of its options; set it in \
                spec.options",
            variable.name
        )));
    }
    check_keys(spec)
}

/// Keys of labels and annotations: what CEL refuses too, and what no rule of admission can check
/// within its cost, since a key is not bounded before it is looked at.
fn check_keys(spec: &StoreClusterSpec) -> Result<(), Invalid> {
    let pod = spec.pod_template.iter();
    let annotations = pod.clone().flat_map(|pod| pod.annotations.keys());
    let service = spec.service.iter().flat_map(|service| service.labels.keys());
    let labels = spec.labels.keys().chain(pod.flat_map(|pod| pod.labels.keys())).chain(service);
    let label = labels.map(|key| (key, is_reserved_label(key)));
    let annotation = annotations.map(|key| (key, is_reserved_annotation(key)));
    for (key, reserved) in label.chain(annotation) {
        if reserved {
            return Err(Invalid(format!(
                "the key {key:?} of a label or annotation is reserved for the operator and for \
                    Kubernetes; choose another one"
            )));
        }
        if !is_qualified(key) {
            return Err(Invalid(format!(
                "{key:?} is no key of a label or annotation: write a name of at most 63 letters, \
                    digits, dashes, dots and underscores, optionally after a domain and a slash"
            )));
        }
    }
    Ok(())
}

/// Whether Kubernetes takes this as the key of a label (apimachinery `IsQualifiedName`).
fn is_qualified(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(p, name)| (Some(p), name));
    let ends = |text: &str, alphanumeric: fn(char) -> bool| {
        text.starts_with(alphanumeric) && text.ends_with(alphanumeric)
    };
    let named = (1..=63).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        && ends(name, |c| c.is_ascii_alphanumeric());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let placed = prefix.is_none_or(|prefix| {
        prefix.len() <= 253
            && prefix.split('.').all(|part| {
                part.chars().all(|c| plain(c) || c == '-')
                    && ends(part, |c| c.is_ascii_lowercase() || c.is_ascii_digit())
            })
    });
    named && placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use k8s_openapi::api::core::v1::EnvVar;

    fn refusal(change: impl FnOnce(&mut StoreCluster)) -> String {
        let mut cluster = fixture::store_cluster(3);
        change(&mut cluster);
        validate(&cluster, &fixture::defaults()).expect_err("must be refused").0
    }

    #[test]
    fn the_minimal_manifest_gets_every_default() {
        let desired = validate(&fixture::store_cluster(3), &fixture::defaults()).expect("valid");
        assert_eq!(desired.image, "quorate:0.1.0");
        assert_eq!(desired.anti_affinity, quorate_crds::AntiAffinity::Preferred);
        assert_eq!(desired.when_scaled, RetentionPolicy::Delete);
        assert_eq!(desired.when_deleted, RetentionPolicy::Retain);
    }

    #[test]
    fn the_time_after_which_a_node_counts_as_lost_is_added_up() {
        let read = |text: &str| {
            let mut cluster = fixture::store_cluster(3);
            cluster.spec.recovery =
                Some(quorate_crds::Recovery { replace_after: Some(text.to_owned()) });
            validate(&cluster, &fixture::defaults()).map(|desired| desired.replace_after)
        };
        for (text, seconds) in [("5m", 300), ("1h30m", 5400), ("90s", 90), ("10s1m", 70)] {
            assert_eq!(read(text), Ok(Some(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "0s", "5", "5d", "m", "999999999999999999h"] {
            assert!(read(text).expect_err(text).0.contains("10m"));
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        assert!(refusal(|c| c.spec.replicas = 0).contains("hibernated: true"));
        assert!(refusal(|c| c.spec.replicas = 16).contains("between 1 and 15"));
        assert!(refusal(|c| c.metadata.name = Some("a.b".into())).contains("new StoreCluster"));
        assert!(
            refusal(|c| c.metadata.name = Some("1a".into())).contains("beginning with a letter")
        );
        assert!(refusal(|c| c.metadata.name = Some("a".repeat(41))).contains("at most 40"));
        assert!(refusal(|c| c.spec.storage.size = "8 gigs".into()).contains("8Gi"));
        let variable = EnvVar { name: "ETCD_NAME".into(), ..EnvVar::default() };
        assert!(refusal(|c| c.spec.env.push(variable)).contains("spec.options"));
    }

    #[test]
    fn keys_that_are_reserved_or_none_are_refused() {
        let label = |key: &'static str| {
            refusal(move |c| drop(c.spec.labels.insert(key.to_owned(), "x".to_owned())))
        };
        assert!(label("quorate.dev/role").contains("reserved"));
        for key in ["", "a b", "-a", "a/b/c", "Upper.example/a", "example./a", "/a"] {
            assert!(label(key).contains("no key of a label"), "{key:?}");
        }
        assert!(label(&*Box::leak("a".repeat(64).into_boxed_str())).contains("at most 63"));
        let annotations = [("quorate.dev/version".to_owned(), "x".to_owned())].into();
        let pod = quorate_crds::PodTemplate { annotations, ..quorate_crds::PodTemplate::default() };
        assert!(refusal(|c| c.spec.pod_template = Some(pod)).contains("reserved"));
        for key in ["a", "team", "example.com/Team_1", "app.kubernetes.io/part-of"] {
            assert!(is_qualified(key), "{key}");
        }
    }
}
