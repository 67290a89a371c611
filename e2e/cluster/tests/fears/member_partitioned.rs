//! Fear: a member that cannot hear its peers is taken for lost, or goes on acknowledging writes on its own.

use quorate_e2e_cluster::audit::no_pod_is_taken;
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::{HEALED, UNTOUCHED};
use quorate_e2e_cluster::load::Load;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::wait::{stays, until};
use quorate_e2e_cluster::witness::Witness;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_followed_by_another_and_comes_back_as_it_was() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-partition", 3).await.unwrap();
    let witness = Witness::start(&store);
    let load = Load::start(&store).await.unwrap();
    let members = store.members().await.unwrap();
    let leader = store.leader().await.unwrap();
    let peers: Vec<String> = ["db-0", "db-1", "db-2"]
        .into_iter()
        .filter(|it| *it != leader)
        .map(str::to_owned)
        .collect();

    let cut = store.sever(&turn, &leader, &peers).await.unwrap();
    until("a leader among the others", HEALED, async || {
        for peer in &peers {
            let member = store.member(peer).await.map_err(|error| format!("{error:#}"))?;
            let status = member.status().await.map_err(|error| format!("{error:#}"))?;
            let led = members.iter().find(|it| it.id == status.leader).map(|it| it.name.clone());
            if led.as_deref().is_none_or(|led| led == leader) {
                return Err(format!("{peer} follows {led:?}"));
            }
        }
        Ok(())
    })
    .await
    .unwrap();
    let alone = store.member(&leader).await.unwrap();
    until("the member alone to know of no leader", HEALED, async || {
        let status = alone.status().await.map_err(|error| format!("{error:#}"))?;
        if status.leader == 0 { Ok(()) } else { Err(format!("{:x} leads", status.leader)) }
    })
    .await
    .unwrap();
    // Not acknowledged: it may still come about once the others are heard again, or never.
    assert!(alone.put("alone", "unknown").await.is_err(), "nobody decides alone");
    let message = store.told("Degraded", "True", "MemberDown").await.unwrap();
    assert!(message.contains(&leader), "{message}");
    store.put("kept", "by two").await.unwrap();
    stays("the quiet around a member that is only cut off", UNTOUCHED, async || {
        let requests = store.audit.requests().map_err(|error| format!("{error:#}"))?;
        no_pod_is_taken(&requests).map_err(|error| format!("{error:#}"))
    })
    .await
    .unwrap();

    drop(cut);
    store.settled(3).await.unwrap();
    store.told("Degraded", "False", "AsExpected").await.unwrap();
    let outcome = load.stop().await.unwrap();
    outcome.verify(&store).await.unwrap();
    let after = store.members().await.unwrap();
    let id = |members: &[quorate_proto::etcdserverpb::Member]| {
        members.iter().map(|it| it.id).collect::<Vec<_>>()
    };
    assert_eq!(id(&after), id(&members), "nobody was replaced");
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("by two"));
    let seen = witness.stop().await.unwrap();
    seen.one_cluster().unwrap();
    let requests = store.audit.requests().unwrap();
    no_pod_is_taken(&requests).unwrap();
    assert!(
        !requests
            .iter()
            .any(|it| it.deleted("persistentvolumeclaims") || it.deleted("statefulsets"))
    );
}
