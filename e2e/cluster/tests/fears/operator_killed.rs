//! Fear: the operator dies in the middle of a change and leaves it half done, or its successor does it twice.

use quorate_crds::{MemberRole, StoreCluster};
use quorate_e2e_cluster::fixture::{Turn, turn};
use quorate_e2e_cluster::installation;
use quorate_e2e_cluster::limits::{ROLLOUT, SCALED, TOLD};
use quorate_e2e_cluster::store::{Store, kill_dead, restart_count};
use quorate_e2e_cluster::wait::until;
use quorate_kubernetes::Part;

/// Clusters that are not begun: about each of them the operator has something to say all the same.
const IDLE: [&str; 4] = ["idle-a", "idle-b", "idle-c", "idle-d"];

fn idle_manifest(name: &str, replicas: i32) -> String {
    format!(
        "apiVersion: quorate.dev/v1alpha1\nkind: StoreCluster\nmetadata: {{name: {name}}}\n\
         spec: {{replicas: {replicas}, version: \"0.1.0\", storage: {{size: 64Mi}}, paused: true}}\n"
    )
}

/// Restarts of the operator's container so far.
async fn restarts(turn: &Turn) -> i32 {
    restart_count(&turn.operator().await.unwrap())
}

/// Another pod for the operator, one that was never restarted: a kubelet lets one that was wait longer each time.
pub(crate) async fn fresh_operator(turn: &Turn) {
    let of_ours = |line: &[&str]| {
        let line = [&["-n", installation::NAMESPACE], line].concat();
        turn.bed.kubectl_output(&line).unwrap()
    };
    of_ours(&["delete", "pods", "--all"]);
    let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
    of_ours(&["rollout", "status", "deployment", installation::RELEASE, &timeout]);
    assert_eq!(restarts(turn).await, 0, "it is another pod");
}

/// kill -9 of the operator's process, and its restart counted.
pub(crate) async fn kill_operator(turn: &Turn) {
    let before = restarts(turn).await;
    let all = turn.bed.nodes().iter().flat_map(|node| node.processes(Part::Pods).unwrap());
    let operator: Vec<_> =
        all.filter(|process| process.command_line.starts_with("/quorate-operator")).collect();
    assert_eq!(operator.len(), 1, "one operator runs: {operator:?}");
    kill_dead(&operator[0]).unwrap();
    until("the restart to be counted", TOLD, async || {
        let now = restarts(turn).await;
        if now > before { Ok(()) } else { Err(format!("{now} restarts")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "operator_crashes kills it at points of its choice: cargo xtask soak"]
async fn twice_in_one_scale_out() {
    let turn = turn().await.unwrap();
    fresh_operator(&turn).await;
    let store = Store::formed(&turn, "fear-operator-killed", 1).await.unwrap();
    store.put("kept", "before").await.unwrap();
    // A successor has all clusters before it at once; it must not lose sight of any.
    for idle in IDLE {
        store.apply(&idle_manifest(idle, 1)).unwrap();
    }
    store.scale(3).await.unwrap();

    for (member, roles) in [
        ("db-1", &[MemberRole::Pending, MemberRole::Learner][..]),
        ("db-2", &[MemberRole::Learner][..]),
    ] {
        until(&format!("{member} on its way"), SCALED, async || {
            let status = store.status().await.map_err(|error| format!("{error:#}"))?;
            let role = status.members.iter().find(|it| it.name == member).map(|it| it.role);
            if role.is_some_and(|role| roles.contains(&role)) {
                Ok(())
            } else {
                Err(format!("{role:?}"))
            }
        })
        .await
        .unwrap();
        kill_operator(&turn).await;
    }

    for idle in IDLE {
        store.apply(&idle_manifest(idle, 2)).unwrap();
    }
    for idle in IDLE {
        until(&format!("a word about {idle}"), TOLD, async || {
            let cluster =
                store.api::<StoreCluster>().get(idle).await.map_err(|it| it.to_string())?;
            let seen = cluster.status.and_then(|status| status.observed_generation);
            if seen == cluster.metadata.generation { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await
        .unwrap();
    }
    let status = store.settled(3).await.unwrap();
    let names: Vec<&str> = status.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["db-0", "db-1", "db-2"], "nobody was begun twice");
    assert_eq!(status.next_ordinal, Some(3));
    assert_eq!(store.members().await.unwrap().len(), 3);
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("before"));
    let requests = store.audit.requests().unwrap();
    for (resource, objects) in [("jobs", 1), ("statefulsets", 3), ("persistentvolumeclaims", 3)] {
        let made = requests.iter().filter(|request| request.made(resource)).count();
        assert_eq!(made, objects, "{resource} were made");
    }
    assert_eq!(requests.iter().filter(|it| it.deleted("statefulsets")).count(), 0);
}
