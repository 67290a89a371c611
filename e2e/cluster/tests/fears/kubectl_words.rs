//! Fear: kubectl, which is what people have, shows nothing and works on nothing.

use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::store::Store;
use serde_json::Value;

const MANIFEST: &str = "\
apiVersion: quorate.dev/v1alpha1
kind: StoreCluster
metadata: {name: db}
spec: {replicas: 1, version: \"0.1.0\", storage: {size: 64Mi}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_wait_get_scale_describe_explain_delete() {
    let turn = turn().await.unwrap();
    let store = Store::namespace(&turn, "fear-kubectl").await.unwrap();
    let kubectl = |words: &[&str]| store.kubectl(words).unwrap();

    store.apply(MANIFEST).unwrap();
    kubectl(&["wait", "storecluster/db", "--for=condition=Available", "--timeout=180s"]);
    kubectl(&["wait", "qsc/db", "--for=jsonpath={.status.ready}=1/1", "--timeout=60s"]);

    let table = kubectl(&["get", "storecluster"]);
    let (header, row) = table.split_once('\n').unwrap();
    let header: Vec<&str> = header.split_whitespace().collect();
    assert_eq!(header, ["NAME", "READY", "LEADER", "VERSION", "AGE"]);
    let row: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(row[..4], ["db", "1/1", "db-0", env!("CARGO_PKG_VERSION")], "{table}");
    let wide = kubectl(&["get", "qsc", "db", "-o", "wide"]);
    assert!(wide.contains("AVAILABLE") && wide.contains("CLUSTER ID"), "{wide}");
    assert!(kubectl(&["get", "all"]).contains("storecluster.quorate.dev/db"));

    kubectl(&["scale", "storecluster/db", "--replicas=2", "--current-replicas=1"]);
    kubectl(&["wait", "qsc/db", "--for=jsonpath={.status.ready}=2/2", "--timeout=180s"]);
    kubectl(&["wait", "qsc/db", "--for=condition=Progressing=false", "--timeout=60s"]);
    let path = "/apis/quorate.dev/v1alpha1/namespaces/fear-kubectl/storeclusters/db/scale";
    let scale: Value = serde_json::from_str(&kubectl(&["get", "--raw", path])).unwrap();
    assert_eq!(
        (scale["spec"]["replicas"].as_i64(), scale["status"]["replicas"].as_i64()),
        (Some(2), Some(2))
    );
    let selector = scale["status"]["selector"].as_str().unwrap();
    let selected = kubectl(&["get", "pods", "-l", selector, "-o", "name"]);
    assert_eq!(selected.lines().count(), 2, "{selector} selects {selected}");

    let described = kubectl(&["describe", "storecluster", "db"]);
    for words in [
        "Reason:",
        "Serving",
        "EvenSize",
        "Cluster ID",
        "MemberJoining",
        "MemberPromoted",
        "Formed",
    ] {
        assert!(described.contains(words), "describe lacks {words}:\n{described}");
    }
    let explained = kubectl(&["explain", "storecluster.spec"]);
    for field in ["replicas", "version", "storage", "volumeRetention", "hibernated", "scheduling"] {
        assert!(explained.contains(field), "explain lacks {field}");
    }
    let replicas = kubectl(&["explain", "storecluster.spec.replicas"]);
    assert!(replicas.contains("hibernated"), "{replicas}");

    kubectl(&["delete", "storecluster", "db", "--timeout=120s"]);
    let left = kubectl(&["get", "statefulsets,pods,services,jobs,pdb", "-o", "name"]);
    let left: Vec<&str> = left.lines().filter(|line| !line.is_empty()).collect();
    assert!(left.iter().all(|name| name.starts_with("service/")), "deleted, and yet {left:?}");
}
