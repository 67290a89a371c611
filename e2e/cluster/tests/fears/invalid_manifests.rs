//! Fear: a slip in a manifest is accepted and does harm, or is refused in words that help nobody.

use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::store::Store;
use serde_json::json;

/// A manifest as a person writes it.
fn manifest(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: quorate.dev/v1alpha1\nkind: StoreCluster\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// What is wrong, the manifest's name and spec, and the words that must be in the refusal.
const REFUSED: [(&str, &str, &str, &str); 19] = [
    (
        "no members",
        "db",
        "replicas: 0, version: 0.1.0, storage: {size: 1Gi}",
        "set hibernated: true",
    ),
    ("a negative size", "db", "replicas: -1, version: 0.1.0, storage: {size: 1Gi}", "at least 1"),
    ("too many", "db", "replicas: 16, version: 0.1.0, storage: {size: 1Gi}", "at most 15"),
    ("no version", "db", "replicas: 3, storage: {size: 1Gi}", "spec.version: Required value"),
    ("no storage", "db", "replicas: 3, version: 0.1.0", "spec.storage: Required value"),
    ("no quantity", "db", "replicas: 3, version: 0.1.0, storage: {size: big}", "spec.storage.size"),
    ("nothing", "db", "replicas: 3, version: 0.1.0, storage: {size: 0Gi}", "more than nothing"),
    (
        "a long name",
        "a-name-of-more-than-forty-characters-is-too-long",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}",
        "at most 40 characters",
    ),
    (
        "a name with a dot",
        "my.db",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}",
        "lower-case letters, digits and dashes",
    ),
    (
        "an unknown field",
        "db",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}, backups: yes",
        "unknown field \"spec.backups\"",
    ),
    (
        "options that cannot work",
        "db",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}, options: {heartbeatInterval: 300}",
        "5 times heartbeatInterval",
    ),
    (
        "a compaction without retention",
        "db",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}, options: {autoCompactionMode: Revision}",
        "set autoCompactionRetention",
    ),
    (
        "an unknown policy",
        "db",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}, volumeRetention: {whenDeleted: Burn}",
        "supported values",
    ),
    (
        "an unknown anti-affinity",
        "db",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}, scheduling: {antiAffinity: Hard}",
        "supported values",
    ),
    (
        "a label by which the budget finds voters",
        "db",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}, podTemplate: {labels: {quorate.dev/role: x}}",
        "choose another key",
    ),
    (
        "a label by which the operator finds children",
        "db",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}, labels: {app.kubernetes.io/name: x}",
        "choose another key",
    ),
    (
        "an annotation that the operator writes",
        "db",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}, podTemplate: {annotations: {quorate.dev/settings: x}}",
        "quorate.dev/restart",
    ),
    (
        "a sidecar",
        "db",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}, podTemplate: {containers: []}",
        "unknown field \"spec.podTemplate.containers\"",
    ),
    (
        "a server that runs as root",
        "db",
        "replicas: 3, version: 0.1.0, storage: {size: 1Gi}, podTemplate: {securityContext: {runAsUser: 0}}",
        "greater than or equal to 1",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_refused_with_words_that_help() {
    let turn = turn().await.unwrap();
    let store = Store::namespace(&turn, "fear-invalid").await.unwrap();
    for (wrong, name, spec, words) in REFUSED {
        let spec = spec.replace("0.1.0", "\"0.1.0\"");
        let refused = store.apply(&manifest(name, &spec));
        let text = format!("{:#}", refused.expect_err(wrong));
        assert!(text.contains(words), "{wrong}: {text}");
    }
    let none = store.kubectl(&["get", "storeclusters", "-o", "name"]).unwrap();
    assert_eq!(none.trim(), "", "nothing of it was made");

    // What admission cannot say is said by a condition, and nothing is started.
    store.create(json!({"replicas": 2, "paused": true})).await.unwrap();
    store.told("SizeWarning", "True", "EvenSize").await.unwrap();
    let shrunk = store.patch(json!({"spec": {"storage": {"size": "1Mi"}}})).await;
    let text = format!("{:#}", shrunk.expect_err("a volume cannot shrink"));
    assert!(text.contains("storage.size cannot shrink"), "{text}");
    let env = json!([{"name": "ETCD_NAME", "value": "me"}]);
    match store.patch(json!({"spec": {"env": env}})).await {
        Ok(_) => {
            let message = store.told("Degraded", "True", "InvalidSpec").await.unwrap();
            assert!(message.contains("ETCD_"), "{message}");
        }
        Err(error) => assert!(format!("{error:#}").contains("ETCD_"), "{error:#}"),
    }
    assert!(store.pods().await.unwrap().is_empty(), "a paused cluster is not begun");
}
