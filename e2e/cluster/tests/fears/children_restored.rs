//! Fear: somebody deletes or edits what the operator made, and the cluster stays broken.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams};
use quorate_e2e_cluster::fixture::turn;
use quorate_e2e_cluster::limits::TOLD;
use quorate_e2e_cluster::store::Store;
use quorate_e2e_cluster::wait::until;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_or_edited_children_are_restored() {
    let turn = turn().await.unwrap();
    let store = Store::formed(&turn, "fear-children", 3).await.unwrap();
    store.put("kept", "before").await.unwrap();
    let (delete, patch) = (DeleteParams::default(), PatchParams::default());
    let budgets = store.api::<PodDisruptionBudget>();
    let services = store.api::<Service>();
    let sets = store.api::<StatefulSet>();

    // Deleted: the budget and both Services. They come back under new UIDs, so each was gone.
    let budget = budgets.get("db-voters").await.unwrap();
    budgets.delete("db-voters", &delete).await.unwrap();
    let back = until("the budget to be back", TOLD, async || {
        let found = budgets.get_opt("db-voters").await.map_err(|error| error.to_string())?;
        found.filter(|it| it.metadata.uid != budget.metadata.uid).ok_or_else(|| "gone".to_owned())
    });
    assert_eq!(back.await.unwrap().spec, budget.spec);
    for name in ["db-client", "db-peers"] {
        let service = services.get(name).await.unwrap();
        services.delete(name, &delete).await.unwrap();
        until("the Service to be back", TOLD, async || {
            let found = services.get_opt(name).await.map_err(|error| error.to_string())?;
            let other = found.filter(|it| it.metadata.uid != service.metadata.uid);
            other.map(drop).ok_or_else(|| format!("{name} is gone"))
        })
        .await
        .unwrap();
    }

    // Edited: a Service that selects nobody, a budget that protects nobody.
    let nobody = json!({"spec": {"selector": {"quorate.dev/cluster": "nobody"}}});
    let edited = services.patch("db-client", &patch, &Patch::Merge(&nobody)).await.unwrap();
    let selects = |service: &Service, whom: &str| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.and_then(|it| it.get("quorate.dev/cluster")).is_some_and(|it| it == whom)
    };
    assert!(selects(&edited, "nobody"), "the edit took effect");
    let open = json!({"spec": {"minAvailable": 0}});
    budgets.patch("db-voters", &patch, &Patch::Merge(&open)).await.unwrap();
    until("both edits to be undone", TOLD, async || {
        let service = services.get("db-client").await.map_err(|error| error.to_string())?;
        let budget_now = budgets.get("db-voters").await.map_err(|error| error.to_string())?;
        let undone = (selects(&service, "db"), budget_now.spec == budget.spec);
        if undone == (true, true) { Ok(()) } else { Err(format!("{undone:?}")) }
    })
    .await
    .unwrap();

    // A member's set scaled to nothing: its pod goes, and comes back with the set.
    let old = store.pod("db-1").await.unwrap();
    let none = json!({"spec": {"replicas": 0}});
    sets.patch("db-1", &patch, &Patch::Merge(&none)).await.unwrap();
    store.replaced("db-1", &old).await.unwrap();
    // And one deleted.
    let old = store.pod("db-2").await.unwrap();
    sets.delete("db-2", &delete).await.unwrap();
    store.replaced("db-2", &old).await.unwrap();
    store.settled(3).await.unwrap();
    assert_eq!(store.value("kept").await.unwrap().as_deref(), Some("before"));
}
